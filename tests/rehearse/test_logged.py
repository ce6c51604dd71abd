"""What two runs logged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from relume.monitor import Journal
from relume.rehearse.logged import compare_journals


def run(folder: Path, *lines: tuple[int, dict[str, Any]]) -> Path:
    (folder / "journal").mkdir(parents=True)
    journal = Journal(folder / "journal" / "0001.jsonl", {"segment": 1})
    for step, values in lines:
        journal.values(step, 1 + step // 10, dict(values), None)
        if step % 10 == 9:
            journal.write({"event": "epoch_end", "step": step, "epoch": 1 + step // 10})
    journal.write({"event": "note", "text": folder.name})
    journal.close()
    return folder


def losses(*values: float) -> list[tuple[int, dict[str, Any]]]:
    return [(step, {"loss": value}) for step, value in enumerate(values, 1)]


def test_notes_and_times_do_not_count(tmp_path: Path) -> None:
    found = compare_journals(
        run(tmp_path / "a", *losses(1, 2.5, math.nan)), run(tmp_path / "b", *losses(1, 2.5, math.nan))
    )
    assert (found.first, found.lines, found.values) == (None, 3, 3)


def test_the_first_value_that_differs_is_named_with_its_place(tmp_path: Path) -> None:
    numbers = [float(n) for n in range(14)]
    changed = [*numbers[:11], 11.5, 12.5, 13.0]
    found = compare_journals(run(tmp_path / "a", *losses(*numbers)), run(tmp_path / "b", *losses(*changed)))
    assert found.first is not None and found.different_lines == 2
    assert (found.first.step, found.first.epoch, found.first.batch, found.first.metric) == (12, 2, 3, "loss")
    assert found.first.text == "11.0 and 11.5" and found.first.resumed_step is None


def test_a_missing_line_and_a_line_too_many_are_found(tmp_path: Path) -> None:
    one = run(tmp_path / "a", *losses(1, 2, 3))
    missing = compare_journals(one, run(tmp_path / "b", *losses(1, 2))).first
    assert missing is not None and "the second run has no more lines; the other one goes on at step 3" in missing.text
    twice = compare_journals(one, run(tmp_path / "c", (1, {"loss": 1}), (1, {"loss": 1}), (2, {"loss": 2}))).first
    assert (
        twice is not None and "of step 2, epoch 1 in the first run, and of step 1, epoch 1 in the second" in twice.text
    )


def test_metrics_of_time_are_listed_and_do_not_count(tmp_path: Path) -> None:
    one = run(tmp_path / "a", (1, {"loss": 1.0, "step_time": 0.1, "samples_per_second": 5.0}))
    other = run(tmp_path / "b", (1, {"loss": 1.0, "step_time": 0.2, "samples_per_second": 6.0}))
    found = compare_journals(one, other)
    assert (found.first, found.by_nature) == (None, ["step_time", "samples_per_second"])


def test_a_whole_number_is_not_the_same_as_a_float(tmp_path: Path) -> None:
    found = compare_journals(run(tmp_path / "a", (1, {"n": 1})), run(tmp_path / "b", (1, {"n": 1.0})))
    assert found.first is not None and found.first.text == "of type int and of type float"
