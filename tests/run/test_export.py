"""Exports: files that plain torch and safetensors read, whole or not there at all."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from relume.checkpoint import Checkpoint, Store
from relume.errors import (
    ClassicFileError,
    ConfigurationError,
    RelumeWarning,
    StoreWriteError,
    UnknownNameError,
)
from relume.models.files import read_state
from relume.run.export import export
from saved_runs import describe, state_of, train

PLAIN_SCRIPT = """
import sys, torch
from torch import nn
assert not any(name.startswith("relume") for name in sys.modules)
model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))
optimizer = {optimizer}
checkpoint = torch.load("new.pt", weights_only=True)
model.load_state_dict(checkpoint["model_state_dict"])
optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
for step in range(checkpoint["step"], checkpoint["step"] + 5):
    x = torch.randn(16, 20, generator=torch.Generator().manual_seed(step))
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(loss.item().hex())
"""


def _model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))


def _save(root: Path, models: dict[str, nn.Module], **meta: object) -> tuple[Store, Checkpoint]:
    store = Store(root)
    described = describe(2, 5, {"val/loss": 0.5}) | {"run": "fashion"} | meta
    return store, store.save(state_of(models, {}), described, folder="fashion/checkpoints", label="epoch=2")


@pytest.mark.parametrize(
    "optimizer",
    ["torch.optim.Adam(model.parameters(), 0.1)", "torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)"],
)
def test_a_plain_script_continues_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    model = _model()
    live = eval(optimizer, {"torch": torch, "model": model})
    train(model, live, 5)
    store = Store(tmp_path)
    checkpoint = store.save(state_of({"model": model}, {"optimizer": live}), describe(1, 5, {}))
    written = export(store, checkpoint, tmp_path / "new.pt")
    assert written.size_bytes == written.path.stat().st_size < 60_000
    script = PLAIN_SCRIPT.format(optimizer=optimizer)
    command = [sys.executable, "-W", "error", "-c", script]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == train(model, live, 5, first=5)


def test_safetensors_hold_the_weights_and_say_where_they_are_from(tmp_path: Path) -> None:
    model = _model()
    store, checkpoint = _save(tmp_path, {"model": model})
    export(store, checkpoint, tmp_path / "new.safetensors")
    with safetensors.safe_open(tmp_path / "new.safetensors", "pt") as file:
        metadata = file.metadata()
        assert "checksums" in metadata.pop("relume")
        assert metadata == {
            "format": "pt",
            "run": "fashion",
            "checkpoint": "000001-epoch=2",
            "epoch": "2",
            "step": "5",
            "metrics": '{"val/loss": 0.5}',
        }
    fresh = _model()
    safetensors.torch.load_model(fresh, tmp_path / "new.safetensors")
    assert all(torch.equal(one, two) for one, two in zip(fresh.parameters(), model.parameters(), strict=True))


def test_tied_weights_are_in_a_safetensors_file_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    store, checkpoint = _save(tmp_path, {"model": model})
    written = export(store, checkpoint, tmp_path / "tied.safetensors")
    assert written.contents == ["0.weight", "0.bias", "1.bias"]
    with safetensors.safe_open(written.path, "pt") as file:
        assert file.metadata()["1.weight"] == "0.weight"
    fresh = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    fresh[1].weight = fresh[0].weight
    safetensors.torch.load_model(fresh, written.path)
    assert torch.equal(fresh[1].weight, model[1].weight)


def test_one_of_several_models_is_chosen_for_safetensors(tmp_path: Path) -> None:
    store, checkpoint = _save(tmp_path, {"generator": _model(), "critic": nn.Linear(3, 1)})
    out = tmp_path / "new.safetensors"
    with pytest.raises(ConfigurationError, match=r"several models: generator, critic; choose with model= \(--model"):
        export(store, checkpoint, out)
    with pytest.raises(UnknownNameError, match=r"no model 'critc' in the checkpoint: did you mean 'critic'\?"):
        export(store, checkpoint, out, model="critc")
    with pytest.raises(ConfigurationError, match=r"model='critic' is for .safetensors"):
        export(store, checkpoint, tmp_path / "new.pt", model="critic")
    assert export(store, checkpoint, out, model="critic").contents == ["weight", "bias"]


def test_what_safetensors_has_no_name_for_comes_back_through_relume(tmp_path: Path) -> None:
    odd = nn.Module()
    odd.register_buffer("phase", torch.ones(2, dtype=torch.complex128))
    store, checkpoint = _save(tmp_path, {"model": odd})
    export(store, checkpoint, tmp_path / "new.safetensors")
    assert torch.equal(read_state(tmp_path / "new.safetensors")["phase"], odd.phase)
    with pytest.raises(ClassicFileError, match="has no models in it"):
        export(store, store.save({"weight": torch.ones(2)}), tmp_path / "other.safetensors")


def test_a_file_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    store, checkpoint = _save(tmp_path, {"model": _model()})
    out = tmp_path / "new.pt"
    out.write_text("precious")
    with pytest.raises(ConfigurationError, match=r"new.pt exists.*--force"):
        export(store, checkpoint, out)
    assert out.read_text() == "precious"
    export(store, checkpoint, out, force=True)
    assert torch.load(out, weights_only=True)["epoch"] == 2
    with pytest.raises(ConfigurationError, match=r"ends in '\.onnx'.*\.pt or \.pth.*\.safetensors"):
        export(store, checkpoint, tmp_path / "new.onnx")
    with pytest.raises(ConfigurationError, match="there is no folder .*nowhere to write new.pt to"):
        export(store, checkpoint, tmp_path / "nowhere" / "new.pt")


def test_an_export_from_within_an_epoch_warns(tmp_path: Path) -> None:
    store, checkpoint = _save(tmp_path, {"model": _model()}, cursor={"epoch": 2, "batch": 7, "step": 5})
    with pytest.warns(RelumeWarning, match="2 epochs are done, and 7 batches of the next"):
        export(store, checkpoint, tmp_path / "new.pt")
    assert torch.load(tmp_path / "new.pt", weights_only=True)["batch"] == 7


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """A disk that takes no file over 4 kB. (Not a fixture: pytest's own output must have room again.)"""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("name", ["new.pt", "new.safetensors"])
def test_a_full_disk_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    store, checkpoint = _save(tmp_path / "runs", {"model": nn.Linear(200, 200)})
    out = tmp_path / name
    out.write_text("precious")
    with small_files(), pytest.raises(StoreWriteError, match=f"writing {name} failed in .*File too large"):
        export(store, checkpoint, out, force=True)
    assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "runs"]
