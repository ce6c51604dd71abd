"""One metric of a run for a chart: every point where there are few, buckets that hide no spike where there are many."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from relume.errors import RelumeError
from relume.monitor import points
from relume.monitor.buckets import Axis, reduced, starts_of
from relume.monitor.record import RunRecord
from relume.ui.answers.branches import branches_of
from relume.ui.answers.frames import Series
from relume.ui.answers.opened import ask_again

BUCKETS = 500
"""In a chart as wide as a screen: two pixels each."""


def series(
    folder: Path,
    metric: str,
    *,
    axis: Axis = "step",
    buckets: int = BUCKETS,
    low: float | None = None,
    high: float | None = None,
    since: int | None = None,
    branches: bool = False,
    relative: bool = False,
) -> list[Series]:
    """What counts of a metric, and then, with ``branches``, what was logged and done again after a resume.

    Args:
        low, high: only points whose ``axis`` lies between, both included, and one neighbour on each side, so that lines
            go on to the edge. The time axis is in Unix seconds.
        relative: on the time axis ``low`` and ``high`` are seconds since the run began: one question for many runs.
        since: only points of later steps; they are what is new in a chart that is up to date. Whether it is, ``before``
            tells: how many other points there are. Steps are logged in any order, and a resume takes some back.

    Returns:
        Columns ``step``, ``epoch``, ``time`` (Unix seconds) and ``value`` for every point, where there are at most twice
        as many as ``buckets``. Otherwise one row a bucket: ``step``, ``epoch`` and ``time`` of its first point, ``last_x``
        on the axis, ``min``, ``max``, ``mean``, ``last``, ``count``, ``nan``. Each says its ``run``, ``metric``,
        ``branch``, ``bucketed``, and ``total``: the points within the bounds. None where the run has no such metric.
    """
    if relative and axis == "time":
        low, high = _since_begin(folder, low, high)
    # One question: between two of them a run that goes on has logged more.
    found, count = ask_again(
        folder, lambda one: (_read(one, metric, axis, low, high, since), None if since is None else _count(one, metric))
    )
    live = [] if found is None else [(0, found)]
    about: dict[str, Any] = {"run": folder.name, "metric": metric}
    if found is not None and count is not None:
        about["before"] = count - len(found)
    if branches:
        for number, branch in enumerate(branches_of(folder), 1):
            if metric in branch:
                live.append((number, _within(branch[metric], axis, low, high)))
    return [shown(rows, axis, buckets, {**about, "branch": number}) for number, rows in live]


def _since_begin(folder: Path, low: float | None, high: float | None) -> tuple[float | None, float | None]:
    """Seconds of a run's own clock as Unix seconds."""
    try:
        begin = RunRecord.load(folder).created
    except RelumeError:
        begin = 0.0
    return (None if low is None else low + begin), (None if high is None else high + begin)


def _read(
    connection: sqlite3.Connection,
    metric: str,
    axis: Axis,
    low: float | None,
    high: float | None,
    since: int | None,
) -> points.Points | None:
    row = connection.execute("SELECT id FROM metric WHERE name=?", (metric,)).fetchone()
    if row is None:
        return None
    if axis == "step" and (low is not None or high is not None):
        first, last = _outwards(connection, row[0], low, high)
        return _within(points.read(connection, row[0], first, last), axis, low, high)
    return _within(points.read(connection, row[0], None if since is None else since + 1), axis, low, high)


def _count(connection: sqlite3.Connection, metric: str) -> int:
    query = "SELECT total(count) FROM piece JOIN metric ON metric=id WHERE name=?"
    return int(connection.execute(query, (metric,)).fetchone()[0])


def _outwards(
    connection: sqlite3.Connection, metric: int, low: float | None, high: float | None
) -> tuple[int | None, int | None]:
    """The steps of the pieces that bounds fall into, and of those beside them: with them come the neighbours."""
    before = "SELECT max(first_step) FROM piece WHERE metric=? AND first_step<?"
    behind = "SELECT min(last_step) FROM piece WHERE metric=? AND last_step>?"
    first = None if low is None else connection.execute(before, (metric, low)).fetchone()[0]
    last = None if high is None else connection.execute(behind, (metric, high)).fetchone()[0]
    return first, last


def _within(rows: points.Points, axis: Axis, low: float | None, high: float | None) -> points.Points:
    """The points between the bounds on the axis, in its order, with a neighbour on each side."""
    x = rows[axis]
    if axis != "step" and np.any(x[1:] < x[:-1]):
        rows = rows[np.argsort(x, kind="stable")]
        x = rows[axis]
    first = 0 if low is None else max(0, int(np.searchsorted(x, low, "left")) - 1)
    last = len(x) if high is None else int(np.searchsorted(x, high, "right")) + 1
    return rows[first:last]


def shown(rows: points.Points, axis: Axis, buckets: int, about: dict[str, Any]) -> Series:
    """Points as columns, see `series`; ``about`` goes along."""
    about |= {"total": len(rows), "bucketed": len(rows) > 2 * buckets}
    if not about["bucketed"]:
        return Series({name: rows[name] for name in ("step", "epoch", "time", "value")}, about)
    starts = starts_of(rows[axis], buckets)
    found = reduced(rows[axis], rows["value"], starts)
    places = {name: rows[name][starts] for name in ("step", "epoch", "time")}
    measures = {name: getattr(found, name) for name in ("min", "max", "mean", "last", "count", "nan")}
    return Series({**places, "last_x": found.last_x, **measures}, about)
