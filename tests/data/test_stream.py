"""The same batches for any loader setting, from any place."""

from __future__ import annotations

import gc
import random
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from relume import Stream
from relume.errors import DataError, EmptyLoaderError
from relume.generators import fingerprint

COUNT, SIZE = 103, 8


class Augmented(Dataset):
    """Draws from torch, numpy and random for each sample."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = torch.rand(3) + float(np.random.rand()) + random.random() + float(np.random.randn())
        return noise, index


class Numbers(Dataset):
    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> int:
        return index


class AugmentedWhole(Augmented):
    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, int]]:
        shift = torch.rand(1)
        return [(self[i][0] + shift, i) for i in indices]


class NumpySampler(Sampler):
    def __iter__(self) -> Iterator[int]:
        return iter(np.random.permutation(COUNT).tolist())

    def __len__(self) -> int:
        return COUNT


class RandomModuleSampler(Sampler):
    """Lazy: each index is drawn when it is asked for."""

    def __iter__(self) -> Iterator[int]:
        for _ in range(COUNT):
            yield random.randrange(COUNT)

    def __len__(self) -> int:
        return COUNT


class CountingSampler(Sampler):
    """Counts its own epochs, as samplers in the wild do."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        self.epoch += 1
        return iter(order)

    def __len__(self) -> int:
        return COUNT


class OwnGeneratorSampler(Sampler):
    def __init__(self) -> None:
        self.rng = np.random.default_rng(5)
        self.other = random.Random(6)

    def __iter__(self) -> Iterator[int]:
        shift = self.other.randrange(COUNT)
        return iter([(int(i) + shift) % COUNT for i in self.rng.permutation(COUNT)])

    def __len__(self) -> int:
        return COUNT


def collate_with_noise(items: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    mixed = torch.stack([x for x, _ in items])
    return mixed * torch.rand(1) + float(np.random.rand()), torch.tensor([i for _, i in items])


SETTINGS: dict[str, Any] = {
    "sequential": lambda: {"batch_size": SIZE},
    "shuffled": lambda: {"batch_size": SIZE, "shuffle": True},
    "drop_last": lambda: {"batch_size": SIZE, "shuffle": True, "drop_last": True},
    "own generator": lambda: {"batch_size": SIZE, "shuffle": True, "generator": torch.Generator().manual_seed(9)},
    "weighted": lambda: {"batch_size": SIZE, "sampler": WeightedRandomSampler(torch.linspace(0.1, 1, COUNT), 200)},
    "subset": lambda: {"batch_size": SIZE, "sampler": SubsetRandomSampler(range(0, COUNT, 2))},
    "numpy sampler": lambda: {"batch_size": SIZE, "sampler": NumpySampler()},
    "random sampler": lambda: {"batch_size": SIZE, "sampler": RandomModuleSampler()},
    "counting sampler": lambda: {"batch_size": SIZE, "sampler": CountingSampler()},
    "own generators in the sampler": lambda: {"batch_size": SIZE, "sampler": OwnGeneratorSampler()},
    "batch sampler": lambda: {"batch_sampler": BatchSampler(RandomSampler(range(COUNT)), 5, drop_last=False)},
    "random collate": lambda: {"batch_size": SIZE, "shuffle": True, "collate_fn": collate_with_noise},
    "no batching": lambda: {"batch_size": None, "sampler": RandomSampler(range(COUNT))},
    "pinned": lambda: {"batch_size": SIZE, "shuffle": True, "pin_memory": torch.cuda.is_available()},
}


def batches(loader: Any, epoch: int = 0, start: int = 0, seed: int = 7, stream: Stream | None = None) -> list[Any]:
    return list((Stream(loader, seed) if stream is None else stream).epoch(epoch, start))


def is_equal(first: list[Any], second: list[Any]) -> bool:
    def flat(batch: Any) -> list[Any]:
        return [torch.as_tensor(part) for part in batch]

    return len(first) == len(second) and all(
        torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(flat(x), flat(y), strict=True)
    )


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("dataset", [Augmented, AugmentedWhole])
def test_batches_do_not_depend_on_workers_epochs_before_or_the_place_one_starts(setting: str, dataset: type) -> None:
    make = SETTINGS[setting]
    through = Stream(DataLoader(dataset(), **make()), 7)
    epochs = [batches(None, epoch, stream=through) for epoch in range(3)]
    assert not is_equal(epochs[0], epochs[1])
    torch.rand(5), np.random.rand(), random.random()  # a different history of the process
    alone = Stream(DataLoader(dataset(), **make()), 7)
    assert is_equal(batches(None, 2, stream=alone), epochs[2])
    for start in (1, 5, len(epochs[1]) - 1):
        fresh = Stream(DataLoader(dataset(), **make()), 7)
        assert is_equal(batches(None, 1, start, stream=fresh), epochs[1][start:])


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("setting", ["shuffled", "numpy sampler", "random collate", "no batching", "counting sampler"])
def test_workers_give_the_batches_of_the_main_process(setting: str, persistent: bool) -> None:
    make = SETTINGS[setting]
    here = Stream(DataLoader(AugmentedWhole(), **make()), 7)
    there = Stream(DataLoader(AugmentedWhole(), num_workers=2, persistent_workers=persistent, **make()), 7)
    for epoch in range(2):
        assert is_equal(batches(None, epoch, stream=here), batches(None, epoch, stream=there))
    assert is_equal(batches(None, 1, 4, stream=here), batches(None, 1, 4, stream=there))


def test_an_epoch_that_was_broken_off_leaves_the_next_one_as_it_is() -> None:
    for workers in (0, 2):
        loader = DataLoader(
            Augmented(), SIZE, sampler=CountingSampler(), num_workers=workers, persistent_workers=workers > 0
        )
        stream = Stream(loader, 7)
        for number, _ in enumerate(stream.epoch(0)):
            if number == 2:
                break
        assert is_equal(
            batches(None, 1, stream=stream), batches(DataLoader(Augmented(), SIZE, sampler=CountingSampler()), 1)
        )


def test_another_seed_gives_another_order_and_other_noise() -> None:
    first, second = (batches(DataLoader(Augmented(), SIZE, shuffle=True), seed=seed) for seed in (1, 2))
    assert not torch.equal(first[0][1], second[0][1])
    assert not is_equal(first, second)


def test_the_process_generators_do_not_notice_the_stream() -> None:
    for workers in (0, 2):
        before = fingerprint()
        batches(DataLoader(Augmented(), SIZE, shuffle=True, num_workers=workers))
        assert fingerprint() == before


def test_a_generator_of_the_user_is_as_it_was_before_the_epoch() -> None:
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    batches(DataLoader(Augmented(), SIZE, shuffle=True, generator=generator))
    assert torch.equal(generator.get_state(), state)


def test_seeking_loads_no_data() -> None:
    class Counting(Augmented):
        fetched = 0

        def __getitem__(self, index: int) -> Any:
            Counting.fetched += 1
            return super().__getitem__(index)

    stream = Stream(DataLoader(Counting(), SIZE, shuffle=True), 7, in_memory=False)
    assert len(batches(None, 5, 12, stream=stream)) == 1
    assert Counting.fetched == COUNT - 12 * SIZE


def test_every_sample_comes_once_an_epoch() -> None:
    seen = torch.cat([index for _, index in batches(DataLoader(Augmented(), SIZE, shuffle=True), 4)])
    assert sorted(seen.tolist()) == list(range(COUNT))


def test_an_infinite_sampler_is_not_drawn_to_its_end() -> None:
    class Endless(Sampler):
        def __iter__(self) -> Iterator[int]:
            while True:
                yield random.randrange(COUNT)

    iterator = Stream(DataLoader(Augmented(), SIZE, sampler=Endless()), 7).epoch(0)
    assert len([next(iterator) for _ in range(3)]) == 3
    iterator.close()  # type: ignore[attr-defined]


class SeesItsWorker(Dataset):
    offset = 0

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> int:
        info = get_worker_info()
        assert info is None or info.dataset is self
        return index + self.offset


def add_hundred(worker_id: int) -> None:
    get_worker_info().dataset.offset = 100


def test_the_users_worker_init_fn_sees_the_users_dataset() -> None:
    loader = DataLoader(SeesItsWorker(), 4, num_workers=2, worker_init_fn=add_hundred)
    assert torch.cat(batches(loader)).tolist() == list(range(100, 116))


def test_set_epoch_of_a_sampler_is_called() -> None:
    class Knows(SequentialSampler):
        told: list[int] = []  # noqa: RUF012

        def set_epoch(self, epoch: int) -> None:
            self.told.append(epoch)

    data = Augmented()
    stream = Stream(DataLoader(data, SIZE, sampler=Knows(data)), 7)
    batches(None, 0, stream=stream)
    batches(None, 3, stream=stream)
    assert Knows.told[0] == 0 and Knows.told[-1] == 3


# ------------------------------------------------------------------------------------------------ what can only be iterated


class Lines(IterableDataset):
    def __iter__(self) -> Iterator[torch.Tensor]:
        for number in range(40):
            yield number + torch.rand(1) * 0.5 + random.random() * 0.1


class LinesWithState(IterableDataset):
    def __init__(self) -> None:
        self.at = 0
        self.read = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while self.at < 40:
            self.at += 1
            self.read += 1
            yield self.at + torch.rand(1)
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


def test_an_iterable_dataset_is_replayed_and_says_so() -> None:
    whole = batches(DataLoader(Lines(), 4), 1)
    stream = Stream(DataLoader(Lines(), 4), 7)
    assert is_equal([[b] for b in batches(None, 1, 6, stream=stream)], [[b] for b in whole[6:]])
    assert stream.notes == ["6 batches were loaded again and discarded to get to batch 6."]


def test_an_iterable_dataset_with_workers_is_replayed_too() -> None:
    whole = batches(DataLoader(Lines(), 4, num_workers=2), 2)
    assert is_equal([[b] for b in batches(DataLoader(Lines(), 4, num_workers=2), 2, 6)], [[b] for b in whole[6:]])


def test_an_iterable_dataset_with_state_reads_nothing_twice() -> None:
    first = Stream(DataLoader(LinesWithState(), 4), 7)
    iterator = first.epoch(1)
    head = [next(iterator) for _ in range(6)]
    state = first.state_dict()
    tail = list(iterator)
    dataset = LinesWithState()
    second = Stream(DataLoader(dataset, 4), 7)
    again = list(second.epoch(1, 6, state))
    assert is_equal([[b] for b in again], [[b] for b in tail])
    assert len(head) == 6 and dataset.read == 40 - 24 and second.notes == []
    with pytest.raises(DataError, match="saved state is for batch 6, not for batch 5"):
        list(Stream(DataLoader(LinesWithState(), 4), 7).epoch(1, 5, state))


def test_a_stateful_loader_is_driven_through_its_state() -> None:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")
    warnings.simplefilter("ignore")  # torchdata 0.11 calls what torch 2.14 calls deprecated
    first = Stream(torchdata.StatefulDataLoader(Augmented(), SIZE, shuffle=True), 7)
    iterator = first.epoch(0)
    for _ in range(5):
        next(iterator)
    state = first.state_dict()
    tail = list(iterator)
    second = Stream(torchdata.StatefulDataLoader(Augmented(), SIZE, shuffle=True), 7)
    assert is_equal(list(second.epoch(0, 5, state)), tail)


@pytest.mark.parametrize("make", [Numbers, Augmented])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_stream_is_freed_without_the_garbage_collector(make: type, persistent: bool) -> None:
    gc.disable()  # a worker that ends in the garbage collector holds everything up for 5 seconds
    try:
        stream = Stream(DataLoader(make(), SIZE, shuffle=True, num_workers=2, persistent_workers=persistent), 7)
        for number, _ in enumerate(stream.epoch(0)):
            if number == 2:
                break
        list(stream.epoch(1))
        alive = weakref.ref(stream)
        del stream
        assert alive() is None
    finally:
        gc.enable()


def test_a_list_of_batches_is_a_loader() -> None:
    data = [(torch.tensor([i]), torch.tensor([i])) for i in range(5)]
    assert is_equal(batches(data, 0, 2), data[2:])
    assert Stream(data).length == 5


def test_a_generator_can_be_read_once_and_the_second_epoch_says_why() -> None:
    stream = Stream((torch.tensor([i]) for i in range(3)), 7)
    assert len(batches(None, 0, stream=stream)) == 3
    with pytest.raises(EmptyLoaderError, match="an iterator can be read only once"):
        batches(None, 1, stream=stream)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_empty_loader_is_an_error_that_counts_the_samples(workers: int) -> None:
    short = DataLoader(TensorDataset(torch.ones(3)), batch_size=8, drop_last=True, num_workers=workers)
    with pytest.raises(EmptyLoaderError, match="its dataset has 3 samples"):
        batches(short)
    with pytest.raises(EmptyLoaderError, match="yields no batch"):
        batches([])


class Wraps(Sampler):
    """Holds its generator inside another sampler."""

    def __init__(self) -> None:
        self.base = RandomSampler(range(COUNT), generator=torch.Generator().manual_seed(3))

    def __iter__(self) -> Iterator[int]:
        return iter(self.base)

    def __len__(self) -> int:
        return COUNT


def test_a_generator_inside_a_sampler_inside_a_sampler_is_found() -> None:
    stream = Stream(DataLoader(Numbers(), 5, sampler=Wraps()), 0, in_memory=False)
    first = [b.tolist() for b in stream.epoch(0)]
    assert [b.tolist() for b in stream.epoch(0)] == first
    assert [b.tolist() for b in stream.epoch(0, 3)] == first[3:]
    assert [b.tolist() for b in stream.epoch(1)] != first
