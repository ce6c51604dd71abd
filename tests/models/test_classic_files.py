"""The classic checkpoint as it is found in files: what is understood, what is left, what is refused."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from relume.errors import ClassicFileError, ModelFileError, UnsafeFileError
from relume.models.classic import classic_of, read_classic
from relume.models.pickles import Inert


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 3))


def test_numpy_scalars_of_all_kinds_become_python_numbers(tmp_path: Path) -> None:
    kinds = ("bool", "int8", "uint16", "int64", "float16", "float32", "float64", ">f8", ">i4")
    values = {kind: np.array(1, dtype=kind)[()] for kind in kinds}
    torch.save({"model": _model().state_dict(), "metrics": values}, tmp_path / "old.pt")
    assert read_classic(tmp_path / "old.pt").metrics == {kind: 1 for kind in kinds if kind != "bool"}
    assert np.dtype("f8").isnative


class _Runs:
    """Leaves a mark when it is unpickled by its own class."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("it-ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_runs(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": _model().state_dict(), "x": _Runs()}, "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFileError, match=r"evil.pt is refused.*posix.mkdir\('it-ran'\).*Nothing of it was run"):
        read_classic("evil.pt")
    assert not Path("it-ran").exists()


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_model_gives_its_weights(zipped: bool, tmp_path: Path) -> None:
    model = _model()
    optimizer = torch.optim.Adam(model.parameters())
    content = {
        "epoch": 2,
        "model": model,
        "ema": None,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=1),
    }
    torch.save(content, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    found = read_classic(tmp_path / "whole.pt")
    assert list(found.models["model"]) == list(model.state_dict())
    assert all(torch.equal(found.models["model"][name], value) for name, value in model.state_dict().items())
    assert (found.epoch, found.config, found.unused) == (2, {"lr": 1}, [])
    assert found.optimizers["optimizer"] == optimizer.state_dict()
    torch.save(model, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    assert list(read_classic(tmp_path / "whole.pt").models["model"]) == list(model.state_dict())


class _Settings:
    def __init__(self) -> None:
        self.lr = 0.1


class _Dict(dict[str, Any]):
    """As configuration libraries have them."""


def test_unknown_objects_are_named_and_left_out(tmp_path: Path) -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5).state_dict() | {"odd": _Settings()}
    config = _Dict(lr=0.1, settings=_Settings())
    content = {
        "state_dict": _Dict(model.state_dict()),
        "scheduler": scheduler,
        "optimizer": optimizer.state_dict() | {"param_groups": [{"params": [0], "odd": _Settings()}]},
        "config": config,
        "who": _Settings(),
    }
    torch.save(content, tmp_path / "old.pt")
    found = read_classic(tmp_path / "old.pt")
    assert list(found.models["model"]) == list(model.state_dict())
    assert found.config == {"lr": 0.1} and not found.optimizers
    assert "odd" not in found.schedulers["scheduler"] and found.schedulers["scheduler"]["T_max"] == 5
    assert found.unused == ["scheduler.odd", "optimizer.param_groups", "config.settings", "who"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "holds a Tensor, and neither a state_dict"),
        ([1, 2], "holds a list, and neither a state_dict"),
        (_Settings(), r"holds an object of .*\._Settings, and neither"),
        ({"epoch": 3}, "has no state_dict of a model in it: it holds a dictionary with 'epoch'"),
        ({}, "it holds a dictionary with nothing"),
        ({"model": {"a": "text"}, "losses": np.ones(3)}, r"it holds a dictionary with 'model', 'losses'"),
    ],
)
def test_what_is_no_classic_checkpoint_is_said(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "old.pt")
    with pytest.raises(ClassicFileError, match=message):
        read_classic(tmp_path / "old.pt")


def test_arrays_are_read(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(3)}, "losses": np.ones(3)}, tmp_path / "old.pt")
    found = read_classic(tmp_path / "old.pt")
    assert list(found.models) == ["model"] and found.unused == ["losses"]


def test_damaged_and_foreign_files_are_said(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    with pytest.raises(ModelFileError, match="there is no file"):
        read_classic(path)
    with pytest.raises(ModelFileError, match="is a folder"):
        read_classic(tmp_path)
    torch.save(_model().state_dict(), path)
    whole = path.read_bytes()
    for content, message in {
        b"": "is empty",
        b"hello": "is damaged, or torch.save did not write it: it begins with b'hello'",
        b"PK\x03\x04": "is damaged",
        whole[: len(whole) // 2]: "does not end with a zip archive's directory",
        pickle.dumps({"a": 1}): "is a plain pickle",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            read_classic(path)


def test_lists_that_share_one_another_are_left_out() -> None:
    shared: list[Any] = [1, 2]
    for _ in range(60):
        shared = [shared, shared]
    itself: list[Any] = []
    itself.append(itself)
    optimizer = {"state": {}, "param_groups": [{"params": [0], "lr": shared}]}
    content = {"model": {"a": torch.ones(3)}, "config": {"x": shared, "y": 1, "z": itself}, "optimizer": optimizer}
    found = classic_of(content, Path("old.pt"))
    assert found.config == {"y": 1} and not found.optimizers
    assert found.unused == ["config.x", "config.z", "optimizer.param_groups"]


def test_several_models_come_by_name() -> None:
    weights = {"a": torch.ones(3)}
    content = {
        "generator": weights,
        "critic_state_dict": weights,
        "model_state_dicts": {"x": weights, "y": Inert("a.B")},
    }
    found = classic_of(content, Path("old.pt"))
    assert sorted(found.models) == ["critic", "generator", "x"] and found.unused == ["model_state_dicts"]


@pytest.mark.parametrize("epoch", [2**2000, float("nan"), float("inf"), True, torch.ones(1, dtype=torch.complex64)])
def test_odd_numbers_are_no_epochs(epoch: Any) -> None:
    assert classic_of({"model": {"a": torch.ones(3)}, "epoch": epoch}, Path("old.pt")).epoch is None
