"""How much work and memory a recipe may cost: a few words in a file can ask for a thousand million layers."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_BASE_CALLS = 5_000_000  # a resnet18 takes 20,000, the largest models of timm a million
_CALLS_A_TENSOR = 50_000
_BASE_BYTES = 256 << 20


class TooMuchError(Exception):
    """Building takes more than the tensors of the file can need."""


@contextlib.contextmanager
def limited_work(tensors: int) -> Iterator[None]:
    """Raise `TooMuchError` in this thread when building a model of that many tensors makes far too many calls.

    Cost: see bench; a VGG-19 makes 8,000 calls.
    """
    left = _BASE_CALLS + _CALLS_A_TENSOR * tensors

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise TooMuchError("it makes more layers than its tensors are for")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)


class LimitedMemory(TorchDispatchMode):
    """Raises `TooMuchError` before a tensor is made that takes a model beyond twice what its file holds."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self.left = _BASE_BYTES + 2 * size_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._take(_asked_bytes(func, args, kwargs))
        return func(*args, **kwargs)

    def _take(self, size_bytes: int) -> None:
        self.left -= size_bytes
        if self.left < 0:
            raise TooMuchError("it makes tensors far larger than those of the file")


def _asked_bytes(func: Any, args: Any, kwargs: Any) -> int:
    """What an operator that makes tensors is asked for, at most."""
    schema = func._schema
    if schema.is_mutable or (schema.returns and schema.returns[0].alias_info is not None):
        return 0
    tensors = [value for value in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    numel = max((value.numel() for value in tensors), default=0)
    named = dict(zip((one.name for one in schema.arguments), args, strict=False)) | kwargs
    for name in ("size", "repeats", "sizes"):
        if isinstance(value := named.get(name), (list, tuple)):
            numel = max(numel, math.prod(value) * (max(1, numel) if name == "repeats" else 1))
    if not tensors:  # arange, linspace, eye: one number or two say how many
        counts = [abs(value) for value in args if isinstance(value, (int, float)) and math.isfinite(value)]
        numel = max([numel, *(int(value) for value in counts)])
        numel = numel**2 if func.overloadpacket.__name__ == "eye" else numel
    return numel * 8 if numel else 0
