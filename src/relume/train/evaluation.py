"""Evaluation and prediction: no gradients, evaluation mode, and nothing of the training disturbed."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from relume import tree
from relume.data import Stream, stream_of
from relume.errors import BatchError, LossError, TargetError
from relume.generators import isolated
from relume.seeds import derive
from relume.train.metrics import Mean, Metrics, MetricSet, inputs_and_target
from relume.train.precision import Precision

Loss = Callable[..., torch.Tensor]


def evaluate(
    model: nn.Module,
    loader: Any,
    *,
    loss: Loss | None = None,
    metrics: Metrics | None = None,
    prefix: str = "",
    precision: str = "float32",
    in_memory: bool | None = None,
) -> dict[str, float]:
    """Loss and metrics of ``model`` over all samples of ``loader``.

    Args:
        model: evaluated on the device it is on, in evaluation mode; each module's mode is put back afterwards.
        loader: batches as ``(input, target)``, ``(input, …, target)``, dicts with a target key, or inputs alone.
        loss: ``loss(output, target)`` giving the mean over the batch; ``loss(output)`` when there is no target.
        metrics: names to functions ``metric(output, target)`` giving the batch's mean, or to torchmetrics objects.
        prefix: put before each name (``"val/"``).

    Returns:
        ``{"loss": …, "accuracy": …}`` with the prefix. Functions are weighted by batch size, so a short last batch counts
        for what it holds.

    The random numbers of the training are not touched: evaluating more often does not change what is trained.

    Raises:
        EmptyLoaderError: the loader yields no batch.

    Example:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> loader = DataLoader(TensorDataset(torch.ones(5, 2), torch.ones(5, 1)), batch_size=2)
        >>> evaluate(nn.Linear(2, 1), loader, metrics={"one": lambda output, target: target.mean()})
        {'one': 1.0}
    """
    device = device_of(model)
    mean, chosen = Mean(), MetricSet(metrics, device)
    arity = loss_arity(loss) if loss is not None else 2

    def visit(batch: Any, output: Any) -> None:
        _, _, target = inputs_and_target(batch)
        count = tree.samples(batch)
        if loss is not None:
            value = call_loss(loss, arity, output, target, batch)
            if isinstance(value, torch.Tensor) and value.numel() != 1:
                raise LossError(
                    f"the loss must be one number, not a tensor of shape {tuple(value.shape)}: take its .mean()."
                )
            mean.add(value.reshape(()) if isinstance(value, torch.Tensor) else value, count)
        if metrics:
            chosen.update(output, target, count)

    for_each_output(model, loader, visit, Precision.named(precision), in_memory)
    found = {"loss": mean.value()} if mean.has_values else {}
    return {f"{prefix}{name}": value for name, value in (found | chosen.compute()).items()}


def predict(model: nn.Module, loader: Any, *, precision: str = "float32", in_memory: bool | None = None) -> Any:
    """The model's outputs for all samples of ``loader``, concatenated on the CPU, in the loader's order.

    Returns:
        A tensor of shape (samples, …), or the nested form that the model gives with such tensors in it.
    """
    parts: list[Any] = []

    def visit(batch: Any, output: Any) -> None:
        parts.append(tree.map_tensors(lambda t: t.detach().cpu(), output))

    for_each_output(model, loader, visit, Precision.named(precision), in_memory)
    return _concatenate(parts)


def for_each_output(
    model: nn.Module, loader: Any, visit: Callable[[Any, Any], None], precision: Precision, in_memory: bool | None
) -> None:
    """Call ``visit(batch, output)`` for each batch (on the model's device), all in evaluation mode without gradients."""
    device = device_of(model)
    stream = loader if isinstance(loader, Stream) else stream_of(loader, None, in_memory)
    with evaluation_mode(model), isolated(derive(stream.seed, "evaluate")), torch.no_grad():
        for batch in stream.epoch(0):
            batch = tree.move(batch, device)
            inputs, named, _ = inputs_and_target(batch)
            with precision.autocast(device):
                visit(batch, call_model(model, inputs, named, batch))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """``model.eval()`` for a block; then each module is put back into the mode it had, one by one."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def call_model(model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], batch: Any) -> Any:
    """``model(*inputs, **named)``; a batch that does not fit its ``forward`` is an error that says so."""
    try:
        return model(*inputs, **named)
    except TypeError as error:
        if "forward()" not in str(error) or _came_into_forward(error):
            raise
        raise BatchError(
            f"{type(model).__name__}.forward does not take what the loader gives: {error}. The batch is {describe(batch)}. "
            "Change the loader, or give the Trainer a step= function that says how to use a batch."
        ) from None


def _came_into_forward(error: BaseException) -> bool:
    """Whether the error comes from inside a ``forward`` method, and not from the call of the outermost one."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "forward":
            return True
        trace = trace.tb_next
    return False


def call_loss(loss: Loss, arity: int, output: Any, target: Any, batch: Any) -> torch.Tensor:
    """The loss of one batch. Without a target, a loss of two arguments compares the output with the input itself."""
    if arity == 1 and target is None:
        return loss(output)
    if target is None:
        inputs, named, _ = inputs_and_target(batch)
        target = inputs[0] if inputs else next(iter(named.values()))
    try:
        return loss(output, target)
    except (IndexError, RuntimeError) as error:
        problem = target_problem(output, target, loss)
        if problem is None:
            raise
        raise TargetError(problem) from error


def target_problem(output: Any, target: Any, loss: Loss) -> str | None:
    """What is wrong with class targets, in words, or ``None``. Reads the target's range: waits for the device."""
    if not (isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor)) or output.dim() < 2:
        return None
    if target.is_floating_point() or target.dim() != output.dim() - 1 or not target.numel():
        return None
    classes = output.shape[1]
    ignored = getattr(loss, "ignore_index", -100)
    bad = ((target < 0) | (target >= classes)) & (target != ignored)
    if not bool(bad.any()):
        return None
    place = int(bad.flatten().nonzero()[0])
    value = target.flatten()[place].item()
    return (
        f"target {value} at place {place} of the batch is out of range: the model has {classes} outputs, so targets are 0 "
        f"to {classes - 1}. Give the model {max(int(target.max()) + 1, 1)} outputs, or correct the labels."
    )


def loss_arity(loss: Loss) -> int:
    """1 for a loss of the output alone, else 2."""
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 2
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return 1 if len(needed) == 1 and not takes_any else 2


def device_of(model: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the CPU for a model that has none."""
    tensor: torch.Tensor | None = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def describe(batch: Any) -> str:
    """A batch in a few words, for error messages.

    Example:
        >>> describe([torch.zeros(2, 3), torch.zeros(2)])
        'a list of (2, 3) float32, (2,) float32'
    """
    if isinstance(batch, torch.Tensor):
        return f"{tuple(batch.shape)} {str(batch.dtype).removeprefix('torch.')}"
    if isinstance(batch, Mapping):
        return "a dict of " + ", ".join(f"{key}: {describe(value)}" for key, value in batch.items())
    if isinstance(batch, (list, tuple)):
        return f"a {type(batch).__name__} of " + ", ".join(describe(item) for item in batch)
    return f"a {type(batch).__name__}"


def _concatenate(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(parts) if first.dim() else torch.stack(parts)
    if isinstance(first, Mapping):
        return {key: _concatenate([part[key] for part in parts]) for key in first}
    if isinstance(first, (list, tuple)):
        joined = [_concatenate(list(items)) for items in zip(*parts, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else type(first)(joined)
    return parts
