"""All runs below a root, as rows of the page's table. Only what has changed is read again."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from relume.direction import mode_of
from relume.monitor import RunRecord, points
from relume.monitor.index import SYSTEM, ask, is_detail
from relume.monitor.record import goes_on, jsonable
from relume.recorded import choose
from relume.recorded.facts import Facts, facts_of, flat
from relume.ui.answers.changed import Key, keys_below
from relume.ui.answers.progress import Progress, progress_of

Row = dict[str, Any]
_LONGEST = 2000
"""Characters of a text in a row: what is longer stands in the view of the run."""


def all_runs(root: Path) -> dict[str, Any]:
    """The rows, and the names of all metrics and settings that any of them has."""
    return Listing(root).answer()


def row_of(folder: Path) -> Row:
    """The row of one run, but for its place among the others."""
    known = _read(folder, ())
    known.look(folder, time.time())
    return known.row


def chosen(
    rows: Sequence[Row], where: str | None = None, sort: str | None = None, *, descending: bool = False
) -> list[str]:
    """The names of the rows for which a condition holds, in an order.

    Raises:
        ExpressionError: the condition cannot be read.
        UnknownNameError: no run has such a name; lists the closest.

    Example:
        >>> chosen([{"name": "a", "config": {"lr": 0.1}}, {"name": "b", "config": {"lr": 0.01}}], "lr < 0.1")
        ['b']
    """
    facts = [{**row, "seed": _seed(row.get("seed")), "metrics": _numbers(row.get("metrics", {}))} for row in rows]
    return [found["name"] for found in choose(facts, where or None, sort or None, descending=descending)]


@lru_cache(8)
def listing(root: Path) -> Listing:
    """The one of a root that a server keeps."""
    return Listing(root)


class Listing:
    """The rows of all runs below a root; of one object, any thread may ask at any time.

    A run is read again when a file of it has changed: its journal, ``run.json`` or ``edits.json``. Whether a run that has
    not ended goes on is looked at each time (measured with 100 runs of 50 metrics: 0.15 s at first, 4 ms when nothing has
    changed).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def rows(self) -> list[Row]:
        """A row for each run, oldest first. They are not to be changed."""
        with self._lock:
            return self._rows()

    def answer(self) -> dict[str, Any]:
        """The rows, and the names of all metrics, most interesting first, and of all settings that any of them has."""
        rows = self.rows()
        names = by_interest(dict.fromkeys(name for row in rows for name in row["metrics"]))
        settings = dict.fromkeys(name for row in rows for name in row["config"])
        return {"root": self.root.name, "runs": rows, "metrics": names, "settings": list(settings)}

    def encoded(self) -> bytes:
        """The answer as JSON. What has not changed is not written anew."""
        with self._lock:
            rows = self._rows()
            parts = [known.encoded() for known in self._in_order()]
        names = by_interest(dict.fromkeys(name for row in rows for name in row["metrics"]))
        settings = dict.fromkeys(name for row in rows for name in row["config"])
        about = _json({"root": self.root.name, "metrics": names, "settings": list(settings)})
        return about[:-1] + b',"runs":[' + b",".join(parts) + b"]}"

    def row(self, name: str) -> Row | None:
        """That of one run."""
        return next((row for row in self.rows() if row["name"] == name), None)

    def _rows(self) -> list[Row]:
        keys = keys_below(self.root)
        self._known = {name: known for name, known in self._known.items() if keys.get(name) == known.key}
        now = time.time()
        for name, key in keys.items():
            folder = self.root / name
            if name not in self._known:
                self._known[name] = _read(folder, key)
            self._known[name].look(folder, now)
        ordered = self._in_order()
        for place, known in enumerate(ordered):
            if known.row["place"] != place:
                known.row = known.row | {"place": place}
        return [known.row for known in ordered]

    def _in_order(self) -> list[_Known]:
        return sorted(self._known.values(), key=lambda known: (known.row["created"], known.row["name"]))


@dataclass
class _Known:
    """What was read of a run, and the files' state at that time."""

    key: Key
    row: Row
    record: RunRecord | None
    progress: Progress
    line_time: float
    text: tuple[Any, bytes] | None = None

    def look(self, folder: Path, now: float) -> None:
        """A run that has not ended goes on, or does not: its process is looked for."""
        if self.record is None or self.row["status"] not in ("running", "killed"):
            return
        status = "running" if goes_on(folder, self.record.process) else "killed"
        seconds = now if status == "running" else self.line_time
        left = self.progress.left_seconds(self.row["step"], self.line_time, now) if status == "running" else None
        self.row = self.row | {
            "status": status,
            "seconds": max(0.0, round(seconds - self.row["created"], 1)),
            "left_seconds": None if left is None else round(left, 1),
        }

    def encoded(self) -> bytes:
        row = self.row
        state = (row["status"], row["seconds"], row["left_seconds"], row["place"])
        if self.text is None or self.text[0] != state:
            self.text = (state, _json(row))
        return self.text[1]


def _read(folder: Path, key: Key) -> _Known:
    """A run's row, read from its files. What is damaged says so."""
    try:
        record = RunRecord.load(folder)
        config = jsonable(flat(record.config))
        question = lambda connection: (points.summaries(connection), progress_of(connection, config))  # noqa: E731
        summary, progress = ask(folder, question)
        facts = facts_of(folder, summary)
        if facts["status"] == "damaged":
            return _Known(key, _damaged(folder, facts["reason"]), None, Progress(), 0.0)
        return _Known(key, _row(facts, summary, config, progress), record, progress, _last_moment(facts))
    except Exception as error:  # whatever a damaged folder leads to: one run must not hide the others
        return _Known(key, _damaged(folder, f"{error}" or type(error).__name__), None, Progress(), 0.0)


def _last_moment(facts: Facts) -> float:
    """When the newest line of the journal was written."""
    return _finite(facts["created"]) + _finite(facts["seconds"])


def _row(facts: Facts, summary: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any], progress: Progress) -> Row:
    return {
        "name": jsonable(facts["name"]),
        "id": facts["id"],
        "status": facts["status"],
        "reason": jsonable(str(facts["reason"] or "")),
        "created": _finite(facts["created"]),
        "seconds": _finite(facts["seconds"]),
        "epoch": _whole(facts["epoch"]),
        "step": _whole(facts["step"]) or _logged(summary),
        "epochs": progress.epochs,
        "share": progress.share(_whole(facts["step"])),
        "left_seconds": None,
        "seed": _exact(facts["seed"]),
        "tags": jsonable(facts["tags"]),
        "notes": jsonable(facts["notes"]),
        "archived": bool(facts.get("archived", False)),
        "place": 0,
        "config": {name: cut(value) for name, value in config.items()},
        "metrics": {name: _metric(name, entry) for name, entry in facts["metrics"].items()},
    }


def _logged(summary: Mapping[str, Mapping[str, Any]]) -> int:
    """The newest step that was logged, of a run that counts no updates: it has no optimizer."""
    return max((_whole(entry["step"]) for name, entry in summary.items() if not name.startswith(SYSTEM)), default=0)


def _damaged(folder: Path, reason: str) -> Row:
    try:
        created = folder.stat().st_mtime
    except OSError:
        created = 0.0
    row: Row = {"name": jsonable(folder.name), "id": "", "status": "damaged", "reason": jsonable(reason)}
    row |= {
        "created": created,
        "seconds": 0.0,
        "epoch": 0,
        "step": 0,
        "epochs": None,
        "share": None,
        "left_seconds": None,
    }
    row |= {"seed": None, "tags": [], "notes": "", "archived": False, "place": 0, "config": {}, "metrics": {}}
    return row


def _metric(name: str, entry: Mapping[str, Any]) -> Row:
    return {**{key: as_json(value) for key, value in entry.items()}, "mode": mode_of(name)}


def as_json(value: Any) -> Any:
    """A number as JSON can hold it: NaN and infinity as texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _numbers(metrics: Mapping[str, Row]) -> dict[str, Row]:
    """`as_json` undone: conditions look at numbers."""
    parts = ("last", "best", "min", "max")
    return {
        name: {**entry, **{part: float(entry[part]) for part in parts if part in entry}}
        for name, entry in metrics.items()
    }


def _seed(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _finite(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and abs(value) < 1e300 else 0.0


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and abs(value) < 2**53 else 0


def _exact(value: Any) -> Any:
    """A whole number that a browser would round goes as text."""
    return str(value) if isinstance(value, int) and abs(value) > 2**53 else value


def cut(value: Any) -> Any:
    """A setting as a table shows it."""
    if value is None or isinstance(value, (bool, int, float)):
        return _exact(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def by_interest(names: Iterable[str]) -> list[str]:
    """Metrics in the order in which one looks at them: validation, training, others, and what a watcher logs for each part."""

    def interest(name: str) -> tuple[int, int]:
        group = 4 if is_detail(name) or name.startswith("freeze/") else 3
        group = 0 if name.startswith("val/") else 1 if name.startswith(("test/", "eval/")) else group
        group = 2 if name.startswith("train/") else group
        return group, {"max": 0, "min": 1, None: 2}[mode_of(name)]

    return sorted(names, key=interest)


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
