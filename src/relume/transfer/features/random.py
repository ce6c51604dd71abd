"""Whether random numbers are drawn, from the generators of the processor or of an accelerator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from relume.generators import fingerprint, isolated


def state() -> Any:
    """What all generators hold now; equal before and after means that nothing was drawn."""
    return fingerprint(), [bytes(one.numpy().tobytes()) for one in _devices()]


@contextmanager
def apart(seed: int = 0) -> Iterator[None]:
    """Run a block on generators of its own, those of accelerators included."""
    states = _devices()
    with isolated(seed):
        try:
            if states:
                torch.cuda.manual_seed_all(seed)
            yield
        finally:
            if states:
                torch.cuda.set_rng_state_all(states)


@contextmanager
def drawing(seed: int = 0) -> Iterator[Callable[[], bool]]:
    """As `apart`; gives a function that tells whether anything was drawn since."""
    with apart(seed):
        before = state()
        yield lambda: state() != before


def _devices() -> list[torch.Tensor]:
    is_used: bool = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state_all() if is_used else []
