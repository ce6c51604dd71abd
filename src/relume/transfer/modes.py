"""Which modules do something else in training: batch norms and what drops at random; and those held in evaluation mode."""

from __future__ import annotations

from torch import nn

from relume.modes import StaysInEval, hold, is_held, release

__all__ = ["StaysInEval", "hold", "is_batchnorm", "is_dropout", "is_held", "release"]


def is_batchnorm(module: nn.Module) -> bool:
    """Whether it has running statistics that a forward pass in training mode moves."""
    return module._buffers.get("running_mean") is not None or module._buffers.get("running_var") is not None


def is_dropout(module: nn.Module) -> bool:
    """Whether all it does is to drop at random in training mode: dropout of every kind, and stochastic depth."""
    return isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ in _DROPS


_DROPS = {"StochasticDepth", "DropPath", "DropBlock2d", "DropBlock3d", "PatchDropout"}
"""By name: torchvision and timm are not imported to know theirs."""
