"""metrics.db: an index folded from the journal, for tables and charts. Delete it at any time; it is made again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from relume.monitor.journal import live_ranges, number, read_lines

_VERSION = 3
_SCHEMA = """
CREATE TABLE fold (segment INTEGER PRIMARY KEY, offset INTEGER NOT NULL, line INTEGER NOT NULL, damaged INTEGER NOT NULL);
CREATE TABLE metric (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE value (
    metric INTEGER NOT NULL, step INTEGER NOT NULL, segment INTEGER NOT NULL, line INTEGER NOT NULL,
    epoch INTEGER NOT NULL, time REAL NOT NULL, value REAL,
    PRIMARY KEY (metric, step, segment, line)
) WITHOUT ROWID;
CREATE TABLE event (segment INTEGER NOT NULL, line INTEGER NOT NULL, kind TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (segment, line)) WITHOUT ROWID;
CREATE TABLE media (segment INTEGER NOT NULL, line INTEGER NOT NULL, place INTEGER NOT NULL, name TEXT NOT NULL,
    kind TEXT NOT NULL, step INTEGER NOT NULL, epoch INTEGER NOT NULL, time REAL NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (segment, line, place)) WITHOUT ROWID;
"""


@contextmanager
def index(run_folder: Path) -> Iterator[sqlite3.Connection]:
    """The run's index, up to date with its journal.

    Where the file cannot be used (a read-only folder, a file system without locks, a damaged index), the journal is folded
    into memory instead. NaN is stored as NULL, since SQLite has none.
    """
    path = run_folder / "metrics.db"
    try:
        connection = _open(path)
        _fold(connection, run_folder)
    except sqlite3.DatabaseError:
        connection = _afresh(path, run_folder)
    with closing(connection):
        yield connection


def fold(run_folder: Path) -> None:
    """Bring the index up to date."""
    with index(run_folder):
        pass


def _afresh(path: Path, run_folder: Path) -> sqlite3.Connection:
    try:
        path.unlink(missing_ok=True)
        connection = _open(path)
        _fold(connection, run_folder)
        return connection
    except (OSError, sqlite3.DatabaseError):
        connection = _open(":memory:")
        _fold(connection, run_folder)
        return connection


def _open(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous=OFF")  # it can be made again
        if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                for name in ("fold", "metric", "value", "event", "media"):
                    connection.execute(f"DROP TABLE IF EXISTS {name}")
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={_VERSION}")
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _fold(connection: sqlite3.Connection, run_folder: Path) -> None:
    try:
        ranges = live_ranges(run_folder)
        _forget_dead_branches(connection, ranges)
        for path, end in ranges:
            _fold_segment(connection, path, end)
    except BaseException:
        connection.close()
        raise


def _forget_dead_branches(connection: sqlite3.Connection, ranges: list[tuple[Path, int | None]]) -> None:
    """When a run went on from a checkpoint, what was folded beyond it no longer counts: fold anew."""
    ends = {int(path.stem): end for path, end in ranges}
    folded = dict(connection.execute("SELECT segment, offset FROM fold"))
    if all(number in ends and (ends[number] is None or at <= ends[number]) for number, at in folded.items()):
        return
    connection.execute("BEGIN IMMEDIATE")
    for name in ("fold", "value", "event", "media"):
        connection.execute(f"DELETE FROM {name}")
    connection.execute("COMMIT")


def _fold_segment(connection: sqlite3.Connection, path: Path, end: int | None) -> None:
    segment, size = int(path.stem), path.stat().st_size if end is None else end
    known = connection.execute("SELECT offset FROM fold WHERE segment=?", (segment,)).fetchone()
    if known is not None and known[0] == size:
        return
    connection.execute("BEGIN IMMEDIATE")
    row = connection.execute("SELECT offset, line, damaged FROM fold WHERE segment=?", (segment,)).fetchone()
    offset, line_number, damaged = row or (0, 0, 0)
    if offset > size:
        connection.execute("ROLLBACK")
        raise sqlite3.DatabaseError("the journal is shorter than its index")
    names = dict(connection.execute("SELECT name, id FROM metric"))
    values: list[tuple[Any, ...]] = []
    for behind, line in read_lines(path, offset):
        if end is not None and behind > end:
            break
        start, offset = offset, behind
        line_number += 1
        if line is None:
            damaged += 1
        elif isinstance(line.get("values"), dict):
            place = (
                _integer(line.get("step")),
                segment,
                line_number,
                _integer(line.get("epoch")),
                number(line.get("time")) or 0.0,
            )
            for logged, value in line["values"].items():
                name = logged.encode("utf-8", "replace").decode()
                if name not in names:
                    names[name] = connection.execute("INSERT INTO metric (name) VALUES (?)", (name,)).lastrowid
                values.append((names[name], *place, number(value)))
        elif "event" in line:
            content = (segment, line_number, str(line["event"]), json.dumps(line))
            connection.execute("INSERT OR REPLACE INTO event VALUES (?,?,?,?)", content)
        elif isinstance(line.get("media"), dict):
            rows = _media_rows(line, (segment, line_number), start)
            connection.executemany("INSERT OR REPLACE INTO media VALUES (?,?,?,?,?,?,?,?,?)", rows)
    connection.executemany(
        "INSERT OR REPLACE INTO value (metric, step, segment, line, epoch, time, value) VALUES (?,?,?,?,?,?,?)", values
    )
    connection.execute("INSERT OR REPLACE INTO fold VALUES (?,?,?,?)", (segment, offset, line_number, damaged))
    connection.execute("COMMIT")


def _media_rows(line: dict[str, Any], place: tuple[int, int], offset: int) -> Iterator[tuple[Any, ...]]:
    """A row for each thing in a line; what it holds is read from the journal, at ``offset``."""
    when = (_integer(line.get("step")), _integer(line.get("epoch")), number(line.get("time")) or 0.0)
    for count, (name, content) in enumerate(line["media"].items()):
        if isinstance(content, dict):
            names = (text.encode("utf-8", "replace").decode() for text in (name, str(content.get("kind"))))
            yield (*place, count, *names, *when, offset)


def _integer(value: Any) -> int:
    return value if isinstance(value, int) and abs(value) < 2**63 else -1


def columns(run_folder: Path, metrics: Sequence[str] | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """The run's metrics as columns of equal length, one row a step: ``step``, ``epoch``, ``time`` and each metric.

    A metric that was not logged at a step is NaN there. A metric that is itself called step, epoch or time is found as
    ``logged/step`` and so on.
    """
    with index(run_folder) as connection:
        names = dict(connection.execute("SELECT id, name FROM metric ORDER BY id"))
        if metrics is not None:
            names = {key: name for key, name in names.items() if name in metrics}
        marks = ",".join("?" * len(names))
        rows = connection.execute(
            f"SELECT step, epoch, time, metric, value FROM value WHERE metric IN ({marks}) ORDER BY step, segment, line",
            list(names),
        ).fetchall()
    steps = np.array(sorted({row[0] for row in rows}), dtype=np.int64)
    place = {int(step): i for i, step in enumerate(steps)}
    table = {name: np.full(len(steps), np.nan) for name in names.values()}
    epochs, times = np.zeros(len(steps), dtype=np.int64), np.zeros(len(steps))
    for step, epoch, seconds, metric, value in rows:
        i = place[step]
        epochs[i], times[i] = epoch, seconds
        table[names[metric]][i] = np.nan if value is None else value
    taken = ("step", "epoch", "time")
    return {
        "step": steps,
        "epoch": epochs,
        "time": times,
        **{f"logged/{n}" if n in taken else n: c for n, c in table.items()},
    }


def metric_summary(run_folder: Path) -> dict[str, dict[str, float]]:
    """For each metric: how often it was logged, its last, smallest and largest value and the steps of these."""
    with index(run_folder) as connection:
        found: dict[str, dict[str, float]] = {}
        for key, name in connection.execute("SELECT id, name FROM metric ORDER BY id").fetchall():
            count, low, high = connection.execute(
                "SELECT count(*), min(value), max(value) FROM value WHERE metric=?", (key,)
            ).fetchone()
            last = connection.execute(
                "SELECT value, step, epoch FROM value WHERE metric=? ORDER BY step DESC, segment DESC, line DESC LIMIT 1",
                (key,),
            ).fetchone()
            entry = {"count": count, "last": _nan(last[0]), "step": last[1], "epoch": last[2]}
            for label, value in (("min", low), ("max", high)):
                entry[label] = _nan(value)
                at = connection.execute(
                    "SELECT step, epoch FROM value WHERE metric=? AND value=? LIMIT 1", (key, value)
                ).fetchone()
                entry[f"{label}_step"], entry[f"{label}_epoch"] = at or (-1, -1)
            found[name] = entry
    return found


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
