"""Offline runs that wandb itself wrote become runs; damaged and hostile files are errors that say why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("wandb")

from relume.errors import RelumeWarning, RunError
from relume.monitor.journal import live_lines
from relume.recorded import choose, facts_of, history
from relume.recorded.imports import import_wandb

_SCRIPT = """
    import math, numpy as np, wandb
    run = wandb.init(project="p", name="swift run", config={"lr": 0.1, "optimizer": {"name": "adam"}}, tags=["paper"], notes="first try")
    run.config.update({"late": True})
    for step in range(300):
        run.log({"loss": 1 / (step + 1), "val": {"accuracy": step / 300}})
    run.log({"bad": math.nan, "picture": wandb.Image(np.zeros((4, 6, 3), np.uint8), caption="black"), "weights": wandb.Histogram([0.0, 1.0, 1.0, 5.0])})
    run.log({"table": wandb.Table(columns=["a"], data=[[1]])})
    run.summary["test/accuracy"] = 0.75
    run.finish()
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("offline")
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(folder), "WANDB_SILENT": "true", "WANDB__DISABLE_STATS": "true"}  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(_SCRIPT)], cwd=folder, env=environment, capture_output=True, text=True, check=False)  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (found,) = (folder / "wandb").glob("offline-run-*")
    return found


def wandb_file(folder: Path) -> Path:
    (found,) = folder.glob("run-*.wandb")
    return found


def copied(offline: Path, target: Path) -> Path:
    shutil.copytree(offline, target / offline.name)
    return target / offline.name


def test_config_history_media_and_summary_come_in(offline: Path, tmp_path: Path) -> None:
    (found,) = import_wandb(offline, tmp_path)
    assert found.name == "swift run" and found.is_new
    assert found.media == {"image": 1, "histogram": 1} and found.skipped == {"table-file": 1}
    table = history(found.folder)
    assert (
        table["step"].tolist()[:3] == [0, 1, 2] and table["loss"][299] == 1 / 300 and table["val/accuracy"][150] == 0.5
    )
    facts = facts_of(found.folder)
    assert facts["config"] == {"lr": 0.1, "optimizer": {"name": "adam"}, "late": True}
    assert (facts["status"], facts["tags"], facts["notes"]) == ("finished", ["paper"], "first try")
    assert facts["metrics"]["test/accuracy"]["last"] == 0.75 and "bad" in facts["metrics"]
    assert choose([facts], "'paper' in tags and optimizer.name == 'adam' and val/accuracy > 0.9") == [facts]
    media = {name: content for line in live_lines(found.folder) for name, content in line.get("media", {}).items()}
    picture = media["picture"]
    assert (picture["width"], picture["height"], picture["caption"]) == (6, 4, "black")
    assert (found.folder / picture["file"]).read_bytes()[:4] == b"\x89PNG"
    assert media["weights"]["count"] == 4 and len(media["weights"]["edges"]) == len(media["weights"]["counts"]) + 1


def test_a_second_import_from_any_place_names_the_run_that_is_there(offline: Path, tmp_path: Path) -> None:
    import_wandb(offline, tmp_path / "runs", "mine")
    (again,) = import_wandb(wandb_file(copied(offline, tmp_path)), tmp_path / "runs")
    assert (again.name, again.is_new) == ("mine", False)
    (again,) = import_wandb(offline.parent, tmp_path / "runs")
    assert not again.is_new


@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_what_stands_before_a_damage_is_imported_and_the_damage_said(offline: Path, tmp_path: Path, harm: str) -> None:
    folder = copied(offline, tmp_path)
    file = wandb_file(folder)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data = data[:middle] if harm == "cut" else data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
    file.write_bytes(data)
    with pytest.warns(RelumeWarning, match=r"what stands before it was imported \(\d+ records\)"):
        (found,) = import_wandb(folder, tmp_path / "runs")
    steps = history(found.folder)["step"].tolist()
    assert steps == list(range(len(steps))) and 20 < len(steps) < 300
    assert facts_of(found.folder)["status"] == "interrupted"


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\3\4 a zip", b":W&B\xe1\xbe\0", b":W&B\xe1\xbe\0" + b"\xff" * 64],
    ids=["empty", "zip", "header", "noise"],
)
def test_what_is_no_run_is_an_error_and_leaves_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "run-x.wandb").write_bytes(data)
    with pytest.raises(
        RunError, match=r"is no file of Weights & Biases|cannot be imported: (it ends within a record|it names no run)"
    ):
        import_wandb(tmp_path / "run-x.wandb", tmp_path / "runs")
    with pytest.raises(RunError, match="no run of Weights & Biases in"):
        import_wandb(tmp_path / "nowhere", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_pictures_are_taken_from_the_runs_own_folder_alone(offline: Path, tmp_path: Path) -> None:
    folder = copied(offline, tmp_path)
    (picture,) = (folder / "files" / "media" / "images").glob("*.png")
    picture.rename(tmp_path / "elsewhere.png")
    picture.symlink_to(tmp_path / "elsewhere.png")
    (found,) = import_wandb(folder, tmp_path / "runs")
    assert found.skipped["images whose file is missing"] == 1 and "image" not in found.media
