"""How much work and memory a recipe may cost: a few words in a file can ask for a thousand million layers."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_BASE_CALLS = 1_000_000
_CALLS_A_TENSOR = 5_000  # those of torchvision and timm make 250 to 1100
_BASE_BYTES = 256 << 20


_SWITCHES = ("__enter__", "__exit__", "__del__")
_FEW = 20_000
_ALWAYS_ALLOWED = 1_000_000


@dataclass(frozen=True)
class Held:
    """What a file holds, by which is measured what building its model may cost.

    Attributes:
        tensors: how many, of ``size_bytes`` in all.
        largest: the largest of their dimensions.
    """

    tensors: int
    size_bytes: int
    largest: int

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Held:
        """What a state_dict comes to."""
        values = [value for value in state.values() if isinstance(value, torch.Tensor)]
        largest = max((size for value in values for size in value.shape), default=0)
        return cls(len(values), sum(value.nbytes for value in values), largest)


class TooMuchError(Exception):
    """Building takes more than the tensors of the file can need."""


def check_numbers(recipe: Any, held: Held) -> None:
    """Raise `TooMuchError` for a whole number that is no size of any tensor: a list of so many things takes the memory."""
    if isinstance(recipe, dict):
        recipe = list(recipe.values())
    if isinstance(recipe, list):
        for one in recipe:
            check_numbers(one, held)
    elif isinstance(recipe, int) and abs(recipe) > max(_ALWAYS_ALLOWED, held.largest):
        raise TooMuchError(f"its argument {recipe} is larger than any dimension of the tensors")


def asks_for(recipe: Any) -> float:
    """How often a builder may do something if each number of a recipe is a loop, and all are within one another."""
    if isinstance(recipe, dict):
        recipe = list(recipe.values())
    if isinstance(recipe, list):
        return math.prod(map(asks_for, recipe)) * max(1, len(recipe))
    return max(1.0, abs(recipe)) if isinstance(recipe, (int, float)) else 1.0


@contextlib.contextmanager
def limited_work(recipe: Any, held: Held) -> Iterator[None]:
    """Raise `TooMuchError` in this thread when building a model of that many tensors makes far too many calls.

    Of a recipe that cannot ask for many no calls are counted: counting takes a third of the time of building a VGG-19.
    """
    if asks_for(recipe) <= _FEW:
        yield
        return
    left = _BASE_CALLS + _CALLS_A_TENSOR * held.tensors

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0 and _may_be_ended(frame, event, argument):
            raise TooMuchError("it makes more layers than its tensors are for")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        if before is None or callable(before):
            sys.setprofile(before)
        else:  # cProfile hooks in below Python, and cannot be put back by its name
            sys.setprofile(None)
            before.enable()


def _may_be_ended(frame: FrameType | None, event: str, argument: Any) -> bool:
    """Whether an error here leaves torch as it was: not while something is switched on or off (gradients, modes)."""
    if event == "c_call" and (
        getattr(argument, "__name__", "") in _SWITCHES or getattr(argument, "__module__", "") not in (None, "builtins")
    ):
        return False
    while frame is not None and frame.f_code.co_name != "_made":  # what stands below that is not the builder's
        if frame.f_code.co_name in _SWITCHES:
            return False
        frame = frame.f_back
    return event in ("call", "c_call")


class LimitedMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises `TooMuchError` before a tensor is made that takes a model beyond twice what its file holds."""

    def __init__(self, held: Held) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = _BASE_BYTES + 2 * held.size_bytes

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
