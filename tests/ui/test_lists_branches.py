"""Dead branches are read once, and again when there are others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import relume
from relume.monitor.journal import values_line
from relume.ui.answers import branches
from relume.ui.answers.branches import branches_of
from relume.ui.answers.series import series


def resumed(root: Path, name: str) -> Path:
    """A run that went on from its beginning, with two points that no longer count."""
    with relume.Run(name, root=root, quiet=True, watch=False) as run:
        run.log({"loss": 1.0, "rate": 0.1}, step=1)
        run.log({"loss": 0.5}, step=2)
    go_on(run.folder, 2)
    return run.folder


def go_on(folder: Path, segment: int) -> None:
    first = (folder / "journal" / "0001.jsonl").read_bytes().split(b"\n")[0]
    header = json.loads(first) | {"resumed": {"segment": 1, "position_bytes": len(first) + 1, "step": 0, "epoch": 0}}
    lines = json.dumps(header).encode() + b"\n" + values_line(1, 1, 1.0, {"loss": 2.0})
    (folder / "journal" / f"{segment:04d}.jsonl").write_bytes(lines)


def test_a_dead_branch_is_read_once_for_all_charts_and_zooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, reading = resumed(tmp_path, "a"), []
    read = branches.dead_branches
    monkeypatch.setattr(branches, "dead_branches", lambda folder: (reading.append(folder.name), read(folder))[1])
    for _ in range(2):
        for metric, values in (("loss", [1.0, 0.5]), ("rate", [0.1])):
            dead = series(folder, metric, branches=True)[-1]
            assert dead.about["branch"] == 1 and dead.columns["value"].tolist() == values
    assert reading == ["a"]
    go_on(folder, 3)
    assert [one.about["branch"] for one in series(folder, "loss", branches=True)] == [0, 1, 2]


def test_what_is_kept_of_dead_branches_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "_MOST_POINTS", 6)
    folders = [resumed(tmp_path, name) for name in "abc"]
    assert all(len(branches_of(folder)) == 1 for folder in folders)
    assert [folder for folder in folders if folder in branches._known] == folders[1:]
