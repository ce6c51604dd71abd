"""What a metric's sum says: the same of its points, of its pieces in any division, and of the journal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.monitor.index import fold, metric_summary
from relume.monitor.journal import encode, values_line
from relume.monitor.points import POINT
from relume.monitor.sums import SUM, added, sums_of

VALUES = st.floats(-3, 3).map(lambda value: value + 0.0) | st.sampled_from([math.nan, math.inf, -math.inf])
SERIES = st.lists(st.tuples(st.integers(-9, 9), VALUES), min_size=1, max_size=30)


def plainly(series: list[tuple[int, float]]) -> dict[str, Any]:
    """The sum as one would write it down; epochs are the points' positions."""
    known = [(value, step, at) for at, (step, value) in enumerate(series) if not math.isnan(value)]
    newest = max(range(len(series)), key=lambda at: (series[at][0], at))
    found: dict[str, Any] = {"count": len(series), "nan": len(series) - len(known), "last": series[newest][1]}
    found |= {"step": series[newest][0], "epoch": newest}
    for name, extreme in (("min", min), ("max", max)):
        value = extreme((value for value, _, _ in known), default=math.nan)
        step, at = min(((step, at) for v, step, at in known if v == value), default=(-1, -1))
        found |= {name: value, f"{name}_step": step, f"{name}_epoch": at}
    return {name: found[name] for name in SUM.names or ()}


@given(st.lists(SERIES, min_size=1, max_size=4), st.data())
@settings(max_examples=100, deadline=None)
def test_sums_say_what_the_points_say_in_any_division(many: list[list[tuple[int, float]]], data: st.DataObject) -> None:
    points = np.array([(step, at, 0.0, v) for series in many for at, (step, v) in enumerate(series)], POINT)
    begins = np.cumsum([0, *(len(series) for series in many)])[:-1]
    cuts = data.draw(st.sets(st.integers(0, len(points) - 1)))
    starts = np.array(sorted({*begins.tolist(), *cuts}))
    expected = [plainly(series) for series in many]
    names = SUM.names or ()
    whole = sums_of(points, begins)
    pieces = added(sums_of(points, starts), np.searchsorted(starts, begins))
    for found in (whole, pieces):
        np.testing.assert_equal([dict(zip(names, row, strict=True)) for row in found.tolist()], expected)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_summary_is_that_of_the_journal_however_it_was_folded(tmp_path: Path, parts: int) -> None:
    series = [(step * 7 % 3000, math.sin(step) if step % 5 else math.nan) for step in range(3000)]
    (tmp_path / "journal").mkdir()
    with (tmp_path / "journal" / "0001.jsonl").open("ab", buffering=0) as file:
        file.write(encode({"journal": 1, "run": "x", "segment": 1, "resumed": None}))
        for at, (step, value) in enumerate(series):
            file.write(values_line(step, at, 0.0, {"a": value}))
            if at % (len(series) // parts) == 1:
                fold(tmp_path)
    np.testing.assert_equal(metric_summary(tmp_path), {"a": plainly(series)})
