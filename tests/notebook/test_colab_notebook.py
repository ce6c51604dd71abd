"""The cells of the Colab guide, on a machine that is taken away in the middle, and on a new one that has only the drive."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import relume
from kernels import Shown, execute

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebooks" / "colab.ipynb"
CELLS = [
    "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"
]
TAKEN_AWAY = """
import os, signal, time

class TakenAway(relume.Callback):
    def on_step_end(self, trainer):
        if trainer.run.cursor.step == 250:  # in the third epoch
            while len(list((DRIVE / "relume-runs/fashion/checkpoints").glob("*.json"))) < 2:
                time.sleep(0.01)  # until the drive has what it is given behind the training
            os.kill(os.getpid(), signal.SIGKILL)
"""
NO_DRIVE = "def mount(path): print('pretends to')"


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine that stays."""
    folder = tmp_path_factory.mktemp("straight")
    assert [shown.error for shown in execute(CELLS, folder)] == ["", "", ""]
    return folder


def machine(folder: Path, drive: Path | None = None) -> list[Shown]:
    """The three cells on a machine that has nothing but a drive."""
    folder.mkdir()
    if drive is not None:
        shutil.copytree(drive, folder / "drive")
    return execute(CELLS, folder)


def test_a_new_machine_that_has_only_the_drive_ends_as_one_that_was_never_taken(tmp_path: Path, straight: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    mount, model, train = CELLS
    assert "    seed=0,\n)" in model
    model = TAKEN_AWAY + model.replace("    seed=0,\n)", "    seed=0,\n    callbacks=[TakenAway()],\n)")
    execute([mount, model, train], first)
    assert relume.runs(first / "runs")[0].status == "killed"
    shown = machine(tmp_path / "second", first / "drive")
    assert [cell.error for cell in shown] == ["", "", ""]
    assert "resumes from fashion@000002" in shown[-1].text and "at epoch 3 (step 200)" in shown[-1].text
    for weights in (tmp_path / "second" / "runs", tmp_path / "second" / "drive" / "relume-runs"):
        assert relume.diff(weights / "fashion", straight / "runs" / "fashion").is_same


def test_a_run_that_had_ended_is_only_brought_back(tmp_path: Path, straight: Path) -> None:
    shown = machine(tmp_path / "later", straight / "drive")
    assert [cell.error for cell in shown] == ["", "", ""] and "4 epochs done" in shown[-1].text
    assert relume.diff(tmp_path / "later" / "runs" / "fashion", straight / "runs" / "fashion").is_same


def test_a_drive_that_is_not_there_is_noticed_before_anything_is_trained(tmp_path: Path) -> None:
    package = tmp_path / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "drive.py").write_text(NO_DRIVE)
    shown = execute(CELLS[:1], tmp_path)
    assert shown[0].error == "AssertionError: mount the drive before you train" and "pretends to" in shown[0].text
