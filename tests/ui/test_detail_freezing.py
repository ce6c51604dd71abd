"""When which block was trained, and at which rate; and what relume said meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from detail_runs import as_json, blocks_model, trained

import relume
from relume import FreezeSchedule, Phase
from relume.ui.answers.console import console
from relume.ui.answers.freezing import freezing


def phases(folder: Path) -> list[dict[str, Any]]:
    found = as_json(freezing(folder))
    assert found is not None and found["blocks"] == ["body", "neck", "head"] and found["left_out"] == 0
    return list(found["phases"])


def test_a_run_in_which_nothing_was_frozen_has_no_phases(tmp_path: Path) -> None:
    assert freezing(trained(tmp_path, epochs=1)) is None


def test_each_phase_tells_its_blocks_and_their_rates(tmp_path: Path) -> None:
    schedule = FreezeSchedule(
        [
            Phase("head", epochs=1, lr=0.2),
            Phase(["neck", "head"], steps=4, name="upper"),
            Phase(lr=0.05, warmup="2 steps"),
        ]
    )
    one, two, three = phases(trained(tmp_path, freeze=schedule))
    assert [(p["number"], p["first_step"], p["last_step"]) for p in (one, two, three)] == [
        (1, 0, 4),
        (2, 4, 8),
        (3, 8, 12),
    ]
    assert [(p["first_epoch"], p["last_epoch"]) for p in (one, two, three)] == [(0, 1), (1, 2), (2, 3)]
    assert [p["trained"] for p in (one, two, three)] == [[2], [1, 2], [0, 1, 2]]
    assert one["lr"] == {"head": 0.2} and two["lr"] == {"neck": 0.1, "head": 0.1}
    assert three["lr"] == pytest.approx(dict.fromkeys(("body", "neck", "head"), 0.05)) and three["largest_lr"] == 0.05
    assert two["text"] == "upper (neck, head): 4 steps" and three["partly"] == []


def test_turns_are_told_each_time_though_their_blocks_are_written_in_the_first_ones_only(tmp_path: Path) -> None:
    turns = FreezeSchedule.alternate({"below": ["body"], "above": ["neck", "head"]}, every="1 step")
    folder = trained(tmp_path, freeze=turns)
    found = phases(folder)
    assert [p["trained"] for p in found] == [[0], [1, 2]] * 6 and found[-1]["last_step"] == 12
    assert (folder / "journal" / "0001.jsonl").read_text().count('"event":"freeze"') == 4


def test_a_block_of_which_a_part_is_frozen_says_so(tmp_path: Path) -> None:
    model = blocks_model()
    relume.freeze(model, "body", "neck.bias")
    (only,) = phases(trained(tmp_path, model=model))
    assert (only["number"], only["trained"], only["partly"], only["lr"]) == (0, [1, 2], [1], {"neck": 0.1, "head": 0.1})


def test_a_run_that_is_started_again_repeats_no_phase(tmp_path: Path) -> None:
    for epochs in (1, 2, 3):
        model = blocks_model()
        relume.freeze(model, "body")
        folder = trained(tmp_path, model=model, epochs=epochs)
    (only,) = phases(folder)
    assert (only["first_step"], only["last_step"], only["trained"]) == (0, 12, [1, 2])


def test_phases_of_a_dead_branch_do_not_count(tmp_path: Path) -> None:
    schedule = [Phase("head", epochs=1), Phase(["neck", "head"], epochs=1), Phase()]
    keep = relume.Keep(last=9)
    trained(tmp_path, freeze=FreezeSchedule(schedule), keep=keep)
    folder = trained(tmp_path, epochs=4, freeze=FreezeSchedule(schedule), keep=keep, resume=1)
    assert [(p["first_step"], p["last_step"], p["trained"]) for p in phases(folder)] == [
        (0, 4, [2]),
        (4, 8, [1, 2]),
        (8, 16, [0, 1, 2]),
    ]


def test_a_model_that_cannot_be_taken_apart_is_trained_all_the_same(tmp_path: Path) -> None:
    from torch import nn

    with relume.Run("a", root=tmp_path, quiet=True, model=nn.Linear(2, 1).requires_grad_(False)) as run:
        run.log({"x": 1.0})
    assert freezing(run.folder) is None


# ------------------------------------------------------------------------------------------------------------- console


def test_the_console_tells_notes_epochs_with_their_values_and_the_end(tmp_path: Path) -> None:
    folder = trained(tmp_path, epochs=2, freeze=FreezeSchedule([Phase("head", epochs=1), Phase()]))
    found = as_json(console(folder))
    lines = found["lines"]
    assert [line["kind"] for line in lines if line["kind"] != "note"] == ["start", "epoch", "epoch", "end"]
    assert found["left_out"] == 0 and lines == sorted(lines, key=lambda line: line["time"])
    epochs = [line["text"] for line in lines if line["kind"] == "epoch"]
    assert (
        epochs[0].startswith("epoch 1/2  done in ") and epochs[0].endswith("  val/loss 1") and "train/loss" in epochs[0]
    )
    assert epochs[1].endswith("  val/loss 0.5") and "freeze/" not in epochs[1]
    assert any("freeze: phase 2 of 2" in line["text"] for line in lines)
    assert lines[-1]["text"].startswith("finished after ") and lines[-1]["text"].endswith("(2 epochs done)")


def test_the_console_tells_a_resume_with_what_differs(tmp_path: Path) -> None:
    trained(tmp_path, epochs=1)
    folder = trained(tmp_path, epochs=2, config={"epochs": 2, "lr": 0.5})
    lines = console(folder)["lines"]
    (resume,) = [line for line in lines if line["kind"] == "resume"]
    assert "resumes from a@" in resume["text"] and "config lr: 0.1 before, 0.5 now" in resume["text"]
    assert [line["text"] for line in lines if line["kind"] == "start"] == ["started", "started again"]


def test_the_console_of_many_lines_shows_the_newest(tmp_path: Path) -> None:
    with relume.Run("a", root=tmp_path, quiet=True) as run:
        for number in range(5100):
            run.note(f"note {number}")
    found = console(run.folder)
    assert len(found["lines"]) == 5000 and found["left_out"] == 102 and found["lines"][-2]["text"] == "note 5099"


def test_what_is_said_is_text_whatever_it_is(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\x1b[31m\u202e\ud800"
    with relume.Run("a", root=tmp_path, quiet=True) as run:
        run.note(evil)
    (line,) = [line for line in as_json(console(run.folder))["lines"] if line["kind"] == "note"]
    assert line["text"].startswith("<img src=x onerror=alert(1)>")


def test_an_end_that_took_for_ever_is_a_line_like_others(tmp_path: Path) -> None:
    with relume.Run("a", root=tmp_path, quiet=True) as run:
        run.log({"loss": 1.0})
    with (run.folder / "journal" / "0001.jsonl").open("ab") as journal:
        journal.write(b'{"event":"end","status":"failed","reason":"","seconds":1e400,"time":9e9}\n')
    assert console(run.folder)["lines"][-1]["text"] == "failed"
