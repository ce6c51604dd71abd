"""relume inspect, convert, diff and summary, as a user types them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from relume.models.files import save_weights
from saved_runs import flip, save_run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """a.safetensors, b.pt with one changed value, and a file that would run code."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    save_file(model.state_dict(), tmp_path / "a.safetensors", {"author": "[red]me[/red]"})
    with torch.no_grad():
        model[1].bias[1] += 0.5
    torch.save({"epoch": 3, "model_state_dict": model.state_dict(), "loss": 0.5}, tmp_path / "b.pt")
    torch.save({"net": {"w": torch.ones(2, 2)}, "bomb": Bomb()}, tmp_path / "bomb.pt")
    return tmp_path


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


# -------------------------------------------------------------------------------------------------------------- inspect


def test_inspect_prints_what_is_in_a_file(relume: Command, files: Path) -> None:
    status, out, _ = relume("inspect", "a.safetensors")
    assert status == 0 and "0.weight" in out and "3 x 4" in out and "float32" in out and "author: [red]me[/red]" in out
    assert max(map(len, out.splitlines())) <= 80
    status, out, _ = relume("inspect", "b.pt", "--stats")
    assert (
        status == 0 and "numbers: epoch 3, loss 0.5" in out and "mean" in out and max(map(len, out.splitlines())) <= 80
    )


def test_inspect_as_json(relume: Command, files: Path) -> None:
    save_file({"x": torch.tensor([1.0, math.nan])}, files / "nan.safetensors")
    found = json.loads(relume("inspect", "nan.safetensors", "--stats", "--json")[1])
    assert found["format"] == "safetensors" and found["not_finite"] == {"x": 1} and found["stats"]["x"]["mean"] == 1.0
    assert found["tensors"][0]["shape"] == [2] and found["dtypes"] == {"float32": {"elements": 2, "bytes": 8}}
    assert json.loads(relume("inspect", "b.pt", "--json")[1])["numbers"] == {"epoch": 3, "loss": 0.5}


def test_inspect_ends_with_1_where_something_is_suspicious(relume: Command, files: Path) -> None:
    status, out, _ = relume("inspect", "bomb.pt")
    assert status == 1 and "suspicious" in out and "system" in out and not (files / "canary").exists()
    status, out, _ = relume("inspect", "bomb.pt", "--json")
    assert status == 1 and "system" in json.loads(out)["suspicious"][0]


def test_inspect_a_checkpoint(relume: Command, tmp_path: Path) -> None:
    save_run(tmp_path / "runs", "fashion", [0.5, 0.2])
    status, out, _ = relume("inspect", "fashion@best")
    assert status == 0 and "checkpoint" in out and "30 x 20" in out
    assert relume("inspect", "runs/fashion")[0] == 0


@pytest.mark.parametrize("name", ["missing.pt", "empty.pt", "folder", "text.pt", "cut.safetensors", "\x1b[31mred.pt"])
def test_inspect_what_is_no_file_of_weights(relume: Command, files: Path, name: str) -> None:
    (files / "empty.pt").touch()
    (files / "folder").mkdir()
    (files / "text.pt").write_text("hello, this is no model")
    (files / "cut.safetensors").write_bytes((files / "a.safetensors").read_bytes()[:-5])
    status, out, err = relume("inspect", name)
    assert status == 1 and not out and err.startswith("Error: ") and "Traceback" not in err
    assert "\x1b" not in err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_inspect_without_permission(relume: Command, files: Path) -> None:
    (files / "a.safetensors").chmod(0)
    status, _, err = relume("inspect", "a.safetensors")
    assert status == 1 and "a.safetensors" in err


# -------------------------------------------------------------------------------------------------------------- convert


def test_convert_says_what_it_found_and_what_it_left_out(relume: Command, files: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    content = {"epoch": 3, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, files / "old.pth")
    status, out, _ = relume("convert", "old.pth", "new.safetensors")
    assert status == 0 and "weights: 2 tensors, 6 numbers" in out and "epoch 3" in out and "left out: optimizer" in out
    assert torch.equal(load_file(files / "new.safetensors")["weight"], model.weight)
    status, out, _ = relume("convert", "old.pth", "new.pt", "--json")
    assert status == 0 and json.loads(out)["left_out"] == [] and json.loads(out)["numbers"] == {"epoch": 3}


def test_convert_twice_needs_force(relume: Command, files: Path) -> None:
    assert relume("convert", "b.pt", "new.safetensors")[0] == 0
    before = (files / "new.safetensors").read_bytes()
    status, _, err = relume("convert", "a.safetensors", "new.safetensors")
    assert status == 1 and "--force" in err and (files / "new.safetensors").read_bytes() == before
    assert relume("convert", "a.safetensors", "new.safetensors", "--force")[0] == 0
    status, _, err = relume("convert", "b.pt", "b.pt", "--force")
    assert status == 1 and "is the file that is to be converted" in err


def test_convert_a_suspicious_file(relume: Command, files: Path) -> None:
    status, _, err = relume("convert", "bomb.pt", "clean.pt")
    assert status == 1 and "system" in err and not (files / "clean.pt").exists()
    status, out, _ = relume("convert", "bomb.pt", "clean.pt", "--take-from-suspicious")
    assert status == 0 and "suspicious" in out and "left out: bomb" in out and not (files / "canary").exists()
    assert torch.equal(torch.load(files / "clean.pt", weights_only=True)["net"]["w"], torch.ones(2, 2))


def test_convert_a_checkpoint_keeps_its_optimizer_in_a_pt(relume: Command, tmp_path: Path) -> None:
    save_run(tmp_path / "runs", "fashion", [0.5, 0.2])
    status, out, _ = relume("convert", "fashion@best", "best.pt")
    assert status == 0 and "optimizer_state_dict" in out
    written = torch.load(tmp_path / "best.pt", weights_only=True)
    assert written["epoch"] == 2 and "optimizer_state_dict" in written
    assert relume("convert", "fashion@best", "best.safetensors")[0] == 0
    assert torch.equal(load_file(tmp_path / "best.safetensors")["0.weight"], written["model_state_dict"]["0.weight"])
    assert relume("convert", "fashion@best", "best.pt")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["b.pt"], 2, "Missing argument"),
        (["b.pt", "new.onnx"], 1, "ends in '.onnx'"),
        (["b.pt", "nowhere/new.pt"], 1, "no folder"),
        (["missing.pt", "new.pt"], 1, "missing.pt"),
        (["b.pt", "new.safetensors", "--shard", "big"], 2, "is no size"),
        (["b.pt", "new.safetensors", "--shard", "0MB"], 2, "is no size"),
        (["b.pt", "new.pt", "--shard", "5GB"], 1, "is for .safetensors"),
        (["b.pt", "new.pt", "--input", "3x4"], 1, "holds weights"),
        (["b.pt", "new.pt2"], 1, "--input 3x224x224"),
        (["b.pt", "new.pt2", "--input", "3by4"], 2, "is no shape"),
        (["b.pt", "new.pt", "--model", "critic"], 1, "critic"),
    ],
)
def test_convert_with_wrong_arguments(
    relume: Command, files: Path, arguments: list[str], status: int, message: str
) -> None:
    before = sorted(path.name for path in files.iterdir())
    found, _, err = relume("convert", *arguments)
    assert (found, message in err) == (status, True), err
    assert sorted(path.name for path in files.iterdir()) == before


def test_convert_into_shards(relume: Command, files: Path) -> None:
    assert relume("convert", "b.pt", "new.safetensors", "--shard", "0.05kB")[0] == 0
    assert len(list(files.glob("new*"))) > 2 and relume("diff", "b.pt", "new.safetensors.index.json")[0] == 0


# ----------------------------------------------------------------------------------------------------------------- diff


def test_the_exit_status_of_diff_is_that_of_diff(relume: Command, files: Path) -> None:
    status, out, _ = relume("diff", "a.safetensors", "a.safetensors")
    assert status == 0 and "4 same" in out
    status, out, _ = relume("diff", "a.safetensors", "b.pt")
    assert status == 1 and "1.bias" in out and "3 same, 1 changed" in out and max(map(len, out.splitlines())) <= 80
    assert relume("diff", "a.safetensors", "b.pt", "--tolerance", "0.6")[0] == 0
    for wrong in (["a.safetensors", "missing.pt"], ["a.safetensors", "bomb.pt"], ["a.safetensors"], []):
        status, _, err = relume("diff", *wrong)
        assert status == 2 and err
    status, _, err = relume("diff", "a.safetensors", "b.pt", "--tolerance", "-1")
    assert status == 2 and "tolerance=-1" in err


def test_diff_of_files_with_several_models(relume: Command, files: Path) -> None:
    states = {"G": nn.Linear(2, 3).state_dict(), "D": nn.Linear(3, 1).state_dict()}
    torch.save(states, "gan.pt")
    save_weights(states["G"], "plain.safetensors")
    status, _, err = relume("diff", "gan.pt", "gan.pt")
    assert status == 2 and "several models: G, D; choose with model= (--model)" in err
    assert relume("diff", "gan.pt", "plain.safetensors", "--model", "G")[0] == 0
    status, out, _ = relume("inspect", "gan.pt", "--model", "D")
    assert status == 0 and "1 x 3" in out
    assert relume("diff", "plain.safetensors", "gan.pt", "--model", "D")[0] == 1


def test_diff_as_json(relume: Command, files: Path) -> None:
    status, out, _ = relume("diff", "a.safetensors", "b.pt", "--json")
    found = json.loads(out)
    changed = [one for one in found["tensors"] if one["status"] == "changed"]
    assert status == 1 and not found["is_same"] and changed[0]["change"]["at"] == [1]
    assert changed[0]["change"]["largest"] == pytest.approx(0.5)


def test_diff_of_checkpoints(relume: Command, tmp_path: Path) -> None:
    saved = save_run(tmp_path / "runs", "fashion", [0.5, 0.2])
    status, out, _ = relume("diff", "fashion@1", "fashion@2")
    assert status == 1 and "2 same, 2 changed" in out  # its first layer is frozen
    flip(saved[1].path)
    assert relume("diff", "fashion@1", "fashion@2")[0] == 2


# -------------------------------------------------------------------------------------------------------------- summary


def test_summary_of_a_named_model(relume: Command) -> None:
    status, out, _ = relume("summary", "torchvision/resnet18", "--input", "3x224x224", "--optimizer", "adamw")
    assert status == 0 and "11,689,512" in out and "1.81 G" in out and "state of AdamW" in out
    assert max(map(len, out.splitlines())) <= 80
    found = json.loads(relume("summary", "timm/resnet10t", "--json", "-b", "4")[1])
    assert (
        found["batch_size"] == 4 and found["parameters"] == 5_435_488 and found["inputs"] == "4 x 3 x 224 x 224 float32"
    )


def test_summary_of_the_small_models_and_of_other_numbers_of_classes(relume: Command) -> None:
    assert "669,706" in relume("summary", "mlp")[1]
    assert "Conv2d" in relume("summary", "cnn", "-i", "3x32x32", "--depth", "2")[1]
    found = json.loads(relume("summary", "torchvision/resnet18", "--classes", "7", "--json")[1])
    assert found["parameters"] == 11_689_512 - 993 * 513


def test_a_name_without_its_library_is_hinted_at(relume: Command) -> None:
    status, _, err = relume("summary", "resnet18")
    assert status == 1 and "A model by its name is torchvision/resnet18 or timm/resnet18." in err


def test_a_model_that_looks_at_values_while_it_is_built(relume: Command) -> None:
    """It cannot be built without them."""
    status, out, _ = relume("summary", "torchvision/googlenet", "--depth", "1")
    assert status == 0 and "6,624,904" in out


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_huge_model_needs_no_memory() -> None:
    code = (
        "import sys; sys.argv = ['relume', 'summary', 'torchvision/vit_h_14']\n"
        "from relume.cli import app; status = app._status()\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print('peak', status, peak.split()[1])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "632,045,800" in out
    status, peak_kb = map(int, out.splitlines()[-1].split()[1:])
    assert status == 0 and peak_kb < 1_200_000  # its weights are 2.5 GB


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["torchvision/resnet999"], 1, "no classification model"),
        (["resnet18"], 1, "resnet18"),
        (["mlp", "--input", "3by4"], 2, "is no shape"),
        (["mlp", "--input", "0x3x3"], 1, "at least 1"),
        (["mlp", "--input", "5"], 2, "takes one image"),
        (["mlp", "--batch-size", "0"], 2, "batch-size"),
        (["mlp", "--dtype", "float99"], 1, "'float99' is no dtype"),
        (["mlp", "--optimizer", "adamm"], 1, "did you mean 'adam"),
        (["timm/vit_tiny_patch16_224", "--input", "3x30x40"], 1, "cannot take|does not take"),
        (["folder"], 1, "folder"),
        (["a.safetensors", "--classes", "3"], 2, "is for models by name"),
        ([], 2, "Missing argument"),
    ],
)
def test_summary_with_wrong_arguments(
    relume: Command, files: Path, arguments: list[str], status: int, message: str
) -> None:
    (files / "folder").mkdir()
    found, _, err = relume("summary", *arguments)
    assert found == status and any(part in err for part in message.split("|")) and "Traceback" not in err


def test_summary_of_a_model_file(relume: Command, tmp_path: Path) -> None:
    from relume.models.recipe import build
    from relume.models.whole import save_model

    save_model(build(nn.Linear, 4, 3), tmp_path / "model.safetensors")
    status, out, _ = relume("summary", "model.safetensors", "--input", "4")
    assert status == 0 and "15" in out and "Linear" in out
    save_weights(nn.Linear(4, 3), tmp_path / "bare.safetensors")
    status, _, err = relume("summary", "bare.safetensors")
    assert status == 1 and "bare.safetensors" in err
