"""The numbers of a run in its index: pieces of at most 1,024 points, packed, each with what is asked of it most.

A piece is read at once and needs no Python object a point, so a million of them are read in a fraction of a second; its
bounds tell whether it must be read at all.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

POINT = np.dtype([("step", "<i8"), ("epoch", "<i8"), ("time", "<f8"), ("value", "<f8")])
"""One number that was logged; time in Unix seconds."""

Points = np.ndarray[Any, Any]
"""An array of `POINT`."""

PIECE = 1024
_TOGETHER_BYTES = 1 << 22
"""Of points that are summed up at a time."""

SCHEMA = """
CREATE TABLE metric (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE piece (
    metric INTEGER NOT NULL, segment INTEGER NOT NULL, line INTEGER NOT NULL,
    count INTEGER NOT NULL, nan INTEGER NOT NULL, first_step INTEGER NOT NULL, last_step INTEGER NOT NULL,
    low REAL, high REAL, points BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (metric, segment, line)
);
"""

_PLACE = struct.Struct("<qqd")
_VALUE = struct.Struct("<d")


class Folding:
    """Points on their way from one segment of the journal into the index, 32 bytes each until they are stored."""

    def __init__(self, connection: sqlite3.Connection, segment: int) -> None:
        self.count = 0
        self._connection = connection
        self._segment = segment
        self._ids: dict[str, int] = dict(connection.execute("SELECT name, id FROM metric"))
        self._packed: dict[str, tuple[int, bytearray]] = {}

    def add(self, line: int, place: tuple[int, int, float], values: dict[str, float]) -> None:
        """Take the values of a line; ``place`` is step, epoch and time."""
        # Hot path: 0.3 microseconds a value.
        packed_place, packed = _PLACE.pack(*place), self._packed
        for name, value in values.items():
            entry = packed.get(name)
            if entry is None:
                entry = packed[name] = (line, bytearray())
            entry[1].extend(packed_place + _VALUE.pack(value))
        self.count += len(values)

    def store(self) -> None:
        """Write what was taken; a last piece that was not full yet goes on."""
        for name, (line, packed) in self._packed.items():
            metric = self._ids.get(name)
            tail = None
            if metric is None:
                metric = self._connection.execute("INSERT INTO metric (name) VALUES (?)", (name,)).lastrowid
                assert metric is not None
            else:
                tail = self._connection.execute(
                    "SELECT line, points, crc, count FROM piece WHERE metric=? AND segment=? ORDER BY line DESC LIMIT 1",
                    (metric, self._segment),
                ).fetchone()
            if tail is not None and tail[3] < PIECE:
                line, packed = tail[0], bytearray(_whole(tail[1], tail[2])) + packed
            points = np.frombuffer(packed, POINT)
            rows = [
                self._row(metric, line + start, points[start : start + PIECE]) for start in range(0, len(points), PIECE)
            ]
            self._connection.executemany("INSERT OR REPLACE INTO piece VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows)
        self._packed = {}

    def _row(self, metric: int, line: int, points: Points) -> tuple[Any, ...]:
        # A piece that begins n points behind another begins at least n lines behind it: its key is free.
        steps, values = points["step"], points["value"]
        known = values[~np.isnan(values)]
        bounds = (float(known.min()), float(known.max())) if len(known) else (None, None)
        counts = (len(points), len(points) - len(known), int(steps.min()), int(steps.max()))
        content = points.tobytes()
        return (metric, self._segment, line, *counts, *bounds, content, zlib.crc32(content))


def metrics(connection: sqlite3.Connection) -> dict[str, int]:
    """The names of all metrics, in the order in which they were logged first, and their ids."""
    rows = connection.execute(
        "SELECT name, id, min(segment * 4294967296 + line) AS place FROM metric JOIN piece ON metric=id GROUP BY id "
        "ORDER BY place, id"
    )
    return {name: key for name, key, _ in rows}


def read(
    connection: sqlite3.Connection, metric: int, first_step: int | None = None, last_step: int | None = None
) -> Points:
    """The points of a metric by step, those of one step as they were logged; ``last_step`` included."""
    low = -(2**63) if first_step is None else first_step
    high = 2**63 - 1 if last_step is None else last_step
    rows = connection.execute(
        "SELECT points, crc FROM piece WHERE metric=? AND last_step>=? AND first_step<=? ORDER BY segment, line",
        (metric, low, high),
    )
    points = _joined(_whole(*row) for row in rows)
    steps = points["step"]
    if len(steps) > 1 and np.any(steps[1:] < steps[:-1]):
        points = points[np.argsort(steps, kind="stable")]
        steps = points["step"]
    if first_step is None and last_step is None:
        return points
    return points[np.searchsorted(steps, low, "left") : np.searchsorted(steps, high, "right")]


def span(connection: sqlite3.Connection, metric: int) -> tuple[int, int]:
    """The smallest and the largest step of a metric."""
    first, last = connection.execute(
        "SELECT min(first_step), max(last_step) FROM piece WHERE metric=?", (metric,)
    ).fetchone()
    return first, last


def summary(connection: sqlite3.Connection, metric: int) -> dict[str, float]:
    """How often a metric was logged, its last, smallest and largest value, and the steps and epochs of these."""
    count, nan, low, high, newest = connection.execute(
        "SELECT sum(count), sum(nan), min(low), max(high), max(last_step) FROM piece WHERE metric=?", (metric,)
    ).fetchone()
    if count is None:
        raise sqlite3.DatabaseError("a metric of the index has no points")
    last = read(connection, metric, newest, newest)[-1]
    found = {"count": count, "nan": nan, "last": last["value"], "step": last["step"], "epoch": last["epoch"]}
    for label, column, value in (("min", "low", low), ("max", "high", high)):
        point = _first_with(connection, metric, column, value)
        found[label] = float("nan") if value is None else value
        found[f"{label}_step"] = -1 if point is None else point["step"]
        found[f"{label}_epoch"] = -1 if point is None else point["epoch"]
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in found.items()}


def summaries(connection: sqlite3.Connection) -> dict[str, dict[str, float]]:
    """The `summary` of each metric (10,000 of some points each: 0.3 s; 50 of 200 points: 1 ms)."""
    rows = connection.execute("SELECT metric, points, crc FROM piece GROUP BY metric HAVING count(*) = 1")
    short: dict[int, dict[str, float]] = {}
    keys, pieces, size = [], [], 0
    for key, content, crc in rows:
        keys.append(key)
        pieces.append(_whole(content, crc))
        size += len(content)
        if size >= _TOGETHER_BYTES:
            short.update(zip(keys, _summaries_of(pieces), strict=True))
            keys, pieces, size = [], [], 0
    short.update(zip(keys, _summaries_of(pieces), strict=True))
    return {name: short.get(key) or summary(connection, key) for name, key in metrics(connection).items()}


def _summaries_of(pieces: list[bytes]) -> list[dict[str, float]]:
    """The summaries of metrics all of whose points are at hand, all at once: numpy's calls cost more than its sums."""
    if not all(pieces):
        raise sqlite3.DatabaseError("a piece of the index has no points")
    if not pieces:
        return []
    points = _joined(pieces)
    steps, values = points["step"], points["value"]
    counts = np.array([len(piece) // POINT.itemsize for piece in pieces])
    ends = np.cumsum(counts)
    starts = ends - counts
    at_newest = np.flatnonzero(steps == np.repeat(np.maximum.reduceat(steps, starts), counts))
    newest = points[at_newest[np.searchsorted(at_newest, ends) - 1]]
    columns: dict[str, list[Any]] = {
        "count": counts.tolist(),
        "nan": np.add.reduceat(np.isnan(values).astype(np.int64), starts).tolist(),
        "last": newest["value"].tolist(),
        "step": newest["step"].tolist(),
        "epoch": newest["epoch"].tolist(),
    }
    for label, extreme in (("min", np.fmin), ("max", np.fmax)):
        found = extreme.reduceat(values, starts)
        at = _earliest(np.flatnonzero(values == np.repeat(found, counts)), steps, starts, ends)
        columns[label] = found.tolist()
        columns[f"{label}_step"] = np.where(at < 0, -1, steps[at]).tolist()
        columns[f"{label}_epoch"] = np.where(at < 0, -1, points["epoch"][at]).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _earliest(
    chosen: np.ndarray[Any, Any], steps: np.ndarray[Any, Any], starts: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Of the ``chosen`` positions between each start and end the one with the smallest step; -1 where there is none."""
    owners = np.searchsorted(ends, chosen, "right")
    ordered = chosen[np.lexsort((steps[chosen], owners))]
    first, behind = np.searchsorted(chosen, starts), np.searchsorted(chosen, ends)
    found = np.full(len(starts), -1)
    found[first < behind] = ordered[first[first < behind]]
    return found


def _first_with(connection: sqlite3.Connection, metric: int, column: str, value: float | None) -> Any:
    """The point with the smallest step that has this value."""
    rows = connection.execute(
        f"SELECT points, crc FROM piece WHERE metric=? AND {column}=? ORDER BY first_step, segment, line",
        (metric, value),
    )
    found = [points[points["value"] == value] for points in (np.frombuffer(_whole(*row), POINT) for row in rows)]
    return min((points[np.argmin(points["step"])] for points in found), key=lambda point: point["step"], default=None)


def _whole(content: bytes, crc: int) -> bytes:
    """A piece as it was written (4 microseconds for 1,024 points).

    Raises:
        sqlite3.DatabaseError: it is not.
    """
    if zlib.crc32(content) != crc:
        raise sqlite3.DatabaseError("a piece of the index is damaged")
    return content


def _joined(pieces: Iterable[bytes]) -> Points:
    return np.frombuffer(b"".join(pieces), POINT)
