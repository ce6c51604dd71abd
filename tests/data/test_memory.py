"""Kept in memory only what is proven deterministic, and then bit for bit the same."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from relume import RelumeWarning, Stream
from relume.data import memory
from relume.errors import InMemoryError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


class Numbers(Dataset):
    """Nested samples with all kinds of leaves; counts what is fetched."""

    def __init__(self, count: int = 40) -> None:
        self.values = torch.randn(count, 3)
        self.fetched: list[int] = []

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.fetched.append(index)
        return {
            "x": self.values[index],
            "pair": (index, float(index) / 3),
            "array": np.full((2, 2), index, dtype=np.int16),
            "is_even": index % 2 == 0,
        }


def epochs(loader: DataLoader, in_memory: bool | None, count: int = 3, seed: int = 3) -> tuple[list[Any], Stream]:
    stream = Stream(loader, seed, in_memory=in_memory)
    return [list(stream.epoch(epoch)) for epoch in range(count)], stream


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_same(first[key], second[key])
    else:
        assert type(first) is type(second) and len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_from_memory_equal_the_loaders_bit_for_bit(workers: int, drop_last: bool) -> None:
    data = Numbers()
    kept, stream = epochs(DataLoader(data, 7, shuffle=True, num_workers=workers, drop_last=drop_last), None)
    plain, other = epochs(DataLoader(data, 7, shuffle=True, drop_last=drop_last), False)
    assert_same(kept, plain)
    assert stream.decision == "in memory: 40 samples, proven deterministic, filled as the first epoch goes by"
    assert other.decision == "not in memory: in_memory=False"


def test_each_sample_is_fetched_once_however_many_epochs() -> None:
    data = Numbers()
    stream = Stream(DataLoader(data, 7, shuffle=True), 3)
    list(stream.epoch(0))
    after_first = len(data.fetched)
    for epoch in range(1, 6):
        list(stream.epoch(epoch))
    assert len(data.fetched) - after_first == 5 * 4  # the spot check at the start of each epoch


def test_a_resume_in_the_middle_of_an_epoch_fills_what_is_missing_later() -> None:
    data = Numbers()
    plain, _ = epochs(DataLoader(data, 7, shuffle=True), False)
    stream = Stream(DataLoader(data, 7, shuffle=True), 3)
    assert_same(list(stream.epoch(0, 4)), plain[0][4:])
    assert_same([list(stream.epoch(e)) for e in (1, 2)], plain[1:])


def test_a_tensor_dataset_and_its_subsets_are_converted_as_a_whole() -> None:
    whole = TensorDataset(torch.randn(30, 2), torch.arange(30))
    for data in (whole, Subset(whole, [5, 3, 29, 3])):
        kept, stream = epochs(DataLoader(data, 4, shuffle=True), None)
        assert stream.decision is not None and "converted as a whole" in stream.decision
        assert_same(kept, epochs(DataLoader(data, 4, shuffle=True), False)[0])


def test_a_batch_can_be_changed_in_place_without_harm() -> None:
    stream = Stream(DataLoader(TensorDataset(torch.ones(8, 2)), 4), 3)
    for (x,) in stream.epoch(0):
        x.zero_()
    assert all(bool((x == 1).all()) for (x,) in stream.epoch(1))


class OpensLate(Dataset):
    """Opens its file in the process that asks first, as datasets over HDF5 or LMDB do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: Any = None

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> int:
        if self.file is None:
            self.file = self.path.open("rb")
        self.file.seek(index)
        return int(self.file.read(1)[0])


@pytest.mark.filterwarnings("ignore:unclosed file")  # what the probe opened
@pytest.mark.parametrize("workers", [0, 2])
def test_a_probe_leaves_no_file_open_for_workers_to_share(tmp_path: Path, workers: int) -> None:
    (tmp_path / "bytes").write_bytes(bytes(range(64)))
    data = OpensLate(tmp_path / "bytes")
    stream = Stream(DataLoader(Subset(data, range(64)), 4, shuffle=True, num_workers=workers), 3)
    iterator = stream.epoch(0)
    first = next(iterator)
    assert (data.file is None) == (workers > 0)
    assert sorted(torch.cat([first, *iterator]).tolist()) == list(range(64))
    if data.file is not None:
        data.file.close()


class Drawing(Numbers):
    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.draw = draw

    def __getitem__(self, index: int) -> Any:
        self.draw()
        return self.values[index]


@pytest.mark.parametrize(
    ("draw", "name"),
    [(lambda: torch.rand(1), "torch"), (lambda: np.random.rand(), "numpy"), (lambda: random.random(), "random")],
)
def test_a_dataset_that_draws_random_numbers_is_not_kept(draw: Any, name: str) -> None:
    _, stream = epochs(DataLoader(Drawing(draw), 4), None, count=1)
    assert stream.decision == f"not in memory: fetching a sample draws random numbers from {name}"


class OwnRandom(Numbers):
    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(0)

    def __getitem__(self, index: int) -> Any:
        return self.values[index] * self.rng.choice((1.0, -1.0))


class Strings(Numbers):
    def __getitem__(self, index: int) -> Any:
        return self.values[index], str(index)


class Ragged(Numbers):
    def __getitem__(self, index: int) -> Any:
        return torch.ones(1 + index // 4)


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        (lambda: DataLoader(OwnRandom(), 4), "differs from one fetch to the next"),
        (lambda: DataLoader(Strings(), 4), "hold more than tensors and numbers"),
        (lambda: DataLoader(Numbers(), 4, collate_fn=lambda items: items), "a collate_fn of its own"),
        (lambda: DataLoader(Numbers(), batch_size=None), "does no batching"),
        (lambda: DataLoader(Ragged(), 4), "different shapes or dtypes"),
        (lambda: [torch.ones(1)], "can only be iterated"),
    ],
)
def test_insisting_on_memory_says_why_it_cannot_be(loader: Any, reason: str) -> None:
    with pytest.raises(InMemoryError, match=reason):
        epochs(loader(), True)
    epochs(loader(), None, count=1)


def test_a_dataset_over_the_budget_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_MEMORY_SHARE", "1e-12")
    _, stream = epochs(DataLoader(Numbers(), 4), None, count=1)
    assert stream.decision is not None and "and the budget is 0 MB" in stream.decision


def test_a_dataset_that_changes_between_epochs_is_noticed() -> None:
    data = Numbers()
    stream = Stream(DataLoader(data, 7), 3)
    list(stream.epoch(0))
    data.values = data.values + 1
    with pytest.warns(RelumeWarning, match="no longer kept in memory"):
        again = list(stream.epoch(1))
    assert torch.equal(torch.cat([b["x"] for b in again]), data.values)


def test_an_error_in_the_dataset_comes_out_as_it_is() -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> Any:
            raise ValueError("the file of sample 3 is missing")

    with pytest.raises(ValueError, match="the file of sample 3 is missing"):
        epochs(DataLoader(Broken(), 4), None)


@given(st.integers(1, 30), st.integers(1, 9), st.booleans(), st.integers(0, 5), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_any_size_epoch_and_start_agrees(count: int, size: int, shuffle: bool, epoch: int, start: int) -> None:
    data = Numbers(count)
    kept = Stream(DataLoader(data, size, shuffle=shuffle), 3)
    plain = Stream(DataLoader(data, size, shuffle=shuffle), 3, in_memory=False)
    for number in range(epoch + 1):
        assert_same(list(kept.epoch(number, start)), list(plain.epoch(number, start)))


# ------------------------------------------------------------------------------------------------------------- torchvision


@pytest.fixture(scope="module")
def fashion_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not DEBIAN.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    root = tmp_path_factory.mktemp("fashion")
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in DEBIAN.glob("*.gz"):
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    return root


@pytest.mark.parametrize("normalized", [False, True])
def test_fashion_mnist_in_memory_equals_torchvisions_batches(fashion_root: Path, normalized: bool) -> None:
    vision = pytest.importorskip("torchvision")
    steps = [vision.transforms.ToTensor(), *([vision.transforms.Normalize((0.2860,), (0.3530,))] if normalized else [])]
    transform = vision.transforms.Compose(steps) if normalized else steps[0]
    data = vision.datasets.FashionMNIST(fashion_root, train=False, transform=transform)
    kept = Stream(DataLoader(data, 64, shuffle=True), 3)
    first = list(kept.epoch(0))
    assert kept.decision == "in memory: 10,000 samples, 31 MB, proven deterministic, converted as a whole"
    assert_same(first, list(Stream(DataLoader(data, 64, shuffle=True), 3, in_memory=False).epoch(0)))


def test_cifar_in_memory_equals_torchvisions_batches(tmp_path: Path) -> None:
    vision = pytest.importorskip("torchvision")

    class Tiny(vision.datasets.CIFAR10):
        def __init__(self) -> None:
            self.data = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
            self.targets = list(range(64))
            self.transform = vision.transforms.ToTensor()
            self.target_transform = None

    data = Tiny()
    data.__class__ = vision.datasets.CIFAR10
    assert memory._convert(data) is not None
    kept, stream = epochs(DataLoader(data, 8, shuffle=True), None)
    assert stream.decision is not None and "converted as a whole" in stream.decision
    assert_same(kept, epochs(DataLoader(data, 8, shuffle=True), False)[0])


def test_random_augmentation_of_torchvision_is_not_kept(fashion_root: Path) -> None:
    vision = pytest.importorskip("torchvision")
    transform = vision.transforms.Compose([vision.transforms.RandomHorizontalFlip(), vision.transforms.ToTensor()])
    data = Subset(vision.datasets.FashionMNIST(fashion_root, train=False, transform=transform), range(64))
    _, stream = epochs(DataLoader(data, 8), None, count=1)
    assert stream.decision == "not in memory: fetching a sample draws random numbers from torch"


# ----------------------------------------------------------------------------------- found by attacking it, and mended


class Made(Dataset):
    def __init__(self, count: int, make: Any) -> None:
        self.count, self.make = count, make

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


@pytest.mark.parametrize(
    "make",
    [
        lambda i: {"x": i} if i % 7 == 2 else {"x": i, "z": i * 2},
        lambda i: {"x": i, "z": i * 2} if i % 7 == 2 else {"x": i},
        lambda i: [torch.tensor([float(i)])] * (1 + (i % 7 == 2)),
    ],
)
def test_samples_of_different_forms_are_not_kept(make: Any) -> None:
    data = Made(100, make)
    kept, stream = epochs(DataLoader(data, 1), None)
    assert_same(kept, epochs(DataLoader(data, 1), False)[0])
    assert stream.decision is not None and stream.decision.startswith("not in memory")


def test_a_dataset_that_was_changed_before_another_fit_is_taken_anew() -> None:
    data = Numbers()
    list(Stream(DataLoader(data, 5), 0).epoch(0))
    data.values = data.values * 10
    assert torch.equal(torch.cat([b["x"] for b in Stream(DataLoader(data, 5), 1).epoch(0)]), data.values)


def test_labels_that_change_in_place_are_noticed_however_few() -> None:
    data = TensorDataset(torch.arange(200.0), torch.zeros(200))
    stream = Stream(DataLoader(data, 20), 0)
    list(stream.epoch(0))
    data.tensors[1][77] = 1
    with pytest.warns(RelumeWarning, match="no longer kept in memory"):
        assert sum(float(y.sum()) for _, y in stream.epoch(1)) == 1.0


class NoisyWhole(Made):
    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        values = torch.tensor([float(i) for i in indices])
        values[torch.rand(len(indices)) < 0.1] *= -1
        return list(values)


class MixedWhole(Made):
    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        values = torch.tensor([float(i) for i in indices])
        return list(values - values.mean())


@pytest.mark.parametrize(
    ("kind", "reason"), [(NoisyWhole, "draws random numbers from torch"), (MixedWhole, "depend on the others")]
)
def test_getitems_is_what_is_probed(kind: type, reason: str) -> None:
    _, stream = epochs(DataLoader(kind(64, float), 8), None, count=1)
    assert stream.decision is not None and reason in stream.decision


@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(TensorDataset(torch.arange(10)), 2, sampler=[-1, -2, 0, 1]),
        lambda: DataLoader(Subset(TensorDataset(torch.arange(10)), [-1, -2, 3]), 2),
        lambda: DataLoader(
            Made(20, lambda i: float(range(20)[i])), 2, sampler=[j for k in range(1, 11) for j in (-k, 20 - k)]
        ),
        lambda: DataLoader(TensorDataset(torch.arange(10)), batch_sampler=[torch.tensor([1, 2]), (3, 4)]),
    ],
)
def test_indices_of_all_kinds_agree_with_the_loader(loader: Any) -> None:
    assert_same(epochs(loader(), None)[0], epochs(loader(), False)[0])


def test_a_dataset_that_grows_is_followed() -> None:
    data = [torch.tensor([float(i)]) for i in range(10)]
    stream = Stream(DataLoader(data, 2, shuffle=True), 0)  # type: ignore[arg-type]
    list(stream.epoch(0))
    data += [torch.tensor([float(i)]) for i in range(10, 20)]
    with pytest.warns(RelumeWarning, match="no longer kept in memory"):
        assert sorted(torch.cat(list(stream.epoch(1))).flatten().tolist()) == list(range(20))


def test_random_numbers_of_the_datasets_own_are_said_to_be_inexact() -> None:
    _, stream = epochs(DataLoader(OwnRandom(), 4), None, count=1)
    assert len(stream.notes) == 1 and "random numbers of its own" in stream.notes[0]
