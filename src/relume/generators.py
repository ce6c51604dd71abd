"""The process's random number generators (torch, numpy, random): seeded, set aside, exchanged, put back exactly."""

from __future__ import annotations

import _random
import ctypes
import os
import random
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch

_numpy_random: Any = np.random  # its stubs lack get_bit_generator and set_bit_generator
_turn = threading.RLock()  # held while the process's generators are another's: one thread at a time
_spare: list[Any] = []  # generators whose scopes are gone, for the next ones
_kept: list[Any] = []  # generators that numpy no longer uses
_STATE_BYTES = 2500  # of a Mersenne Twister: 624 words and the place in them
_MAGIC_GAUSS = 0.7071067811865476

# How many batches are fetched under seeds of their own before numpy's and random's generators are only watched.
_QUIET_BATCHES = 4


def own_numpy_generator() -> None:
    """Give numpy's global functions a fresh MT19937, whatever generator they had: the only kind that can be seeded."""
    replace_numpy_generator(np.random.MT19937(0))


def replace_numpy_generator(generator: Any) -> None:
    """Give numpy's global functions ``generator``. The one before is kept: see :class:`RandomScope` on threads."""
    with _turn:
        _kept.append(_numpy_random.get_bit_generator())
        _numpy_random.set_bit_generator(generator)


def turn() -> AbstractContextManager[Any]:
    """Wait until no other thread has the process's generators exchanged, and keep it so while the block runs."""
    return _turn


def _renew_turn() -> None:
    """In a forked process: whoever held the lock is not there."""
    global _turn
    _turn = threading.RLock()


os.register_at_fork(after_in_child=_renew_turn)


def seed_cpu(seed: int) -> None:
    """Seed the CPU generators only (hot path: 7 microseconds; ``torch.manual_seed`` alone takes 90)."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


class _PythonRandom:
    """``random``'s global generator, saved and put back as 2.5 kB of memory: under 1 microsecond each.

    ``random.getstate`` builds 625 numbers and takes 9 microseconds hot and several times that between training steps.
    The layout of the C object is CPython's; it is compared with ``getstate`` once, and where it differs ``getstate`` is used.
    """

    def __init__(self) -> None:
        self._instance: Any = random.seed.__self__  # type: ignore[attr-defined]
        self._size = _random.Random.__basicsize__ - object.__basicsize__
        self._address = id(self._instance) + object.__basicsize__
        self.is_direct = self._knows_layout()
        if self.is_direct:
            self._words = (ctypes.c_uint32 * 4).from_address(self._address)

    def _knows_layout(self) -> bool:
        if sys.implementation.name != "cpython" or type(self._instance) is not random.Random:
            return False
        if self._size < _STATE_BYTES:
            return False
        words = array("I", ctypes.string_at(self._address, _STATE_BYTES))
        state = self._instance.getstate()[1]
        return bool(words[0] == state[-1] and tuple(words[1:]) == state[:-1])

    def mark(self) -> Any:
        """Differs after a draw, and with near certainty after a seeding: the place and three words of the state."""
        return self._words[:], self._instance.gauss_next

    def save(self) -> Any:
        if not self.is_direct:
            return self._instance.getstate()
        return ctypes.string_at(self._address, self._size), self._instance.gauss_next

    def restore(self, state: Any) -> None:
        if not self.is_direct:
            self._instance.setstate(state)
            return
        ctypes.memmove(self._address, state[0], self._size)
        self._instance.gauss_next = state[1]


class _WatchedTwister:
    """The memory of one MT19937: a look at a few of its words, and its state saved and put back as bytes.

    It holds its generator, so that the memory stays where it is: two trainings in two threads exchange numpy's global
    generator under each other, and an address that outlived its generator would be someone else's memory.
    """

    def __init__(self, generator: Any, has_gauss: Any) -> None:
        self._generator = generator
        self._address = generator.ctypes.state_address
        self._words = (ctypes.c_uint32 * 3).from_address(self._address)
        self._place = ctypes.c_int32.from_address(self._address + _STATE_BYTES - 4)
        self._has_gauss = has_gauss

    def is_of(self, generator: Any) -> bool:
        return self._generator is generator

    def mark(self) -> Any:
        """Differs after a draw, and with near certainty after a seeding, as for ``random``."""
        return self._place.value, self._words[:], self._has_gauss.value

    def save(self) -> bytes:
        return ctypes.string_at(self._address, _STATE_BYTES)

    def restore(self, state: bytes) -> None:
        ctypes.memmove(self._address, state, _STATE_BYTES)


class _NumpyRandom:
    """numpy's global generator. Its state is exchanged or copied as memory: getting and setting it takes 67 microseconds.

    Besides the bit generator there is a normal number that waits for the next draw; exchanging bit generators drops it, so
    it is put back. Both layouts are compared with ``get_state`` once; where they differ, that is used.
    """

    def __init__(self) -> None:
        self._gauss_offset = self._find_gauss()
        self._global: Any = np.random.mtrand._rand  # held: the address below is in it
        self._gauss_address = id(self._global) + (self._gauss_offset or 0)
        self._has_gauss = ctypes.c_int32.from_address(self._gauss_address)
        self._watched: _WatchedTwister | None = None

    def _find_gauss(self) -> int | None:
        """Where a RandomState object keeps its waiting number (a flag, 4 bytes of padding, a double), or ``None``."""
        one = np.random.RandomState(0)
        size = type(one).__basicsize__
        if sys.implementation.name != "cpython" or not 0 < size < 10_000:
            return None
        state = one.get_state(legacy=False)
        one.set_state(state | {"has_gauss": 1, "gauss": _MAGIC_GAUSS})
        place = ctypes.string_at(id(one), size).find(np.float64(_MAGIC_GAUSS).tobytes())
        if place < 8 or ctypes.c_int32.from_address(id(one) + place - 8).value != 1:
            return None
        one.set_state(state | {"has_gauss": 0, "gauss": 0.0})
        return place - 8 if ctypes.c_int32.from_address(id(one) + place - 8).value == 0 else None

    def watched(self) -> _WatchedTwister | None:
        """The generator that numpy has now, to be watched; ``None`` where its layout is not known."""
        generator = _numpy_random.get_bit_generator()
        watched = self._watched
        if watched is not None and watched.is_of(generator):
            return watched
        if self._gauss_offset is None or not self._knows_layout(generator):
            return None
        watched = self._watched = _WatchedTwister(generator, self._has_gauss)
        return watched

    def mark(self) -> Any:
        """The watched generator's mark; ``None`` where it cannot be watched."""
        watched = self.watched()
        return None if watched is None else watched.mark()

    def _knows_layout(self, generator: Any) -> bool:
        if type(generator) is not np.random.MT19937:
            return False
        words = np.frombuffer(ctypes.string_at(generator.ctypes.state_address, _STATE_BYTES), dtype=np.uint32)
        state: Any = generator.state["state"]
        return bool(np.array_equal(words[:-1], state["key"]) and words[-1] == state["pos"])

    def exchange(self, generator: Any) -> Any:
        """Put ``generator`` in place; returns what :meth:`put_back` needs."""
        before = _numpy_random.get_bit_generator(), self.waiting()
        _numpy_random.set_bit_generator(generator)
        return before

    def put_back(self, before: Any) -> None:
        _numpy_random.set_bit_generator(before[0])
        self.set_waiting(before[1])

    def waiting(self) -> Any:
        if self._gauss_offset is not None:
            return ctypes.string_at(self._gauss_address, 16)
        state: Any = np.random.get_state(legacy=False)
        return state.get("has_gauss", 0), state.get("gauss", 0.0)

    def set_waiting(self, waiting: Any) -> None:
        if self._gauss_offset is not None:
            ctypes.memmove(self._gauss_address, waiting, 16)
        elif waiting[0]:
            state: Any = np.random.get_state(legacy=False)
            np.random.set_state(state | {"has_gauss": waiting[0], "gauss": waiting[1]})


_python = _PythonRandom()
_numpy = _NumpyRandom()


def _import_what_draws() -> None:
    """Import rich's styles, which draw an id from ``random``: imported in the middle of a training, they would change it."""
    state = random.getstate()
    import rich.style  # noqa: F401

    random.setstate(state)


_import_what_draws()


class RandomScope:
    """A second set of global CPU generators that is swapped in and out (hot path: 8 microseconds a round).

    What runs between :meth:`enter` and :meth:`exit` draws from the scope's own generators, and the state they have at
    the exit is where the next entry goes on. The process's own generators do not notice.

    Threads take turns: who enters waits until the thread that is inside has left. numpy's functions go on using a generator
    that was exchanged under them by another thread, and crash when it is gone; so none is ever freed, they are used again.
    """

    def __init__(self, seed: int) -> None:
        try:
            self._numpy = _spare.pop()
        except IndexError:
            self._numpy = np.random.MT19937(0)
        self._inner: tuple[torch.Tensor, Any] | None = None
        self._seed = seed

    def enter(self) -> None:
        self.enter_to_seed()
        if self._inner is None:
            seed_cpu(self._seed)
        else:
            torch.default_generator.set_state(self._inner[0])
            _python.restore(self._inner[1])

    def __del__(self, spare: list[Any] = _spare) -> None:
        if "_numpy" in self.__dict__:
            spare.append(self._numpy)

    def enter_to_seed(self) -> None:
        """Enter without setting a state: for a block that seeds the generators first of all."""
        self._lock = _turn  # a process forked in the block has another
        self._lock.acquire()
        self._outer = torch.default_generator.get_state(), _python.save(), _numpy.exchange(self._numpy)

    def exit(self) -> None:
        self._inner = (torch.default_generator.get_state(), _python.save())
        self.leave()

    def leave(self) -> None:
        """Exit without keeping the state: for a scope that is seeded anew at each entry."""
        torch.default_generator.set_state(self._outer[0])
        _python.restore(self._outer[1])
        _numpy.put_back(self._outer[2])
        self._lock.release()


class FetchScope:
    """Runs functions that fetch one batch each under the batch's own seed; the process's generators do not notice.

    Seeding numpy's and random's generators and putting them back is most of that cost. When the first batches draw
    nothing from them, they are only watched from then on: a few words of their states are compared. Should a batch draw
    from them later on, they are put back, the batch is fetched once more under its seed, and so are all that follow.

    Hot path: 14 microseconds a batch seeded, 5 watched (and several times that between training steps).
    """

    def __init__(self) -> None:
        self._scope = RandomScope(0)
        self._quiet_until = _QUIET_BATCHES if _python.is_direct else -1
        self._marks: Any = None
        self._saved: Any = None

    def fetch(self, seed: int, function: Callable[[Any], Any], argument: Any) -> Any:
        with _turn:
            return self._fetch(seed, function, argument)

    def _fetch(self, seed: int, function: Callable[[Any], Any], argument: Any) -> Any:
        if self._quiet_until == 0 and (watched := _numpy.watched()) is not None:
            data, is_good = self._watched(watched, seed, function, argument)
            if is_good:
                return data
            del data
            self._quiet_until = -1
        self._scope.enter_to_seed()
        try:
            seed_cpu(seed)
            if self._quiet_until <= 0:
                return function(argument)
            return self._on_probation(function, argument)
        finally:
            self._scope.leave()

    def _on_probation(self, function: Callable[[Any], Any], argument: Any) -> Any:
        before = _python.mark(), _numpy.mark()
        data = function(argument)
        is_quiet = before[1] is not None and before == (_python.mark(), _numpy.mark())
        self._quiet_until = self._quiet_until - 1 if is_quiet else -1
        return data

    def _watched(
        self, watched: _WatchedTwister, seed: int, function: Callable[[Any], Any], argument: Any
    ) -> tuple[Any, bool]:
        marks = watched, _python.mark(), watched.mark()
        if marks != self._marks:
            self._marks, self._saved = marks, (_python.save(), watched.save(), _numpy.waiting())
        generator = torch.default_generator
        outer = generator.get_state()
        generator.manual_seed(seed)
        try:
            data = function(argument)
        finally:
            generator.set_state(outer)
        if _numpy.watched() is watched and marks == (watched, _python.mark(), watched.mark()):
            return data, True
        _python.restore(self._saved[0])
        watched.restore(self._saved[1])
        _numpy.set_waiting(self._saved[2])
        return None, False


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


def fingerprint() -> tuple[bytes, Any, str]:
    """The present state of the CPU generators, to compare: equal before and after means that nothing was drawn."""
    with _turn:
        state: Any = np.random.get_state(legacy=False)
    inner = {name: getattr(value, "tolist", lambda v=value: v)() for name, value in state["state"].items()}
    numpy_part = repr((inner, state.get("has_gauss"), state.get("gauss")))
    return torch.default_generator.get_state().numpy().tobytes(), random.getstate(), numpy_part
