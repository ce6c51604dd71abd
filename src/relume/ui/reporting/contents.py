"""All that a report shows: the answers that the page asks for, collected beforehand and made fit to be shared."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relume.errors import RelumeError
from relume.monitor import status_of
from relume.provenance.portable import Portable
from relume.text import counted
from relume.ui.answers.comparing import MOST_RUNS, compared
from relume.ui.answers.console import console
from relume.ui.answers.marks import marks
from relume.ui.answers.run import run
from relume.ui.answers.runs import by_interest, row_of
from relume.ui.reporting import private
from relume.ui.reporting.media import media, words_cleaned
from relume.ui.reporting.numbers import Numbers, numbers
from relume.ui.reporting.page import own_bytes
from relume.ui.reporting.plain import plain
from relume.version import __version__

_NUMBERS_BYTES, _NUMBERS_OF_A_RUN = 900_000, 250_000
_MOST_LINES = 1500
_PLAIN_BYTES = 20_000
_DAMAGE = (RelumeError, OSError, ValueError, TypeError, KeyError, ArithmeticError)

Row = dict[str, Any]


@dataclass
class Contents:
    """What goes into a report.

    Attributes:
        answers: by what is asked, see ``Inlined`` in the page's ``source.js``.
        frame: the curves.
        files: pictures as ``data:`` addresses.
        notes: what is in the report and what is not, in sentences.
        plain: HTML for where scripts are switched off.
    """

    answers: dict[str, Any]
    frame: bytes
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    plain: str = ""

    def parts(self) -> dict[str, bytes]:
        """What the page's script reads, by the ids of its elements."""
        return {"answers": as_json(self.answers), "numbers": self.frame, "files": as_json(self.files)}


def contents(folders: Sequence[Path], title: str, images: int, max_bytes: int, *, commands: bool = True) -> Contents:
    """What a report of these runs holds, in at most about ``max_bytes``."""
    clean = private.portable_of(folders)
    rows = _rows(folders, clean)
    curves = numbers(folders, rows, _room_for_numbers(len(folders), max_bytes))
    notes = _said_of(curves)
    metrics = by_interest(dict.fromkeys(name for row in rows for name in row["metrics"]))
    settings = list(dict.fromkeys(name for row in rows for name in row["config"]))
    ends = [row["created"] + row["seconds"] for row in rows if row["status"] != "damaged"]
    answers = {
        "report": {"title": title, "relume": __version__, "as_of": max(ends, default=0.0), "notes": notes},
        "runs": {"root": "", "runs": rows, "metrics": metrics, "settings": settings},
        "run": {
            folder.name: _run(folder, row, clean, commands=commands) for folder, row in zip(folders, rows, strict=True)
        },
        "console": {folder.name: _console(folder, clean) for folder in folders},
        "marks": _marks(folders, clean),
        "compare": _compared(folders, clean, notes),
    }
    room = max_bytes - _taken(answers, curves.frame)
    kept = media(folders, images, room, words_cleaned(clean.value), as_json)
    notes += kept.notes
    return Contents({**answers, **kept.answers}, curves.frame, kept.files, notes, plain(title, rows, notes))


def _taken(answers: Mapping[str, Any], frame: bytes) -> int:
    """What the file takes without its media, about."""
    held = len(gzip.compress(as_json(answers), 6, mtime=0)) + len(gzip.compress(frame, 6, mtime=0))
    return own_bytes() + held * 4 // 3 + len(answers["runs"]["runs"]) * _PLAIN_BYTES


def _room_for_numbers(runs: int, max_bytes: int) -> int:
    """Curves of one run leave a report below 2 MB; those of many may take half of what a report may be."""
    return min(max_bytes // 2, max(_NUMBERS_BYTES, _NUMBERS_OF_A_RUN * runs))


def _rows(folders: Sequence[Path], clean: Portable) -> list[Row]:
    rows = []
    for place, folder in enumerate(folders):
        rows.append({**private.row(_as_written(folder, row_of(folder)), clean), "place": place})
    return rows


def _as_written(folder: Path, row: Row) -> Row:
    """A run that goes on, as of its newest line: the same journal gives the same report, whenever it is made."""
    if row["status"] == "damaged":
        return {**row, "created": None}  # when its folder was changed last
    if row["status"] != "running":
        return row
    newest = _or(lambda: status_of(folder)[1].get("time"), None)
    if isinstance(newest, (int, float)):
        row["seconds"] = round(max(0.0, newest - row["created"]), 3)
    return {**row, "left_seconds": None}


def _run(folder: Path, row: Row, clean: Portable, *, commands: bool) -> Row:
    root = folder.absolute().parent
    found = _or(lambda: private.run(run(folder, root, root.parent), clean), {})
    return {**found, **row, **({} if commands else {"commands": []})}


def _console(folder: Path, clean: Portable) -> Row:
    found = _or(lambda: console(folder), {"lines": []})
    lines = found["lines"]
    shown = [{**line, "text": clean.text(line["text"])} for line in lines[-_MOST_LINES:]]
    return {"lines": shown, "left_out": found.get("left_out", 0) + len(lines) - len(shown)}


def _marks(folders: Sequence[Path], clean: Portable) -> Row:
    found = marks(folders)["runs"]
    for told in found.values():
        told["marks"] = [{**mark, "text": clean.text(mark["text"])} for mark in told["marks"]]
    return {"runs": found}


def _compared(folders: Sequence[Path], clean: Portable, notes: list[str]) -> Row | None:
    """All runs side by side, as many as the page compares; it takes those out of it that are picked."""
    if len(folders) < 2:
        return None
    if len(folders) > MOST_RUNS:
        notes.append(f"The tables of what differs hold the first {MOST_RUNS} of {len(folders)} runs.")
    found: Row | None = _or(lambda: private.compared(compared(folders[:MOST_RUNS]), clean), None)
    return found


def _or(question: Callable[[], Any], otherwise: Any) -> Any:
    """An answer, or what stands for it where a run's files are damaged."""
    try:
        return question()
    except _DAMAGE:
        return otherwise


def _said_of(curves: Numbers) -> list[str]:
    notes = []
    if curves.most:
        notes.append(
            f"Curves of more than {2 * curves.buckets:,} points are drawn from {curves.buckets:,} buckets each, which keep "
            f"the smallest and the largest value of their points, so that no spike hides; {curves.most:,} points stand "
            "behind the longest. The run itself has every point."
        )
    if curves.left_out:
        notes.append(
            f"{counted(curves.left_out, 'curve')} did not fit; their last and best values are in the table of runs."
        )
    return notes


def as_json(value: Any) -> bytes:
    """JSON with numbers as JavaScript reads them: it has no NaN and no infinities, so they are texts."""
    text = json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)
    return text.encode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
