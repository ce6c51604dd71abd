"""When to kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import TinyRun

from relume.rehearse.kills import Kill, Trigger, plan, spacing


def trained(root: Path, name: str = "line", steps: int = 20) -> TinyRun:
    run = TinyRun(name, root=root)
    run.state["models"] = {"model": {"weight": torch.zeros(2)}}
    for _ in run.steps(steps):
        run.log({"loss": 0.0})
    return run


def test_moments_are_spread_over_the_run_in_order_and_follow_the_seed(tmp_path: Path) -> None:
    trained(tmp_path, steps=200)
    kills = plan(tmp_path, 8, seed=1)
    steps = [kill.step for kill in kills]
    assert len(kills) == 8 and steps == sorted(steps) and steps[-1] > steps[0]
    assert {kill.moment for kill in kills} == {"step", "save", "resume"}
    assert kills == plan(tmp_path, 8, seed=1) != plan(tmp_path, 8, seed=2)


def test_there_is_nothing_to_plan_where_nothing_was_logged(tmp_path: Path) -> None:
    assert plan(tmp_path, 5, seed=0) == []


def test_a_kill_is_due_when_its_step_is_reached_and_its_delay_is_over(tmp_path: Path) -> None:
    trigger = Trigger(Kill("line", 3, 0.5, "step", 1.0), tmp_path)
    assert not trigger.is_due(0.0)
    run = TinyRun("line", root=tmp_path)
    run.log({"loss": 1.0}, step=2)
    assert not trigger.is_due(1.0)
    run.log({"loss": 1.0}, step=4)
    assert not trigger.is_due(2.0) and not trigger.is_due(2.4) and trigger.is_due(2.6)


def test_a_kill_in_a_save_waits_for_one_but_not_for_ever(tmp_path: Path) -> None:
    trigger = Trigger(Kill("line", 1, 0.0, "save", 5.0), tmp_path)
    run = TinyRun("line", root=tmp_path)
    run.log({"loss": 1.0}, step=1)
    assert not trigger.is_due(0.0) and not trigger.is_due(4.9) and trigger.is_due(5.1)
    run.save()
    assert trigger.is_due(1.0)
    (tmp_path / "store" / "staging" / "pack").touch()
    assert trigger.is_due(1.0)


def test_a_kill_while_resuming_waits_for_a_new_segment(tmp_path: Path) -> None:
    trained(tmp_path)
    trigger = Trigger(Kill("line", 3, 0.0, "resume", 1.0), tmp_path)
    assert not trigger.is_due(0.0)
    TinyRun("line", root=tmp_path)
    assert trigger.is_due(0.1)


@pytest.mark.parametrize(
    ("arguments", "every"),
    [((0, 5, 10, 10**9), 1), ((3, 5, 10, 10**9), 1), ((200, 5, 10, 0), 200), ((201, 5, 0, 10), 41)],
)
def test_checkpoints_are_never_more_often_than_each_step_nor_more_than_fit(
    arguments: tuple[int, int, int, int], every: int
) -> None:
    assert spacing(*arguments) == every
