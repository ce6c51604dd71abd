"""Evaluation and prediction: no gradients, evaluation mode, and nothing of the training disturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from relume import tree
from relume.data import Stream, stream_of
from relume.data.calls import Loss, call_loss, call_model, device_of, inputs_and_target, loss_arity
from relume.errors import LossError
from relume.generators import isolated
from relume.seeds import derive
from relume.train.metrics import Mean, Metrics, MetricSet
from relume.train.precision import Precision


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
