"""The order of the samples: lists of indices as a pure function of (seed, epoch)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from relume.generators import RandomScope
from relume.seeds import derive, mix

# Drawn at once: swapping the generators costs 16 microseconds, so each batch bears a 256th of it.
_CHUNK = 256
_STATELESS = (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    DistributedSampler,
)


class Indices(NamedTuple):
    """What a worker is asked for: the indices of one batch and the seed of its random numbers."""

    seed: int
    indices: Any


class Order:
    """Draws an epoch's index lists from a loader's sampler, under generators that depend on (seed, epoch) only.

    Generators that the sampler or the loader hold themselves (``DataLoader(generator=g)``) are seeded for each epoch
    from their own initial seed, the run's seed and the epoch.

    A sampler class that torch does not ship may count its own epochs. On a resume it is therefore run through the
    epochs before, which draws indices and loads no data.
    """

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        self.is_batched = loader.batch_sampler is not None
        self._sampler: Iterable[Any] = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
        self._seed = seed
        self._parts = _parts(self._sampler)
        self._owned = _generators(self._parts, loader)
        self._has_memory = not all(type(part) in _STATELESS for part in self._parts)
        self._drawn = 0

    def __len__(self) -> int:
        return len(self._sampler)  # type: ignore[arg-type]

    def batches(self, epoch: int, start: int = 0) -> Iterator[Indices]:
        """The index lists of ``epoch`` (from 0) from batch ``start`` on, each with its batch's seed."""
        if self._has_memory:
            for before in range(self._drawn, epoch):
                self._exhaust(self._draw(before))
        self._drawn = max(self._drawn, epoch + 1)
        key = derive(self._seed, "batch", epoch)
        drawn = self._draw(epoch)
        try:
            for number, indices in enumerate(drawn):
                if number >= start:
                    yield Indices(mix(key, number), indices)
        finally:
            if self._has_memory:
                self._exhaust(drawn)

    def _exhaust(self, drawn: Iterator[Any]) -> None:
        """Draw to the end of the epoch; a sampler that does not say where that is may have none."""
        try:
            count = len(self)
        except TypeError:
            return
        for _ in itertools.islice(drawn, count):
            pass

    def _draw(self, epoch: int) -> Iterator[Any]:
        scope = RandomScope(derive(self._seed, "order", epoch))
        for part in self._parts:
            if callable(getattr(part, "set_epoch", None)):
                part.set_epoch(epoch)
        states = [_seed_generator(g, base, self._seed, epoch) for g, base in self._owned]
        iterator: Iterator[Any] | None = None
        try:
            while True:
                scope.enter()
                try:
                    if iterator is None:
                        iterator = iter(self._sampler)
                    chunk = list(itertools.islice(iterator, _CHUNK))
                finally:
                    scope.exit()
                yield from chunk
                if len(chunk) < _CHUNK:
                    return
        finally:
            for (generator, _), state in zip(self._owned, states, strict=True):
                _set_state(generator, state)


def _parts(sampler: Any) -> list[Any]:
    """The sampler, and the samplers inside it."""
    parts = [sampler]
    for part in parts:  # grows as it goes
        for inner in list(vars(part).values()) if hasattr(part, "__dict__") else []:
            if isinstance(inner, Sampler) and all(inner is not known for known in parts):
                parts.append(inner)
    return parts


def _generators(parts: list[Any], loader: DataLoader[Any]) -> list[tuple[Any, int]]:
    """Random generators held by the samplers, each with a number that tells its own seed."""
    found: dict[int, tuple[Any, int]] = {}
    for owner in [*parts, loader]:
        for value in list(vars(owner).values()) if hasattr(owner, "__dict__") else []:
            if isinstance(value, torch.Generator):
                found[id(value)] = (value, value.initial_seed())
            elif isinstance(value, (np.random.Generator, np.random.RandomState, random.Random)):
                found[id(value)] = (value, derive(0, repr(_get_state(value))))
    return list(found.values())


def _seed_generator(generator: Any, base: int, seed: int, epoch: int) -> Any:
    """Seed ``generator`` for one epoch; returns the state it had."""
    state = _get_state(generator)
    new = derive(seed, "generator", base, epoch)
    if isinstance(generator, torch.Generator):
        generator.manual_seed(new)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(new).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(new & 0xFFFFFFFF)
    else:
        generator.seed(new)
    return state


def _get_state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state()
    return generator.getstate()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, (torch.Generator, np.random.RandomState)):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.setstate(state)
