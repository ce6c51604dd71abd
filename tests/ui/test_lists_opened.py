"""Indexes that stay open give the answers of those that are opened anew."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

import relume
from relume.monitor import metric_summary, points
from relume.monitor.journal import values_line
from relume.ui.answers import opened
from relume.ui.answers.opened import ask_again


def logged(root: Path, name: str) -> Path:
    with relume.Run(name, root=root, quiet=True, watch=False) as run:
        run.log({"loss": 1.0}, step=1)
    return run.folder


def test_what_is_logged_later_counts_and_what_has_not_grown_is_not_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opening = logged(tmp_path, "a"), []
    open_index = opened.opened
    monkeypatch.setattr(opened, "opened", lambda folder: (opening.append(folder.name), open_index(folder))[1])
    assert ask_again(folder, points.summaries) == ask_again(folder, points.summaries) == metric_summary(folder)
    assert opening == ["a"]
    with (folder / "journal" / "0001.jsonl").open("ab") as journal:
        journal.write(values_line(2, 1, 1.0, {"loss": 0.5}))
    assert ask_again(folder, points.summaries)["loss"]["last"] == 0.5 and opening == ["a", "a"]


def test_an_index_that_goes_or_is_harmed_while_it_is_open_changes_no_answer(tmp_path: Path) -> None:
    folder = logged(tmp_path, "a")
    right = ask_again(folder, points.summaries)
    (folder / "metrics.db").unlink()
    assert ask_again(folder, points.summaries) == right
    (folder / "metrics.db").write_bytes(b"noise" * 3000)
    assert ask_again(folder, points.summaries) == right
    with (folder / "journal" / "0001.jsonl").open("ab") as journal:
        journal.write(values_line(2, 1, 1.0, {"loss": 0.5}))
    assert ask_again(folder, points.summaries)["loss"]["count"] == 2
    shutil.rmtree(folder)
    assert (
        not logged(tmp_path, "a").joinpath("gone").exists()
        and ask_again(folder, points.summaries)["loss"]["count"] == 1
    )


def test_few_stay_open_and_a_question_that_fails_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "_MOST", 2)
    folders = [logged(tmp_path, name) for name in "abcd"]
    for folder in folders:
        ask_again(folder, points.summaries)
    assert [folder for folder in folders if folder in opened._open] == folders[2:]

    def question(_: object) -> None:
        raise ValueError("no answer")

    with pytest.raises(ValueError, match="no answer"):
        ask_again(folders[3], question)
    assert folders[3] not in opened._open


def test_threads_may_ask_the_same_run_at_once(tmp_path: Path) -> None:
    folder, answers = logged(tmp_path, "a"), []
    threads = [
        threading.Thread(target=lambda: answers.extend(ask_again(folder, points.summaries)["loss"]["count"] for _ in range(50)))
        for _ in range(4)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [1] * 200
