"""The rows of all runs: what they say, that they are honest, and that only what has changed is read again."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.errors import ExpressionError, UnknownNameError
from relume.ui.answers import runs
from relume.ui.answers.progress import Progress
from relume.ui.answers.runs import Listing, all_runs, by_interest, chosen


def logged(root: Path, name: str, config: dict[str, Any] | None = None, *, top: float = 0.9) -> Path:
    with relume.Run(name, root=root, quiet=True, watch=False, config=config or {}) as run:
        for step in range(5):
            run.log({"train/loss": 1.0 / (step + 1), "val/accuracy": top - 0.1 * abs(step - 3)}, step=step)
    return run.folder


def trained(root: Path, name: str, epochs: int, stop_in: int | None = None) -> Path:
    """Epochs of four updates each; an error in one of them where ``stop_in`` says so."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(torch.ones(8, 2), torch.ones(8, 1)), batch_size=2)
    with relume.Run(name, root=root, model=model, optimizer=optimizer, seed=1, quiet=True, watch=False) as run:
        for epoch in run.epochs(epochs):
            for x, y in run.batches(loader):
                loss = nn.functional.mse_loss(model(x), y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                run.log({"train/loss": loss})
            if epoch == stop_in:
                raise RuntimeError("the power went out")
    return run.folder


def rows_by_name(root: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in all_runs(root)["runs"]}


def test_a_row_says_what_the_table_shows(tmp_path: Path) -> None:
    logged(tmp_path, "a", {"optimizer": {"lr": 0.1}, "names": ["x"] * 2000, "seed2": 2**60})
    answer = all_runs(tmp_path)
    (row,) = answer["runs"]
    assert (row["name"], row["status"], row["reason"], row["step"], row["place"]) == ("a", "finished", "all done", 4, 0)
    assert row["config"]["optimizer.lr"] == 0.1 and row["config"]["names"].endswith("…")
    assert row["config"]["seed2"] == str(2**60)  # JavaScript would round it
    metric = row["metrics"]["val/accuracy"]
    assert metric["best"] == pytest.approx(0.9) and (metric["best_step"], metric["mode"], metric["count"]) == (
        3,
        "max",
        5,
    )
    assert answer["metrics"] == ["val/accuracy", "train/loss"] and "optimizer.lr" in answer["settings"]
    assert "folder" not in row and str(tmp_path) not in json.dumps(answer)


def test_the_answer_is_json_with_nan_and_infinity_in_it(tmp_path: Path) -> None:
    with relume.Run("a", root=tmp_path, quiet=True, watch=False, config={"x": math.inf}) as run:
        run.log({"loss": math.nan, "high": math.inf})
    listing = Listing(tmp_path)
    read = json.loads(listing.encoded(), parse_constant=pytest.fail)
    assert read == json.loads(json.dumps(listing.answer(), allow_nan=False))
    assert (
        read["runs"][0]["metrics"]["loss"]["best"] == "NaN" and read["runs"][0]["metrics"]["high"]["max"] == "Infinity"
    )


@pytest.fixture
def read_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of runs that were read, as they are."""
    names: list[str] = []
    read = runs._read
    monkeypatch.setattr(runs, "_read", lambda folder, key: (names.append(folder.name), read(folder, key))[1])
    yield names


def test_only_runs_that_have_changed_are_read_again(tmp_path: Path, read_again: list[str]) -> None:
    for name in "abc":
        logged(tmp_path, name)
    listing = Listing(tmp_path)
    before = listing.encoded()
    assert sorted(read_again) == ["a", "b", "c"]
    read_again.clear()
    assert listing.encoded() == before and read_again == []
    with (tmp_path / "b" / "journal" / "0001.jsonl").open("ab") as journal:
        journal.write(b'{"step":9,"epoch":1,"time":1.0,"values":{"val/accuracy":0.99}}\n')
    (tmp_path / "a" / "metrics.db").unlink()  # an index can be made again: nothing is new
    assert listing.row("b")["metrics"]["val/accuracy"]["best"] == 0.99 and read_again == ["b"]
    shutil.rmtree(tmp_path / "c")
    logged(tmp_path, "d")
    assert [row["name"] for row in listing.rows()] == ["a", "b", "d"] and read_again == ["b", "d"]
    assert [row["place"] for row in listing.rows()] == [0, 1, 2]


def test_edits_of_a_person_show_at_once(tmp_path: Path) -> None:
    from relume.monitor.edits import edit

    folder = logged(tmp_path, "a")
    listing = Listing(tmp_path)
    assert listing.row("a")["archived"] is False
    edit(folder, notes="the good one", tags=["best"], archived=True)
    row = listing.row("a")
    assert (row["notes"], row["tags"], row["archived"]) == ("the good one", ["best"], True)


def damage_journal(folder: Path) -> None:
    path = folder / "journal" / "0001.jsonl"
    path.write_bytes(path.read_bytes()[:-20])


def empty_journal(folder: Path) -> None:
    (folder / "journal" / "0001.jsonl").write_bytes(b"")


def pipe(place: str) -> Any:
    """What is read of it is waited for, for ever."""

    def harm(folder: Path) -> None:
        (folder / place).unlink(missing_ok=True)
        os.mkfifo(folder / place)

    return harm


def deep_journal(folder: Path) -> None:
    with (folder / "journal" / "0001.jsonl").open("ab") as journal:
        journal.write(b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}\n")


DAMAGES = {  # what wrote no ending goes on as long as its process, which is that of this test
    "a torn journal": (damage_journal, "running"),
    "an empty journal": (empty_journal, "running"),
    "no journal": (lambda folder: shutil.rmtree(folder / "journal"), "running"),
    "no index": (lambda folder: (folder / "metrics.db").unlink(), "finished"),
    "noise for an index": (lambda folder: (folder / "metrics.db").write_bytes(b"noise" * 999), "finished"),
    "no record": (lambda folder: (folder / "run.json").unlink(), "damaged"),
    "noise for a record": (lambda folder: (folder / "run.json").write_bytes(b"\xff{"), "damaged"),
    "a journal of parentheses": (deep_journal, "finished"),
    "a pipe in the journal": (pipe("journal/0002.jsonl"), "finished"),
    "a pipe for notes": (pipe("edits.json"), "finished"),
    "a pipe for a record": (pipe("run.json"), "damaged"),
    "an odd record": (lambda folder: (folder / "run.json").write_text('{"name": 3, "config": []}'), "damaged"),
}


@pytest.mark.parametrize(("harm", "status"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_run_hides_no_other(tmp_path: Path, harm: Any, status: str) -> None:
    logged(tmp_path, "good")
    harm(logged(tmp_path, "harmed"))
    (tmp_path / "something else").mkdir()
    (tmp_path / "a file").write_text("")
    found = rows_by_name(tmp_path)
    assert sorted(found) == ["good", "harmed"]
    assert found["good"]["metrics"]["val/accuracy"]["best"] == pytest.approx(0.9)
    assert found["harmed"]["status"] == status
    assert bool(found["harmed"]["reason"]) == (status in ("damaged", "finished"))
    assert json.dumps(found, allow_nan=False)


def test_hostile_names_and_values_are_rows_like_others(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script>"\u202eاب\u2028' + "x" * 5000
    with relume.Run("evil", root=tmp_path, quiet=True, watch=False, config={evil: evil}) as run:
        run.log({evil: 1.0})
    with (run.folder / "journal" / "0001.jsonl").open("a") as journal:
        journal.write('{"event": "end", "status": [], "step": {}, "epoch": "x", "seconds": 1e999, "reason": ["a"]}\n')
    row = rows_by_name(tmp_path)["evil"]
    assert (
        list(row["metrics"]) == [evil]
        and row["config"][evil].startswith("<script>")
        and len(row["config"][evil]) < 2100
    )
    assert (row["epoch"], row["status"]) == (0, "failed") and json.dumps(row, allow_nan=False)


def test_a_root_that_is_not_there_has_no_runs(tmp_path: Path) -> None:
    assert all_runs(tmp_path / "nowhere")["runs"] == []


# ------------------------------------------------------------------------------------------------------------ progress


def test_a_run_says_how_many_epochs_it_plans(tmp_path: Path) -> None:
    trained(tmp_path, "done", 3)
    with pytest.raises(RuntimeError):
        trained(tmp_path, "failed", 7, stop_in=1)
    logged(tmp_path, "settings", {"epochs": 20})
    logged(tmp_path, "unknown")
    found = rows_by_name(tmp_path)
    assert {name: row["epochs"] for name, row in found.items()} == {
        "done": 3,
        "failed": 7,
        "settings": 20,
        "unknown": None,
    }
    assert all(row["left_seconds"] is None for row in found.values())


@pytest.mark.parametrize(
    ("progress", "left"),
    [
        (Progress(4, (0, 100.0), (10, 1), 10), 30.0),  # 10 of 40 updates in 10 seconds
        (Progress(4, (5, 100.0), (10, 1), 10), 60.0),  # resumed behind 5
        (Progress(1, (0, 100.0), (0, 0), 20), 10.0),  # in its first epoch
        (Progress(1, (0, 100.0), (0, 0), None), None),
        (Progress(None, (0, 100.0), (10, 1), 10), None),
        (Progress(4, None, (10, 1), 10), None),
        (Progress(4, (10, 100.0), (10, 1), 10), None),  # no update yet
        (Progress(1, (0, 100.0), (10, 1), 5), 0.0),  # behind its plan
    ],
)
def test_the_time_left_is_that_of_the_pace_of_this_process(progress: Progress, left: float | None) -> None:
    assert progress.left_seconds(10, 110.0, 110.0) == left
    if left:
        assert progress.left_seconds(10, 110.0, 113.0) == left - 3.0


@pytest.mark.parametrize(
    ("progress", "share"),
    [
        (Progress(1, (0, 100.0), (0, 0), 20), 0.5),  # in its only epoch, which is not done yet
        (Progress(4, (0, 100.0), (10, 1), 10), 0.25),
        (Progress(1, (0, 100.0), (0, 0), None), 0.0),  # how long an epoch is, is not known yet
        (Progress(1, (0, 100.0), (10, 1), 5), 1.0),
        (Progress(4), None),
        (Progress(), None),
    ],
)
def test_an_epoch_that_goes_on_is_not_counted_as_done(progress: Progress, share: float | None) -> None:
    assert progress.share(10) == share


LIVE = """
import sys, torch, relume
from torch.utils.data import DataLoader, TensorDataset
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(torch.ones(80, 2), torch.ones(80, 1)), batch_size=2)
with relume.Run("live", root=sys.argv[1], model=model, optimizer=optimizer, quiet=True, watch=False) as run:
    for epoch in run.epochs(1000):
        for number, (x, y) in enumerate(run.batches(loader)):
            model(x).sum().backward(); optimizer.step(); optimizer.zero_grad()
            run.log({"train/loss": 1.0})
            if (epoch, number) == (int(sys.argv[2]), 30):
                if epoch == 0:
                    while not any(b'"pace"' in path.read_bytes() for path in (run.folder / "journal").iterdir()): pass
                print("there", flush=True); input()
"""


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_run_that_goes_on_has_time_left_and_one_that_was_killed_has_none(tmp_path: Path, epoch: int) -> None:
    command = [sys.executable, "-c", LIVE, str(tmp_path), str(epoch)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"there\n"
        listing = Listing(tmp_path)
        row = listing.row("live")
        assert (row["status"], row["epochs"], row["epoch"]) == ("running", 1000, epoch + 1)
        assert row["left_seconds"] is not None and row["left_seconds"] > row["seconds"] / 100
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    row = listing.row("live")
    assert (row["status"], row["left_seconds"]) == ("killed", None)


# ------------------------------------------------------------------------------------------------------------- choosing


def test_runs_are_chosen_by_conditions_on_their_rows(tmp_path: Path) -> None:
    for name, lr, top in (("a", 0.1, 0.95), ("b", 0.001, 0.97), ("c", 0.001, 0.5)):
        logged(tmp_path, name, {"optimizer": {"lr": lr}}, top=top)
    rows = Listing(tmp_path).rows()
    assert chosen(rows, "lr < 1e-2 and val/accuracy > 0.9") == ["b"]
    assert chosen(rows, None, "val/accuracy", descending=True) == ["b", "a", "c"]
    assert chosen(rows, "", "lr") == ["b", "c", "a"]
    with pytest.raises(UnknownNameError, match="no run has 'val/acuracy'.*val/accuracy"):
        chosen(rows, "val/acuracy > 1")
    with pytest.raises(ExpressionError):
        chosen(rows, "lr <")


def test_nan_comes_last_and_a_large_seed_is_found(tmp_path: Path) -> None:
    for name, value in (("a", math.nan), ("b", 1.0), ("c", -math.inf)):
        with relume.Run(name, root=tmp_path, quiet=True, watch=False, seed=2**62) as run:
            run.log({"loss": value})
    rows = Listing(tmp_path).rows()
    assert chosen(rows, f"seed == {2**62}", "loss") == ["c", "b", "a"]
    assert chosen(rows, "loss < 2") == ["b", "c"]


def test_metrics_come_in_the_order_of_their_interest() -> None:
    names = ["system/cpu", "freeze/lr", "weight_norms/a", "lr", "train/loss", "test/f1", "val/loss", "val/accuracy"]
    expected = ["val/accuracy", "val/loss", "test/f1", "train/loss", "lr", "system/cpu", "freeze/lr", "weight_norms/a"]
    assert by_interest(names) == expected


def test_many_threads_may_ask_one_listing(tmp_path: Path) -> None:
    for name in "abcd":
        logged(tmp_path, name)
    listing, answers = Listing(tmp_path), []
    threads = [threading.Thread(target=lambda: answers.append(listing.encoded())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and len(set(answers)) == 1
