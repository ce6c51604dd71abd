"""metrics.db: an index folded from the journal, for tables and charts. Delete it at any time; it is made again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from relume.monitor import points
from relume.monitor.journal import live_ranges, numbers, read_lines, storable, when

_Answer = TypeVar("_Answer")
_VERSION = 5
_PART = 50_000
"""Points that are folded at a time: what is held in memory, and how long others wait for their turn."""

_TABLES = ("fold", "metric", "piece", "event", "media")
_SCHEMA = f"""
CREATE TABLE fold (segment INTEGER PRIMARY KEY, offset INTEGER NOT NULL, line INTEGER NOT NULL, damaged INTEGER NOT NULL);
{points.SCHEMA}
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
    into memory instead.
    """
    with closing(opened(run_folder)) as connection:
        yield connection


def opened(run_folder: Path) -> sqlite3.Connection:
    """As `index`; the caller closes it, in any thread."""
    path = run_folder / "metrics.db"
    if path.is_symlink():  # a folder of other people's: where it leads to may be a database of another program
        return _afresh(path, run_folder)
    try:
        connection = _open(path)
        _fold(connection, run_folder)
    except sqlite3.DatabaseError as error:
        return _instead(error, path, run_folder)
    return connection


def ask(run_folder: Path, question: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
    """What the run's index answers. One that turns out to be damaged while it is asked is made again, and asked again."""
    try:
        with index(run_folder) as connection:
            return question(connection)
    except sqlite3.DatabaseError as error:
        with closing(_instead(error, run_folder / "metrics.db", run_folder)) as connection:
            return question(connection)


def fold(run_folder: Path) -> None:
    """Bring the index up to date."""
    with index(run_folder):
        pass


def _instead(error: sqlite3.DatabaseError, path: Path, run_folder: Path) -> sqlite3.Connection:
    """An index in the place of one that cannot be used."""
    if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):  # others are at it: their index is left alone
        return _in_memory(run_folder)
    return _afresh(path, run_folder)


def _afresh(path: Path, run_folder: Path) -> sqlite3.Connection:
    try:
        path.unlink(missing_ok=True)
        connection = _open(path)
        _fold(connection, run_folder)
        return connection
    except (OSError, sqlite3.DatabaseError):
        return _in_memory(run_folder)


def _in_memory(run_folder: Path) -> sqlite3.Connection:
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
                for name in (*_TABLES, "value"):
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
    """When a run went on from a checkpoint, what was folded beyond it no longer counts: fold these segments anew."""
    ends = {int(path.stem): end for path, end in ranges}

    def dead() -> list[tuple[int]]:
        return [
            (number,)
            for number, at in connection.execute("SELECT segment, offset FROM fold").fetchall()
            if number not in ends or ((end := ends[number]) is not None and at > end)
        ]

    if not dead():
        return
    connection.execute("BEGIN IMMEDIATE")
    gone = dead()  # another process may have done it meanwhile
    for name in _TABLES:
        if name != "metric":
            connection.executemany(f"DELETE FROM {name} WHERE segment=?", gone)
    connection.execute("COMMIT")


def _fold_segment(connection: sqlite3.Connection, path: Path, end: int | None) -> None:
    segment, size = int(path.stem), path.stat().st_size if end is None else end
    known = connection.execute("SELECT offset FROM fold WHERE segment=?", (segment,)).fetchone()
    if known is not None and known[0] == size:
        return
    while True:  # other processes may fold the same segment, each a part in its turn
        connection.execute("BEGIN IMMEDIATE")
        try:
            is_done = _fold_part(connection, path, segment, end)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        if is_done:
            return


def _fold_part(connection: sqlite3.Connection, path: Path, segment: int, end: int | None) -> bool:
    """Fold on from where the segment's last part ended; whether its end is reached."""
    row = connection.execute("SELECT offset, line, damaged FROM fold WHERE segment=?", (segment,)).fetchone()
    offset, line_number, damaged = row or (0, 0, 0)
    if not _ends_a_line(path, offset):
        raise sqlite3.DatabaseError("the journal was cut since it was folded")
    folding = points.Folding(connection, segment)
    is_done = True
    for behind, line in read_lines(path, offset):
        if end is not None and behind > end:
            break
        start, offset = offset, behind
        line_number += 1
        if line is None:
            damaged += 1
        elif isinstance(line.get("values"), dict):
            folding.add(line_number, when(line), numbers(line))
        elif "event" in line:
            content = (segment, line_number, str(line["event"]), json.dumps(line))
            connection.execute("INSERT OR REPLACE INTO event VALUES (?,?,?,?)", content)
        elif isinstance(line.get("media"), dict):
            rows = _media_rows(line, (segment, line_number), start)
            connection.executemany("INSERT OR REPLACE INTO media VALUES (?,?,?,?,?,?,?,?,?)", rows)
        if folding.count >= _PART:
            is_done = False
            break
    folding.store()
    connection.execute("INSERT OR REPLACE INTO fold VALUES (?,?,?,?)", (segment, offset, line_number, damaged))
    return is_done


def _ends_a_line(path: Path, offset: int) -> bool:
    """Whether a line ends at ``offset``, as it did when it was folded; the file may have been cut since, and grown."""
    if offset == 0:
        return True
    with path.open("rb") as file:
        file.seek(offset - 1)
        return file.read(1) == b"\n"


def _media_rows(line: dict[str, Any], place: tuple[int, int], offset: int) -> Iterator[tuple[Any, ...]]:
    """A row for each thing in a line; what it holds is read from the journal, at ``offset``."""
    for count, (name, content) in enumerate(line["media"].items()):
        if isinstance(content, dict):
            yield (*place, count, storable(name), storable(str(content.get("kind"))), *when(line), offset)


SYSTEM = "system/"
"""What the names of a machine's measurements begin with: they come by the clock, and are no part of the training's rows."""
_DETAILS = (SYSTEM, "weight_norms/", "gradient_norms/", "activation_norms/", "dead_units/")


def is_detail(name: str) -> bool:
    """Whether a metric is one of many that a watcher logs, one for each layer or each part of the machine."""
    return name.startswith(_DETAILS)


def columns(run_folder: Path, metrics: Sequence[str] | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """The run's metrics as columns of equal length, one row a step: ``step``, ``epoch``, ``time`` and each metric.

    A metric that was not logged at a step is NaN there, and of several values at a step the newest counts. The machine's
    measurements (``system/…``) are there where ``metrics`` names them. A metric that is itself called step, epoch or time is
    found as ``logged/step`` and so on.
    """

    def question(connection: sqlite3.Connection) -> dict[str, points.Points]:
        return {
            name: points.read(connection, key)
            for name, key in points.metrics(connection).items()
            if (not name.startswith(SYSTEM) if metrics is None else name in metrics)
        }

    return as_columns(ask(run_folder, question))


def as_columns(found: Mapping[str, points.Points]) -> dict[str, np.ndarray[Any, Any]]:
    """Points of each metric, by step, as columns: see `columns`."""
    newest = {name: _newest_of_each_step(series) for name, series in found.items()}
    steps = np.unique(np.concatenate([np.zeros(0, np.int64), *(series["step"] for series in newest.values())]))
    epochs, times = np.zeros(len(steps), np.int64), np.full(len(steps), -np.inf)
    table: dict[str, np.ndarray[Any, Any]] = {"step": steps, "epoch": epochs, "time": times}
    for name, series in newest.items():
        rows = np.searchsorted(steps, series["step"])
        later = series["time"] >= times[rows]
        epochs[rows[later]], times[rows[later]] = series["epoch"][later], series["time"][later]
        column = np.full(len(steps), np.nan)
        column[rows] = series["value"]
        table[f"logged/{name}" if name in ("step", "epoch", "time") else name] = column
    return table


def _newest_of_each_step(series: points.Points) -> points.Points:
    is_last = np.ones(len(series), bool)
    is_last[:-1] = series["step"][1:] != series["step"][:-1]
    newest: points.Points = series[is_last]
    return newest


def metric_summary(run_folder: Path) -> dict[str, dict[str, float]]:
    """For each metric: how often it was logged, its last, smallest and largest value, and the steps and epochs of these.

    ``nan`` is how many of its values are NaN; where all are, so are the smallest and the largest.
    """
    return ask(run_folder, points.summaries)
