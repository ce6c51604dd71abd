from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relume.checkpoint import Candidate, Keep, infer_mode
from relume.errors import ConfigurationError


def _runs(*losses: float | None) -> list[Candidate]:
    return [Candidate(n, n, {} if loss is None else {"val/loss": loss}) for n, loss in enumerate(losses, 1)]


def test_the_newest_and_the_best_stay() -> None:
    keep = Keep(last=2, best=1, monitor="val/loss")
    assert keep.to_delete(_runs(3.0, 1.0, 2.0, 2.5, 2.7)) == [1, 3]
    assert keep.to_keep(_runs(3.0, 1.0, 2.0, 2.5, 2.7)) == [2, 4, 5]


def test_nan_and_missing_values_are_never_best() -> None:
    keep = Keep(last=1, best=1, monitor="val/loss")
    assert keep.to_keep(_runs(math.nan, None, 5.0, math.nan, None)) == [3, 5]
    assert keep.to_keep(_runs(math.nan, None)) == [2]
    assert keep.to_keep(_runs(-math.inf, 1.0, 2.0)) == [1, 3]


def test_the_earlier_of_equals_is_the_best() -> None:
    assert Keep(last=1, best=1, monitor="val/loss").to_keep(_runs(1.0, 1.0, 1.0)) == [1, 3]


def test_the_best_by_a_metric_to_be_maximised() -> None:
    candidates = [Candidate(n, n, {"val/accuracy": value}) for n, value in enumerate([0.1, 0.9, 0.5, 0.7])]
    assert Keep(last=1, best=2, monitor="val/accuracy").to_keep(candidates) == [1, 3]


def test_every_nth_epoch_stays() -> None:
    candidates = [Candidate(n, n if n != 4 else None) for n in range(1, 9)]
    assert Keep(last=1, every=2).to_keep(candidates) == [2, 6, 8]


@given(
    losses=st.lists(st.none() | st.floats(), max_size=12),
    last=st.integers(1, 4),
    best=st.integers(0, 4),
    every=st.none() | st.integers(1, 4),
)
def test_deleting_one_by_one_gives_the_same_as_all_at_once_for_last_and_best(
    losses: list[float | None], last: int, best: int, every: int | None
) -> None:
    keep = Keep(last=last, best=best, monitor="val/loss", every=every)
    live: list[Candidate] = []
    for candidate in _runs(*losses):
        live.append(candidate)
        live = [other for other in live if other.sequence not in keep.to_delete(live)]
        assert candidate in live
    assert [candidate.sequence for candidate in live] == keep.to_keep(_runs(*losses))


@pytest.mark.parametrize(
    ("name", "mode"),
    [("val/loss", "min"), ("val_accuracy", "max"), ("test/top5", "max"), ("val/rmse", "min"), ("Valid F1", "max")],
)
def test_the_mode_is_inferred_from_the_name(name: str, mode: str) -> None:
    assert infer_mode(name) == mode


@pytest.mark.parametrize("name", ["val/x", "accuracy_loss", "colossal"])
def test_a_name_that_does_not_tell_needs_a_mode(name: str) -> None:
    with pytest.raises(ConfigurationError, match="give mode='min' or 'max'"):
        infer_mode(name)
    assert infer_mode(name, "max") == "max"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"last": 0}, "the newest checkpoint must stay"),
        ({"best": 2}, "needs the metric"),
        ({"best": -1}, "count checkpoints"),
        ({"every": 0}, "count checkpoints"),
        ({"monitor": "loss", "mode": "down"}, "it is 'min' or 'max'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Keep(**arguments)  # type: ignore[arg-type]
