"""Best and newest values are the same whether lines are looked through one by one or many at a time."""

from __future__ import annotations

import math
import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relume.direction import improves
from relume.run.seen import Seen

VALUES = st.dictionaries(
    st.sampled_from(["loss", "accuracy", "lr"]), st.sampled_from([0.0, 1.0, 2.0, -1.0, math.nan, math.inf])
)
LINES = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3), VALUES), max_size=30)


@given(LINES, st.sets(st.integers(0, 29)))
def test_values_are_seen_as_if_one_by_one(lines: list, looks: set[int]) -> None:
    seen = Seen()
    last: dict[str, float] = {}
    best: dict[str, float] = {}
    epochs: dict[str, int] = {}
    steps: dict[str, int] = {}
    for number, (step, epoch, values) in enumerate(lines):
        seen.take(step, epoch, values)
        if number in looks:
            assert seen.last.keys() == {*last, *values}
        last |= values
        steps |= dict.fromkeys(values, step)
        for name, value in values.items():
            if improves(name, value, best.get(name)):
                best[name], epochs[name] = value, epoch
    np.testing.assert_equal(seen.last, last)
    assert (seen.best, seen.best_epoch) == (best, epochs)
    state = seen.state()
    assert state["last_step"] == steps
    np.testing.assert_equal(seen.end_epoch(), last)
    again = Seen()
    again.load(state)
    np.testing.assert_equal(again.state(), state)


def test_threads_that_log_at_once_lose_no_best_value() -> None:
    seen = Seen()

    def log(first: int) -> None:
        for value in range(first, 40_000, 4):
            seen.take(value, 1, {"score": float(value)})
            if value % 1000 == first:
                assert seen.best["score"] >= value

    threads = [threading.Thread(target=log, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen.best == {"score": 39_999.0} == seen.state()["best"]
