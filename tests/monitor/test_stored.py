"""Runs seen from outside: as objects, as tables, with damaged ones among them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from relume import Run
from relume.errors import RootError, UnknownNameError
from relume.monitor.record import RunRecord
from relume.monitor.stored import StoredRun, runs

TAGS = re.compile(r"<(?!/?(div|span|table|thead|tbody|tr|th|td|svg|title|circle|polyline|polygon|details|summary)\b)")


def train(root: Path, name: str = "line", **more: object) -> Path:
    with Run(name, root=root, quiet=True, **more) as run:  # type: ignore[arg-type]
        for step in range(3):
            run.log({"train/loss": 3.0 - step, "val/accuracy": step / 10}, step=step)
    return run.folder


def test_a_run_tells_its_status_metrics_and_settings(tmp_path: Path) -> None:
    run = StoredRun(train(tmp_path, config={"lr": 0.1}))
    assert (run.name, run.status, run.config) == ("line", "finished", {"lr": 0.1})
    loss, accuracy = run.metrics["train/loss"], run.metrics["val/accuracy"]
    assert (loss.last, loss.best, loss.best_step, loss.count) == (1.0, 1.0, 2, 3) and accuracy.best == 0.2
    assert list(run.history["train/loss"]) == [3.0, 2.0, 1.0]
    text = str(run)
    assert "finished" in text and re.search(r"val/accuracy +▁▄█ +0.2 +0.2", text) and "lr" in text
    assert run._repr_html_().count("<svg") == 2


def test_a_run_that_goes_on_is_read_anew_at_each_look(tmp_path: Path) -> None:
    with Run("open", root=tmp_path, quiet=True) as run:
        seen = StoredRun(run.folder)
        assert seen.status == "running" and "nothing was logged yet" in str(seen)
        run.log({"train/loss": 0.5})
        assert seen.metrics["train/loss"].last == 0.5 and "train/loss" in run._repr_html_()
        assert repr(run) == f"<Run 'open': running, epoch 0, step 0, in {run.folder}>"
    assert seen.status == "finished"


def test_a_run_that_was_not_begun_shows_its_line_only(tmp_path: Path) -> None:
    train(tmp_path, "line")
    assert Run("line", root=tmp_path, quiet=True)._repr_html_() is None


def test_runs_are_found_by_number_slice_and_name(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        train(tmp_path, name)
    found = runs(tmp_path)
    assert [run.name for run in found] == ["a", "b", "c"] and len(found[1:]) == 2
    assert found["b"].name == found[1].name == "b" and repr(found) == f"<3 runs in {tmp_path}>"
    with pytest.raises(UnknownNameError, match="there is no run 'd' in"):
        found["d"]
    assert str(found).count("finished") == 3 and found._repr_html_().count("<svg") == 3


def test_no_runs_and_no_folder(tmp_path: Path) -> None:
    assert "There are no runs in" in str(runs(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(RootError, match="file is a file: root= is the folder that holds the runs"):
        runs(tmp_path / "file")


def test_a_damaged_run_hides_no_other(tmp_path: Path) -> None:
    train(tmp_path, "good")
    for number, damage in enumerate(['{"event": "end", "status": 7, "seconds": "x"}', '{"values": {"a": {}}}', "\x00"]):
        folder = train(tmp_path, f"bad{number}")
        with next(iter((folder / "journal").iterdir())).open("a") as file:
            file.write(damage + "\n")
    (train(tmp_path, "torn") / "run.json").write_text("{")
    shutil.rmtree(train(tmp_path, "empty") / "journal")
    found = runs(tmp_path)
    assert len(found) == 6 and "good" in str(found) and "torn" in found._repr_html_()
    for run in found:
        assert run.name in str(run) and run.name in run._repr_html_()
    assert "damaged: " in str(StoredRun(tmp_path / "torn"))


def test_names_and_values_out_of_files_are_only_text(tmp_path: Path) -> None:
    evil = "</td><script>alert('x')</script><img src=http://evil.example/>\x1b[2J\u202e"
    with Run("evil", root=tmp_path, quiet=True, config={evil: evil}) as run:
        run.log({f"val/{evil}": 1.0})
    record = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(
        json.dumps(record | {"versions": {evil: evil}, "lineage": {"checkpoint": evil}})
    )
    with next(iter((run.folder / "journal").iterdir())).open("a") as file:
        file.write(json.dumps({"event": "end", "status": "failed", "reason": evil, "step": evil, "epoch": evil}) + "\n")
    for page in (
        StoredRun(run.folder)._repr_html_(),
        runs(tmp_path)._repr_html_(),
        RunRecord.load(run.folder)._repr_html_(),
    ):
        assert not TAGS.search(page) and "\x1b" not in page and "\u202e" not in page
        assert "&lt;script&gt;" in page or "evil" in page
    assert "\x1b" not in str(StoredRun(run.folder)) and "\x1b" not in str(runs(tmp_path))


def test_a_result_is_shown_also_when_its_folder_is_gone(tmp_path: Path) -> None:
    from relume import Result

    result = Result("finished", "1 epoch done", 1, 4, 61.0, tmp_path / "gone", {"val/loss": 1.0}, {"val/loss": 0.5}, {})
    assert "finished (1 epoch done) · 1 epoch, 4 steps · 1:01" in str(result) and "–" in result._repr_html_()


def test_thousands_of_metrics_make_no_endless_page(tmp_path: Path) -> None:
    with Run("wide", root=tmp_path, quiet=True) as run:
        run.log({f"metric/{number}": number for number in range(2_000)})
    page = StoredRun(run.folder)._repr_html_()
    assert len(page) < 60_000 and "1,976 more" in page


def test_only_the_newest_of_many_runs_are_drawn(tmp_path: Path) -> None:
    folder = train(tmp_path, "0")
    for number in range(1, 60):
        shutil.copytree(folder, tmp_path / str(number))
    text = str(runs(tmp_path))
    assert text.count("finished") == 50 and "10 more runs not shown" in text
