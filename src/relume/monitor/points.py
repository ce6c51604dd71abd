"""The numbers of a run in its index: pieces of at most 1,024 points, packed, each with what is asked of it most.

A piece is read at once and needs no Python object a point, so a million of them are read in a fraction of a second; its
bounds and its sum tell whether it must be read at all.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from relume.monitor.sums import SUM, added, sums_of

POINT = np.dtype([("step", "<i8"), ("epoch", "<i8"), ("time", "<f8"), ("value", "<f8")])
"""One number that was logged; time in Unix seconds."""

Points = np.ndarray[Any, Any]
"""An array of `POINT`."""

PIECE = 1024

SCHEMA = """
CREATE TABLE metric (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE piece (
    metric INTEGER NOT NULL, segment INTEGER NOT NULL, line INTEGER NOT NULL,
    count INTEGER NOT NULL, first_step INTEGER NOT NULL, last_step INTEGER NOT NULL,
    sum BLOB NOT NULL, sum_crc INTEGER NOT NULL, points BLOB NOT NULL, crc INTEGER NOT NULL,
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
        places: list[tuple[int, int]] = []
        pieces: list[bytes] = []
        for name, (line, packed) in self._packed.items():
            metric, line, packed = self._with_tail(name, line, packed)
            # A piece that begins n points behind another begins at least n lines behind it: its key is free.
            for start in range(0, len(packed) // POINT.itemsize, PIECE):
                places.append((metric, line + start))
                pieces.append(bytes(packed[start * POINT.itemsize : (start + PIECE) * POINT.itemsize]))
        self._packed = {}
        if pieces:
            rows = _rows(self._segment, places, pieces)
            self._connection.executemany("INSERT OR REPLACE INTO piece VALUES (?,?,?,?,?,?,?,?,?,?)", rows)

    def _with_tail(self, name: str, line: int, packed: bytearray) -> tuple[int, int, bytearray]:
        """A metric's id and what is to be written of it, with where that begins."""
        metric = self._ids.get(name)
        if metric is None:
            metric = self._connection.execute("INSERT INTO metric (name) VALUES (?)", (name,)).lastrowid
            assert metric is not None
            return metric, line, packed
        tail = self._connection.execute(
            "SELECT line, points, crc, count FROM piece WHERE metric=? AND segment=? ORDER BY line DESC LIMIT 1",
            (metric, self._segment),
        ).fetchone()
        if tail is not None and tail[3] < PIECE:
            return metric, tail[0], bytearray(_whole(tail[1], tail[2])) + packed
        return metric, line, packed


def _rows(segment: int, places: list[tuple[int, int]], pieces: list[bytes]) -> Iterator[tuple[Any, ...]]:
    """The rows of pieces, each with its sum."""
    counts = np.array([len(piece) // POINT.itemsize for piece in pieces])
    starts = np.cumsum(counts) - counts
    points = _joined(pieces)
    bounds = (np.minimum.reduceat(points["step"], starts), np.maximum.reduceat(points["step"], starts))
    sums = sums_of(points, starts)
    for place, piece, count, first, last, one in zip(places, pieces, counts, *bounds, sums, strict=True):
        content = one.tobytes()
        steps = (int(first), int(last))
        yield (place[0], segment, place[1], int(count), *steps, content, zlib.crc32(content), piece, zlib.crc32(piece))


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


def summaries(connection: sqlite3.Connection) -> dict[str, dict[str, float]]:
    """Of each metric how often it was logged, its last, smallest and largest value, and the steps and epochs of these.

    No point is read for it: 1 millisecond for 50 metrics, or for one of a million points.
    """
    rows = connection.execute("SELECT metric, sum, sum_crc FROM piece ORDER BY metric, segment, line").fetchall()
    if not rows:
        return {}
    keys = np.array([key for key, _, _ in rows])
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    found = added(np.frombuffer(b"".join(_whole(content, crc) for _, content, crc in rows), SUM), starts)
    names = SUM.names or ()
    known = {
        key: dict(zip(names, row, strict=True)) for key, row in zip(keys[starts].tolist(), found.tolist(), strict=True)
    }
    return {name: known[key] for name, key in metrics(connection).items() if key in known}  # others fold meanwhile


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
