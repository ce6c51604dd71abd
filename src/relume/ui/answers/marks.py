"""What is marked on a run's curves: resumes, checkpoints and the best of them, phases of freezing, and how it ended."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relume.monitor import RunRecord, points, status_of
from relume.monitor.index import SYSTEM, ask
from relume.monitor.journal import number as as_number
from relume.monitor.journal import when
from relume.monitor.pace import number
from relume.ui.answers.changed import Key, key_of
from relume.ui.answers.checkpoints import checkpoints

Mark = dict[str, Any]

_MOST = 500
"""Marks of a kind: more are no help in a chart, and the newest count."""
_SHOWN_METRICS = 3
_MOST_KNOWN = 1000
_ORDINARY_END = re.compile(r"all done|\d+ epochs? done")
_known: dict[Path, tuple[Key, list[Mark], int]] = {}
_lock = threading.Lock()


def marks(folders: Sequence[Path]) -> dict[str, Any]:
    """The marks of runs, in the order of their steps.

    Returns:
        ``{"runs": {name: {"created": Unix seconds, "marks": [{"kind", "step", "epoch", "time", "text"}]}}}``. ``kind`` is
        ``"resume"``, ``"checkpoint"``, ``"best"`` (the best checkpoint), ``"phase"`` (of freezing), ``"stop"`` (early
        stopping) or ``"end"``; ``epoch`` counts epochs done. A run that cannot be read has none.
    """
    return {"runs": {folder.name: _of(folder) for folder in folders}}


def _of(folder: Path) -> dict[str, Any]:
    try:
        created = as_number(RunRecord.load(folder).created) or 0.0
        lasting, newest = _lasting(folder)
        found = [*lasting, *_checkpoints(folder), *_end(folder, newest)]
    except Exception:  # whatever a damaged folder leads to: its row says what is wrong with it
        return {"created": 0.0, "marks": []}
    return {"created": created, "marks": sorted(found, key=lambda mark: mark["step"])}


def _lasting(folder: Path) -> tuple[list[Mark], int]:
    """What the journal says, and the newest step that was logged; read again when that has changed (1 millisecond)."""
    key = key_of(folder) or ()
    known = _known.get(folder)
    if known is not None and known[0] == key:
        return known[1:]
    found, newest = ask(folder, lambda connection: ([*_resumes(connection), *_phases(connection)], _newest(connection)))
    with _lock:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[folder] = (key, found, newest)
    return found, newest


def _mark(kind: str, step: int, epoch: int | None, time: float | None, text: str) -> Mark:
    return {"kind": kind, "step": step, "epoch": epoch or 0, "time": time or 0.0, "text": text}


def _resumes(connection: sqlite3.Connection) -> Iterator[Mark]:
    for line in _events(connection, "resume"):
        step, epoch, time = when(line)
        if step >= 0:
            text = str(line.get("text", "")).partition("\n")[0]
            yield _mark("resume", step, epoch, time, text or "went on from a checkpoint")


def _phases(connection: sqlite3.Connection) -> Iterator[Mark]:
    """The turns of freezing, with what was said of each phase when it was new."""
    known = points.metrics(connection)
    if "freeze/phase" not in known:
        return
    said = {}
    for line in _events(connection, "note"):
        found = re.match(r"freeze: phase (\d+) of \d+ ", text := str(line.get("text", "")))
        if found:
            said[int(found[1])] = text.removeprefix("freeze: ")
    for turn in points.read(connection, known["freeze/phase"])[-_MOST:]:
        value = float(turn["value"])
        phase = int(value) if value == value and abs(value) < 2**31 else 0
        epochs_done = max(0, int(turn["epoch"]) - 1)
        yield _mark("phase", int(turn["step"]), epochs_done, float(turn["time"]), said.get(phase, f"phase {phase}"))


def _newest(connection: sqlite3.Connection) -> int:
    query = "SELECT max(last_step) FROM piece JOIN metric ON metric=id WHERE name NOT LIKE ?"
    return connection.execute(query, (f"{SYSTEM}%",)).fetchone()[0] or 0


def _events(connection: sqlite3.Connection, kind: str) -> list[Mapping[str, Any]]:
    query = "SELECT content FROM event WHERE kind=? ORDER BY segment DESC, line DESC LIMIT ?"
    return [json.loads(content) for (content,) in connection.execute(query, (kind, _MOST)).fetchall()[::-1]]


def _checkpoints(folder: Path) -> Iterator[Mark]:
    try:
        found = checkpoints(folder)
    except Exception:  # a store that cannot be read takes no other mark away
        return
    rows = [row for row in found["rows"] if row["step"] is not None and not row["problem"]]
    for row in rows[-_MOST:]:
        names = [name for name in found["metrics"] if name in row["metrics"]][:_SHOWN_METRICS]
        values = ", ".join(f"{name} {number(row['metrics'][name])}" for name in names)
        head = f"checkpoint {row['number']}"
        text = f"{head}, the best by {found['metric']}" if row["is_best"] else head
        kind = "best" if row["is_best"] else "checkpoint"
        yield _mark(kind, row["step"], row["epoch"], row["created"], f"{text}: {values}" if values else text)


def _end(folder: Path, newest: int) -> Iterator[Mark]:
    """How it ended; whether a run without an ending goes on is looked at each time.

    A run that counts no updates, having no optimizer, ends where it has logged last.
    """
    status, line = status_of(folder)
    step, epoch, time = when(line)
    if status == "running" or step < 0:
        return
    step = step or newest
    reason = str(line.get("reason") or "")
    if status == "finished" and reason and not _ORDINARY_END.fullmatch(reason):
        yield _mark("stop", step, epoch, time, f"stopped: {reason}")
    else:
        yield _mark("end", step, epoch, time, f"{status}: {reason}" if reason else status)
