"""The numbers of a report: every point where there are few, and as many buckets as there is room for where there are many."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relume.errors import RelumeError
from relume.monitor.index import is_detail
from relume.recorded.reading import dead_branches
from relume.ui.answers.frames import Series, encode
from relume.ui.answers.series import series, shown

_LADDER = (1000, 800, 600, 500, 400, 320, 250, 200, 150, 120, 100, 80, 60, 50, 40, 30, 20)
"""Numbers of buckets that are tried, the most first."""
_POINT, _BUCKET = 4, 10
"""Columns of a point, and of a bucket."""
_BYTES_EACH = 3.2
"""What one number takes in the file, about: the guess that a report begins with."""
_DAMAGE = (RelumeError, OSError, ValueError, ArithmeticError)

Counts = Mapping[str, Mapping[str, int]]
"""How many points each metric of each run has."""


@dataclass(frozen=True)
class Numbers:
    """A frame of all curves.

    Attributes:
        buckets: of a curve that has more than twice as many points.
        most: points that stand behind one curve, at most; 0 where none is bucketed.
        left_out: metrics for which there was no room.
    """

    frame: bytes
    buckets: int
    most: int
    left_out: int


def numbers(folders: Sequence[Path], rows: Sequence[Mapping[str, Any]], budget_bytes: int) -> Numbers:
    """The curves of runs, in at most about ``budget_bytes`` of the report's file.

    Args:
        rows: of the runs, in the same order: they say how many points there are.
    """
    counts = {row["name"]: {name: int(one["count"]) for name, one in row["metrics"].items()} for row in rows}
    chosen = _fitting(counts, budget_bytes)
    left_out = sum(map(len, counts.values())) - sum(map(len, chosen.values()))
    steps = [step for step in _LADDER if _cost(counts, chosen, step) * _BYTES_EACH <= budget_bytes] or [_LADDER[-1]]
    for step in steps:
        frame, most = _frame(folders, chosen, step)
        if len(gzip.compress(frame, 6, mtime=0)) * 4 // 3 <= budget_bytes:
            break
    return Numbers(frame, step, most, left_out)


def _fitting(counts: Counts, budget_bytes: int) -> dict[str, list[str]]:
    """The metrics for which there is room at all; where there is not, those go that watchers log for each layer."""
    wanted = [(is_detail(name), run, name) for run, metrics in counts.items() for name in metrics]
    wanted.sort(key=lambda one: one[0])
    chosen: dict[str, list[str]] = {run: [] for run in counts}
    room = budget_bytes / _BYTES_EACH
    for _, run, name in wanted:
        room -= _size(counts[run][name], _LADDER[-1])
        if room < 0:
            break
        chosen[run].append(name)
    return chosen


def _cost(counts: Counts, chosen: Mapping[str, Sequence[str]], buckets: int) -> int:
    return sum(_size(counts[run][name], buckets) for run, names in chosen.items() for name in names)


def _size(count: int, buckets: int) -> int:
    """How many numbers a curve is."""
    return count * _POINT if count <= 2 * buckets else buckets * _BUCKET


def _frame(folders: Iterable[Path], chosen: Mapping[str, Sequence[str]], buckets: int) -> tuple[bytes, int]:
    curves = [one for folder in folders for one in _curves(folder, chosen.get(folder.name, ()), buckets)]
    most = max((one.about["total"] for one in curves if one.about["bucketed"]), default=0)
    return encode([_rounded(one) for one in curves]), most


def _curves(folder: Path, names: Sequence[str], buckets: int) -> Iterator[Series]:
    """What counts of each metric, and then what was done again after a resume."""
    for name in names:
        try:
            yield from series(folder, name, buckets=buckets)
        except _DAMAGE:  # one curve that cannot be read hides no other
            continue
    try:
        dead = dead_branches(folder) if names else []
    except _DAMAGE:
        return
    for number, branch in enumerate(dead, 1):
        for name in names:
            if name in branch:
                about = {"run": folder.name, "metric": name, "branch": number}
                yield shown(branch[name], "step", buckets, about)


def _rounded(one: Series) -> Series:
    """Buckets take less room with seven digits, and with times to the thousandth of a second. Points stay what they are."""
    if not one.about["bucketed"]:
        return one
    columns = dict(one.columns)
    columns["time"] = np.round(columns["time"] * 1024) / 1024
    with np.errstate(over="ignore"):
        for name in ("min", "max", "mean", "last"):
            short = columns[name].astype(np.float32).astype(np.float64)
            is_lost = np.isinf(short) | ((short == 0) & (columns[name] != 0))
            columns[name] = np.where(is_lost, columns[name], short)
    return Series(columns, one.about)
