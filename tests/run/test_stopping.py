"""Early stopping."""

from __future__ import annotations

import math
from typing import Any

import pytest

from relume import EarlyStopping
from relume.errors import ConfigurationError


def stops_at(stop: EarlyStopping, values: list[float]) -> int | None:
    """The number of the value at which it stops, counted from 1."""
    return next((number for number, value in enumerate(values, 1) if stop.update(value)), None)


@pytest.mark.parametrize(
    ("arguments", "values", "expected"),
    [
        ({"patience": 2}, [3, 2, 1, 1.5, 0.5, 0.6, 0.7], 7),
        ({"patience": 1}, [3, 2, 2], 3),
        ({"patience": 1, "mode": "max"}, [3, 4, 2], 3),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.8, 2.6, 2.4], 3),
        ({"patience": 2, "baseline": 1.0}, [3, 2, 0.9], 2),
        ({"patience": 2, "baseline": 1.0}, [3, 0.9, 0.8, 0.7], None),
        ({"patience": 1, "warmup": 3}, [1, 2, 3, 4, 5], 4),
        ({"patience": 5}, [1, math.nan], 2),
        ({"patience": 5}, [1, math.inf], 2),
        ({"patience": 2, "stop_on_nan": False}, [math.nan, 1, math.nan, math.nan], 4),
    ],
)
def test_it_stops_when_it_should(arguments: dict[str, Any], values: list[float], expected: int | None) -> None:
    assert stops_at(EarlyStopping("val/loss", **arguments), values) == expected


def test_the_direction_comes_from_the_name() -> None:
    assert stops_at(EarlyStopping("val/accuracy", patience=1), [0.5, 0.6, 0.55]) == 3
    with pytest.raises(ConfigurationError, match="'fun'"):
        EarlyStopping("fun")


def test_its_state_goes_on() -> None:
    values = [3.0, 2.0, 2.5, 2.6, 2.7]
    for cut in range(len(values)):
        first = EarlyStopping("val/loss", patience=3)
        assert stops_at(first, values[:cut]) is None
        second = EarlyStopping("val/loss", patience=3)
        second.load_state_dict(first.state_dict())
        assert stops_at(second, values[cut:]) == len(values) - cut


@pytest.mark.parametrize(
    "arguments",
    [{"patience": 0}, {"patience": 1.5}, {"patience": True}, {"min_delta": -1}, {"warmup": -1}, {"baseline": math.nan}],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        EarlyStopping("val/loss", **arguments)
    with pytest.raises(ConfigurationError, match="monitor"):
        EarlyStopping("")
