"""A long series in few buckets, none of which hides a spike: what a chart draws, and asks for anew when it is zoomed."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from relume.errors import ConfigurationError, UnknownNameError, closest
from relume.monitor import points
from relume.monitor.index import ask

Axis = Literal["step", "epoch", "time"]
_MOST = 1_000_000


@dataclass(frozen=True)
class Buckets:
    """Columns of equal length, a row for each bucket that has a point.

    Attributes:
        x: where the first point of the bucket is; ``last_x`` where the last one is.
        min, max, mean, first, last: of the values that are not NaN; NaN where all are. Infinities count as what they are.
        count: points, NaN included; ``nan`` how many of them are NaN.
    """

    x: np.ndarray[Any, Any]
    last_x: np.ndarray[Any, Any]
    min: np.ndarray[Any, Any]
    max: np.ndarray[Any, Any]
    mean: np.ndarray[Any, Any]
    first: np.ndarray[Any, Any]
    last: np.ndarray[Any, Any]
    count: np.ndarray[Any, Any]
    nan: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.x)


def buckets(
    run_folder: Path,
    metric: str,
    count: int = 1000,
    *,
    first_step: int | None = None,
    last_step: int | None = None,
    axis: Axis = "step",
) -> Buckets:
    """At most ``count`` buckets of equal width over the steps from ``first_step`` to ``last_step`` (both included).

    With ``axis`` the buckets have equal width in epochs, or in Unix seconds.

    Raises:
        UnknownNameError: no such metric; lists the closest names.
        ConfigurationError: ``count`` or ``axis`` makes no sense.
    """

    def question(connection: sqlite3.Connection) -> points.Points:
        found = connection.execute(
            "SELECT id FROM metric JOIN piece ON metric=id WHERE name=? LIMIT 1", (metric,)
        ).fetchone()
        if found is None:
            known = points.metrics(connection)
            raise UnknownNameError(f"there is no metric {metric!r} in {run_folder}: {closest(metric, known)}")
        return points.read(connection, found[0], first_step, last_step)

    return buckets_of(ask(run_folder, question), count, axis)


def buckets_of(series: points.Points, count: int = 1000, axis: Axis = "step") -> Buckets:
    """`buckets` of points that are at hand."""
    if axis not in ("step", "epoch", "time"):
        raise ConfigurationError(f'{axis!r} is no axis of a series: "step", "epoch" or "time".')
    if not isinstance(count, int) or not 1 <= count <= _MOST:
        raise ConfigurationError(f"{count!r} buckets cannot be made: from 1 to {_MOST:,}.")
    x, values = series[axis], series["value"].astype(np.float64)
    if axis != "step" and np.any(x[1:] < x[:-1]):
        order = np.argsort(x, kind="stable")
        x, values = x[order], values[order]
    starts = starts_of(x, count)
    return reduced(x, values, starts)


def starts_of(x: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """The position of the first point of each bucket that has one."""
    if not len(x):
        return np.zeros(0, np.int64)
    low, high = x[0], x[-1]
    inner = low + (float(high) - float(low)) * (np.arange(1, count) / count)
    edges = np.concatenate([[0], np.searchsorted(x, inner, "left")])
    return np.unique(edges[edges < len(x)])


def reduced(x: np.ndarray[Any, Any], values: np.ndarray[Any, Any], starts: np.ndarray[Any, Any]) -> Buckets:
    """What the buckets hold that begin at the positions ``starts``."""
    if not len(starts):
        nothing = np.zeros(0)
        return Buckets(x[:0], x[:0], *(nothing,) * 5, nothing.astype(np.int64), nothing.astype(np.int64))
    ends = np.append(starts[1:], len(x))
    counts = ends - starts
    is_nan = np.isnan(values)
    nan = np.add.reduceat(is_nan.astype(np.int64), starts)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.add.reduceat(np.where(is_nan, 0.0, values), starts) / (counts - nan)
        low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
    first, last = _known_ends(values, is_nan, starts, ends)
    return Buckets(x[starts], x[ends - 1], low, high, mean, first, last, counts, nan)


def _known_ends(
    values: np.ndarray[Any, Any], is_nan: np.ndarray[Any, Any], starts: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The first and the last value of each bucket that is not NaN."""
    known = np.flatnonzero(~is_nan)
    if not len(known):
        return np.full(len(starts), math.nan), np.full(len(starts), math.nan)
    at_first, at_last = np.searchsorted(known, starts), np.searchsorted(known, ends) - 1
    has_one = at_last >= at_first
    first = np.where(has_one, values[known[np.minimum(at_first, len(known) - 1)]], math.nan)
    last = np.where(has_one, values[known[at_last]], math.nan)
    return first, last
