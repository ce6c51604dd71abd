"""relume.state_table, and the numbers about tensors."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from relume.errors import ConfigurationError
from relume.models.look import state_table
from relume.models.look.numbers import PART_ELEMENTS, count_not_finite, parts, stats_of

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.words.weight
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("cache", torch.ones(7), persistent=False)


def test_a_model_is_listed_by_name_with_what_is_trained_and_tied() -> None:
    model = Tied()
    table = state_table(model)
    assert [entry.name for entry in table.entries] == list(model.state_dict())
    scale, words, head = table.entries
    assert (words.shape, words.dtype, words.elements, words.size_bytes) == ((10, 4), "float32", 40, 160)
    assert (words.kind, words.is_trainable, words.tied_to) == ("parameter", True, None)
    assert head.tied_to == "words.weight" and (scale.kind, scale.is_trainable, scale.shape) == ("buffer", False, ())
    assert table.parameters == 40 and table.size_bytes == 164
    assert "tied to words.weight" in str(table) and "scalar" in str(table) and "<table" in table._repr_html_()


def test_a_state_dict_says_nothing_of_training() -> None:
    table = state_table(OrderedDict(a=torch.zeros(2, 3), b=torch.zeros(0, 5, dtype=torch.int8), extra={"no": "tensor"}))
    assert [(e.name, e.kind, e.is_trainable, e.size_bytes) for e in table.entries] == [
        ("a", "tensor", None, 24),
        ("b", "tensor", None, 0),
    ]
    assert table.parameters == 6


def test_lazy_meta_sparse_and_no_tensors_at_all() -> None:
    assert state_table(nn.LazyLinear(3)).entries[0].shape is None
    with torch.device("meta"):
        table = state_table(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert not any(entry.tied_to for entry in table.entries) and table.parameters == 12
    sparse = torch.eye(100).to_sparse()
    assert state_table({"eye": sparse}).entries[0].size_bytes == 100 * (4 + 2 * 8)
    assert state_table({}).entries == () and state_table(nn.ReLU()).parameters == 0


@pytest.mark.parametrize("wrong", [None, "model.pt", [torch.zeros(1)], 5])
def test_what_has_no_tensors_by_name(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="takes a model or its state_dict"):
        state_table(wrong)  # type: ignore[arg-type]


@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=30),
    dtype=st.sampled_from(FLOATS),
)
@settings(deadline=None)
def test_statistics_are_those_of_torch(values: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(values, dtype=torch.float32).to(dtype)
    found, wide = stats_of(tensor), tensor.to(torch.float32).double()
    finite = wide[wide.isfinite()]
    assert (found.nan, found.infinite) == (int(wide.isnan().sum()), int(wide.isinf().sum()))
    assert found.zeros == int((wide == 0).sum()) and count_not_finite(tensor) == found.nan + found.infinite
    if not finite.numel():
        assert (found.minimum, found.maximum, found.mean, found.std) == (None, None, None, None)
        return
    assert (found.minimum, found.maximum) == (finite.min().item(), finite.max().item())
    assert found.mean == pytest.approx(finite.mean().item(), rel=1e-9, abs=1e-12 * finite.abs().max().item() + 1e-30)
    if finite.numel() == 1:
        assert found.std is None
    else:
        assert found.std == pytest.approx(finite.std().item(), rel=1e-6, abs=1e-9 * finite.abs().max().item() + 1e-30)


@pytest.mark.parametrize("shape", [(PART_ELEMENTS + 1,), (3, PART_ELEMENTS // 2), (2, 2, PART_ELEMENTS)])
@pytest.mark.parametrize("is_contiguous", [True, False])
def test_large_tensors_are_read_in_parts(shape: tuple[int, ...], is_contiguous: bool) -> None:
    tensor = torch.randn(shape)
    if not is_contiguous:
        tensor = tensor.transpose(0, -1)
    pieces = list(parts(tensor))
    assert len(pieces) > 1 and max(piece.numel() for piece in pieces) <= PART_ELEMENTS
    assert torch.equal(torch.cat(pieces), tensor.reshape(-1))
    found = stats_of(tensor)
    assert found.mean == pytest.approx(tensor.double().mean().item(), rel=1e-9)
    assert found.std == pytest.approx(tensor.double().std().item(), rel=1e-9)


def test_one_bad_value_among_many_is_found() -> None:
    tensor = torch.ones(2 * PART_ELEMENTS + 5)
    assert count_not_finite(tensor) == 0
    tensor[PART_ELEMENTS + 3] = math.nan
    tensor[-1] = -math.inf
    assert count_not_finite(tensor) == 2
    assert count_not_finite(torch.full((3,), 1.7e308, dtype=torch.float64)) == 0  # their sum is infinite


def test_whole_numbers_bools_and_complex_ones() -> None:
    assert stats_of(torch.tensor([True, False, True])).zeros == 1
    whole = stats_of(torch.tensor([-3, 0, 5]))
    assert (whole.minimum, whole.maximum, whole.nan) == (-3.0, 5.0, 0) and count_not_finite(torch.tensor([1])) == 0
    pair = stats_of(torch.tensor([1 + 2j, complex(math.nan, 0)]))
    assert (pair.minimum, pair.maximum, pair.nan) == (0.0, 2.0, 1)
    assert stats_of(torch.zeros(0)).is_constant and stats_of(torch.ones(5)).is_constant
    assert stats_of(torch.ones(5)).hash == stats_of(torch.ones(5)).hash != stats_of(torch.zeros(5)).hash


def test_every_dtype_of_torch_is_looked_at() -> None:
    """Those that torch does not calculate with have a hash all the same."""
    dtypes = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    looked_at = set()
    for dtype in dtypes:
        try:
            tensor = torch.ones(4 * dtype.itemsize, dtype=torch.uint8).view(dtype)
        except RuntimeError:  # dtypes of quantized tensors, and some that only have a name
            continue
        found = stats_of(tensor)
        assert found.hash and found.nan == count_not_finite(tensor) == 0
        looked_at.add(dtype)
    assert {torch.float32, torch.bfloat16, torch.uint64, torch.complex128, torch.float8_e5m2} <= looked_at
