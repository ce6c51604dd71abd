"""Fetching one batch under its own seed, in the main process or in a worker."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from relume.data.order import Indices
from relume.generators import own_numpy_generator, seed_cpu

_GRACE_SECONDS = 30


class SeededDataset(Dataset[Any]):
    """A dataset that seeds torch, numpy and random for each batch before it asks the user's dataset for it.

    torch's own workers call ``__getitems__`` with what the batch sampler gave, so the seed travels with the indices and
    any worker, or none, draws the same random numbers. What is drawn in ``collate_fn`` follows in the same series.
    """

    def __init__(self, dataset: Any, is_batched: bool) -> None:
        self.dataset = dataset
        self._whole = getattr(dataset, "__getitems__", None) if is_batched else None
        if not is_batched:
            self.__dict__["__getitems__"] = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, batch: Indices) -> list[Any]:
        seed_cpu(batch.seed)
        return self.samples(batch.indices)

    def samples(self, indices: Any) -> list[Any]:
        """The user's samples, under whatever state the generators have."""
        if self._whole is not None:
            return self._whole(indices)  # type: ignore[no-any-return]
        dataset = self.dataset
        return [dataset[index] for index in indices]

    def __getitem__(self, batch: Indices) -> Any:
        seed_cpu(batch.seed)
        return self.dataset[batch.indices]


class WorkerInit:
    """Runs in a new worker: shows the user's code its own dataset, then calls the user's ``worker_init_fn``."""

    def __init__(self, user_function: Callable[[int], None] | None) -> None:
        self.user_function = user_function

    def __call__(self, worker_id: int) -> None:
        own_numpy_generator()
        _outlive_signals()
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, SeededDataset):
            object.__setattr__(info, "dataset", info.dataset.dataset)  # torch forbids plain assignment
        if self.user_function is not None:
            self.user_function(worker_id)


def _outlive_signals() -> None:
    """Ctrl-C, SIGTERM and SIGUSR1 often reach the whole process group: a worker goes on until its training has saved.

    It ends when the training tells it to, or is gone; after SIGTERM in half a minute at the latest.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE_SECONDS))


class Feed:
    """The batch sampler of a rebuilt loader: hands out whatever index lists it was last given."""

    def __init__(self, length: Callable[[], int]) -> None:
        self._length = length
        self.source: Iterator[Indices] = iter(())

    def __iter__(self) -> Iterator[Indices]:
        return self.source

    def __len__(self) -> int:
        return self._length()


def rebuild(loader: DataLoader[Any], dataset: SeededDataset, feed: Feed, is_batched: bool) -> DataLoader[Any]:
    """A loader like ``loader`` that fetches what ``feed`` says through ``dataset``. The user's loader is left alone."""
    arguments: dict[str, Any] = {
        "num_workers": loader.num_workers,
        "collate_fn": loader.collate_fn,
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": WorkerInit(loader.worker_init_fn),
        "generator": torch.Generator().manual_seed(0),
    }
    if loader.num_workers > 0:
        arguments |= {
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
            "multiprocessing_context": loader.multiprocessing_context,
        }
    with warnings.catch_warnings():  # the user's own loader has warned already
        warnings.simplefilter("ignore")
        if is_batched:
            return DataLoader(dataset, batch_sampler=feed, **arguments)  # type: ignore[arg-type]
        return DataLoader(dataset, batch_size=None, sampler=feed, **arguments)
