"""Names, folders, and a status that is honest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relume import Run
from relume.errors import RootError, RunError, RunNameError, UnknownNameError
from relume.monitor.record import RunRecord, check_name, find_run, jsonable, make_run_folder, runs_in, status_of


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "a/b", "a\\b", "/abs", ".hidden", "-x", "a\n", "a\0b", "x" * 101, "end.", "store", "nul"],
)
def test_a_name_that_cannot_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(RunNameError, match="cannot be the name of a run"):
        check_name(name)
    with pytest.raises(RunNameError):
        Run(name)


@pytest.mark.parametrize("name", ["fashion", "vgg19-head", "lr=1e-3 seed=2", "übung", "a.b", "_x", "run@home"])
def test_ordinary_names_are_accepted(name: str) -> None:
    assert check_name(name) == name


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    assert [make_run_folder(tmp_path, "a").name for _ in range(3)] == ["a", "a-2", "a-3"]


def test_a_root_that_cannot_be_written_says_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RootError, match=r"cannot be stored in .*file.*Choose another folder with root="),
        Run("a", root=tmp_path / "file"),
    ):
        pass
    with pytest.raises(RootError, match="cannot be stored in /proc/relume"), Run("a", root="/proc/relume"):
        pass


def test_an_unknown_run_lists_the_closest(tmp_path: Path) -> None:
    for name in ("fashion", "cifar"):
        with Run(name, root=tmp_path, quiet=True):
            pass
    with pytest.raises(UnknownNameError, match=r"no run 'fashon' in .*did you mean 'fashion'"):
        find_run("fashon", tmp_path)
    with pytest.raises(UnknownNameError, match="there are none"):
        find_run("x", tmp_path / "empty")
    assert find_run(tmp_path / "cifar").name == "cifar"
    assert [folder.name for folder in runs_in(tmp_path)] == ["fashion", "cifar"]


def test_a_damaged_record_is_a_clear_error(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, quiet=True) as run:
        pass
    path = run.folder / "run.json"
    for content in ("", "{", "[]", '{"format": 2}', "\x00"):
        path.write_text(content)
        with pytest.raises(RunError, match="is damaged or of a newer version"):
            RunRecord.load(run.folder)


def _status(folder: Path) -> str:
    return status_of(folder)[0]


def test_the_status_tells_how_a_run_ended(tmp_path: Path) -> None:
    with Run("good", root=tmp_path, quiet=True) as good:
        assert _status(good.folder) == "running"
    with pytest.raises(ZeroDivisionError), Run("bad", root=tmp_path, quiet=True) as bad:
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), Run("stopped", root=tmp_path, quiet=True) as stopped:
        raise KeyboardInterrupt
    assert [_status(run.folder) for run in (good, bad, stopped)] == ["finished", "failed", "interrupted"]
    assert status_of(bad.folder)[1]["reason"] == "ZeroDivisionError: division by zero"


def _child(root: Path, after: str) -> subprocess.Popen[bytes]:
    code = f"""
        import os, time
        import relume
        with relume.Run("child", root={str(root)!r}, quiet=True) as run:
            run.log({{"loss": 1.0}})
            print("ready", flush=True)
            {after}
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)


def test_a_killed_run_is_running_before_and_killed_afterwards(tmp_path: Path) -> None:
    with _child(tmp_path, "time.sleep(60)") as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        assert _status(tmp_path / "child") == "running"
        os.kill(child.pid, signal.SIGKILL)
    assert _status(tmp_path / "child") == "killed"


def test_a_run_on_another_machine_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    with _child(tmp_path, "os._exit(3)") as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    folder = tmp_path / "child"
    record = json.loads((folder / "run.json").read_text())
    record["process"]["host"] = "elsewhere"
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "heartbeat").touch()
    assert _status(folder) == "running"
    old = time.time() - 120
    os.utime(folder / "heartbeat", (old, old))
    assert _status(folder) == "killed"


@dataclass
class Config:
    lr: float
    layers: tuple[int, ...]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Config(0.1, (1, 2)), {"lr": 0.1, "layers": [1, 2]}),
        ({"a": {"b": Path("x")}, 3: float("inf")}, {"a": {"b": "x"}, "3": "inf"}),
    ],
)
def test_any_config_becomes_json(value: Any, stored: Any, tmp_path: Path) -> None:
    assert jsonable(value) == stored
    with Run("a", root=tmp_path, config=value, quiet=True) as run:
        pass
    assert RunRecord.load(run.folder).config == stored


def test_a_copied_run_is_listed_under_its_own_name_and_a_poisoned_one_hides_no_other(tmp_path: Path) -> None:
    import shutil

    from relume.cli.runs import _facts

    with Run("a", root=tmp_path, quiet=True) as run:
        run.log({"x": 1.0})
    shutil.copytree(run.folder, tmp_path / "b")
    (tmp_path / "b" / "journal" / "0001.bak.jsonl").write_text("x")
    with (tmp_path / "b" / "journal" / "0001.jsonl").open("a") as file:
        file.write('{"step":1,"values":{"c\\ud800":1,"y":1' + "0" * 400 + "}}\n[]\n{}\n")
    assert [_facts(folder)["name"] for folder in runs_in(tmp_path)] == ["a", "b"]
    assert _facts(tmp_path / "b")["metrics"]["x"]["last"] == 1.0


def test_text_that_cannot_be_encoded_stops_no_run(tmp_path: Path) -> None:
    with Run("a", root=tmp_path, config={"path": "\udcff"}, quiet=True) as run:
        pass
    assert RunRecord.load(run.folder).config == {"path": "\\udcff"}
