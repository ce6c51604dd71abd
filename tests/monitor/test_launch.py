"""Starting again what made a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from relume.errors import RunError
from relume.monitor import Journal, Process, RunRecord
from relume.monitor.launch import launch_again


def make_run(folder: Path, ending: str | None = "interrupted", **fields: Any) -> Path:
    (folder / "journal").mkdir(parents=True)
    process = fields.pop("process", Process.current())
    RunRecord(name=folder.name, id="1", created=0.0, seed=0, process=process, **fields).save(folder)
    journal = Journal(folder / "journal" / "0001.jsonl", {"segment": 1})
    if ending is not None:
        journal.write({"event": "end", "status": ending})
    journal.close()
    return folder


@pytest.fixture
def script(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "train.py").write_text("")
    return {
        "command": ["python", "-u", "train.py", "--lr", "1"],
        "executable": sys.executable,
        "directory": str(tmp_path),
    }


def test_the_command_is_started_again_where_it_was_with_what_is_added(tmp_path: Path, script: dict[str, Any]) -> None:
    launch = launch_again(make_run(tmp_path / "runs" / "line", **script), ["--epochs", "9"])
    assert launch is not None
    assert launch.command == [sys.executable, "-u", "train.py", "--lr", "1", "--epochs", "9"]
    assert (launch.directory, launch.environment) == (tmp_path, {})


def test_runs_that_are_elsewhere_are_found_there(tmp_path: Path, script: dict[str, Any]) -> None:
    launch = launch_again(make_run(tmp_path / "moved" / "line", **script))
    assert launch is not None and launch.environment == {"RELUME_ROOT": str(tmp_path / "moved")}


def test_an_interpreter_that_is_gone_is_replaced_by_this_one(tmp_path: Path, script: dict[str, Any]) -> None:
    launch = launch_again(make_run(tmp_path / "runs" / "line", **{**script, "executable": "/nowhere/python"}))
    assert launch is not None and launch.command[0] == sys.executable


def test_a_finished_run_is_left_alone_unless_it_is_asked_for_more(tmp_path: Path, script: dict[str, Any]) -> None:
    folder = make_run(tmp_path / "runs" / "line", ending="finished", **script)
    assert launch_again(folder) is None
    assert launch_again(folder, ["--epochs", "9"]) is not None


def test_a_running_run_is_refused_with_its_process(tmp_path: Path, script: dict[str, Any]) -> None:
    with pytest.raises(RunError, match=f"is running now, as process {os.getpid()}"):
        launch_again(make_run(tmp_path / "runs" / "line", ending=None, **script))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"command": ["python", "-m", "ipykernel_launcher", "-f", "x.json"]}, "made in a notebook"),
        ({"command": ["python", "/lib/ipykernel_launcher.py", "-f", "x.json"]}, "made in a notebook"),
        ({"command": ["python"], "argv": [""]}, "interactive session"),
        ({"command": ["python", "-"]}, "interactive session"),
        ({"command": ["python", "/usr/bin/ipython"]}, "interactive session"),
        ({"command": ["python", "gone.py"]}, "gone.py, which is not there any more"),
        ({"directory": "/nowhere/project"}, "was started in /nowhere/project, which is not there any more"),
        ({"command": [], "argv": []}, "does not say what started it"),
    ],
)
def test_what_cannot_be_started_again_says_what_to_do(
    tmp_path: Path, script: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        launch_again(make_run(tmp_path / "runs" / "line", **{**script, **changed}))


def test_records_without_a_command_fall_back_to_the_arguments(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    launch = launch_again(make_run(tmp_path / "runs" / "line", argv=[str(tmp_path / "train.py"), "--lr", "1"]))
    assert launch is not None and launch.command == [sys.executable, str(tmp_path / "train.py"), "--lr", "1"]


def test_relume_train_is_told_which_run_is_meant(tmp_path: Path) -> None:
    (tmp_path / "relume").write_text("")
    for command in (["python", "-m", "relume", "train", "x"], ["python", str(tmp_path / "relume"), "train", "x"]):
        folder = make_run(tmp_path / str(len(command)) / "runs" / "x-2", command=command, directory=str(tmp_path))
        launch = launch_again(folder, ["--epochs", "3"])
        assert launch is not None
        assert launch.command[-6:] == ["x", "--name", "x-2", "--resume", "--epochs", "3"]
