"""ONNX and .pt2: run by others they give what the model gives, and a file that does not is never there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_bundles import packed, recipe
from torch import nn

import relume
from relume.errors import ConfigurationError, MissingPackageError, ModelFileError
from relume.models.contents import CLASSES, INPUT, RECIPE
from relume.models.exported import graph_files
from relume.models.whole import model_document, save_model
from relume.share import onnxfile
from relume.share.export import export

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def network() -> nn.Module:
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3)]
    return nn.Sequential(*layers)


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, image: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls.add_(1)
        return {"scores": self.layer(image) * scale, "image": image.sum(1)}


class Unfaithful(nn.Module):
    """Gives something else when it is traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if torch.compiler.is_exporting() else x


def ran(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def test_onnx_runs_any_batch_and_is_what_the_model_is(tmp_path: Path) -> None:
    model = network().train()
    done = export(model, tmp_path / "a.onnx", input_shape=(1, 8, 8))
    assert model.training and model[1].training
    model.eval()
    images = torch.rand(9, 1, 8, 8)
    (found,) = ran(done.path, input=images.numpy())
    torch.testing.assert_close(torch.from_numpy(found), model(images).detach(), rtol=0, atol=1e-5)
    assert done.difference < 1e-5
    assert (done.inputs, done.outputs) == ({"input": "batch x 1 x 8 x 8 float32"}, {"output": "batch x 3 float32"})
    assert [one.name for one in tmp_path.iterdir()] == ["a.onnx"]
    assert done.size_bytes == done.path.stat().st_size


def test_names_of_several_inputs_and_outputs_and_the_model_is_as_it_was(tmp_path: Path) -> None:
    model = Named()
    done = export(model, tmp_path / "a.onnx", example_inputs=(torch.rand(3, 4), torch.rand(3, 1)))
    proto = onnx.load(done.path)
    assert [one.name for one in proto.graph.input] == ["image", "scale"]
    assert [one.name for one in proto.graph.output] == ["scores", "image_"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert model.calls == 0


def test_a_file_tells_nobody_where_it_was_made_and_is_the_same_twice(tmp_path: Path) -> None:
    model = network()
    for ending in ("onnx", "pt2"):
        if ending == "pt2" and torch.torch_version.TorchVersion(torch.__version__) < "2.9":
            continue
        first, second = (
            export(model, tmp_path / f"{name}.{ending}", input_shape=(1, 8, 8)).path.read_bytes() for name in "ab"
        )
        assert first == second
        places = (str(Path.home()), str(Path.cwd()), str(Path(torch.__file__).parents[1]), "test_export", "fx_node")
        for secret in places:
            assert secret.encode() not in first


@pytest.mark.pt2
def test_pt2_is_equal_to_the_last_bit_and_plain_torch_loads_it(tmp_path: Path) -> None:
    model = network().eval()
    done = export(model, tmp_path / "a.pt2", input_shape=(1, 8, 8))
    images = torch.rand(4, 1, 8, 8)
    assert done.difference == 0
    assert torch.equal(torch.export.load(done.path).module()(images), model(images))
    assert "equal to the last bit" in str(done)


def test_classes_and_preprocessing_of_a_file_are_in_its_metadata(tmp_path: Path) -> None:
    model = relume.models.CNN(channels=1, classes=2)
    source = relume.save_weights(
        model,
        tmp_path / "a.safetensors",
        metadata={
            RECIPE: json.dumps(model_document(model)),
            CLASSES: json.dumps(["cat", "dog"]),
            INPUT: json.dumps({"size": 28, "channels": 1}),
        },
    )
    done = export(source, tmp_path / "a.onnx")
    held = {one.key: one.value for one in onnx.load(done.path).metadata_props}
    assert json.loads(held[CLASSES]) == ["cat", "dog"]
    assert json.loads(held[INPUT]) == {"size": 28, "channels": 1}
    assert list(done.inputs.values()) == ["batch x 1 x 28 x 28 float32"]


@pytest.mark.pt2
def test_a_graph_is_exported_again_without_the_class(tmp_path: Path) -> None:
    model = network().eval()
    path = save_model(model, tmp_path / "a.pt2", example_inputs=torch.rand(2, 1, 8, 8))
    done = export(path, tmp_path / "a.onnx", input_shape=(1, 8, 8))
    (found,) = ran(done.path, input=np.ones((3, 1, 8, 8), np.float32))
    torch.testing.assert_close(torch.from_numpy(found), model(torch.ones(3, 1, 8, 8)).detach(), rtol=0, atol=1e-5)


def test_weights_beside_the_file(tmp_path: Path) -> None:
    done = export(network(), tmp_path / "a.onnx", input_shape=(1, 8, 8), weights_apart=True)
    assert done.data == tmp_path / "a.onnx.data"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.onnx", "a.onnx.data"]
    assert "weights are in a.onnx.data, which must stay beside it" in str(done)
    assert ran(done.path, input=np.ones((3, 1, 8, 8), np.float32))[0].shape == (3, 3)


def test_one_file_has_no_room_for_all_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxfile, "MAX_BYTES", 100)
    assert export(nn.Linear(300, 2), tmp_path / "a.onnx", input_shape=(300,)).data == tmp_path / "a.onnx.data"
    with pytest.raises(ConfigurationError, match="one file of ONNX holds 100: leave weights_apart=False out"):
        export(nn.Linear(300, 2), tmp_path / "b.onnx", input_shape=(300,), weights_apart=False)


def test_what_differs_is_not_written_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ModelFileError, match=r"nothing was written: for a batch of 1, .* differs from the model by"):
        export(Unfaithful(), path, example_inputs=torch.rand(2, 3), force=True)
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.onnx"]


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "ending": ("a.bin", {}, r"ends in '\.bin'. The ending says what is written: \.onnx"),
    "folder": ("no/a.onnx", {}, "there is no folder"),
    "no example": ("a.onnx", {}, "does not say what its model is called with"),
    "both": ("a.onnx", {"input_shape": (3,), "example_inputs": torch.rand(2, 3)}, "not both"),
    "shape": ("a.onnx", {"input_shape": (0, 3)}, "lengths without the batch"),
    "wrong shape": ("a.onnx", {"input_shape": (5,)}, r"cannot be called with the examples \(1 x 5 float32\)"),
    "no batch": ("a.onnx", {"example_inputs": torch.tensor(1.0)}, "no tensor with a first dimension"),
    "tolerance": ("a.onnx", {"tolerance": float("nan"), "input_shape": (3,)}, "tolerance=nan"),
    "opset": ("a.onnx", {"opset": 3, "input_shape": (3,)}, "opset=3"),
    "opset of pt2": ("a.pt2", {"opset": 20, "input_shape": (3,)}, "are for .onnx"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_make_no_sense(name: str, tmp_path: Path) -> None:
    out, options, message = REFUSED[name]
    with pytest.raises(ConfigurationError, match=message):
        export(nn.Linear(3, 2), tmp_path / out, **options)
    assert list(tmp_path.iterdir()) == []


def test_sources_that_are_none(tmp_path: Path) -> None:
    weights = relume.save_weights(nn.Linear(3, 2), tmp_path / "a.safetensors")
    with pytest.raises(ConfigurationError, match=r"does not say how its model is built.*relume.export\(model"):
        export(weights, tmp_path / "a.onnx", input_shape=(3,))
    with pytest.raises(ConfigurationError, match="source is 3"):
        export(3, tmp_path / "a.onnx")  # type: ignore[arg-type]
    (tmp_path / "b.onnx").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"b.onnx exists.*--force"):
        export(nn.Linear(3, 2), tmp_path / "b.onnx", input_shape=(3,))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(MissingPackageError, match=r'onnxscript is not installed: pip install "relume\[onnx\]"'):
        export(nn.Linear(3, 2), tmp_path / "a.onnx", input_shape=(3,))


@pytest.mark.pt2
def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    source = save_model(relume.models.MLP(classes=3), tmp_path / "a.safetensors")
    command = [sys.executable, "-m", "relume", "export", str(source), "a.pt2", "--input", "1x28x28"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "compared with the model for batches of 1, 2, 5: equal to the last bit" in done.stdout
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "a.pt2 exists. Choose another name, or overwrite it with --force" in " ".join(again.stderr.split())


def test_a_bundle_is_exported_by_its_recipe_and_by_its_graph_alone(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)).eval()
    files = graph_files(model, torch.rand(2, 4))
    both = packed(tmp_path / "both.relume", model, files=files)
    alone = packed(tmp_path / "alone.relume", document=recipe("elsewhere:Net"), state=model.state_dict(), files=files)
    with pytest.raises(ConfigurationError, match="does not say what its model is called with"):
        export(both, tmp_path / "both.pt2")
    for source, options in ((both, {"input_shape": (4,)}), (alone, {})):
        done = export(source, tmp_path / f"{source.stem}.pt2", **options)
        assert done.difference == 0 and done.inputs in ({"input": "batch x 4 float32"}, {"x": "batch x 4 float32"})
        x = torch.rand(7, 4)
        assert torch.equal(relume.load_model(done.path)(x), model(x))


def test_what_killed_exports_left_behind_is_swept(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, busy = (tmp_path / f".small.pt2.{pid}-0123abcd.exporting" for pid in (gone.pid, os.getpid()))
    left.mkdir(), busy.mkdir()
    (left / "small.pt2").write_bytes(b"half")
    export(nn.Linear(4, 3), tmp_path / "small.pt2", input_shape=(4,))
    assert sorted(one.name for one in tmp_path.iterdir()) == [busy.name, "small.pt2"]


def test_a_bundle_as_a_classic_file_is_refused_with_the_command_that_works(tmp_path: Path) -> None:
    path = packed(tmp_path / "small.relume", nn.Linear(2, 3))
    done = subprocess.run(
        [sys.executable, "-m", "relume", "export", str(path), str(tmp_path / "small.pt")],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "is a bundle, and has no checkpoint" in " ".join((done.stdout + done.stderr).split())


class Choosing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x


def test_why_there_is_no_graph_is_said_without_how_to_debug_torch(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="graph of Choosing for any batch size: .*data-dependent") as caught:
        export(Choosing(), tmp_path / "a.pt2", input_shape=(4,))
    assert not any(word in str(caught.value) for word in ("run with", "TORCH_LOGS", "Caused by", "_export/"))


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, torch\nfrom relume.share.export import export\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"export(torch.nn.Linear(400, 400), {str(tmp_path / 'a.pt2')!r}, input_shape=(400,))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "StoreWriteError: " in done.stderr and not list(tmp_path.iterdir())
