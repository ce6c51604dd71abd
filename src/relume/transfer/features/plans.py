"""What is not proven or computed twice: for many models on one backbone, and for one moment between two epochs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Memory:
    """Remembers what was computed under a key, as long as somebody asks it to.

    Example:
        >>> memory = Memory("example")
        >>> with memory.kept():
        ...     memory.once(lambda: "a", lambda: 1), memory.once(lambda: "a", lambda: 2)
        (1, 1)
        >>> memory.once(lambda: "a", lambda: 3)
        3
    """

    def __init__(self, name: str) -> None:
        self._known: ContextVar[dict[Hashable, Any] | None] = ContextVar(f"relume_{name}", default=None)

    @contextmanager
    def kept(self) -> Iterator[None]:
        token = self._known.set({})
        try:
            yield
        finally:
            self._known.reset(token)

    def once(self, key_of: Callable[[], Hashable], compute: Callable[[], T]) -> T:
        known = self._known.get()
        if known is None:
            return compute()
        key = key_of()
        if key not in known:
            known[key] = compute()
        found: T = known[key]
        return found


plans = Memory("plans")
"""Of several models on one backbone, whose tensors and whose data are held for as long."""

moment = Memory("moment")
"""Between two epochs, while nobody else's code runs."""


def identity(held: Any) -> Hashable:
    """The same for modules of the same classes and settings whose tensors lie in the same memory, unchanged."""
    if isinstance(held, torch.Tensor):
        return marks(held)
    if not isinstance(held, nn.Module):
        return repr(held)
    parts = []
    for name, inner in held.named_modules():
        settings = tuple((k, v) for k, v in vars(inner).items() if isinstance(v, (bool, int, float, str, tuple)))
        own = (*inner._parameters.items(), *inner._buffers.items())
        parts.append((name, type(inner), repr(settings), tuple((key, marks(t)) for key, t in own if t is not None)))
    return tuple(parts)


def marks(tensor: torch.Tensor) -> Hashable:
    """Where a tensor lies, how, and how often it was written to."""
    return tensor.data_ptr(), tensor._version, tuple(tensor.shape), tensor.stride(), tensor.dtype
