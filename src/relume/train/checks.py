"""Do the model and its optimizers belong together?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from relume.errors import OptimizerError


def check_kinds(optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Raise OptimizerError for what is no optimizer."""
    for label, optimizer in optimizers.items():
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise OptimizerError(f"{label} must be a torch.optim.Optimizer, not {type(optimizer).__name__}.")


def check_optimizers(model: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> list[str]:
    """Warnings, in words, for trainable parameters that no optimizer holds.

    Raises:
        OptimizerError: there is no optimizer, nothing to train, or no optimizer holds a trainable parameter.
    """
    parameters = dict(model.named_parameters())
    name = type(model).__name__
    if not parameters:
        raise OptimizerError(f"{name} has no parameters: there is nothing to train.")
    trainable = {n: p for n, p in parameters.items() if p.requires_grad}
    if not trainable:
        raise OptimizerError(
            f"all {len(parameters)} parameters of {name} are frozen (requires_grad=False): there is nothing to train."
        )
    if not optimizers:
        raise OptimizerError(
            "training needs an optimizer, such as optimizer=torch.optim.SGD(model.parameters(), lr=1e-3)."
        )
    check_kinds(optimizers)
    held = {id(p) for o in optimizers.values() for group in o.param_groups for p in group["params"]}
    left_out = [n for n, p in trainable.items() if id(p) not in held]
    if len(left_out) == len(trainable):
        raise OptimizerError(
            f"the optimizer holds none of the {len(trainable)} trainable parameters of {name}. Make it from this model, after "
            f"any change of its layers: torch.optim.{type(next(iter(optimizers.values()))).__name__}(model.parameters(), …)"
        )
    if left_out:
        shown = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
        return [
            f"{len(left_out)} of {len(trainable)} trainable parameters of {name} are in no optimizer and will not change: "
            f"{shown}. Add them with optimizer.add_param_group, or freeze them with requires_grad_(False)."
        ]
    return []
