"""Killed at any moment and started again, a training ends with the weights of an undisturbed one: 0 bits differ."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from tests.run import trainings

KILLS = {"short": 4, "long": 20}


@pytest.mark.parametrize("length", ["short", pytest.param("long", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("training", "options"),
    [
        ("by_trainer", {"workers": 0, "optimizer": "adam"}),
        ("by_trainer", {"workers": 2, "optimizer": "momentum"}),
        pytest.param("by_trainer", {"workers": 0, "optimizer": "momentum"}, marks=pytest.mark.long),
        pytest.param("by_trainer", {"workers": 2, "optimizer": "adam"}, marks=pytest.mark.long),
        ("by_hand", {}),
    ],
    ids=["Adam", "2 workers, momentum", "momentum", "2 workers, Adam", "hand-written, two optimizers, EMA"],
)
def test_killed_at_random_moments(length: str, training: str, options: dict[str, Any], tmp_path: Path) -> None:
    train = functools.partial(getattr(trainings, training), **options)
    run = "hard" if training == "by_trainer" else "hand"
    assert trainings.in_process(lambda: train(tmp_path / "whole")) == 0
    whole_lines = trainings.logged(tmp_path / "whole", run)
    killed = tmp_path / "killed"
    kills = trainings.killed_again_and_again(
        lambda: train(killed), killed / run, len(whole_lines), KILLS[length], seed=3
    )
    expected, found = (trainings.final_state(tmp_path / name, run) for name in ("whole", "killed"))
    assert trainings.differing(found, expected) == []
    assert trainings.logged(killed, run) == whole_lines
    segments = len(list((killed / run / "journal").iterdir()))
    print(f"{training} {options}: killed at lines {kills} of {len(whole_lines)}, {segments} starts, 0 bits differ")
    assert len(kills) >= KILLS[length] - 2
