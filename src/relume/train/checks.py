"""Do the model, its optimizers and its loss belong together?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from relume.data.calls import Loss, inputs_and_target, target_problem
from relume.errors import LossError, NonFiniteLossError, OptimizerError, TargetError
from relume.transfer.inventory import Inventory
from relume.transfer.membership import membership


def check_kinds(optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Raise OptimizerError for what is no optimizer."""
    for label, optimizer in optimizers.items():
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise OptimizerError(f"{label} must be a torch.optim.Optimizer, not {type(optimizer).__name__}.")


def check_optimizers(model: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Before a run is opened: can anything be trained at all? What may be meant is said by the Run at the first step.

    Raises:
        OptimizerError: there is no optimizer, nothing to train, or no optimizer holds a trainable parameter.
    """
    check_kinds(optimizers)
    for problem in membership(Inventory({"model": model}, optimizers), only_models=True):
        if problem.severity == "error":
            raise problem.error()


def check_loss(loss: Any, loss_function: Loss | None, output: Any, batch: Any) -> None:
    """Once an epoch, where a mistake would otherwise show late or not at all.

    Args:
        loss: what the step gave.
        loss_function: what it was computed with; None where that is a ``step=`` function's own affair.

    Raises:
        LossError: it is not one number, or depends on nothing that is trained.
        TargetError: a target is out of the range of the model's outputs.
    """
    if loss is None:
        return
    if not isinstance(loss, torch.Tensor) or loss.dim() != 0:
        what = (
            f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        )
        raise LossError(f"the loss must be one number, not {what}: take its .mean(), or a loss with reduction='mean'.")
    if not loss.requires_grad:
        raise LossError(
            "the loss does not depend on any trainable parameter: nothing would be learned. Are all parameters frozen, or "
            "is the output detached?"
        )
    if isinstance(loss_function, (nn.CrossEntropyLoss, nn.NLLLoss)):
        problem = target_problem(output, inputs_and_target(batch)[2], loss_function)
        if problem is not None:
            raise TargetError(problem)


def not_finite(value: float, place: str, last_finite: float | None, cause: str | None) -> NonFiniteLossError:
    """The error for a loss that is NaN or infinite.

    Args:
        place: the step, the epoch and the batch, in words.
        last_finite: the last loss that was a number.
        cause: where it came from first, if a watcher knows it.
    """
    last = "there was no finite loss before" if last_finite is None else f"the last finite loss was {last_finite:.6g}"
    return NonFiniteLossError(
        f"the loss is {value} at {place}; {last}. "
        + (f"{cause} " if cause else "")
        + "Try a smaller learning rate or clip_norm=1.0, and look for NaN in the data."
        + ("" if cause else " watch=relume.NonFinite() names the layer that made it first.")
    )


def understood(given: Any) -> tuple[torch.Tensor | None, dict[str, Any]]:
    """What a ``step=`` function gave: the loss, and further numbers to log.

    Raises:
        LossError: it is neither a loss, nor a mapping, nor None.
    """
    if isinstance(given, Mapping):
        values = {f"train/{name}": v for name, v in given.items() if name != "loss"}
        return given.get("loss"), values
    if given is None or isinstance(given, torch.Tensor):
        return given, {}
    raise LossError(
        f"the step function gave a {type(given).__name__}: give the loss, a dict with 'loss' in it, or None."
    )
