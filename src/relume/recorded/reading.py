"""What a run has logged, as columns."""

from __future__ import annotations

import fnmatch
import sqlite3
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from relume.errors import ConfigurationError, MissingPackageError, UnknownNameError, closest
from relume.monitor import find_run, points
from relume.monitor.index import SYSTEM, as_columns, ask
from relume.monitor.journal import live_ranges, number, numbers, read_lines, segments, when

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, np.ndarray[Any, Any]]
Series = dict[str, points.Points]

_POINT = struct.Struct("<qqdd")


@overload
def history(
    run: str | Path,
    root: str | Path = "runs",
    metrics: Sequence[str] | str | None = None,
    *,
    as_: Literal["columns"] = "columns",
    branches: bool = False,
) -> Columns: ...


@overload
def history(
    run: str | Path,
    root: str | Path = "runs",
    metrics: Sequence[str] | str | None = None,
    *,
    as_: Literal["pandas"],
    branches: bool = False,
) -> pd.DataFrame: ...


def history(
    run: str | Path,
    root: str | Path = "runs",
    metrics: Sequence[str] | str | None = None,
    *,
    as_: Literal["columns", "pandas"] = "columns",
    branches: bool = False,
) -> Columns | pd.DataFrame:
    """The metrics of a run as columns of equal length, while it goes on or afterwards.

    Args:
        run: a run's name below ``root``, or its path.
        metrics: only these, names or patterns (``"val/*"``); by default all but the machine's own (``"system/*"``).
        as_: ``"columns"``, or ``"pandas"`` for a ``pandas.DataFrame``.
        branches: also what was logged and then done again after a resume from an earlier checkpoint. A column ``branch`` is
            0 for what counts, and 1, 2, … for the dead branches, oldest first; they come behind, each with its own rows.

    Returns:
        ``{"step": int64, "epoch": int64, "time": float64 (Unix seconds), "train/loss": float64, …}``, one row for each step
        at which something was logged; NaN where a metric was not. Of several values at one step the newest counts.
        ``pandas.DataFrame`` takes it as it is.

    Raises:
        UnknownNameError: there is no such run, or no such metric; lists the closest names.
        MissingPackageError: pandas is not installed.
    """
    if as_ not in ("columns", "pandas"):
        raise ConfigurationError(f'as_={as_!r} is not known: "columns" or "pandas".')
    folder = find_run(run, root)
    found = series_of(folder, metrics, also=_names(dead := dead_branches(folder)) if branches else ())
    columns = as_columns(found)
    if branches:
        columns = _with_branches(columns, dead, metrics)
    return to_pandas(columns) if as_ == "pandas" else columns


def to_pandas(columns: Columns) -> pd.DataFrame:
    """Columns as a data frame.

    Raises:
        MissingPackageError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise MissingPackageError('pandas is not installed: pip install "relume[tables]"') from None
    return pandas.DataFrame(columns, copy=False)


def series_of(folder: Path, metrics: Sequence[str] | str | None = None, also: Iterable[str] = ()) -> Series:
    """The points of the metrics that are asked for, each by step.

    Raises:
        UnknownNameError: a name or pattern finds none, here and among ``also``; lists the closest names.
    """

    def question(connection: sqlite3.Connection) -> Series:
        known = points.metrics(connection)
        chosen = matching(metrics, [*known, *also], folder)
        return {name: points.read(connection, key) for name, key in known.items() if name in chosen}

    return ask(folder, question)


def matching(metrics: Sequence[str] | str | None, known: Iterable[str], place: object) -> set[str]:
    """The names that are meant: a name that is there, or all that fit a pattern; by default all but the machine's own."""
    names = set(known)
    if metrics is None:
        return {name for name in names if not name.startswith(SYSTEM)}
    chosen: set[str] = set()
    for wanted in [metrics] if isinstance(metrics, str) else metrics:
        found = {wanted} if wanted in names else {name for name in names if fnmatch.fnmatchcase(name, wanted)}
        if not found:
            raise UnknownNameError(f"there is no metric {wanted!r} in {place}: {closest(wanted, names)}")
        chosen |= found
    return chosen


def dead_branches(folder: Path) -> list[Series]:
    """What was logged beyond a checkpoint from which the run went on again, oldest first; one for each part of a segment."""
    live = dict(live_ranges(folder))
    found = []
    for path in segments(folder):
        begin = live.get(path, 0)
        series = {} if begin is None else _read_journal(path, begin)
        if series:
            found.append(series)
    return found


def resumes(folder: Path) -> list[tuple[int, int, float]]:
    """Where the run went on after a stop: step, epochs done and Unix time of each."""
    found = []
    for path, _ in live_ranges(folder):
        for _, line in read_lines(path):
            if line is not None and line.get("event") == "resume" and isinstance(line.get("step"), int):
                found.append((line["step"], line.get("epoch", 0), number(line.get("time")) or 0.0))
            elif line is not None and "values" in line:
                break
    return found


def _read_journal(path: Path, begin: int) -> Series:
    rows: dict[str, bytearray] = {}
    for _, line in read_lines(path, begin):
        if line is not None and isinstance(line.get("values"), dict):
            place = when(line)
            for name, value in numbers(line).items():
                rows.setdefault(name, bytearray()).extend(_POINT.pack(*place, value))
    series = {name: np.frombuffer(found, points.POINT) for name, found in rows.items()}
    return {name: found[np.argsort(found["step"], kind="stable")] for name, found in series.items()}


def _names(branches: list[Series]) -> list[str]:
    return [name for branch in branches for name in branch]


def _with_branches(live: Columns, dead: list[Series], metrics: Sequence[str] | str | None) -> Columns:
    wanted = None if metrics is None else matching(metrics, [*live, *_names(dead)], "this run")
    tables = [live]
    for branch in dead:
        columns = as_columns({name: found for name, found in branch.items() if wanted is None or name in wanted})
        if len(columns["step"]):
            tables.append(columns)
    names = list(dict.fromkeys(name for table in tables for name in table))
    joined = {name: np.concatenate([_column(table, name) for table in tables]) for name in names}
    numbers = np.concatenate([np.full(len(table["step"]), i, np.int64) for i, table in enumerate(tables)])
    if "branch" in joined:
        joined["logged/branch"] = joined.pop("branch")
    return {"branch": numbers, **joined}


def _column(table: Columns, name: str) -> np.ndarray[Any, Any]:
    return table[name] if name in table else np.full(len(table["step"]), np.nan)
