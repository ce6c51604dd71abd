"""What a batch means: what of it goes into the model, what into the loss, and what to say when it does not fit."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from relume.errors import BatchError, TargetError

Loss = Callable[..., torch.Tensor]


def inputs_and_target(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """What of a batch goes into the model (positional, by name), and the target (``None`` when there is none).

    ``(x, y)`` and ``(x1, x2, …, y)``: the last is the target. A dict: ``labels``, ``label``, ``targets``, ``target`` or
    ``y`` is the target and the rest goes in by name. Anything else is an input without a target.
    """
    if isinstance(batch, Mapping):
        inputs = dict(batch)
        for key in ("labels", "label", "targets", "target", "y"):
            if key in inputs:
                return (), inputs, inputs.pop(key)
        return (), inputs, None
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return tuple(batch[:-1]), {}, batch[-1]
    if isinstance(batch, (tuple, list)) and len(batch) == 1:
        return (batch[0],), {}, None
    return (batch,), {}, None


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
