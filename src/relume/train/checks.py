"""Do the model and its optimizers belong together?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from relume.errors import OptimizerError
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
