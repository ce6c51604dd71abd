"""Exact data: batches that depend on (seed, epoch, batch number) alone, whoever loads them and wherever one starts."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.data import DataLoader, IterableDataset

from relume import tree
from relume.data.fetch import Feed, SeededDataset, rebuild
from relume.data.memory import NotDeterministic, NotEligible, Table, loading_obstacle, still_agrees, table_for
from relume.data.order import Indices, Order
from relume.errors import DataError, EmptyLoaderError, InMemoryError, warn
from relume.generators import FetchScope, RandomScope, seed_cpu
from relume.seeds import derive, mix


class Stream:
    """The batches of a loader, epoch by epoch, the same ones each time.

    Args:
        loader: a ``DataLoader``, or any other iterable of batches that can be read once an epoch.
        seed: the run's seed; ``None`` takes ``torch.initial_seed()``.
        in_memory: ``None`` keeps a dataset that is proven deterministic in memory, ``False`` never does, ``True`` insists.

    Attributes:
        decision: one line that says whether the dataset is kept in memory and why; known after the first epoch started.
        notes: what could not be made exact or was done at a cost, in words; usually empty.

    The user's loader is left as it is. A map-style dataset is fetched with each batch's own seed, so neither the number
    of workers nor the batches before it change a batch; an ``IterableDataset`` that has ``state_dict`` and
    ``load_state_dict``, or a ``StatefulDataLoader``, is driven through those; anything else is replayed and discarded.

    Example:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> loader = DataLoader(TensorDataset(torch.arange(6)), batch_size=2, shuffle=True)
        >>> whole, tail = (list(Stream(loader, seed=0).epoch(3, start=k)) for k in (0, 2))
        >>> torch.equal(whole[2][0], tail[0][0])
        True
    """

    def __init__(self, loader: Any, seed: int | None = None, *, in_memory: bool | None = None) -> None:
        self.seed = torch.initial_seed() if seed is None else int(seed)
        self._said = _Said()
        self._source: _MapSource | _ReplaySource | _TableSource
        if _is_map_style(loader):
            self._source = _MapSource(loader, self.seed, in_memory, self._said)
        else:
            if in_memory:
                raise InMemoryError(
                    "in_memory=True needs a DataLoader over a map-style dataset; this one can only be iterated."
                )
            self._source = _ReplaySource(loader, self.seed, self._said)

    @property
    def decision(self) -> str | None:
        return self._said.decision

    @property
    def notes(self) -> list[str]:
        return self._said.notes

    @property
    def length(self) -> int | None:
        """The number of batches in an epoch, or ``None`` when it is not known."""
        try:
            return len(self._source)
        except TypeError:
            return None

    def epoch(self, epoch: int, start: int = 0, state: dict[str, Any] | None = None) -> Iterator[Any]:
        """The batches of ``epoch`` (counted from 0) from batch ``start`` on.

        Args:
            state: what :meth:`state_dict` gave at that place; only streams that cannot be computed need it.

        Raises:
            EmptyLoaderError: the epoch has no batch at all.
        """
        batches = self._source.epoch(epoch, start, state)
        for batch in batches:
            yield batch
            yield from batches
            return
        if start == 0:
            raise EmptyLoaderError(self._source.why_empty(epoch))

    def over(self, table: Table, on_epoch: Callable[[int], None] | None = None) -> Stream:
        """The same batches of the same samples, each with its row of ``table`` in the place of what the dataset gives.

        ``on_epoch(epoch)`` is called when an epoch begins.

        Raises:
            NotEligible: the batches of this stream are not lists of the numbers of samples.
        """
        source = self._source
        if isinstance(source, _ReplaySource) or not source.order.is_batched:
            raise NotEligible("its loader does not give the numbers of its samples")
        other = Stream.__new__(Stream)
        other.seed, other._said = self.seed, _Said()
        other._source = _TableSource(source.order, table, source.pin, on_epoch)
        return other

    def close(self) -> None:
        """End workers that are kept alive. The stream can still be used: it starts them again."""
        self._source.close()

    def state_dict(self) -> dict[str, Any] | None:
        """What is needed besides (seed, epoch, batch) to go on from here; ``None`` for all map-style datasets."""
        return self._source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring a loader that keeps a state of its own to where it stood; others have nothing to load."""
        if isinstance(self._source, _ReplaySource) and self._source.holder is not None:
            self._source.holder.load_state_dict(state["holder"])


@dataclass
class _Said:
    """What a source has to say; shared by reference, so that a stream and its source make no reference cycle.

    In a cycle, workers that are kept alive would end in the garbage collector, where torch waits 5 seconds for each.
    """

    decision: str | None = None
    notes: list[str] = field(default_factory=list)


_streams: WeakKeyDictionary[Any, dict[tuple[int, bool | None], Stream]] = WeakKeyDictionary()


def stream_of(loader: Any, seed: int | None = None, in_memory: bool | None = None) -> Stream:
    """The stream of a loader, made once a loader, so that workers stay alive and memory is filled once."""
    key = (torch.initial_seed() if seed is None else seed, in_memory)
    if not _is_map_style(loader):
        return Stream(loader, key[0], in_memory=in_memory)
    known = _streams.setdefault(loader, {})
    if key not in known:
        known.clear()
        known[key] = Stream(loader, key[0], in_memory=in_memory)
    return known[key]


def _is_map_style(loader: Any) -> bool:
    return (
        isinstance(loader, DataLoader)
        and type(loader).__iter__ is DataLoader.__iter__
        and not isinstance(loader.dataset, IterableDataset)
        and hasattr(loader.dataset, "__getitem__")
    )


class _MapSource:
    """A map-style dataset: order, seeds and memory are in relume's hands. Holds no reference to the loader itself."""

    def __init__(self, loader: DataLoader[Any], seed: int, in_memory: bool | None, said: _Said) -> None:
        self.seed = seed
        self.said = said
        self.order = Order(loader, seed)
        self.dataset: Any = loader.dataset
        self.in_memory = in_memory
        self.is_decided = False
        self.checks = 0
        self.obstacle = "in_memory=False" if in_memory is False else loading_obstacle(loader)
        self.table: Table | None = None
        self.workers = loader.num_workers
        self.seeded = SeededDataset(loader.dataset, self.order.is_batched)
        self.fetcher = FetchScope()
        self.is_fetching = False
        self.feed = Feed(self.order.__len__)
        self.loader = rebuild(loader, self.seeded, self.feed, self.order.is_batched)
        self.pin = loader.pin_memory and torch.cuda.is_available()
        if getattr(loader, "in_order", True) is False:
            said.notes.append("in_order=False would let the timing of workers decide the order: batches come in order.")

    def __len__(self) -> int:
        return len(self.order)

    def why_empty(self, epoch: int) -> str:
        count = len(self.dataset) if hasattr(self.dataset, "__len__") else "an unknown number of"
        return (
            f"the loader yields no batch: its dataset has {count} samples. "
            "Give it data, a smaller batch_size, or drop_last=False."
        )

    def state_dict(self) -> None:
        return None

    def close(self) -> None:
        if self.loader.num_workers > 0:
            self.loader._iterator = None

    def epoch(self, epoch: int, start: int, state: dict[str, Any] | None) -> Iterator[Any]:
        self._decide()
        batches = self.order.batches(epoch, start)
        if self.workers > 0 and (self.table is None or self.table.share_present < 0.9):
            return self._from_workers(batches)
        self.close()  # workers have nothing more to do
        return self._in_process(batches)

    def _decide(self) -> None:
        """Keep the dataset in memory? Decided once; then a few samples are compared at the start of each epoch."""
        if not self.is_decided:
            self.is_decided = True
            try:
                if self.obstacle is not None:
                    raise NotEligible(self.obstacle)
                self.table, how = table_for(self.dataset)
            except NotEligible as reason:
                if isinstance(reason, NotDeterministic):
                    self.said.notes.append(
                        "the dataset has random numbers of its own: its batches depend on what was fetched before, and by whom. "
                        "Drawn from torch, numpy or random, they would be exact."
                    )
                self._drop(str(reason))
            else:
                size = "" if self.table.present is not None else f", {self.table.size_bytes / 1e6:,.0f} MB"
                self.said.decision = f"in memory: {self.table.count:,} samples{size}, proven deterministic, {how}"
            return
        self.checks += 1
        if self.table is not None and not still_agrees(
            self.dataset, self.table, derive(self.seed, "check", self.checks)
        ):
            self._drop("a sample fetched again differs from before: the dataset changed or is not deterministic")
            warn(f"The data is no longer kept in memory: {self.said.decision}.")

    def _drop(self, reason: str) -> None:
        self.table = None
        self.said.decision = f"not in memory: {reason}"
        if self.in_memory:
            raise InMemoryError(f"in_memory=True was asked for, but {reason}.")

    def _in_process(self, batches: Iterator[Indices]) -> Iterator[Any]:
        # Hot path: 6 microseconds a batch over the plain DataLoader (bench/stream.py), and from memory 35 for 64 small
        # images, against 2,600 through the dataset.
        fetch = self.fetcher.fetch
        load = self._load if self.order.is_batched else self._load_one
        for batch in batches:
            table = self.table
            if table is not None and table.rows is not None:
                try:
                    places = table.places(batch.indices)
                except NotEligible as reason:
                    self._drop(str(reason))
                else:
                    if table.has(places):
                        yield self._pinned(table.batch(places))
                        continue
            data = fetch(batch.seed, load, batch.indices)
            if table is not None:
                self._keep(batch.indices, data)
            yield self._pinned(data) if self.pin else data

    def _load(self, indices: Any) -> Any:
        return self.loader.collate_fn(self.seeded.samples(indices))

    def _load_one(self, index: Any) -> Any:
        return self.loader.collate_fn(self.dataset[index])

    def _from_workers(self, batches: Iterator[Indices]) -> Iterator[Any]:
        if self.is_fetching:  # read twice at once: workers that are kept alive serve one at a time
            yield from self._in_process(batches)
            return
        sent: deque[Any] = deque()
        self.feed.source = batches if self.table is None else _noting(batches, sent)
        self.is_fetching = True
        try:
            for data in self.loader:
                if sent:
                    self._keep(sent.popleft(), data)
                yield data
        finally:
            self.is_fetching = False

    def _keep(self, indices: Any, data: Any) -> None:
        if self.table is None:
            return
        try:
            self.table.put(self.table.places(indices), data)
        except (NotEligible, TypeError, IndexError, ValueError) as reason:
            self._drop(str(reason))

    def _pinned(self, data: Any) -> Any:
        if not self.pin:
            return data
        return tree.map_tensors(torch.Tensor.pin_memory, data)


def _noting(batches: Iterator[Indices], sent: deque[Any]) -> Iterator[Indices]:
    """``batches``, with their indices kept in ``sent`` for when the workers' data comes back."""
    for batch in batches:
        sent.append(batch.indices)
        yield batch


class _TableSource:
    """The order of another source, with the rows of a table in the place of its dataset's samples."""

    def __init__(self, order: Order, table: Table, pin: bool, on_epoch: Callable[[int], None] | None) -> None:
        self.order = order
        self.table = table
        self.pin = pin
        self.on_epoch = on_epoch

    def __len__(self) -> int:
        return len(self.order)

    def why_empty(self, epoch: int) -> str:
        return f"the loader yields no batch of its {self.table.count} samples. Give it a smaller batch_size, or drop_last=False."

    def state_dict(self) -> None:
        return None

    def close(self) -> None:
        pass

    def epoch(self, epoch: int, start: int, state: dict[str, Any] | None) -> Iterator[Any]:
        if self.on_epoch is not None:
            self.on_epoch(epoch)
        for batch in self.order.batches(epoch, start):
            rows = self.table.batch(self.table.places(batch.indices))
            yield tree.map_tensors(torch.Tensor.pin_memory, rows) if self.pin else rows


class _ReplaySource:
    """Anything that can only be iterated: seeded before each batch, driven by its own state, or replayed."""

    def __init__(self, loader: Any, seed: int, said: _Said) -> None:
        self.loader = loader
        self.seed = seed
        self.said = said
        self.uses_workers = getattr(loader, "num_workers", 0) > 0
        self.holder = self._state_holder()
        self.position = 0
        if self.uses_workers and getattr(loader, "persistent_workers", False):
            said.notes.append(
                "workers that stay alive carry their random numbers over: a resume in a later epoch differs."
            )
        if iter(loader) is loader if not isinstance(loader, DataLoader) else False:
            said.notes.append("an iterator can be read only once: one epoch, and no resume.")
            self.is_once = True
        else:
            self.is_once = False

    def __len__(self) -> int:
        return len(self.loader)

    def close(self) -> None:
        pass

    def _state_holder(self) -> Any:
        """The object whose state_dict tells where the reading stands, if there is one."""
        candidates = [self.loader]
        if isinstance(self.loader, DataLoader) and not self.uses_workers:
            candidates.append(self.loader.dataset)
        for candidate in candidates:
            if callable(getattr(candidate, "state_dict", None)) and callable(
                getattr(candidate, "load_state_dict", None)
            ):
                return candidate
        return None

    def why_empty(self, epoch: int) -> str:
        if self.is_once and epoch > 0:
            return f"epoch {epoch + 1} has no batch: an iterator can be read only once. Pass a list or a DataLoader."
        return f"the loader ({type(self.loader).__name__}) yields no batch. Give it data."

    def state_dict(self) -> dict[str, Any] | None:
        return None if self.holder is None else {"position": self.position, "holder": self.holder.state_dict()}

    def epoch(self, epoch: int, start: int, state: dict[str, Any] | None) -> Iterator[Any]:
        skip = start
        if isinstance(self.loader, (list, tuple)):
            yield from itertools.islice(self.loader, start, None)
            return
        if start and state is not None and self.holder is not None:
            if state.get("position") != start:
                raise DataError(
                    f"the loader's saved state is for batch {state.get('position')}, not for batch {start}."
                )
            self.holder.load_state_dict(state["holder"])
            skip = 0
        elif start:
            self.said.notes.append(f"{start} batches were loaded again and discarded to get to batch {start}.")
        for part in (self.loader, getattr(self.loader, "sampler", None)):
            if callable(getattr(part, "set_epoch", None)):
                part.set_epoch(epoch)  # type: ignore[union-attr]
        yield from self._seeded(epoch, start - skip, skip)

    def _seeded(self, epoch: int, first: int, skip: int) -> Iterator[Any]:
        """Batches ``first``, ``first + 1``, …, each drawn under its own seed; the first ``skip`` are thrown away."""
        key = derive(self.seed, "batch", epoch)
        scope = RandomScope(derive(self.seed, "order", epoch))
        scope.enter()
        try:
            iterator = iter(self.loader)
        finally:
            scope.leave()
        for number in itertools.count(first):
            scope.enter_to_seed()
            try:
                seed_cpu(mix(key, number))
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                scope.leave()
            self.position = number + 1
            if number >= first + skip:
                yield batch
