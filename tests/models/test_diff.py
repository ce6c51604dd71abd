"""relume.diff: every difference is found, and nothing that is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from relume.errors import ConfigurationError, ModelFileError
from relume.models.look import diff
from relume.models.look.numbers import PART_ELEMENTS


def only(a: Any, b: Any, **options: Any) -> Any:
    found = diff({"x": torch.as_tensor(a)}, {"x": torch.as_tensor(b)}, **options)
    assert len(found.tensors) == 1
    return found.tensors[0]


def test_every_kind_of_difference() -> None:
    first = {"same": torch.ones(3), "changed": torch.zeros(2, 3), "gone": torch.ones(1), "shape": torch.ones(2, 2)}
    second = {"same": torch.ones(3), "changed": torch.zeros(2, 3), "shape": torch.ones(4), "new": torch.ones(5)}
    second["changed"][1, 2] = -3.0
    first["dtype"], second["dtype"] = torch.ones(2), torch.ones(2, dtype=torch.bfloat16)
    found = diff(first, second)
    assert {one.name or one.other_name: one.status for one in found.tensors} == {
        "same": "same", "changed": "changed", "gone": "removed", "shape": "shape", "dtype": "dtype", "new": "added",
    }  # fmt: skip
    change = found.having("changed")[0].change
    assert change is not None and (change.different, change.norm, change.largest, change.at) == (1, 3.0, 3.0, (1, 2))
    assert change.relative == math.inf and not found.is_same and found.having("dtype")[0].change is None
    assert [one.shapes for one in found.having("added")] == [(None, (5,))]
    text = str(found)
    assert "1 same, 1 changed, 1 of another dtype, 1 of another shape, 1 added, 1 removed" in text
    assert "2 x 2 became 4" in text and "[1, 2]" in text and "<table" in found._repr_html_()


def test_equal_values_in_other_bits_are_the_same() -> None:
    other_nan = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
    for a, b in ((torch.tensor([0.0]), torch.tensor([-0.0])), (torch.tensor([math.nan]), other_nan)):
        one = only(a, b)
        assert one.status == "same" and one.same_bits is False
    assert "equal in value and not in bits" in str(diff({"x": torch.tensor([0.0])}, {"x": torch.tensor([-0.0])}))
    assert only([math.nan, math.inf], [math.nan, math.inf]).same_bits


def test_nan_and_infinity_against_numbers() -> None:
    for a, b in (([math.nan], [1.0]), ([1.0], [math.inf]), ([math.inf], [-math.inf]), ([math.nan], [math.inf])):
        change = only(a, b, tolerance=1e30).change
        assert change.largest == math.inf and change.different == 1


def test_whole_numbers_that_float64_cannot_tell_apart() -> None:
    change = only(torch.tensor([2**53, 1]), torch.tensor([2**53 + 1, 1])).change
    assert (change.different, change.at) == (1, (0,)) and change.largest == 1.0
    assert only(torch.tensor([True, False]), torch.tensor([True, True])).change.different == 1
    assert only(torch.tensor([1]), torch.tensor([1.5])).change.largest == 0.5


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]
)
def test_dtypes(dtype: torch.dtype) -> None:
    a = torch.tensor([1.0, 2.0, 4.0]).to(dtype)
    b = torch.tensor([1.0, 2.0, 8.0]).to(dtype)
    assert only(a, a.clone()).status == "same"
    change = only(a, b).change
    assert (change.different, change.largest, change.at) == (1, 4.0, (2,))
    assert change.norm == 4.0 and change.relative == pytest.approx(4 / math.sqrt(21))


def test_the_place_in_large_and_in_strided_tensors() -> None:
    a = torch.zeros(3, PART_ELEMENTS // 2 + 7)
    b = a.clone()
    b[2, 11] = 5
    assert only(a, b).change.at == (2, 11)
    assert only(a.t(), b.t().contiguous()).change.at == (11, 2)
    c = torch.zeros(PART_ELEMENTS + 3, dtype=torch.complex64)
    d = c.clone()
    d[PART_ELEMENTS] = 2j
    assert only(c, d).change.at == (PART_ELEMENTS,)
    assert only(torch.tensor(1.0), torch.tensor(2.0)).change.at == ()
    assert only(torch.zeros(0, 3), torch.zeros(0, 3)).status == "same"


def test_tolerance() -> None:
    assert only([1.0, 2.0], [1.0, 2.001], tolerance=0.01).status == "same"
    assert only([1.0, 2.0], [1.0, 2.1], tolerance=0.01).change.different == 1
    for wrong in (-1, math.nan, math.inf, "0.1", True, None):
        with pytest.raises(ConfigurationError, match="tolerance="):
            diff({}, {}, tolerance=wrong)  # type: ignore[arg-type]


@given(
    values=st.lists(st.floats(width=32), min_size=1, max_size=20),
    others=st.lists(st.floats(width=32), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_it_says_same_exactly_when_all_values_are_equal(values: list[float], others: list[float]) -> None:
    a, b = torch.tensor(values), torch.tensor(others)
    if a.shape != b.shape:
        assert only(a, b).status == "shape"
        return
    equal = bool(((a == b) | (a.isnan() & b.isnan())).all())
    one = only(a, b)
    assert (one.status == "same") == equal
    if not equal:
        assert one.change.different == int(((a != b) & ~(a.isnan() & b.isnan())).sum())


def test_a_prefix_of_a_wrapper_is_paired_and_said() -> None:
    plain = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)).state_dict()
    wrapped = {f"module.{name}": value for name, value in plain.items()}
    found = diff(plain, wrapped)
    assert found.is_same and found.prefixes == ("", "module.") and "'module.'" in str(found)
    assert diff(wrapped, plain).prefixes == ("module.", "") and diff(wrapped, plain).is_same
    assert diff(plain, plain).prefixes == ("", "")
    assert {one.status for one in diff(plain, {"other": torch.ones(7)}).tensors} == {"removed", "added"}


def test_models_files_and_states_are_compared_alike(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    torch.save(model.state_dict(), tmp_path / "b.pt")
    assert diff(tmp_path / "a.safetensors", tmp_path / "b.pt").is_same
    with torch.no_grad():
        model.bias[1] += 1
    found = diff(str(tmp_path / "b.pt"), model)
    assert [one.status for one in found.tensors] == ["same", "changed"] and found.second == "Linear"


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 100)
    for wrong in (tmp_path / "broken.safetensors", tmp_path / "missing.pt", tmp_path):
        with pytest.raises(ModelFileError):
            diff(wrong, {})


def test_what_has_no_weights_or_no_values() -> None:
    with pytest.raises(ConfigurationError, match="not a int"):
        diff(5, {})
    with pytest.raises(ConfigurationError, match="x is on the meta device"):
        diff({"x": torch.empty(2, device="meta")}, {"x": torch.ones(2)})
    assert diff({}, {}).is_same and "no tensors" in str(diff({}, {}))


def test_hostile_names_are_not_shown_raw() -> None:
    names = ["\x1b[31m", "[red]x[/red]", "<b>", "a\nb", "m" * 2_000_000]
    found = diff({name: torch.zeros(2) for name in names}, {name: torch.ones(2) for name in names})
    text, page = str(found), found._repr_html_()
    assert "\x1b" not in text + page and "<b>" not in page and "[red]x[/red]" in text and "a\nb" not in text
    assert len(text) < 5000 and max(map(len, text.splitlines())) <= 100


def sparse(places: list[list[int]], values: list[float], size: tuple[int, ...]) -> torch.Tensor:
    return torch.sparse_coo_tensor(places, values, size, check_invariants=True)


def test_sparse_tensors_are_compared_without_becoming_dense() -> None:
    size = (1_000_000, 1_000_000)  # 4 TB
    one = sparse([[0, 5, 999_999], [3, 5, 1]], [1.0, 2.0, 3.0], size)
    other = sparse([[0, 5, 7], [3, 5, 7]], [1.0, 2.5, 9.0], size)
    assert diff({"w": one}, {"w": one.clone()}).is_same
    change = diff({"w": one}, {"w": other}).tensors[0].change
    assert change is not None
    assert (change.different, change.largest, change.at) == (3, 9.0, (7, 7))
    assert change.norm == pytest.approx(math.sqrt(0.25 + 81 + 9))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_sparse_tensors_of_other_layouts_are_compared() -> None:
    dense = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    changed = dense.clone()
    changed[1, 0] = 4.0
    assert diff({"w": dense.to_sparse()}, {"w": dense.to_sparse_csr()}).is_same
    for other in (changed, changed.to_sparse(), changed.to_sparse_csr()):
        change = diff({"w": dense.to_sparse_csr()}, {"w": other}).tensors[0].change
        assert change is not None and (change.different, change.largest, change.at) == (1, 1.0, (1, 0))
    nan = sparse([[0], [1]], [math.nan], (2, 2))
    assert diff({"w": nan}, {"w": nan.clone()}).is_same
