"""What is marked on curves, and runs side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.errors import ConfigurationError
from relume.ui.answers.comparing import compared
from relume.ui.answers.marks import marks


def train(root: Path, name: str, losses: list[float], stop_in: int | None = None, **options: Any) -> Path:
    """An epoch of four updates for each loss of the validation."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(torch.ones(8, 2), torch.ones(8, 1)), batch_size=2)
    with relume.Run(
        name, root=root, model=model, optimizer=optimizer, seed=1, quiet=True, watch=False, **options
    ) as run:
        for epoch in run.epochs(len(losses)):
            for x, y in run.batches(loader):
                nn.functional.mse_loss(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
            run.log({"val/loss": losses[epoch]})
            if epoch == stop_in:
                raise RuntimeError("the power went out")
    return run.folder


def of(folder: Path) -> list[tuple[str, int]]:
    return [(mark["kind"], mark["step"]) for mark in marks([folder])["runs"][folder.name]["marks"]]


def texts(folder: Path, kind: str) -> list[str]:
    found = marks([folder])["runs"][folder.name]["marks"]
    return [mark["text"] for mark in found if mark["kind"] == kind]


def test_checkpoints_the_best_and_the_end_are_marked(tmp_path: Path) -> None:
    folder = train(tmp_path, "a", [0.5, 0.2, 0.4, 0.3])
    assert of(folder) == [("best", 8), ("checkpoint", 12), ("checkpoint", 16), ("end", 16)]
    assert texts(folder, "best") == ["checkpoint 2, the best by val/loss: val/loss 0.2"]
    assert texts(folder, "end") == ["finished: 4 epochs done"]
    found = marks([folder])["runs"]["a"]
    assert (
        found["created"] <= found["marks"][0]["time"] <= found["marks"][-1]["time"] and found["marks"][0]["epoch"] == 2
    )


def test_resumes_are_marked_where_the_run_went_on(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        train(tmp_path, "a", [0.5, 0.4, 0.3], stop_in=1)
    folder = tmp_path / "a"
    assert of(folder)[-1] == ("end", 8) and texts(folder, "end") == ["failed: RuntimeError: the power went out"]
    train(tmp_path, "a", [0.5, 0.4, 0.3])
    assert [place for place in of(folder) if place[0] in ("resume", "end")] == [("resume", 4), ("end", 12)]
    assert texts(folder, "resume")[0] and "\n" not in texts(folder, "resume")[0]


def test_phases_of_freezing_and_early_stopping_are_marked(tmp_path: Path) -> None:
    schedule = relume.FreezeSchedule([relume.Phase("1", epochs=1), relume.Phase("*")])
    stop = relume.EarlyStopping("val/loss", patience=2)
    folder = train(tmp_path, "a", [0.1, 0.2, 0.3, 0.4, 0.5], freeze=schedule, stop=stop)
    assert [place for place in of(folder) if place[0] in ("phase", "stop", "end")] == [
        ("phase", 0),
        ("phase", 4),
        ("stop", 12),
    ]
    assert texts(folder, "phase")[0].startswith("phase 1 of 2 (") and "has not improved" in texts(folder, "stop")[0]


def test_a_killed_run_ends_where_it_has_logged_last(tmp_path: Path) -> None:
    code = (
        "import os, sys, relume\n"
        "run = relume.Run('a', root=sys.argv[1], quiet=True, watch=False); run.__enter__()\n"
        "for step in range(8): run.log({'loss': 1.0}, step=step)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert of(tmp_path / "a") == [("end", 7)] and texts(tmp_path / "a", "end") == ["killed"]


def test_marks_follow_what_changes_and_a_damaged_run_has_none(tmp_path: Path) -> None:
    good, bad = train(tmp_path, "good", [0.5]), train(tmp_path, "bad", [0.5])
    assert of(good) == [("best", 4), ("end", 4)]
    assert len(of(train(tmp_path, "good", [0.5, 0.4]))) == 4
    for manifest in (good / "checkpoints").iterdir():
        manifest.write_bytes(b"noise")
    assert [kind for kind, _ in of(good)] == ["resume", "end"]
    (bad / "run.json").write_bytes(b"noise")
    found = marks([bad, good, tmp_path / "gone"])["runs"]
    assert [len(found[name]["marks"]) for name in ("bad", "good", "gone")] == [0, 2, 0]
    assert json.dumps(found, allow_nan=False)


# ------------------------------------------------------------------------------------------------------------- compared


def logged(root: Path, name: str, lr: float, top: float) -> Path:
    with relume.Run(name, root=root, quiet=True, watch=False, config={"lr": lr, "model": "small"}) as run:
        run.log({"val/accuracy": top, "train/loss": float("nan")})
    return run.folder


def test_runs_are_compared_with_what_differs_and_who_won(tmp_path: Path) -> None:
    folders = [logged(tmp_path, name, lr, top) for name, lr, top in (("a", 0.1, 0.8), ("b", 0.2, 0.9), ("c", 0.1, 0.7))]
    found = compared(folders)
    settings = {entry["name"]: entry for entry in found["config"]}
    assert found["names"] == ["a", "b", "c"]
    assert settings["lr"] == {"name": "lr", "values": [0.1, 0.2, 0.1], "differs": True}
    assert settings["model"]["differs"] is False
    accuracy, loss = found["metrics"]
    assert accuracy == {
        "name": "val/accuracy", "mode": "max", "best": [0.8, 0.9, 0.7], "last": [0.8, 0.9, 0.7],
        "best_step": [0, 0, 0], "winner": 1,
    }  # fmt: skip
    assert (loss["best"], loss["winner"]) == (["NaN"] * 3, None)
    assert json.dumps(found, allow_nan=False)


def test_a_damaged_run_is_compared_as_one_of_which_little_is_known(tmp_path: Path) -> None:
    folders = [logged(tmp_path, name, 0.1, 0.5) for name in "ab"]
    (folders[1] / "run.json").write_bytes(b"{")
    os.unlink(folders[0] / "metrics.db")  # noqa: PTH108
    found = compared(folders)
    assert found["status"] == ["finished", "damaged"] and found["metrics"][0]["best"] == [0.5, None]


def test_one_run_and_too_many_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs two runs"):
        compared([tmp_path])
    with pytest.raises(ConfigurationError, match="51 runs are too many"):
        compared([tmp_path] * 51)
