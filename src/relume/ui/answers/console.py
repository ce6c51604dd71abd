"""What relume said in a run, line by line: notes, resumes, epochs with their values, the end."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from relume.monitor import RunRecord, points
from relume.monitor.index import ask, is_detail
from relume.monitor.journal import header_of, live_ranges, number, when
from relume.monitor.pace import duration
from relume.monitor.pace import number as shown
from relume.ui.answers.plain import plain

_MOST_LINES = 5000
_MOST_METRICS = 40
_LONGEST = 20_000
_EVENTS = ("note", "resume", "epochs", "epoch_end", "end")

_Line = dict[str, Any]


def console(folder: Path) -> dict[str, Any]:
    """The lines, oldest first, at most 5,000 of them: ``left_out`` counts those before.

    Each has ``time`` (Unix seconds), ``step``, ``epoch``, ``text``, and its ``kind``: start, note, resume, epoch or end.
    """
    events, values = ask(folder, _read)
    starts = [_start(header) for path, _ in live_ranges(folder) if (header := header_of(path)) is not None]
    lines = [*starts, *_said(events, values, _planned(folder))]
    lines.sort(key=lambda line: line["time"])  # stable: of one moment, as they stand in the journal
    found: dict[str, Any] = plain({"lines": lines[-_MOST_LINES:], "left_out": max(0, len(lines) - _MOST_LINES)})
    return found


def _start(header: Mapping[str, Any]) -> _Line:
    resumed = header.get("resumed")
    step, epoch, time = when(resumed if isinstance(resumed, Mapping) else {"step": 0, "epoch": 0})
    text = "started again" if isinstance(resumed, Mapping) else "started"
    return {"time": number(header.get("time")) or time, "step": step, "epoch": epoch, "kind": "start", "text": text}


def _planned(folder: Path) -> int | None:
    """How many epochs are planned, as far as the settings say it; the journal knows better, where it does."""
    try:
        planned = RunRecord.load(folder).config.get("epochs")
    except Exception:  # a damaged record costs a number in a line
        return None
    return planned if isinstance(planned, int) else None


def _read(connection: sqlite3.Connection) -> tuple[list[_Line], dict[str, points.Points]]:
    """The events, and the metrics that lines of epochs show: see `relume.run.seen.shown`."""
    marks = ",".join("?" * len(_EVENTS))
    query = f"SELECT content FROM event WHERE kind IN ({marks}) ORDER BY segment, line"
    events = [json.loads(content) for (content,) in connection.execute(query, _EVENTS)]
    known = points.metrics(connection) if any(event["event"] == "epoch_end" for event in events) else {}
    names = [n for n in known if not is_detail(n) and not n.startswith("freeze/") and f"{n}_epoch" not in known]
    return events, {name: points.read(connection, known[name]) for name in names[:_MOST_METRICS]}


def _said(events: Sequence[_Line], values: Mapping[str, points.Points], epochs: int | None) -> list[_Line]:
    lines: list[_Line] = []
    ended = _ends(events)
    shown_at = _values_of(ended, values)
    begun, begun_at = (
        None,
        0,
    )  # where the epoch began: behind the one before, or behind what was said before its first step
    for event in events:
        if event["event"] == "epochs":
            epochs = event["count"] if isinstance(event.get("count"), int) else epochs
            continue
        step, epoch, time = when(event)
        line = {"time": time, "step": step, "epoch": epoch, "kind": str(event["event"])}
        if event["event"] == "epoch_end":
            seconds = f"  done in {duration(time - begun)}" if begun is not None and time >= begun else "  done"
            text = f"epoch {epoch}{f'/{epochs}' if epochs else ''}{seconds}{shown_at[step, epoch]}"
            lines.append(line | {"kind": "epoch", "text": text})
        elif event["event"] == "end":
            lines.append(line | {"text": _ending(event)})
        else:
            lines.append(line | {"text": str(event.get("text", ""))[:_LONGEST]})
        if event["event"] in ("epoch_end", "resume") or step == begun_at:
            begun, begun_at = time, step
    return lines


def _ending(event: Mapping[str, Any]) -> str:
    seconds = number(event.get("seconds"))
    after = f" after {duration(seconds)}" if seconds is not None and 0 <= seconds < math.inf else ""
    reason = str(event.get("reason", ""))[:_LONGEST]
    return f"{event.get('status', 'ended')}{after}" + (f" ({reason})" if reason else "")


def _ends(events: Sequence[_Line]) -> list[tuple[int, int]]:
    return [when(event)[:2] for event in events if event["event"] == "epoch_end"]


def _values_of(ends: Sequence[tuple[int, int]], values: Mapping[str, points.Points]) -> dict[tuple[int, int], str]:
    """For each end of an epoch the newest value of each metric that was logged in it, in words."""
    texts = dict.fromkeys(ends, "")
    for name, series in values.items():
        for step, epoch in texts:
            # What is logged in an epoch has its number, counted from 1; steps narrow down where to look.
            last = int(np.searchsorted(series["step"], step, "right")) - 1
            if last >= 0 and series["epoch"][last] == epoch:
                texts[step, epoch] += f"  {name} {shown(float(series['value'][last]))}"
    return texts
