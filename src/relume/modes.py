"""Modules that stay in evaluation mode whatever ``model.train()`` says, without being replaced."""

from __future__ import annotations

from torch import nn


class StaysInEval:
    """Takes the place of one module's ``train`` method, as an attribute of that module.

    ``model.train()`` calls ``train`` on each child, so that whoever calls it reaches this. Copies and pickles of the
    module take it along.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.asked = module.training
        """What the module would be in if it were not held."""

    def __call__(self, mode: bool = True) -> nn.Module:
        self.asked = mode
        type(self.module).train(self.module, mode)  # the class may do more, and the children have a say of their own
        self.module.training = False
        return self.module


def hold(module: nn.Module) -> None:
    """Put one module into evaluation mode, for good; those within it are not touched."""
    if not is_held(module):
        module.__dict__["train"] = StaysInEval(module)
    module.training = False


def release(module: nn.Module) -> None:
    """Let a held module follow ``train()`` again; it gets the mode that was last asked of it."""
    held = module.__dict__.get("train")
    if isinstance(held, StaysInEval):
        del module.__dict__["train"]
        module.training = held.asked


def is_held(module: nn.Module) -> bool:
    """Whether the module stays in evaluation mode."""
    return isinstance(module.__dict__.get("train"), StaysInEval)
