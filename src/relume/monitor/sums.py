"""What is asked most of a metric, without its points: how many there are, and the last, the smallest and the largest.

A sum stands beside each piece of the index, and sums of pieces add up to that of the metric. All are worked out at once:
numpy's calls cost more than what they compute.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SUM = np.dtype([
    ("count", "<i8"), ("nan", "<i8"), ("step", "<i8"), ("epoch", "<i8"), ("last", "<f8"),
    ("min", "<f8"), ("min_step", "<i8"), ("min_epoch", "<i8"), ("max", "<f8"), ("max_step", "<i8"), ("max_epoch", "<i8"),
])  # fmt: skip
"""``step`` and ``epoch`` are those of the last value: of the largest step, and there of the newest."""

Sums = np.ndarray[Any, Any]
"""An array of `SUM`."""
Places = np.ndarray[Any, Any]
_EXTREMES = (("min", np.fmin), ("max", np.fmax))


def sums_of(points: np.ndarray[Any, Any], starts: Places) -> Sums:
    """The sums of pieces that begin at the positions ``starts``, none of which is empty."""
    steps, epochs, values = points["step"], points["epoch"], points["value"]
    ends = np.append(starts[1:], len(points))
    found = np.zeros(len(starts), SUM)
    found["count"] = ends - starts
    found["nan"] = np.add.reduceat(np.isnan(values).astype(np.int64), starts)
    newest = _last_of(steps, starts, ends)
    found["step"], found["epoch"], found["last"] = steps[newest], epochs[newest], values[newest]
    for name, extreme in _EXTREMES:
        found[name] = extreme.reduceat(values, starts)
        _place(found, name, values, steps, epochs, starts, ends)
    return found


def added(sums: Sums, starts: Places) -> Sums:
    """The sums of metrics whose pieces' begin at the positions ``starts``, in the order in which they were logged."""
    ends = np.append(starts[1:], len(sums))
    found = np.zeros(len(starts), SUM)
    for name in ("count", "nan"):
        found[name] = np.add.reduceat(sums[name], starts)
    newest = _last_of(sums["step"], starts, ends)
    for name in ("step", "epoch", "last"):
        found[name] = sums[name][newest]
    for name, extreme in _EXTREMES:
        found[name] = extreme.reduceat(sums[name], starts)
        _place(found, name, sums[name], sums[f"{name}_step"], sums[f"{name}_epoch"], starts, ends)
    return found


def _last_of(steps: Places, starts: Places, ends: Places) -> Places:
    """Between each start and end the newest position with the largest step."""
    at = np.flatnonzero(steps == np.repeat(np.maximum.reduceat(steps, starts), ends - starts))
    found: Places = at[np.searchsorted(at, ends) - 1]
    return found


def _place(found: Sums, name: str, values: Places, steps: Places, epochs: Places, starts: Places, ends: Places) -> None:
    """Where each extreme was first, by its step; -1 where all values are NaN."""
    chosen = np.flatnonzero(values == np.repeat(found[name], ends - starts))
    owners = np.searchsorted(ends, chosen, "right")
    chosen = chosen[np.lexsort((steps[chosen], owners))]  # the owners were in order and stay where they are
    first, behind = np.searchsorted(owners, (np.arange(len(starts)), np.arange(1, len(starts) + 1)))
    found[f"{name}_step"] = found[f"{name}_epoch"] = -1
    known = first < behind
    found[f"{name}_step"][known] = steps[chosen[first[known]]]
    found[f"{name}_epoch"][known] = epochs[chosen[first[known]]]
