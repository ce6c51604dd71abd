"""Datasets that are proven deterministic, kept as stacked tensors and indexed a batch at a time."""

from __future__ import annotations

import operator
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import psutil
import torch
from blake3 import blake3
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from relume import tree
from relume.errors import ConfigurationError
from relume.generators import fingerprint, isolated

_PROBES = 32
_PROBE_SECONDS = 0.5
_BUDGET_SHARE = 0.25
_STAMP_BYTES = 64_000_000
_STAMP_ENTRIES = 1_000_000


class NotEligible(Exception):  # noqa: N818 - a decision, not an error
    """Why a dataset is not kept in memory."""


class NotDeterministic(NotEligible):
    """It has random numbers that do not come from a global generator, or its samples depend on each other."""


class OverBudget(NotEligible):
    """It is larger than the memory that it may take."""


class Table:
    """All samples of a dataset as one batch: ``rows`` has the form that ``collate_fn`` gives, with all samples stacked.

    ``present`` says which rows are filled; ``None`` means all of them.
    """

    def __init__(self, rows: Any, count: int, *, is_filled: bool) -> None:
        self.rows = rows
        self.count = count
        self.present: np.ndarray[Any, np.dtype[np.bool_]] | None = None if is_filled else np.zeros(count, dtype=bool)
        self._missing = 0 if is_filled else count
        self._form: Any = None
        self.stamp: Any = None

    @property
    def size_bytes(self) -> int:
        return sum(t.nelement() * t.element_size() for t in tree.tensors(self.rows))

    @property
    def share_present(self) -> float:
        """The share of the rows that are filled, 0 to 1."""
        return 1.0 - self._missing / self.count

    def has(self, indices: list[int]) -> bool:
        return self.present is None or bool(self.present[indices].all())

    def places(self, indices: Any) -> list[int]:
        """The indices of a batch as row numbers (hot path: 2 microseconds for 64).

        Raises:
            NotEligible: they are not the numbers of samples.
        """
        try:
            if type(indices) is not list or type(indices[0]) is not int:
                indices = [operator.index(i) for i in indices]
            low, high = min(indices), max(indices)
        except (TypeError, ValueError, IndexError):
            raise NotEligible("its sampler gives more than the numbers of samples") from None
        if low < -self.count or high >= self.count:
            raise NotEligible(f"its sampler gives index {high if high >= self.count else low} of {self.count} samples")
        return indices if low >= 0 else [i % self.count for i in indices]

    def batch(self, indices: list[int]) -> Any:
        """The rows ``indices`` as a fresh batch (hot path: 30 microseconds for 64 images of 28 x 28)."""
        index = torch.tensor(indices)
        return tree.map_tensors(lambda rows: rows.index_select(0, index), self.rows)

    def put(self, indices: list[int], batch: Any) -> None:
        """Keep a batch that was just fetched.

        Raises:
            NotEligible: the batch has another form than the ones before it.
        """
        if self.present is None:
            return
        index = torch.tensor(indices)
        if self.rows is None:
            self.rows = tree.map_tensors(lambda t: torch.empty((self.count, *t.shape[1:]), dtype=t.dtype), batch)
            self._form = tree.form(batch)
        if tree.form(batch) != self._form:
            raise NotEligible("its samples have different forms")
        for rows, values in zip(tree.tensors(self.rows), tree.tensors(batch), strict=True):
            if values.shape != (len(indices), *rows.shape[1:]) or values.dtype != rows.dtype:
                raise NotEligible("its samples have different shapes or dtypes")
            rows[index] = values
        self._missing -= int((~self.present[np.unique(indices)]).sum())
        self.present[indices] = True
        if self._missing == 0:
            self.present = None


_tables: WeakKeyDictionary[Any, Table] = WeakKeyDictionary()


def loading_obstacle(loader: DataLoader[Any]) -> str | None:
    """Why a loader does more than collate what the dataset gives, or ``None``."""
    if loader.batch_sampler is None:
        return "its loader does no batching"
    if loader.collate_fn is not default_collate:
        return "its loader has a collate_fn of its own"
    if loader.worker_init_fn is not None and loader.num_workers > 0:
        return "its loader has a worker_init_fn"
    return None


def table_for(dataset: Any) -> tuple[Table, str]:
    """A table for the dataset, shared by all loaders over it, and how it is filled, in words.

    Raises:
        NotEligible: the dataset is not proven deterministic, or is too large; the message says why.
    """
    if not hasattr(dataset, "__len__") or len(dataset) == 0:
        raise NotEligible("the dataset has no length")
    with _untouched(dataset):
        return _table_for(dataset)


def _table_for(dataset: Any) -> tuple[Table, str]:
    if type(dataset) is not TensorDataset:
        _require_budget(_row_bytes(dataset) * len(dataset))
    _require_determinism(dataset)
    try:
        known = _tables.get(dataset)
    except TypeError:  # not hashable or not weakly referable: not shared
        known = None
    if known is not None and known.stamp == stamp(dataset) and still_agrees(dataset, known, 0, _PROBES):
        return known, "kept from before"
    rows = _convert(dataset)
    if rows is not None and _agrees(dataset, Table(rows, len(dataset), is_filled=True)):
        table, how = Table(rows, len(dataset), is_filled=True), "converted as a whole"
    else:
        table, how = Table(None, len(dataset), is_filled=False), "filled as the first epoch goes by"
    table.stamp = stamp(dataset)
    try:
        _tables[dataset] = table
    except TypeError:
        pass
    return table, how


def stamp(dataset: Any) -> Any:
    """Changes when a tensor, an array or a list of labels of the dataset is changed or exchanged, or its length changes.

    Arrays and lists are read as a whole, up to 64 MB and a million entries: some milliseconds an epoch.
    """
    marks: list[Any] = [len(dataset)]
    for part in _datasets(dataset):
        for name, value in vars(part).items():
            marks.append((name, _content(value, len(part))))
            for inner in value if isinstance(value, (list, tuple)) and len(value) <= 100 else (value,):
                if isinstance(inner, torch.Tensor):
                    marks.append((name, id(inner), inner._version))
    return marks


def _content(value: Any, count: int) -> Any:
    """What tells a change of the samples: arrays and lists with an entry for each of them."""
    if (
        not isinstance(value, (np.ndarray, list))
        or (isinstance(value, np.ndarray) and not value.ndim)
        or len(value) != count
    ):
        return None
    if isinstance(value, np.ndarray) and value.nbytes <= _STAMP_BYTES and not value.dtype.hasobject:
        return blake3(np.ascontiguousarray(value).view(np.uint8).data).digest()
    if isinstance(value, list) and 0 < len(value) <= _STAMP_ENTRIES and isinstance(value[0], (int, float, str)):
        try:
            return hash(tuple(value))
        except TypeError:
            return None
    return None


def still_agrees(dataset: Any, table: Table, seed: int, count: int = 4) -> bool:
    """Whether a few samples, fetched anew, still equal the table bit for bit: done at the start of each epoch."""
    if stamp(dataset) != table.stamp:
        return False
    known = np.arange(table.count) if table.present is None else np.flatnonzero(table.present)
    if not len(known):
        return True
    chosen = np.random.Generator(np.random.PCG64(seed)).choice(known, size=min(count, len(known)), replace=False)
    with _untouched(dataset):
        return _agrees(dataset, table, [int(i) for i in chosen])


def prove_deterministic(dataset: Any) -> None:
    """Fetch some samples of a dataset twice, and leave no trace in it.

    Raises:
        NotEligible: they differ, or draw random numbers; says which.
    """
    with _untouched(dataset):
        _require_determinism(dataset)


def _require_determinism(dataset: Any) -> None:
    """Fetch some samples twice under different seeds: they must be bit-equal and must not draw from a global generator."""
    deadline = time.perf_counter() + _PROBE_SECONDS
    alone: list[tuple[int, Any]] = []
    for number, index in enumerate(_spread(len(dataset), _PROBES)):
        first, second = (_probe(dataset, index, seed) for seed in (1, 2))
        if not tree.only_tensors(first):
            raise NotEligible("its samples hold more than tensors and numbers")
        if not same_bits(first, second):
            raise NotDeterministic(f"sample {index} differs from one fetch to the next")
        alone.append((index, first))
        if number >= 3 and time.perf_counter() > deadline:
            break

    if callable(getattr(dataset, "__getitems__", None)):
        together = Table(_probe(dataset, [index for index, _ in alone], 4), len(alone), is_filled=True)
        if not all(same_bits(sample, together.batch([place])) for place, (_, sample) in enumerate(alone)):
            raise NotDeterministic("its samples depend on the others in their batch")


def _probe(dataset: Any, indices: int | list[int], seed: int) -> Any:
    """Samples as a batch, fetched the way a loader fetches them, under generators seeded with ``seed``."""
    indices = [indices] if isinstance(indices, int) else indices
    with isolated(seed):
        before = fingerprint()
        try:
            whole = getattr(dataset, "__getitems__", None)
            sample = default_collate(whole(indices) if whole is not None else [dataset[index] for index in indices])
        except Exception as error:
            raise NotEligible(f"sample {indices[0]} could not be probed ({type(error).__name__}: {error})") from None
        after = fingerprint()
    for name, old, new in zip(("torch", "random", "numpy"), before, after, strict=True):
        if old != new:
            raise NotEligible(f"fetching a sample draws random numbers from {name}")
    return sample


@contextmanager
def _untouched(dataset: Any) -> Iterator[None]:
    """Put back the attributes that fetching changes in the dataset, and in the datasets inside it.

    A dataset may open its file when it is first asked for a sample, so that each worker has a handle of its own. A probe
    in this process must not leave a handle that workers would then share.
    """
    before = [(part, dict(vars(part))) for part in _datasets(dataset)]
    try:
        yield
    finally:
        for part, attributes in before:
            now = vars(part)
            if now.keys() != attributes.keys() or any(now[name] is not value for name, value in attributes.items()):
                now.clear()
                now.update(attributes)


def _datasets(dataset: Any) -> Iterator[Any]:
    if not hasattr(dataset, "__dict__"):
        return
    yield dataset
    for value in list(vars(dataset).values()):
        for inner in value if isinstance(value, (list, tuple)) and len(value) <= 100 else (value,):
            if isinstance(inner, Dataset) and inner is not dataset:
                yield from _datasets(inner)


def same_bits(first: Any, second: Any) -> bool:
    """Whether two batches have the same form and the same bits."""
    if tree.form(first) != tree.form(second):
        return False
    pairs = zip(tree.tensors(first), tree.tensors(second), strict=True)
    return all(a.shape == b.shape and a.dtype == b.dtype and _bytes(a) == _bytes(b) for a, b in pairs)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _agrees(dataset: Any, table: Table, indices: list[int] | None = None) -> bool:
    for index in indices if indices is not None else _spread(len(dataset), _PROBES):
        try:
            sample = _probe(dataset, index, 3)
        except NotEligible:
            return False
        if not same_bits(sample, table.batch([index])):
            return False
    return True


def _spread(count: int, probes: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, count - 1, num=min(count, probes))})


# --------------------------------------------------------------------------------------------- conversion as a whole


def _convert(dataset: Any) -> Any:
    """All samples at once, in the form that ``default_collate`` gives, for datasets known to be a table; else ``None``.

    A dataset can offer itself: ``relume_rows()`` returns all samples collated into one batch.
    """
    if type(dataset) is TensorDataset:
        return list(dataset.tensors)
    if type(dataset) is Subset:
        whole = _convert(dataset.dataset)
        if whole is None:
            return None
        _require_budget(sum(t[:1].nelement() * t.element_size() for t in tree.tensors(whole)) * len(dataset))
        index = torch.as_tensor(dataset.indices)
        index = torch.where(index < 0, index + len(dataset.dataset), index)  # type: ignore[arg-type]
        return tree.map_tensors(lambda rows: rows.index_select(0, index), whole)
    if callable(getattr(dataset, "relume_rows", None)):
        _require_budget(_row_bytes(dataset) * len(dataset))
        return dataset.relume_rows()
    return _torchvision(dataset)


def _torchvision(dataset: Any) -> Any:
    """MNIST's family and CIFAR with ToTensor, alone or followed by Normalize."""
    vision = sys.modules.get("torchvision")
    if vision is None or getattr(dataset, "target_transform", None) is not None:
        return None
    kinds = vision.datasets
    is_grey = type(dataset) in (kinds.MNIST, kinds.FashionMNIST, kinds.KMNIST)
    if not is_grey and type(dataset) not in (kinds.CIFAR10, kinds.CIFAR100):
        return None
    steps = dataset.transform
    steps = steps.transforms if isinstance(steps, vision.transforms.Compose) else [steps]
    if not steps or type(steps[0]) is not vision.transforms.ToTensor:
        return None
    if any(type(step) is not vision.transforms.Normalize for step in steps[1:]):
        return None
    _require_budget(_row_bytes(dataset) * len(dataset))
    pixels = torch.as_tensor(dataset.data)
    images_nchw = pixels[:, None] if is_grey else pixels.permute(0, 3, 1, 2)
    images_nchw = images_nchw.contiguous().to(torch.get_default_dtype()).div_(255)
    for step in steps[1:]:
        mean, std = (torch.as_tensor(v, dtype=images_nchw.dtype).view(-1, 1, 1) for v in (step.mean, step.std))
        images_nchw.sub_(mean).div_(std)
    return [images_nchw, torch.as_tensor(dataset.targets, dtype=torch.int64)]


# ------------------------------------------------------------------------------------------------------------ budget


def budget_bytes() -> int:
    """How much memory one dataset may take: a quarter of what is free, container limits included."""
    free = psutil.virtual_memory().available
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            allowed = int(Path("/sys/fs/cgroup", limit).read_text()) - int(Path("/sys/fs/cgroup", used).read_text())
        except (OSError, ValueError):
            continue
        free = min(free, max(0, allowed))
    share = os.environ.get("RELUME_MEMORY_SHARE", str(_BUDGET_SHARE))
    try:
        return int(free * float(share))
    except ValueError:
        raise ConfigurationError(f"RELUME_MEMORY_SHARE must be a number such as 0.25, not {share!r}.") from None


def _row_bytes(dataset: Any) -> int:
    return sum(t.nelement() * t.element_size() for t in tree.tensors(_probe(dataset, 0, 1)))


def _require_budget(size_bytes: int) -> None:
    budget = budget_bytes()
    if size_bytes > budget:
        raise OverBudget(f"it needs {size_bytes / 1e6:,.0f} MB and the budget is {budget / 1e6:,.0f} MB")
