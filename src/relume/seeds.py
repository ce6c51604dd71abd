"""Seeds and the process's random number generators (torch, numpy, random)."""

from __future__ import annotations

import _random
import ctypes
import hashlib
import random
import sys
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_numpy_random: Any = np.random  # its stubs lack get_bit_generator and set_bit_generator
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def derive(seed: int, *path: int | str) -> int:
    """A 63-bit seed that is a pure function of ``seed`` and ``path``.

    Example:
        >>> derive(0, "order", 3) == derive(0, "order", 3) != derive(0, "order", 4)
        True
    """
    text = "/".join([str(int(seed)), *map(str, path)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def mix(key: int, index: int) -> int:
    """The ``index``-th seed of a series, 63 bits (hot path: under 1 microsecond).

    Source: SplitMix64, Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    z = (key + (index + 1) * _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 1


def own_numpy_generator() -> None:
    """Give numpy's global functions a fresh MT19937, whatever generator they had: the only kind that can be seeded."""
    _numpy_random.set_bit_generator(np.random.MT19937(0))


def seed_everything(seed: int) -> int:
    """Seed torch (all devices), numpy's global generator and ``random``; returns ``seed``.

    Changes the state of those generators. Use ``seed=`` of :class:`relume.Run` or :class:`relume.Trainer` for a whole
    training: it covers the order of the data and the augmentation in worker processes too.
    """
    torch.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)
    return seed


def seed_cpu(seed: int) -> None:
    """Seed the CPU generators only (hot path: 7 microseconds; ``torch.manual_seed`` alone takes 90)."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


class _PythonRandom:
    """The state of ``random``'s global generator, saved and put back as 2.5 kB of memory: under 1 microsecond each.

    ``random.getstate`` builds 625 numbers and takes 9 microseconds hot and several times that between training steps.
    The layout of the C object is CPython's; it is compared with ``getstate`` once, and where it differs ``getstate`` is used.
    """

    def __init__(self) -> None:
        self._instance: Any = random.seed.__self__  # type: ignore[attr-defined]
        self._size = _random.Random.__basicsize__ - object.__basicsize__
        self._address = id(self._instance) + object.__basicsize__
        self._is_direct = self._knows_layout()

    def _knows_layout(self) -> bool:
        if sys.implementation.name != "cpython" or type(self._instance) is not random.Random or self._size < 2500:
            return False
        words = array("I", ctypes.string_at(self._address, 2500))
        state = self._instance.getstate()[1]
        return bool(words[0] == state[-1] and tuple(words[1:]) == state[:-1])

    def save(self) -> Any:
        if not self._is_direct:
            return self._instance.getstate()
        return ctypes.string_at(self._address, self._size), self._instance.gauss_next

    def restore(self, state: Any) -> None:
        if not self._is_direct:
            self._instance.setstate(state)
            return
        ctypes.memmove(self._address, state[0], self._size)
        self._instance.gauss_next = state[1]


_python_random = _PythonRandom()


class RandomScope:
    """A second set of global CPU generators that is swapped in and out (hot path: 8 microseconds a round).

    What runs between :meth:`enter` and :meth:`exit` draws from the scope's own generators, and the state they have at
    the exit is where the next entry goes on. The process's own generators do not notice.

    numpy's generator is exchanged, not copied: getting and setting its state takes 67 microseconds.
    """

    def __init__(self, seed: int) -> None:
        self._numpy = np.random.MT19937(seed & 0xFFFFFFFF)
        self._inner: tuple[torch.Tensor, Any] | None = None
        self._seed = seed

    def enter(self) -> None:
        self.enter_to_seed()
        if self._inner is None:
            seed_cpu(self._seed)
        else:
            torch.default_generator.set_state(self._inner[0])
            _python_random.restore(self._inner[1])

    def enter_to_seed(self) -> None:
        """Enter without setting a state: for a block that seeds the generators first of all."""
        self._outer = (torch.default_generator.get_state(), _python_random.save(), _numpy_random.get_bit_generator())
        _numpy_random.set_bit_generator(self._numpy)

    def exit(self) -> None:
        self._inner = (torch.default_generator.get_state(), _python_random.save())
        self._restore()

    def leave(self) -> None:
        """Exit without keeping the state: for a scope that is seeded anew at each entry."""
        self._restore()

    def _restore(self) -> None:
        torch.default_generator.set_state(self._outer[0])
        _python_random.restore(self._outer[1])
        _numpy_random.set_bit_generator(self._outer[2])


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Run a block on CPU generators of its own, seeded with ``seed``; the process's go on afterwards as if nothing was.

    Example:
        >>> before = torch.rand(1, generator=torch.Generator().manual_seed(0))
        >>> with isolated(7):
        ...     first = torch.rand(2)
        >>> with isolated(7):
        ...     torch.equal(first, torch.rand(2))
        True
    """
    scope = RandomScope(seed)
    scope.enter()
    try:
        yield
    finally:
        scope.leave()


def fingerprint() -> tuple[bytes, Any, bytes]:
    """The present state of the CPU generators, to compare: equal before and after means that nothing was drawn."""
    state = np.random.get_state(legacy=False)
    numpy_part = repr((state["state"]["pos"], state["has_gauss"])).encode() + state["state"]["key"].tobytes()
    return torch.default_generator.get_state().numpy().tobytes(), random.getstate(), numpy_part
