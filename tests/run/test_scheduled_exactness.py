"""A run under a freeze schedule that is stopped anywhere ends with the bits of an undisturbed one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tests.run import frozen_trainings, trainings
from tests.run.frozen_trainings import EPOCHS, SCHEDULES, STEPS_PER_EPOCH, Crash

STEPS = EPOCHS * STEPS_PER_EPOCH


def changes(root: Path, run: str = "frozen") -> list[int]:
    """The steps at which phases began."""
    return list(trainings.metric_steps(root, run, "freeze/phase"))


def differing(found: Any, expected: Any) -> list[str]:
    return [place for place in trainings.differing(found, expected) if place != trainings.DECISIONS]


@pytest.mark.parametrize("length", ["short", pytest.param("long", marks=pytest.mark.long)])
@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
@pytest.mark.parametrize("kind", list(SCHEDULES))
def test_crashed_at_random_steps_and_at_the_edges(kind: str, optimizer: str, length: str, tmp_path: Path) -> None:
    if length == "short" and (optimizer == "momentum") is not (kind in ("turns of steps", "stall")):
        pytest.skip("the long version trains each with both")
    frozen_trainings.train(tmp_path / "whole", kind, optimizer=optimizer)
    edges = changes(tmp_path / "whole")
    assert len(edges) >= 2, "no phase has changed"
    expected, lines = (
        trainings.final_state(tmp_path / "whole", "frozen"),
        trainings.logged(tmp_path / "whole", "frozen"),
    )
    near = {step + by for step in edges for by in (-1, 0, 1)} & set(range(1, STEPS))
    places = sorted(range(1, STEPS)) if length == "long" else sorted(random.Random(kind).sample(sorted(near), 3))
    for place in places:
        root = tmp_path / str(place)
        with pytest.raises(Crash):
            frozen_trainings.train(root, kind, optimizer=optimizer, crash_at=place)
        frozen_trainings.train(root, kind, optimizer=optimizer)
        assert differing(trainings.final_state(root, "frozen"), expected) == [], f"crashed at step {place}"
        assert trainings.logged(root, "frozen") == lines


@pytest.mark.parametrize("place", [4, 5, 6, 9, 10])
def test_two_models_and_optimizers_in_turns(place: int, tmp_path: Path) -> None:
    frozen_trainings.by_hand(tmp_path / "whole")
    assert len(changes(tmp_path / "whole", "hand")) == 3
    with pytest.raises(Crash):
        frozen_trainings.by_hand(tmp_path, crash_at=place)
    frozen_trainings.by_hand(tmp_path)
    found, expected = (trainings.final_state(root, "hand") for root in (tmp_path, tmp_path / "whole"))
    assert differing(found, expected) == []


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("phases", 3), *(pytest.param(kind, 20, marks=pytest.mark.long) for kind in SCHEDULES)],
)
def test_killed_at_random_moments(kind: str, kills: int, tmp_path: Path) -> None:
    every = ["1 epoch", "2 steps"]
    assert trainings.in_process(lambda: frozen_trainings.train(tmp_path / "whole", kind, every=every)) == 0
    lines, killed = trainings.logged(tmp_path / "whole", "frozen"), tmp_path / "killed"
    done = trainings.killed_again_and_again(
        lambda: frozen_trainings.train(killed, kind, every=every), killed / "frozen", len(lines), kills, seed=7
    )
    assert len(done) >= kills - 2
    found, expected = (trainings.final_state(root, "frozen") for root in (killed, tmp_path / "whole"))
    assert differing(found, expected) == []
    assert trainings.logged(killed, "frozen") == lines
