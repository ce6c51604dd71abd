"""What changes is told to the pages that are open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from asking import ask, post

import relume
from relume.monitor.edits import edit
from relume.ui.server import Address, running
from relume.ui.server.live import Watcher


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    with relume.Run("done", root=root, quiet=True) as run:
        run.log({"train/loss": 0.5}, step=1)
    return root


@contextmanager
def listening(address: Address) -> Iterator[HTTPResponse]:
    """A page's stream; when the block begins, what follows is told."""
    connection = HTTPConnection(address.host, address.port, timeout=60)
    connection.request("GET", "/api/events")
    try:
        yield connection.getresponse()
    finally:
        connection.sock and connection.sock.close()
        connection.close()


def next_change(stream: HTTPResponse) -> dict[str, Any]:
    while not (line := stream.readline()).startswith(b"data: "):
        assert line, "the stream has ended"
    return json.loads(line.removeprefix(b"data: "))


def test_points_of_a_run_are_told_to_all_pages(root: Path) -> None:
    with (
        relume.Run("live", root=root, quiet=True) as run,
        running(root) as address,
        listening(address) as one,
        listening(address) as other,
    ):
        run.log({"train/loss": 0.5}, step=1)
        assert next_change(one) == next_change(other) == {"runs": ["live"], "list": False}
        run.log({"train/loss": 0.4}, step=2)
        assert next_change(one)["runs"] == ["live"]


def test_a_run_that_comes_and_one_that_goes_change_the_list(root: Path) -> None:
    with running(root) as address, listening(address) as stream:
        with relume.Run("new", root=root, quiet=True) as run:
            assert next_change(stream)["list"]
        while next_change(stream) != {"runs": [], "list": True}:  # its points, its end; then its status
            pass
        run.folder.rename(root.parent / "elsewhere")
        assert next_change(stream) == {"runs": [], "list": True}


def test_a_root_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    with running(tmp_path / "later" / "runs") as address, listening(address) as stream:
        assert ask(address, "/api/runs").json["runs"] == []
        with relume.Run("first", root=tmp_path / "later" / "runs", quiet=True):
            assert next_change(stream)["list"]
        assert [row["name"] for row in ask(address, "/api/runs").json["runs"]] == ["first"]


def test_notes_are_told_to_the_other_pages(root: Path) -> None:
    with running(root) as address, listening(address) as stream:
        assert post(address, "/api/run/done/edit", {"notes": "x"}).status == 200
        assert next_change(stream) == {"runs": [], "list": True}


def test_a_run_that_is_carried_on_is_live_again(root: Path) -> None:
    with (
        running(root) as address,
        listening(address) as stream,
        relume.Run("done", root=root, quiet=True, resume=True) as run,
    ):
        change = next_change(stream)
        assert change["list"] or change["runs"] == ["done"]
        run.log({"train/loss": 0.1}, step=2)
        while "done" not in next_change(stream)["runs"]:
            pass


def test_a_process_that_was_killed_is_noticed(root: Path) -> None:
    script = (
        f"import relume, sys, time\nwith relume.Run('doomed', root={str(root)!r}, quiet=True) as run:\n"
        "    run.log({'loss': 1.0}, step=1)\n    print('on', flush=True)\n    sys.stdin.read()"
    )
    program = [sys.executable, "-c", script]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout.readline() == b"on\n"
        with running(root) as address, listening(address) as stream:
            row = {row["name"]: row["status"] for row in ask(address, "/api/runs").json["runs"]}
            assert row["doomed"] == "running"
            process.kill()
            process.wait()
            assert next_change(stream) == {"runs": [], "list": True}
            row = {row["name"]: row["status"] for row in ask(address, "/api/runs").json["runs"]}
            assert row["doomed"] == "killed"


def test_the_server_ends_while_pages_are_open(root: Path) -> None:
    with running(root) as address:
        connection = HTTPConnection(address.host, address.port, timeout=60)
        connection.request("GET", "/api/events")
        stream = connection.getresponse()
        assert stream.readline() == b"retry: 1000\n"
    assert stream.read().strip() == b""  # ended, not cut
    connection.close()


def test_pages_that_come_and_go_leave_nothing_behind(root: Path) -> None:
    with running(root) as address:
        for _ in range(5):
            with listening(address) as stream:
                assert stream.readline() == b"retry: 1000\n"
        with listening(address) as stream:
            edit(root / "done", notes="x")
            assert next_change(stream)["list"]


def test_asking_for_the_head_of_the_stream_ends(root: Path) -> None:
    with running(root) as address:
        answer = ask(address, "/api/events", "HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")


# ------------------------------------------------------------------------------------------------------------- watcher


def test_a_look_at_runs_at_rest_finds_nothing(root: Path) -> None:
    watcher = Watcher(root)
    assert not watcher.look()
    ask_all = sorted(path.name for path in root.iterdir())
    assert "done" in ask_all and not watcher.look()


def test_damage_does_not_stop_the_watcher(root: Path) -> None:
    with relume.Run("live", root=root, quiet=True) as run:
        (root / "no-run").mkdir()
        (root / "done" / "run.json").write_text("{")
        with (
            relume.Run("deep", root=root, quiet=True) as deep,
            (deep.folder / "journal" / "0001.jsonl").open("ab") as file,
        ):
            file.write(b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}\n")
        watcher = Watcher(root)
        (root / "done" / "journal").rename(root / "done" / "gone")
        run.log({"loss": 1.0}, step=1)
        assert "live" in watcher.look().runs
        run.log({"loss": 1.0}, step=2)
        assert watcher.look().runs == {"live"}


def test_the_pages_own_reading_is_no_change(root: Path) -> None:
    with relume.Run("live", root=root, quiet=True) as run, running(root) as address:
        run.log({"loss": 1.0}, step=1)
        watcher = Watcher(root)
        assert ask(address, "/api/series?metric=loss&run=live").status == 200  # folds the journal into the index
        assert ask(address, "/api/runs").status == 200
        assert not watcher.look()
