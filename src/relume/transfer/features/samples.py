"""Samples in their own order, chunk by chunk: from memory where a dataset is kept there, else as its loader fetches them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from relume import tree
from relume.data.memory import (
    NotEligible,
    OverBudget,
    Table,
    loading_obstacle,
    prove_deterministic,
    same_bits,
    stamp,
    table_for,
)
from relume.generators import seed_cpu
from relume.seeds import derive, mix
from relume.transfer.features.random import apart

_CHUNK = 64


class Samples:
    """The dataset of a loader, proven deterministic, or augmented under seeds of its own.

    Args:
        loader: with torch's own collate function, over a dataset with a length.
        views: how many times each sample is augmented, or ``None`` for a deterministic dataset.
        seed: with which the views are seeded: view ``v`` of sample ``i`` is a function of (seed, v, i).

    Raises:
        NotEligible: why its samples are no function of their number.
    """

    def __init__(self, loader: Any, *, views: int | None = None, seed: int = 0) -> None:
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            raise NotEligible(f"its loader ({type(loader).__name__}) is not a DataLoader over samples with numbers")
        obstacle = loading_obstacle(loader)
        if obstacle is not None:
            raise NotEligible(obstacle)
        self.loader = loader
        self.dataset: Any = loader.dataset
        if not hasattr(self.dataset, "__len__") or len(self.dataset) == 0:
            raise NotEligible("the dataset has no length")
        self.count = len(self.dataset)
        self.views = views
        self.seed = seed
        self.chunk = loader.batch_size or _CHUNK
        self.stamp = stamp(self.dataset)
        self._table: Table | None = None
        self._is_proven = False

    def prove(self) -> None:
        """Fetch some samples twice: they must be the same each time.

        Raises:
            NotEligible: they are not, or draw random numbers though no views were asked for.
        """
        if self.views is not None:
            for index in (0, self.count - 1):
                if not same_bits(self.some([index]), self.some([index])):
                    raise NotEligible(f"sample {index} differs from one fetch to the next under the same seed")
            return
        try:
            table, _ = table_for(self.dataset)
            self._table = table if table.present is None else None
        except OverBudget:
            prove_deterministic(self.dataset)

    def some(self, indices: list[int], view: int = 0) -> Any:
        """A few samples as a batch, fetched in this process."""
        with apart(0):
            if self.views is not None:
                seen = Viewed(self.dataset, self.seed, view)
                return default_collate([seen[index] for index in indices])
            whole = getattr(self.dataset, "__getitems__", None)
            return default_collate(whole(indices) if whole is not None else [self.dataset[index] for index in indices])

    def chunks(self, view: int = 0) -> Iterator[Any]:
        """All samples in order, as batches of ``chunk``; the last one may be short."""
        if self._table is not None:
            for first in range(0, self.count, self.chunk):
                yield self._table.batch(list(range(first, min(first + self.chunk, self.count))))
            return
        batches = iter(self._rebuilt(view))
        while True:
            with apart(derive(self.seed, "chunks")):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _rebuilt(self, view: int) -> DataLoader[Any]:
        loader = self.loader
        more: dict[str, Any] = {}
        if loader.num_workers > 0:
            more = {
                "prefetch_factor": loader.prefetch_factor,
                "multiprocessing_context": loader.multiprocessing_context,
            }
        return DataLoader(
            self.dataset if self.views is None else Viewed(self.dataset, self.seed, view),
            batch_size=self.chunk,
            num_workers=loader.num_workers,
            timeout=loader.timeout,
            generator=torch.Generator().manual_seed(0),
            **more,
        )

    def has_changed(self) -> bool:
        """Whether a tensor, an array or a list of the dataset is another one, or its length is."""
        return bool(self.stamp != stamp(self.dataset))


class Viewed(Dataset[Any]):
    """One view of a dataset with random augmentation: sample ``i`` is drawn under the seed of (seed, view, i)."""

    def __init__(self, dataset: Any, seed: int, view: int) -> None:
        self.dataset = dataset
        self._key = derive(seed, "view", view)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        seed_cpu(mix(self._key, index))
        return self.dataset[index]


def rows_of(batch: Any, order: list[int]) -> Any:
    """Some samples of a batch, in this order."""
    return tree.map_tensors(lambda t: t[order], batch)
