"""When checkpoints are made, in words."""

from __future__ import annotations

import math
from typing import Any

import pytest

from relume.errors import ConfigurationError
from relume.run.every import Every, read_duration


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (None, Every(epochs=1)),
        ("2 epochs", Every(epochs=2)),
        ("500 steps", Every(steps=500)),
        ("1 step", Every(steps=1)),
        ("10 min", Every(seconds=600)),
        ("1.5h", Every(seconds=5400)),
        ("30 s", Every(seconds=30)),
        (["1 epoch", "500 steps", "10 minutes"], Every(1, 500, 600)),
        ([], Every()),
        (False, Every()),
    ],
)
def test_rules_are_read(rule: Any, expected: Every) -> None:
    assert Every.read(rule) == expected


@pytest.mark.parametrize("rule", ["", "epoch", "0 epochs", "1.5 epochs", "5", "5 parsecs", "-1 min", 7, ["1 epoch", 3]])
def test_rules_that_make_no_sense(rule: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not understood"):
        Every.read([rule] if isinstance(rule, int) else rule)


def test_two_rules_of_a_kind() -> None:
    with pytest.raises(ConfigurationError, match="two rules in steps"):
        Every.read(["5 steps", "7 steps"])


def test_steps_are_due_at_multiples_wherever_a_run_starts() -> None:
    every = Every(steps=500)
    assert [every.next_step(step) for step in (0, 499, 500, 501)] == [500, 500, 1000, 1000]
    assert Every().next_step(5) == math.inf


@pytest.mark.parametrize(
    ("value", "seconds"), [(90, 90), ("90", 90), ("11 h 30 min", 41400), ("2 days", 172800), (None, None)]
)
def test_durations(value: Any, seconds: float | None) -> None:
    assert read_duration(value) == seconds


@pytest.mark.parametrize("value", [0, -1, "soon", "", "5 epochs", math.nan, math.inf, True])
def test_durations_that_make_no_sense(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"max_time=.* is not understood"):
        read_duration(value)
