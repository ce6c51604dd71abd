"""Fingerprints of datasets: the same for the same data, others for others, and no sample is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from relume.provenance.datasets import describe


def table(seed: int = 0, rows: int = 1000) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(rows, 3, generator=generator), torch.arange(rows))


def test_the_same_data_has_the_same_fingerprint_and_other_data_another() -> None:
    first = describe(table(), 16)
    assert first.length == 1000 and first.batch_size == 16 and first.type.endswith("TensorDataset")
    assert "64 of 1,000 entries of tensors[0]" in first.covers
    assert first.fingerprint == describe(table()).fingerprint
    others = [table(1), table(rows=999), Subset(table(), range(1000)), ConcatDataset([table()])]
    assert len({describe(other).fingerprint for other in [table(), *others]}) == 5


@pytest.mark.parametrize("row", [0, 999])
def test_a_changed_first_or_last_row_is_seen(row: int) -> None:
    data = table()
    data.tensors[0][row, 1] += 1
    assert describe(data).fingerprint != describe(table()).fingerprint


def test_the_rows_of_a_subset_count() -> None:
    assert describe(Subset(table(), [1, 2])).fingerprint != describe(Subset(table(), [1, 3])).fingerprint


class Guarded(Dataset):
    """It knows whether it was asked."""

    def __init__(self, folder: str, names: list[str]) -> None:
        self.root = Path(folder)
        self.samples = [(f"{folder}/cats/{name}", 1) for name in names]
        self.itself = self
        self.transform = lambda x: x

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> None:
        raise AssertionError("asked for a sample")


def test_no_sample_is_asked_for_and_no_random_number_drawn_and_folders_do_not_count() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = describe(Guarded("/data/x", ["a.png", "b.png"]))
    assert "not all" not in first.covers
    assert first.fingerprint == describe(Guarded("/mnt/elsewhere/x", ["a.png", "b.png"])).fingerprint
    assert first.fingerprint != describe(Guarded("/data/x", ["a.png", "c.png"])).fingerprint
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()


@pytest.mark.parametrize(
    "dataset",
    [
        [], range(5), iter([]), {"a": np.zeros(0)}, {"x": np.array(3), "y": np.array(["a", None], dtype=object)}, object(), None,
        TensorDataset(torch.zeros(0, 3)), TensorDataset(torch.ones(4, dtype=torch.complex64).conj()), {"m": torch.ones(2, device="meta")},
        {"s": torch.eye(3).to_sparse()}, {"b": torch.ones(3, dtype=torch.bfloat16)}, [{"deep": [[[[[[1]]]]]]}], np.zeros((3, 0)),
    ],
    ids=lambda dataset: type(dataset).__name__,
)  # fmt: skip
def test_odd_datasets_are_described_too(dataset: object) -> None:
    facts = describe(dataset)
    assert len(facts.fingerprint) == 32 and facts.covers.startswith("type, length") and "not all" not in facts.covers


def test_a_table_of_pandas_counts_by_its_rows() -> None:
    pandas = pytest.importorskip("pandas")
    first, second = ({"frame": pandas.DataFrame({"a": [1, 2, last]})} for last in (3, 4))
    assert describe(first).fingerprint != describe(second).fingerprint
