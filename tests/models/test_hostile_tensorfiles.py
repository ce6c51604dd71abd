"""Safetensors files and indexes made to deceive: each is refused by name, and none fills the memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.errors import ModelFileError, RelumeError, UnsafeFileError
from relume.models.files import read_state, save_weights
from relume.models.header import read_header
from relume.models.sharded import read_sharded
from relume.models.tensorfile import read_tensorfile

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def _file(header: Any, data: int | bytes = 8, length: int | None = None) -> bytes:
    """A file with that header, whose text may have ``@`` for a good entry."""
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    text = text.replace(b"@", json.dumps(F32).encode())
    content = data if isinstance(data, bytes) else bytes(data)
    return (len(text) if length is None else length).to_bytes(8, "little") + text + content


def _with(**fields: Any) -> dict[str, Any]:
    return {"w": {**F32, **fields}}


def _own(**document: Any) -> dict[str, Any]:
    return {
        "__metadata__": {"relume": json.dumps({"version": 1, **document})},
        "w": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
    }


HOSTILE: dict[str, tuple[bytes, str]] = {
    "header beyond the file": (_file({"w": F32}, length=10**6), "cannot hold a header of 1000000 bytes"),
    "header of 2**64 - 1": (_file({"w": F32}, length=2**64 - 1), "cannot hold a header of"),
    "cut data": (_file({"w": F32}, 7), r"tensors of 8 bytes where the file has 7"),
    "trailing data": (_file({"w": F32}, 9), r"tensors of 8 bytes where the file has 9"),
    "offset out of range": (_file(_with(data_offsets=[2**40, 2**40 + 8])), r"a hole before 'w'"),
    "negative offset": (_file(_with(data_offsets=[-8, 0])), r"'w' with shape"),
    "reversed offsets": (_file(_with(data_offsets=[8, 0])), r"'w' with -8 bytes where F32"),
    "overlap": (_file({"w": F32, "v": {**F32, "data_offsets": [4, 12]}}, 12), "an overlap at 'v'"),
    "twice the same bytes": (_file({"w": F32, "v": F32}), "an overlap at"),
    "hole": (_file({"w": F32, "v": {**F32, "data_offsets": [16, 24]}}, 24), "a hole before 'v'"),
    "hole at the beginning": (_file(_with(data_offsets=[8, 16]), 16), "a hole before 'w'"),
    "lying size": (_file(_with(shape=[3])), r"'w' with 8 bytes where F32 '?\[3\]'? has 12"),
    "overflowing shape": (_file(_with(shape=[2**62, 2**62, 0])), "which no memory holds"),
    "shape of 2**63 and 0": (_file(_with(shape=[0, 2**63], data_offsets=[0, 0]), 0), "which no memory holds"),
    "many dimensions": (_file(_with(shape=[1] * 100)), "'w' with shape"),
    "negative shape": (_file(_with(shape=[-1, -2])), "'w' with shape"),
    "bool as shape": (_file(_with(shape=[True, 2])), "'w' with shape"),
    "float as shape": (_file(_with(shape=[2.0])), "'w' with shape"),
    "number of 5000 digits": (_file('{"w":{"dtype":"F32","shape":[' + "9" * 5000 + '],"data_offsets":[0,8]}}'), "its header has"),
    "number of 4000 digits": (_file('{"w":{"dtype":"F32","shape":[' + "9" * 4000 + '],"data_offsets":[0,8]}}'), "its header has"),
    "three offsets": (_file(_with(data_offsets=[0, 8, 8])), "'w' with shape"),
    "unknown dtype": (_file(_with(dtype="F31")), r"'w' with the dtype 'F31', which the format does not have"),
    "dtype that is a list": (_file(_with(dtype=["F32"])), r"'w' with the dtype \['F32'\]"),
    "another field": (_file(_with(code="os.system('x')")), "'w' with the fields"),
    "missing field": (_file({"w": {"dtype": "F32", "shape": [2]}}), "'w' with the fields"),
    "nested field": (_file(_with(shape={"a": 1})), "'w' with something else"),
    "entry that is a list": (_file({"w": [1, 2]}), "'w' with something else"),
    "entry that is null": (_file({"w": None}), "'w' with something else"),
    "duplicate key": (_file('{"w":@,"w":@}'), "'w' twice"),
    "duplicate key, escaped": (_file('{"w":@,"\\u0077":@}'), "'w' twice"),
    "duplicate field": (_file('{"w":{"dtype":"F32","dtype":"F64","shape":[2],"data_offsets":[0,8]}}'), "'dtype' twice"),
    "nested metadata": (_file({"__metadata__": {"a": {"b": "c"}}, "w": F32}), "'__metadata__' with something else"),
    "number as metadata": (_file({"__metadata__": {"a": 1}, "w": F32}), "'__metadata__' with something else"),
    "metadata twice": (_file('{"__metadata__":{},"__metadata__":{},"w":@}'), "'__metadata__' twice"),
    "duplicate in metadata": (_file('{"__metadata__":{"a":"b","a":"c"},"w":@}'), "'a' twice"),
    "not UTF-8": (_file(b'{"\xff":' + json.dumps(F32).encode() + b"}"), "can't decode byte 0xff"),
    "lone surrogate": (_file('{"\\ud800":@}'), "which is not text"),
    "lone surrogate in metadata": (_file('{"__metadata__":{"a":"\\ud800"},"w":@}'), "which is not text"),
    "depth bomb": (_file('{"w":' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}"), "'w' with something else"),
    "depth bomb of lists": (_file('{"w":{"dtype":"F32","data_offsets":[0,8],"shape":' + "[" * 4000 + "]" * 4000 + "}}"), "'w' with something else|'w' with shape"),
    "list as header": (_file("[]      "), "no JSON object"),
    "no end": (_file('{"w":@'), "'w' with something else"),
    "comma at the end": (_file('{"w":@,}'), "no name at byte"),
    "more after the end": (_file('{"w":@}{}'), "more after its end"),
    "NUL after the end": (_file(b'{"w":@}\0'), "more after its end"),
    "control character": (_file('{"a\nb":@}'), "no name at byte"),
    "F4 of odd shape": (_file({"w": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, 2), "F4 come in pairs|does not have"),
    "relume's part is no JSON": (_file({"__metadata__": {"relume": "{"}, "w": F32}), "what relume wrote into its metadata was changed"),
    "relume's part is a list": (_file({"__metadata__": {"relume": "[]"}, "w": F32}), "no version"),
    "relume's part is deep": (_file({"__metadata__": {"relume": "[" * 100_000}, "w": F32}), "lists of nothing"),
    "relume's part of the future": (_file(_own(version=2)), "it has version 2.*update relume"),
    "tie to nothing": (_file(_own(ties={"v": ["u", 0]})), "'v' is said to be another's tensor"),
    "tie of what is there": (_file(_own(ties={"w": ["w", 0]})), "'w' is said to be another's tensor"),
    "tie that is a number": (_file(_own(ties={"v": 3})), "'v' tied to 3"),
    "tie to a negative place": (_file(_own(ties={"v": ["w", -1]})), "'v' tied to"),
    "tie whose name is no text": (_file(_own(ties={"\ud800": ["w", 0]})), "was changed: 'utf-8' codec"),
    "dtype of nothing": (_file(_own(dtypes={"v": ["complex128", [1]]})), "dtype of 'v', which is not stored as bytes"),
    "dtype of another size": (_file(_own(dtypes={"w": ["complex128", [1]]})), r"'w' with the shape \[1\], which is not that of its bytes"),
    "dtype that is none": (_file(_own(dtypes={"w": ["load", [8]]})), "'load' is not a dtype that this torch"),
    "dtype with a lying shape": (_file(_own(dtypes={"w": ["uint8", [2**40, 2**40, 0]]})), "which is not stored as bytes|not that of its bytes"),
    "checksums that are numbers": (_file(_own(checksums={"w": 1})), "a checksum that is no text"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str, tmp_path: Path) -> None:
    content, message = HOSTILE[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_tensorfile(path)
    assert str(path) in str(caught.value)


def test_dtypes_that_torch_lacks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(_file({"w": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, 3))
    with pytest.raises(ModelFileError, match=r"'w' has the dtype F6_E2M3, which torch .* does not have"):
        read_state(path)


def test_a_giant_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((200_000_000).to_bytes(8, "little") + b"{")
        file.truncate(300_000_000)
    with pytest.raises(UnsafeFileError, match=r"said to have 200000000 bytes; the format allows 100000000"):
        read_header(path)


BOMBS: dict[str, Callable[[], bytes]] = {
    "lists within an entry": lambda: (
        b'{"w":{"dtype":"F32","data_offsets":[0,0],"shape":[' + b"[]," * 9_000_000 + b"[]]}}"
    ),
    "objects within an entry": lambda: b'{"w":{"a":[' + b"{}," * 9_000_000 + b"{}]}}",
    "lists within the metadata": lambda: b'{"__metadata__":{"a":[' + b"[]," * 9_000_000 + b"[]]}}",
    "lists within relume's part": lambda: b'{"__metadata__":{"relume":"[' + b"[]," * 9_000_000 + b'[]]"}}',
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_in_the_header_does_not_fill_the_memory(name: str, tmp_path: Path) -> None:
    """27 MB of brackets would be 600 MB of objects."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(_file(BOMBS[name](), 0))
    script = (
        "import resource, sys; from relume.errors import ModelFileError; from relume.models.files import read_state\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_state(sys.argv[1]); print('opened')\n"
        "except ModelFileError as error: print(str(error)[:300], file=sys.stderr)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert 0 <= int(ended.stdout) < 4 * path.stat().st_size


def test_the_address_space_is_not_filled_by_lying_sizes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(_file(_with(shape=[2**40], data_offsets=[0, 2**42])))
    with pytest.raises(ModelFileError, match=r"tensors of 4398046511104 bytes where the file has 8"):
        read_state(path)


# --------------------------------------------------------------------------------------------------------------- mutations


def _real(folder: Path) -> bytes:
    model = torch.nn.Sequential(torch.nn.Embedding(7, 5), torch.nn.Linear(5, 7))
    model[1].weight = model[0].weight
    state = {**model.state_dict(), "odd": torch.ones(2, dtype=torch.complex128)}
    return save_weights(state, folder / "real.safetensors", metadata={"a": "b"}).read_bytes()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_files_raise_only_our_errors(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    content = bytearray(_real(folder))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "double", "digit", "insert"])):
            case "flip":
                content[place] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[place : place + data.draw(st.integers(1, 50))]
            case "double":
                content[place:place] = content[place : place + 40]
            case "digit":
                content[place] = data.draw(st.sampled_from(b'0123456789[]{},:"\\'))
            case _:
                content[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        if not content:
            break
    path = folder / "model.safetensors"
    path.write_bytes(content)
    for verify in (False, True):
        try:
            for value in read_tensorfile(path, verify=verify).state.values():
                value.clone()
        except RelumeError:
            continue


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=400), brace=st.booleans())
def test_any_bytes_raise_only_our_errors(content: bytes, brace: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "model.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + b"{" + content if brace else content)
    with pytest.raises(RelumeError):
        read_tensorfile(path)


# ------------------------------------------------------------------------------------------------------------------ indexes


def _index(folder: Path, weight_map: Any, metadata: Any = None) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))
    return path


@pytest.mark.parametrize(
    "shard",
    [
        "../secret.safetensors", "/etc/secret.safetensors", "a/../../secret.safetensors", "..\\secret.safetensors",
        "C:\\secret.safetensors", "C:secret.safetensors", "\\\\host\\share.safetensors", "a\0.safetensors", "", "./../x.safetensors",
    ],
)  # fmt: skip
def test_an_index_leads_nowhere_else(shard: str, tmp_path: Path) -> None:
    save_weights({"w": torch.ones(2)}, tmp_path / "secret.safetensors")
    (tmp_path / "model").mkdir()
    path = _index(tmp_path / "model", {"w": shard})
    with pytest.raises(UnsafeFileError, match="which is not in its folder. Nothing was read from it"):
        read_state(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "no index of weights"),
        ("{", "is damaged, or no index of weights"),
        ('{"weight_map": []}', "no index of weights"),
        ('{"weight_map": {"\\ud800": "w.safetensors"}}', "is damaged, or no index of weights"),
        ('{"weight_map": {"w": 3}}', "no index of weights"),
        ('{"weight_map": {"w": "a.safetensors", "w": "b.safetensors"}}', "'w' twice"),
        ('{"weight_map": {"w": "gone.safetensors"}}', r"needs 'gone\.safetensors', which is not beside it"),
        ('{"weight_map": {"w": "' + "x" * 300 + '.safetensors"}}', "which is not beside it"),
        ('{"weight_map": {"w": "folder.safetensors"}}', "which is not beside it"),
        ('{"weight_map": {"w": "pytorch_model.bin"}}', "what is read in shards are .safetensors files"),
        ('{"weight_map": {"other": "w.safetensors"}}', r"'other' is not in 'w\.safetensors', where it should be"),
        ('{"weight_map": {"a": "two.safetensors"}}', r"has a tensor 'b' that is not listed for it"),
        ('{"weight_map": {"w": "w.safetensors"}, "metadata": {"relume": "3"}}', "what relume wrote into its metadata was changed"),
        ('{"a": ' + "[" * 100_000 + "}", "is damaged, or no index of weights"),
    ],
)  # fmt: skip
def test_a_hostile_index_is_refused(content: str, message: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "two.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(ModelFileError, match=message):
        read_state(path)


def test_an_index_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(b'{"weight_map": {"\xff": "w.safetensors"}}')
    with pytest.raises(ModelFileError, match="is damaged, or no index of weights"):
        read_state(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_indexes_raise_only_our_errors(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    one = torch.ones(300)
    index = save_weights({"a": one, "b": one, "c": -one}, folder / "model.safetensors", max_shard_bytes=1300)
    content = bytearray(index.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] = data.draw(st.sampled_from(b'0123456789[]{},:"\\/.abc\x00\xff'))
        else:
            del content[place : place + data.draw(st.integers(1, 30))]
        if not content:
            break
    index.write_bytes(content)
    with contextlib.suppress(RelumeError):
        read_sharded(index)


_BEGINNINGS = [
    b"",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x80\x02",
    b"\x80\x04\x95",
    b'{"weight_map": ',
    b"{",
    b"\x08\x08\x12",
]


@settings(max_examples=200, deadline=None)
@given(beginning=st.sampled_from(_BEGINNINGS), rest=st.binary(max_size=300))
def test_any_file_is_refused_with_our_errors(
    beginning: bytes, rest: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "model.pt"
    path.write_bytes(beginning + rest)
    with pytest.raises(RelumeError) as caught:
        read_state(path)
    assert str(path) in str(caught.value)
