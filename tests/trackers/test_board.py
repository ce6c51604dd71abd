"""TensorBoard's real server, started on runs."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard import manager

from relume import Run
from relume.errors import ConfigurationError
from relume.trackers.board import arguments, open_tensorboard, start_server, where

# TensorBoard leaves its servers running and forgets their handles
pytestmark = pytest.mark.filterwarnings(
    "ignore:subprocess .* is still running:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of runs; the servers that are started on it are stopped."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for info in manager.get_all():
        if str(tmp_path) in info.logdir + info.__dict__.get("logdir_spec", ""):
            os.kill(info.pid, signal.SIGTERM)


def train(root: Path, name: str) -> Path:
    with Run(name, root=root, quiet=True) as run:
        for step in range(3):
            run.log({"train/loss": 3.0 - step}, step=step)
    return run.folder


def scalars(port: int, run: str) -> list[list[float]]:
    address = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run={run}&tag=train/loss"
    for _ in range(200):
        try:
            with urllib.request.urlopen(address) as answer:
                return [[step, value] for _, step, value in json.load(answer)]
        except urllib.error.HTTPError:  # it has not read the files yet
            continue
    return []


def test_a_run_without_the_tracker_is_shown_with_all_it_logged(
    servers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(servers / "runs", "a")
    open_tensorboard([folder], port=0)
    said = capsys.readouterr().out
    assert "what it has logged until now is written for it" in said and "TensorBoard is at http://localhost:" in said
    port = start_server(arguments([folder], None, 0))
    assert f":{port}/" in said, "the server is used again"
    assert scalars(port, ".") == [[0, 3.0], [1, 2.0], [2, 1.0]]
    assert "TENSORBOARD_BINARY" not in os.environ and where() == "terminal"


def test_several_runs_have_their_names(servers: Path) -> None:
    folders = [train(servers / "runs", name) for name in ("a", "b c")]
    given = arguments(folders, None)
    assert given[1] == f"a:{folders[0]}/tensorboard,b c:{folders[1]}/tensorboard"


def test_what_cannot_be_shown_is_said(servers: Path) -> None:
    a = train(servers / "x,y", "a")
    with pytest.raises(ConfigurationError, match="there is a comma in a path"):
        arguments([a, servers / "b"], None)
    with pytest.raises(ConfigurationError, match="two of these runs have the same name"):
        arguments([a, servers / "other" / "a"], None)
    with pytest.raises(ConfigurationError, match="height must be a number of pixels, not 0"):
        open_tensorboard([a], height=0)
    with pytest.raises(ConfigurationError, match="port must be a number from 0 .* to 65535, not '6006'"):
        open_tensorboard([a], port="6006")  # type: ignore[arg-type]


def test_a_server_that_does_not_start_says_why(servers: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"did not start \(exit status 2\); it said: .*no_such_option"):
        start_server(["--no_such_option"])


def test_a_program_that_cannot_be_run_is_named(servers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_BINARY", str(servers / "nothing"))
    with pytest.raises(ConfigurationError, match="cannot be run .*nothing.*TENSORBOARD_BINARY can name it"):
        start_server(["--logdir", str(servers)])
