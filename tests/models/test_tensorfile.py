"""Safetensors files: to the bit there and back, with the ties, and understood by the safetensors library."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file, save_model
from same_weights import DTYPES, assert_same, bits, filled
from torch import nn

from relume.errors import ConfigurationError, ModelFileError, UnstorableError
from relume.models.files import read_state, save_weights
from relume.models.tensorfile import read_tensorfile

_BY_THE_LIBRARY = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "C64"}
_SUB_BYTE = re.compile(r"torch\.u?int[1-7]")


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 5), nn.Linear(5, 7))
    model[2].weight = model[0].weight
    return model


# ------------------------------------------------------------------------------------------------------------ round trips


def test_there_are_many_dtypes() -> None:
    assert len(DTYPES) >= 20
    assert {torch.bfloat16, torch.complex64, torch.complex128, torch.uint16, torch.float8_e5m2fnuz} <= set(DTYPES)


@pytest.mark.filterwarnings("ignore:B?Complex.*experimental:UserWarning")  # torch.load itself warns of them
@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth"])
def test_every_dtype_comes_back_to_the_bit(ending: str, tmp_path: Path) -> None:
    dtypes = [dtype for dtype in DTYPES if ending == "safetensors" or not _SUB_BYTE.fullmatch(str(dtype))]
    state = {f"{dtype}{list(shape)}": filled(dtype, shape) for dtype in dtypes for shape in [(3, 4), (), (1,), (0, 3)]}
    path = save_weights(state, tmp_path / f"all.{ending}")
    if ending == "safetensors":
        assert_same(read_state(path, verify=True), state)
    else:
        assert_same(torch.load(path, weights_only=True), state)


class State(dict[str, torch.Tensor]):
    def __repr__(self) -> str:  # torch cannot print every dtype
        return str({name: (value.dtype, value.shape, value.stride()) for name, value in self.items()})


@pytest.mark.skipif(not hasattr(torch, "int4"), reason="this torch has no int4")
def test_dtypes_that_torch_cannot_save_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnstorableError, match=r"dtype torch\.int4 is not recognized\. Save to \.safetensors"):
        save_weights({"w": filled(torch.int4, (2,))}, tmp_path / "w.pt")
    assert list(tmp_path.iterdir()) == []


@st.composite
def _states(draw: st.DrawFn) -> State:
    state = State()
    for number in range(draw(st.integers(0, 6))):
        name = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=8)) + str(number)
        others = list(state)
        kind = draw(st.sampled_from(["new", "tied", "transposed", "slice", "expanded"] if others else ["new"]))
        if kind == "new":
            shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
            state[name] = filled(draw(st.sampled_from(DTYPES)), shape, number)
            continue
        value = state[draw(st.sampled_from(others))]
        if kind == "transposed" and value.ndim > 1:
            value = value.transpose(0, -1)
        elif kind == "slice" and value.ndim and value.shape[0] > 1:
            value = value[1:]
        elif kind == "expanded":
            value = value.unsqueeze(0).expand(3, *value.shape)
        state[name] = value
    return state


@settings(max_examples=60, deadline=None)
@given(state=_states())
def test_any_state_comes_back_to_the_bit(
    state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "state.safetensors"
    save_weights(state, path)
    found = read_state(path, verify=True)
    assert_same(found, state)
    for name, value in found.items():
        assert not value.numel() or value.data_ptr() % value.element_size() == 0, f"{name} is not aligned"
    same = [(a, b) for a in state for b in state if state[a] is state[b]]
    assert all(found[a] is found[b] or not state[a].numel() for a, b in same)
    with safetensors.safe_open(path, "pt") as file:
        assert set(file.keys()) <= set(state)


def test_one_element_with_an_odd_stride(tmp_path: Path) -> None:
    state = {
        "odd": torch.arange(6.0).as_strided((1, 1), (5, 3)),
        "scalar": torch.tensor(2.5),
        "last": torch.arange(9)[8:],
    }
    assert_same(read_state(save_weights(state, tmp_path / "odd.safetensors"), verify=True), state)


def test_conjugates_and_negatives_are_stored_as_what_they_are(tmp_path: Path) -> None:
    base = torch.randn(3, dtype=torch.complex64)
    state = {"base": base, "conj": base.conj(), "imag": base.conj().imag}
    found = read_state(save_weights(state, tmp_path / "conj.safetensors"))
    assert_same(found, state)
    assert torch.equal(found["conj"], base.conj())


# -------------------------------------------------------------------------------------------------------------------- ties


def test_tied_weights_are_stored_once_and_tied_again_in_their_place(tmp_path: Path) -> None:
    model = _tied()
    path = save_weights(model, tmp_path / "tied.safetensors")
    found = read_state(path)
    assert_same(found, model.state_dict())
    assert found["2.weight"] is found["0.weight"]
    with safetensors.safe_open(path, "pt") as file:
        assert "2.weight" not in file.keys()  # noqa: SIM118
        assert file.metadata()["2.weight"] == "0.weight"


def test_overlapping_views_are_stored_apart(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    state = {"whole": base, "middle": base[3:9], "matrix": base.view(3, 4), "turned": base.view(3, 4).t()}
    path = save_weights(state, tmp_path / "views.safetensors")
    assert_same(read_state(path, verify=True), state)
    assert_same(safetensors.torch.load_file(path), state, ordered=False)


def test_a_tied_name_that_is_a_key_of_the_metadata(tmp_path: Path) -> None:
    one = torch.ones(3)
    state = {"weight": one, "format": one, "author": one}
    path = save_weights(state, tmp_path / "keys.safetensors", metadata={"author": "me", "base": "weight"})
    assert_same(read_state(path), state)
    metadata = read_tensorfile(path).metadata
    assert metadata == {"format": "pt", "author": "me", "base": "weight"}


# ----------------------------------------------------------------------------------------------------- the library's files


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    state = {str(dtype): filled(dtype, (4, 2)) for dtype in DTYPES}
    path = save_weights(state, tmp_path / "all.safetensors", metadata={"author": "me"})
    found = safetensors.torch.load_file(path)
    assert sorted(found) == sorted(state)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["author"] == "me" and file.metadata()["format"] == "pt"
        plain = [name for name in found if file.get_slice(name).get_dtype() in _BY_THE_LIBRARY - {"U8"}]
    assert len(plain) >= 12
    for name in plain:
        assert found[name].dtype == state[name].dtype and bits(found[name]) == bits(state[name])
    for name in found:
        assert bits(found[name]) == bits(state[name])


@pytest.mark.parametrize(
    "make", [_tied, lambda: nn.LSTM(3, 4, 2), lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True)]
)
def test_load_model_of_the_library_takes_our_files(make: Any, tmp_path: Path) -> None:
    model, fresh = make(), make()
    safetensors.torch.load_model(fresh, save_weights(model, tmp_path / "model.safetensors"))
    assert_same(fresh.state_dict(), model.state_dict())


def test_files_of_the_library_are_read(tmp_path: Path) -> None:
    model = _tied()
    save_model(model, str(tmp_path / "model.safetensors"), metadata={"format": "pt", "author": "me"})
    found = read_tensorfile(tmp_path / "model.safetensors")
    assert_same(found.state, model.state_dict(), ordered=False)
    assert found.state["2.weight"] is found.state["0.weight"]
    assert found.metadata == {"format": "pt", "author": "me"}
    state = {str(n): filled(dtype, (3, 2)) for n, dtype in enumerate(DTYPES) if dtype in safetensors.torch._SIZE}
    assert len(state) >= 15
    save_file(state, tmp_path / "all.safetensors")
    assert_same(read_state(tmp_path / "all.safetensors"), state, ordered=False)


def test_files_whose_data_are_not_aligned_are_read(tmp_path: Path) -> None:
    header = {
        "b": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "f": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
    }
    text = json.dumps(header).encode()
    data = bytes([1, 2, 3]) + torch.tensor([1.5, -2.5]).numpy().tobytes()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    found = read_state(path)
    assert_same(found, {"b": torch.tensor([1, 2, 3], dtype=torch.uint8), "f": torch.tensor([1.5, -2.5])})
    assert found["f"].data_ptr() % 4 == 0


# ------------------------------------------------------------------------------------------------------- mapped and checked


def test_writing_to_a_tensor_does_not_reach_the_file(tmp_path: Path) -> None:
    path = save_weights({"w": torch.zeros(1000)}, tmp_path / "w.safetensors")
    before = path.read_bytes()
    read_state(path)["w"].fill_(1)
    assert path.read_bytes() == before


def test_a_file_may_be_replaced_while_its_tensors_are_in_use(tmp_path: Path) -> None:
    path = save_weights({"w": torch.zeros(5000)}, tmp_path / "w.safetensors")
    old = read_state(path)
    save_weights({"w": torch.ones(5000)}, path)
    assert not old["w"].any() and read_state(path)["w"].all()


def test_weights_read_from_a_file_are_saved_over_it(tmp_path: Path) -> None:
    path = save_weights({"w": torch.arange(5000), "v": torch.arange(5)}, tmp_path / "w.safetensors")
    state = read_state(path)
    state["w"] += 1
    save_weights(state, path)
    assert_same(read_state(path, verify=True), {"w": torch.arange(5000) + 1, "v": torch.arange(5)})


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_flipped_bit_is_found(size: int, tmp_path: Path) -> None:
    path = save_weights(
        {"before": torch.ones(3), "large": torch.zeros(size, dtype=torch.uint8)}, tmp_path / "w.safetensors"
    )
    assert len(read_state(path, verify=True)) == 2
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if size > 10 else -1] ^= 4
    path.write_bytes(content)
    assert len(read_state(path)) == 2
    with pytest.raises(ModelFileError, match=r"w\.safetensors is damaged: 'large' is not what was saved"):
        read_state(path, verify=True)


def test_files_without_checksums_cannot_be_verified(tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelFileError, match=r"has no checksum of 'w'.*verify=False"):
        read_state(tmp_path / "w.safetensors", verify=True)


# ------------------------------------------------------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2, device="meta"), r"^v is on the meta device and has no values"),
        (
            torch.eye(2).to_sparse(),
            r"'v' is a sparse_coo tensor.*Save to a \.pt, or make it an ordinary one with \.to_dense",
        ),
        (lambda: torch.eye(2).to_sparse_csr(), r"'v' is a sparse_csr tensor"),
        (
            lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            r"'v' is a quantized tensor.*\.dequantize",
        ),
        (
            {"w": torch.ones(2)},
            r"'v' is a dict and no tensor\. If these are the weights, save them: save_weights\(state\['v'\], path",
        ),
        (3, r"'v' is a int and no tensor\. Weights are what model\.state_dict\(\) gives"),
        (None, r"'v' is a NoneType and no tensor"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:.*beta state:UserWarning", "ignore:.*deprecated:DeprecationWarning", "ignore:.*deprecated:UserWarning"
)
def test_what_is_no_weight_is_named(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnstorableError, match=message):
        save_weights({"w": torch.ones(2), "v": value() if callable(value) else value}, tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_metadata_is_text_by_text(tmp_path: Path) -> None:
    for metadata, message in [
        ({"epoch": 3}, r"metadata\['epoch'\]=3: metadata is text by text"),
        ({3: "epoch"}, r"metadata\[3\]='epoch'"),
        ({"relume": "x"}, r"metadata\['relume'\] is what relume itself writes"),
        ({"a": "\ud800"}, "not text that a file can hold"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            save_weights({"w": torch.ones(2)}, tmp_path / "w.safetensors", metadata=metadata)  # type: ignore[arg-type]
    with pytest.raises(UnstorableError, match="cannot hold a tensor that is called '__metadata__'"):
        save_weights({"__metadata__": torch.ones(2)}, tmp_path / "w.safetensors")
