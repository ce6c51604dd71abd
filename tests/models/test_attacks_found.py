"""Files that once ended the process, kept it busy for minutes, or made it import: one test for each kind."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from pickle_files import named, state, tensor, text, torch_zip
from torch import nn

import relume
from relume.errors import ModelFileError, UnsafeFileError
from relume.models.exported.expressions import problem_of
from relume.models.files import read_state
from relume.models.pickles import read_torch


@pytest.mark.parametrize("shift", range(1, 16))
def test_complex_numbers_stored_as_bytes_are_aligned(shift: int, tmp_path: Path) -> None:
    own = json.dumps({"version": 1, "checksums": {}, "dtypes": {"a": ["complex128", [3]]}})
    entry = {"dtype": "U8", "shape": [48], "data_offsets": [0, 48]}
    header = json.dumps({"__metadata__": {"relume": own}, "a": entry}).encode()
    header += b" " * ((shift - 8 - len(header)) % 16)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(
        len(header).to_bytes(8, "little") + header + torch.arange(3).to(torch.complex128).numpy().tobytes()
    )
    found = read_state(path)["a"]
    assert found.data_ptr() % 16 == 0 and found.clone().real.tolist() == [0, 1, 2]


def test_a_process_that_has_built_nothing_loads_models_of_relume(tmp_path: Path) -> None:
    relume.save_model(relume.models.MLP(classes=3), tmp_path / "mlp.safetensors")
    relume.save_model(relume.models.make_model("cnn", classes=3), tmp_path / "cnn.safetensors")
    script = "import relume; print([type(relume.load_model(n + '.safetensors')).__name__ for n in ('mlp', 'cnn')])"
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.stdout == "['MLP', 'CNN']\n", ended.stderr


def test_the_name_of_a_layout_imports_nothing(tmp_path: Path) -> None:
    layout = named("torch.serialization", "_get_layout") + b"(" + text("onnx") + b"tR"
    torch_zip(tmp_path / "a.pt", state(tensor(), layout))
    torch_zip(tmp_path / "b.pt", state(tensor()))
    script = f"""
import sys
from relume.models.pickles import read_torch
read_torch({str(tmp_path / "b.pt")!r})
before = set(sys.modules)
read_torch({str(tmp_path / "a.pt")!r})
print(sorted(set(sys.modules) - before))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.stdout == "[]\n", ended.stderr


def test_a_size_of_many_dimensions_is_refused(tmp_path: Path) -> None:
    sizes = b"(" + b"K\x01" * 100_000 + b"tq\x000" + named("torch", "Size") + b"q\x010"
    data = b"\x80\x02" + sizes + b"](" + b"h\x01h\x00\x85R" * 200 + b"e."
    with pytest.raises(ModelFileError, match="a sparse tensor of|torch.Size|a size of"):
        read_torch(torch_zip(tmp_path / "a.pt", data))


@pytest.mark.timeout(30)
def test_a_compressed_pickle_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02](" + b"N" * (50 << 20) + b"e.")
    with pytest.raises(UnsafeFileError, match="it is compressed, which torch never does with pickles"):
        read_torch(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.timeout(30)
@pytest.mark.parametrize("inside", ['\\"', "\\", 'a\\\\"'])
def test_strings_without_an_end_are_passed_over_once(inside: str, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 1)), tmp_path / "a.pt")
    bad = f'\nclass M(Module):\n  __parameters__ = ["{inside * 200_000}]\n  x = "{inside * 200_000}\n'
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (bad.encode() if name.endswith(".py") else b""))
    assert list(read_torch(tmp_path / "b.pt").state) == ["weight", "bias"]


@pytest.mark.parametrize(
    "expression",
    [
        f"({'+'.join(f's{number}' for number in range(60))})**60",
        "*".join(f"(s77+{number})" for number in range(170)),
        "*".join(["Pow(s77,64)"] * 60),
        f"Max({','.join(f's{a}*s{a + 1}' for a in range(100))})",
        "Mul(" + ",".join(f"Add(s0,{number})" for number in range(60)) + ")",
    ],
)
def test_products_without_end_are_no_sizes(expression: str) -> None:
    assert problem_of(expression) == "a product of too many sizes"


@pytest.mark.parametrize("expression", ["2*s0 + 1", "((s1 - 3)//2 + 1)**2", "s0*s1*s2", "Max(1, s0//32)*Mod(s1, 4)"])
def test_ordinary_sizes_stay(expression: str) -> None:
    assert problem_of(expression) == ""


@pytest.mark.timeout(30)
def test_an_index_of_nested_lists_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"a": [' + "[]," * 10_000_000 + "1]}")
    with pytest.raises(ModelFileError, match="lists within lists"):
        read_state(tmp_path / "model.safetensors.index.json")


def test_one_memory_under_two_dtypes_is_saved_by_torch_too(tmp_path: Path) -> None:
    value = torch.randn(4)
    relume.save_weights({"a": value, "b": value.view(torch.int32), "c": value}, tmp_path / "a.pt")
    found = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(found["a"], value) and torch.equal(found["b"], value.view(torch.int32))
    assert torch.equal(found["c"], value)


def test_a_directory_of_millions_is_refused_before_it_is_read(tmp_path: Path) -> None:
    size = 17 << 20
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 60_000, 60_000, size, 4, 0)
    path = tmp_path / "many.pt"
    path.write_bytes(b"PK\x03\x04" + bytes(size) + end)
    with pytest.raises(UnsafeFileError, match=r"whose directory alone has 17,825,792 bytes"):
        read_state(path)


def test_a_header_of_countless_empty_tensors_is_refused(tmp_path: Path) -> None:
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(f'"{number:x}":{entry}' for number in range(200_001)) + "}").encode()
    path = tmp_path / "many.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UnsafeFileError, match="more than 200,000 tensors"):
        read_state(path)
