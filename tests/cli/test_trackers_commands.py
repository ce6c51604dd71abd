"""``relume sync`` and ``relume tensorboard``, as processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.trackers.kits import board_numbers
from tests.trackers.recording import Mine, begin, deliver, end, log, segment

from relume.errors import RelumeError
from relume.trackers.sync import sync
from relume.trackers.tensorboard.server import folder_of


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relume", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "160"} | environment,
    )


def finished(folder: Path, steps: int = 5) -> Path:
    begin(folder)
    with segment(folder) as journal:
        log(journal, range(steps))
        end(journal)
    return folder


def test_sync_delivers_once_and_says_what_it_did(tmp_path: Path) -> None:
    folder = finished(tmp_path / "one")
    finished(tmp_path / "two")
    first = command("sync", "one", "--root", str(tmp_path), "--to", "tensorboard")
    assert first.returncode == 0 and "6 lines delivered" in first.stdout, first
    assert [step for step, _ in board_numbers(folder)["loss"]] == list(range(5))
    second = command("sync", "--root", str(tmp_path), "--json")
    (entry,) = json.loads(second.stdout)
    assert entry == {
        "run": "one",
        "tracker": "tensorboard",
        "is_complete": True,
        "delivered": 0,
        "text": "has everything",
    }


def test_sync_without_trackers_and_with_unknown_ones(tmp_path: Path) -> None:
    finished(tmp_path / "one")
    nothing = command("sync", "--root", str(tmp_path))
    assert nothing.returncode == 0 and "No run in" in nothing.stdout and "--to tensorboard" in nothing.stdout
    unknown = command("sync", "one", "--root", str(tmp_path), "--to", "tensorbord")
    assert unknown.returncode == 1 and "did you mean 'tensorboard'?" in unknown.stderr
    missing = command("sync", "three", "--root", str(tmp_path))
    assert missing.returncode == 1 and "there is no run 'three'" in missing.stderr
    nowhere = command("sync", "--root", str(tmp_path / "none"))
    assert nowhere.returncode == 1 and "there is no folder" in nowhere.stderr
    (tmp_path / "empty").mkdir()
    nonsense = command("sync", "--root", str(tmp_path / "empty"), "--to", "nonsense")
    assert nonsense.returncode == 1 and "nonsense" in nonsense.stderr


def test_what_only_the_training_can_feed_is_said(tmp_path: Path) -> None:
    folder = begin(tmp_path / "one", is_alive=True)
    with segment(folder) as journal:
        log(journal, range(5))
        deliver(folder, Mine())
        log(journal, range(5, 9))
        end(journal)
    (held,) = sync(folder)
    assert not held.is_complete and "was an object of the training's own process" in held.text
    deliver(folder, Mine())
    (held,) = sync(folder)
    assert held.is_complete and held.text == "has everything"


def test_a_run_that_goes_on_is_synced_up_to_now(tmp_path: Path) -> None:
    folder = begin(tmp_path / "one", is_alive=True)
    with segment(folder) as journal:
        log(journal, range(5))
        (first,) = sync(folder, ["tensorboard"])
        assert first.is_complete and first.delivered == 5 and "the run goes on" in first.text
        log(journal, range(5, 8))
        (second,) = sync(folder)
        assert second.delivered == 3
    assert [step for step, _ in board_numbers(folder)["loss"]] == list(range(8))


def test_a_tracker_whose_module_is_gone_is_said_and_the_others_are_fed(tmp_path: Path) -> None:
    folder = finished(tmp_path / "one")
    module = tmp_path / "gone_tracker.py"
    module.write_text(
        "from dataclasses import dataclass\nfrom relume.trackers import Tracker\n\n@dataclass\nclass Gone(Tracker):\n"
        "    name = 'gone'\n    def open(self, run, resumed): ...\n    def values(self, *what): ...\n"
    )
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom pathlib import Path\nimport relume\nfrom gone_tracker import Gone\n"
        "with relume.Run('own', root=sys.argv[1], quiet=True, trackers=[Gone()]) as run: run.log({'loss': 1})\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert sync(tmp_path / "own")[0].is_complete
    module.unlink()
    sync(folder, ["tensorboard"])
    done = command("sync", "--root", str(tmp_path))
    assert done.returncode == 1
    assert "cannot be built again" in " ".join(done.stdout.split()) and "has everything" in done.stdout


def test_tensorboard_serves_chosen_runs_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        sync(finished(tmp_path / "runs" / name), ["tensorboard"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    log_file = tmp_path / "log"
    with log_file.open("wb") as output:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "relume",
                "tensorboard",
                "one",
                "two",
                "--root",
                str(tmp_path / "runs"),
                "--port",
                port,
            ],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        found: list[str] = []
        deadline = time.monotonic() + 60
        while len(found) < 2 and time.monotonic() < deadline:
            assert server.poll() is None, log_file.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=5) as answer:
                    found = json.loads(answer.read())
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.1)
        assert sorted(found) == ["one/tensorboard", "two/tensorboard"]
    finally:
        os.killpg(server.pid, signal.SIGINT)
        status = server.wait(30)
    assert status == 0


def test_tensorboard_on_an_empty_root_says_so_and_serves_it(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "relume", "tensorboard", "--root", str(tmp_path), "--port", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline().startswith(b"Nothing below ")
            assert any(b"TensorBoard" in line and b"http://127.0.0.1:" in line for line in server.stdout)
        finally:
            os.killpg(server.pid, signal.SIGINT)
            status = server.wait(30)
    assert status == 0


def test_tensorboard_on_what_has_nothing_for_it(tmp_path: Path) -> None:
    folder = finished(tmp_path / "one")
    with pytest.raises(RelumeError, match="has nothing for TensorBoard.*relume sync"), folder_of([folder], tmp_path):
        pass
    nowhere = command("tensorboard", "--root", str(tmp_path / "nowhere"))
    assert nowhere.returncode == 1 and "is no folder" in nowhere.stderr
    unknown = command("tensorboard", "two", "--root", str(tmp_path))
    assert unknown.returncode == 1 and "there is no run 'two'" in unknown.stderr


def test_two_runs_of_one_name_are_both_there(tmp_path: Path) -> None:
    for root in ("a", "b"):
        sync(finished(tmp_path / root / "run"), ["tensorboard"])
    with folder_of([tmp_path / "a" / "run", tmp_path / "b" / "run"], tmp_path) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["run", "run-2"]
        assert (folder / "run-2").resolve() == (tmp_path / "b" / "run").resolve()
    assert (tmp_path / "a" / "run" / "tensorboard").is_dir()
