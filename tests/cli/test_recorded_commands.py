"""compare, plot, history, import and the conditions of runs, as a user types them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from relume import Run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, lr in (("a", 0.1), ("b", 0.01)):
        with Run(name=name, root=tmp_path / "runs", config={"lr": lr, "model": "small"}) as run:
            for step in range(20):
                run.log({"val/accuracy": 1 - lr / (step + 1), "train/loss": lr * step}, step=step)
    capsys.readouterr()


def test_compare_shows_differences_and_curves(relume: Command, two: None) -> None:
    status, out, _ = relume("compare", "a", "b")
    assert status == 0 and "lr" in out and "model" not in out and "val/accuracy" in out and "A a   B b" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "model" in relume("compare", "a", "b", "--all", "--no-curves")[1]
    found = json.loads(relume("compare", "a", "b", "--json")[1])
    assert found["names"] == ["a", "b"] and [d["name"] for d in found["config"]] == ["lr"]
    assert relume("compare", "a", "c")[0] == 1


def test_runs_are_chosen_ordered_and_shown_by_columns(relume: Command, two: None) -> None:
    rows = list(
        csv.reader(
            io.StringIO(
                relume("runs", "--sort", "val/accuracy", "--desc", "--columns", "lr,last:train/loss", "--csv")[1]
            )
        )
    )
    assert rows == [["name", "lr", "last:train/loss"], ["b", "0.01", "0.19"], ["a", "0.1", "1.9000000000000001"]]
    assert [
        run["name"] for run in json.loads(relume("runs", "--where", "lr<1e-1 and val/accuracy>0.9", "--json")[1])
    ] == ["b"]
    status, out, _ = relume("runs", "--where", "lr<1e-1")
    assert status == 0 and "0.01" in out and " a " not in out
    assert "None of the 2 runs" in relume("runs", "--where", "lr > 5")[1]
    status, _, error = relume("runs", "--where", "lr <")
    assert status == 1 and "character 5: a value is missing" in error
    assert "no run has 'lrr'" in relume("runs", "--sort", "lrr")[2]
    assert "config:lr" in relume("runs", "--csv")[1].splitlines()[0]


def test_history_is_printed_and_written(relume: Command, two: None, tmp_path: Path) -> None:
    status, out, _ = relume("history", "a", "-m", "val/*")
    assert status == 0 and out.splitlines()[0] == "step,epoch,time,val/accuracy" and len(out.splitlines()) == 21
    assert relume("history", "a", "-o", "a.csv")[0] == 0 and (tmp_path / "a.csv").read_text().startswith("step,")
    assert "is there already" in relume("history", "a", "-o", "a.csv")[2]
    assert relume("history", "a", "-o", "a.csv", "--force")[0] == 0
    assert json.loads(relume("history", "a", "--json")[1])["step"] == list(range(20))
    assert "choose one of --csv and --json" in relume("history", "a", "--json", "--csv")[2]
    assert "Parquet is no text" in relume("history", "a", "--parquet")[2]
    assert "branch" in relume("history", "a", "--branches")[1].splitlines()[0]


def test_a_picture_is_drawn(relume: Command, two: None, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    status, _, said = relume("plot", "a", "b", "-o", "out/c.svg", "--smooth", "0.5", "--x", "time")
    assert status == 0 and "out/c.svg" in said and "<svg" in (tmp_path / "out" / "c.svg").read_text()
    assert "smooth=2.0 makes no sense" in relume("plot", "a", "--smooth", "2")[2]


def test_tensorboard_is_imported_once(relume: Command, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "logs" / "old") as writer:
        writer.add_scalar("val/loss", 0.5, 3)
        writer.add_pr_curve("curve", torch.tensor([0, 1]), torch.tensor([0.1, 0.9]), 1)
    status, _, said = relume("import", "tensorboard", "logs/old")
    assert status == 0 and "as the run 'old': 1 value" in said and "1 of pr_curves" in said
    assert "was imported as the run 'old'" in relume("import", "tensorboard", "logs/old")[2]
    assert "old" in relume("runs")[1] and "0.5" in relume("show", "old")[1]
    assert "no event files" in relume("import", "tensorboard", "nowhere")[2]
    assert relume("import", "wandb", "nowhere")[0] == 1


def test_an_epoch_whose_last_value_is_not_a_number_shows_that(relume: Command, tmp_path: Path) -> None:
    with Run("odd", root=tmp_path / "runs", quiet=True) as run:
        for epoch in run.epochs(3):
            run.log({"val/loss": 0.75}, step=2 * epoch)
            run.log({"val/loss": [0.5, float("nan"), 0.25][epoch]}, step=2 * epoch + 1)
    lines = [line.split() for line in relume("show", "odd")[1].splitlines()]
    assert [line[2] for line in lines if len(line) == 3 and line[0] in "123"] == ["0.5", "nan", "0.25"]
