"""All that a report shows: the answers that the page asks for, collected beforehand and made fit to be shared."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relume.recorded import facts_of
from relume.recorded.facts import flat
from relume.text import counted
from relume.ui.reporting.numbers import Numbers, numbers
from relume.ui.reporting.plain import plain
from relume.version import __version__

_NUMBERS_BYTES, _NUMBERS_OF_A_RUN = 1_000_000, 250_000


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
        return {"answers": _json(self.answers), "numbers": self.frame, "files": _json(self.files)}


def contents(folders: Sequence[Path], title: str, images: int, max_bytes: int) -> Contents:
    """What a report of these runs holds."""
    rows = _rows(folders)
    budget = min(max_bytes // 2, max(_NUMBERS_BYTES, _NUMBERS_OF_A_RUN * len(folders)))
    curves = numbers(folders, rows, budget)
    notes = _said_of(curves)
    report = {
        "title": title,
        "relume": __version__,
        "as_of": max((_end(row) for row in rows), default=0.0),
        "notes": notes,
    }
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    settings = list(dict.fromkeys(name for row in rows for name in row.get("config", {})))
    answers = {
        "report": report,
        "runs": {"root": "", "runs": rows, "metrics": metrics, "settings": settings},
    }
    return Contents(answers, curves.frame, {}, notes, plain(title, rows, notes))


def _rows(folders: Sequence[Path]) -> list[dict[str, Any]]:
    rows = []
    for place, folder in enumerate(folders):
        row = facts_of(folder)
        row["config"] = flat(row.get("config", {}))
        row["place"] = place
        row.pop("folder", None)
        rows.append(row)
    return rows


def _end(row: dict[str, Any]) -> float:
    return float(row.get("created", 0.0)) + float(row.get("seconds", 0.0))


def _said_of(curves: Numbers) -> list[str]:
    notes = []
    if curves.most:
        notes.append(
            f"Curves of more than {2 * curves.buckets:,} points are drawn from {curves.buckets:,} buckets each, which keep "
            f"the smallest and the largest value of their points, so that no spike hides; {curves.most:,} points stand "
            "behind the longest. The run itself has every point."
        )
    if curves.left_out:
        notes.append(f"{counted(curves.left_out, 'curve')} did not fit; their last and best values are in the table.")
    return notes


def _json(value: Any) -> bytes:
    text = json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)
    return text.encode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinities: they stand there as JavaScript's texts for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
