"""relume.convert: the same bits in another format, and a report of what was left out."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from relume.errors import (
    ClassicFileError,
    ConfigurationError,
    ModelFileError,
    RecipeError,
    StorageError,
    UnsafeFileError,
)
from relume.models import CNN
from relume.models.files import read_state, save_weights
from relume.models.look import convert, inspect_file
from saved_runs import save_run


def tiny() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def classic(model: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(torch.ones(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    return {
        "epoch": 4,
        "net": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "loss": 0.5,
        "notes": ["one", {"two": (2, 3.0)}],
    }


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {self.canary}",)


# ------------------------------------------------------------------------------------------------------- all the formats


@pytest.mark.parametrize("new", ["new.safetensors", "new.pt", "new.pth"])
@pytest.mark.parametrize("old", ["safetensors", "pt", "legacy", "whole", "script", "sharded"])
def test_every_format_gives_the_same_bits(tmp_path: Path, old: str, new: str) -> None:
    model = tiny().to(torch.bfloat16 if old != "script" else torch.float32)
    path = tmp_path / f"old.{old if old == 'safetensors' else 'pt'}"
    if old == "safetensors":
        save_file(model.state_dict(), path)
    elif old == "script":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated in newer versions
            torch.jit.save(torch.jit.script(model), path)
    elif old == "sharded":
        path = save_weights(model, tmp_path / "sharded.safetensors", max_shard_bytes=100)
    else:
        content = model if old == "whole" else model.state_dict()
        torch.save(content, path, _use_new_zipfile_serialization=old != "legacy")
    done = convert(path, tmp_path / new)
    assert done.tensors == 9 and done.left_out == () and done.size_bytes == (tmp_path / new).stat().st_size
    written = (
        load_file(tmp_path / new) if new.endswith("safetensors") else torch.load(tmp_path / new, weights_only=True)
    )
    assert same({name: written[name] for name in model.state_dict()}, dict(model.state_dict()))
    found = read_state(tmp_path / new)
    assert same({name: found[name] for name in model.state_dict()}, dict(model.state_dict()))
    assert list(found) == list(read_state(path))
    if old == "whole":
        assert done.kind.endswith("Sequential")


def test_shards_are_written_with_their_index(tmp_path: Path) -> None:
    model = tiny()
    torch.save(model.state_dict(), tmp_path / "old.pt")
    done = convert(tmp_path / "old.pt", tmp_path / "new.safetensors", max_shard_bytes=120)
    files = list(tmp_path.glob("new*"))
    assert len(files) > 2 and done.size_bytes == sum(path.stat().st_size for path in files)
    assert done.target == tmp_path / "new.safetensors.index.json"
    assert same(read_state(done.target), dict(model.state_dict()))
    assert same(read_state(tmp_path / "new.safetensors"), dict(model.state_dict()))  # the name that it was given
    with pytest.raises(ConfigurationError, match=r"index.json exists"):
        convert(tmp_path / "old.pt", tmp_path / "new.safetensors", max_shard_bytes=120)


def test_a_class_that_can_no_longer_be_imported(tmp_path: Path) -> None:
    module = types.ModuleType("gone_for_good")
    exec("import torch\nclass Net(torch.nn.Linear):\n    pass", vars(module))
    module.Net.__module__ = "gone_for_good"
    sys.modules["gone_for_good"] = module
    model = module.Net(3, 2)
    torch.save({"model": model, "epoch": 3}, tmp_path / "old.pt")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    del sys.modules["gone_for_good"], module, model
    done = convert(tmp_path / "old.pt", tmp_path / "new.pt")
    assert done.numbers["epoch"] == 3 and "gone_for_good" not in sys.modules
    written = torch.load(tmp_path / "new.pt", weights_only=True)
    assert written["epoch"] == 3 and same(written["model"], state)


@pytest.mark.pt2
def test_to_a_graph_and_back(tmp_path: Path) -> None:
    from relume.models.recipe import build
    from relume.models.whole import load_model, save_model

    model = build(CNN, classes=3).eval()
    save_model(model, tmp_path / "old.safetensors")
    convert(tmp_path / "old.safetensors", tmp_path / "graph.pt2", example_inputs=torch.zeros(2, 1, 28, 28))
    convert(tmp_path / "graph.pt2", tmp_path / "back.safetensors")
    back = read_state(tmp_path / "back.safetensors")  # a graph has its parameters before its buffers
    assert same({name: back[name] for name in model.state_dict()}, dict(model.state_dict()))
    images = torch.randn(5, 1, 28, 28)
    assert torch.equal(load_model(tmp_path / "graph.pt2")(images), model(images))
    convert(tmp_path / "old.safetensors", tmp_path / "copy.safetensors")
    assert isinstance(load_model(tmp_path / "copy.safetensors"), CNN)
    save_weights(model, tmp_path / "bare.safetensors")
    with pytest.raises(RecipeError, match="holds weights and no recipe"):
        convert(tmp_path / "bare.safetensors", tmp_path / "new.pt2", example_inputs=torch.zeros(2, 1, 28, 28))


# --------------------------------------------------------------------------------------------------- beside the weights


def test_a_classic_checkpoint_keeps_its_keys_and_its_optimizer_in_a_pt(tmp_path: Path) -> None:
    content = classic(tiny())
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    done = convert(tmp_path / "old.pt", tmp_path / "new.pt")
    assert done.numbers == {"epoch": 4, "loss": 0.5} and done.left_out == () and "lr 0.01" in done.states["optimizer"]
    written = torch.load(tmp_path / "new.pt", weights_only=True)
    assert list(written) == list(content) and same(written["net"], dict(content["net"]))
    assert (written["epoch"], written["loss"], written["notes"]) == (4, 0.5, ["one", {"two": (2, 3.0)}])
    fresh = tiny()
    optimizer = torch.optim.Adam(fresh.parameters(), lr=0.5)
    optimizer.load_state_dict(written["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 0.01
    kept, was = optimizer.state_dict()["state"], content["optimizer"]["state"]
    assert all(torch.equal(kept[n]["exp_avg"], was[n]["exp_avg"]) for n in was)


def test_safetensors_keeps_the_numbers_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    torch.save(classic(tiny()), tmp_path / "old.pt")
    done = convert(tmp_path / "old.pt", tmp_path / "new.safetensors")
    assert set(done.left_out) == {"optimizer", "notes"} and "left out: optimizer, notes" in str(done)
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        assert file.metadata()["epoch"] == "4" and file.metadata()["loss"] == "0.5"
    assert inspect_file(tmp_path / "new.safetensors").metadata["epoch"] == "4"


def test_metadata_comes_along(tmp_path: Path) -> None:
    save_weights(tiny(), tmp_path / "old.safetensors", metadata={"author": "me"})
    convert(tmp_path / "old.safetensors", tmp_path / "new.safetensors")
    assert inspect_file(tmp_path / "new.safetensors").metadata["author"] == "me"


def test_objects_are_left_out_by_name_and_numpy_comes_as_python(tmp_path: Path) -> None:
    content = {"model": tiny().state_dict(), "best": np.float64(0.25), "path": Path("/tmp/x"), "epoch": 1}
    torch.save(content, tmp_path / "old.pt")
    done = convert(tmp_path / "old.pt", tmp_path / "new.pt")
    written = torch.load(tmp_path / "new.pt", weights_only=True)
    assert written["best"] == 0.25 and "path" not in written
    assert len(done.left_out) == 1 and done.left_out[0].startswith("path (") and "Path" in done.left_out[0]


def test_one_of_several_models(tmp_path: Path) -> None:
    generator, critic = nn.Linear(2, 3), nn.Linear(3, 1)
    content = {"model_state_dicts": {"generator": generator.state_dict(), "critic": critic.state_dict()}, "epoch": 2}
    torch.save(content, tmp_path / "gan.pt")
    done = convert(tmp_path / "gan.pt", tmp_path / "critic.pt", model="critic")
    assert same(torch.load(tmp_path / "critic.pt", weights_only=True), dict(critic.state_dict()))
    assert done.tensors == 2


def test_what_a_checkpoint_has_beside_its_weights_is_named(tmp_path: Path) -> None:
    save_run(tmp_path, "one", [0.5], config={"lr": 0.1})
    kept = " (relume export keeps it)"
    done = convert(tmp_path / "one", tmp_path / "one.pt")
    assert {f"{name}{kept}" for name in ("optimizers", "config", "epoch", "step")} <= set(done.left_out)
    done = convert(tmp_path / "one", tmp_path / "one.safetensors")
    assert done.left_out == (f"optimizers{kept}", f"config{kept}")


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    torch.save(nn.Sequential(first, second).state_dict(), tmp_path / "old.pt")
    convert(tmp_path / "old.pt", tmp_path / "new.safetensors")
    convert(tmp_path / "new.safetensors", tmp_path / "again.pt")
    for name in ("new.safetensors", "again.pt"):
        assert inspect_file(tmp_path / name).tied == {"1.weight": "0.weight"}


# ------------------------------------------------------------------------------------------------- hostile and suspicious


@pytest.mark.parametrize("new", ["new.pt", "new.safetensors"])
def test_a_file_that_would_run_code_is_refused_and_its_tensors_can_be_taken(tmp_path: Path, new: str) -> None:
    canary = tmp_path / "canary"
    torch.save({"state_dict": {"w": torch.ones(2, 2)}, "bomb": Bomb(canary)}, tmp_path / "old.pt")
    with pytest.raises(UnsafeFileError, match="system"):
        convert(tmp_path / "old.pt", tmp_path / new)
    assert not (tmp_path / new).exists()
    done = convert(tmp_path / "old.pt", tmp_path / new, refuse=False)
    assert any("system" in text for text in done.suspicious) and not canary.exists()
    assert any(text.startswith("bomb") for text in done.left_out)
    assert same(dict(read_state(tmp_path / new)), {"w": torch.ones(2, 2)})
    assert not inspect_file(tmp_path / new).suspicious


def test_a_file_that_contains_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": {"w": torch.ones(2, 2)}, "epoch": 1}
    content["self"] = content
    torch.save(content, tmp_path / "old.pt")
    convert(tmp_path / "old.pt", tmp_path / "new.pt")
    assert same(dict(read_state(tmp_path / "new.pt")), {"w": torch.ones(2, 2)})


# --------------------------------------------------------------------------------------------------------- where it goes


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    torch.save(tiny().state_dict(), tmp_path / "old.pt")
    (tmp_path / "new.safetensors").write_bytes(b"precious")
    with pytest.raises(ConfigurationError, match=r"new.safetensors exists.*--force"):
        convert(tmp_path / "old.pt", tmp_path / "new.safetensors")
    assert (tmp_path / "new.safetensors").read_bytes() == b"precious"
    convert(tmp_path / "old.pt", tmp_path / "new.safetensors", force=True)
    assert len(load_file(tmp_path / "new.safetensors")) == 9


@pytest.mark.parametrize("link", ["same", "symlink", "hardlink"])
def test_a_file_is_not_converted_onto_itself(tmp_path: Path, link: str) -> None:
    old, new = tmp_path / "old.pt", tmp_path / "new.pt"
    torch.save(tiny().state_dict(), old)
    if link == "same":
        new = tmp_path / "." / "old.pt"
    elif link == "symlink":
        new.symlink_to(old)
    else:
        new.hardlink_to(old)
    before = old.read_bytes()
    with pytest.raises(ConfigurationError, match="is the file that is to be converted"):
        convert(old, new, force=True)
    assert old.read_bytes() == before


def test_shards_are_not_overwritten_by_their_own_conversion(tmp_path: Path) -> None:
    index = save_weights(tiny(), tmp_path / "net.safetensors", max_shard_bytes=100)
    shard = sorted(tmp_path.glob("net-*.safetensors"))[0]
    with pytest.raises(ConfigurationError, match="may be a part of"):
        convert(index, shard, force=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("new.onnx", "ends in '.onnx'"),
        ("new", "ends in 'nothing'"),
        ("nowhere/new.pt", "no folder"),
        ("folder.pt", "is a folder"),
        ("new.pt2", "needs an input"),
        ("nul\0.pt", "is no path"),
        ("n" * 300 + ".pt", "is no path"),
    ],
)
def test_targets_that_make_no_sense(tmp_path: Path, name: str, message: str) -> None:
    torch.save(tiny().state_dict(), tmp_path / "old.pt")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(ConfigurationError, match=message):
        convert(tmp_path / "old.pt", tmp_path / name)
    for options in ({"max_shard_bytes": 100}, {"example_inputs": torch.zeros(1)}):
        with pytest.raises(ConfigurationError, match="is one file|holds weights"):
            convert(tmp_path / "old.pt", tmp_path / "new.pt", **options)


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=r"folder is a folder\. Give the name of a file: .*model\.safetensors"):
        convert(save_weights(tiny(), tmp_path / "old.pt"), tmp_path / "folder")


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"epoch": 3}, tmp_path / "no_weights.pt")
    (tmp_path / "folder").mkdir()
    for name in ("empty.pt", "text.pt", "missing.pt", "folder"):
        with pytest.raises(StorageError):
            convert(tmp_path / name, tmp_path / "new.pt")
    with pytest.raises(ClassicFileError):
        convert(tmp_path / "no_weights.pt", tmp_path / "new.pt")
    assert not (tmp_path / "new.pt").exists()


def test_a_folder_that_cannot_be_written_to_keeps_the_old_file(tmp_path: Path) -> None:
    torch.save(tiny().state_dict(), tmp_path / "old.pt")
    save_file({"w": torch.ones(2)}, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-3])
    (tmp_path / "new.pt").write_bytes(b"old content")
    with pytest.raises(ModelFileError, match="cut.safetensors"):
        convert(tmp_path / "cut.safetensors", tmp_path / "new.pt", force=True)
    assert (tmp_path / "new.pt").read_bytes() == b"old content"
