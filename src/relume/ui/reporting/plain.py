"""What a report says where scripts are switched off: its runs, their metrics and settings as tables."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relume.monitor.pace import duration, number
from relume.text import printable

_MOST_ROWS, _LONGEST = 500, 2000


def plain(title: str, rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> str:
    """HTML of the page's body; everything in it is escaped.

    Example:
        >>> plain("<a>", [], [])
        '<h1>&lt;a&gt;</h1>'
    """
    parts = [f"<h1>{_said(title)}</h1>", *(f"<p>{_said(note)}</p>" for note in notes)]
    for row in rows:
        parts.append(f"<h2>{_said(row['name'])}</h2><p>{_said(_standing(row))}</p>")
        metrics = ((name, *_values(one)) for name, one in row.get("metrics", {}).items())
        parts.append(_table(("metric", "last", "best", "at epoch", "values"), metrics))
        settings = ((name, _setting(value)) for name, value in row.get("config", {}).items())
        parts.append(_table(("setting", "value"), settings))
    return "".join(parts)


def _standing(row: Mapping[str, Any]) -> str:
    parts = [row["status"] + (f" ({row['reason']})" if row.get("reason") else "")]
    parts += [f"{name} {row[name]}" for name in ("epoch", "step") if name in row]
    parts += [duration(row["seconds"])] if isinstance(row.get("seconds"), (int, float)) else []
    return ", ".join(parts)


def _values(one: Mapping[str, Any]) -> tuple[str, ...]:
    best = "" if one.get("best") is None else number(float(one["best"]))
    return number(float(one["last"])), best, str(one.get("best_epoch", "")), f"{one['count']:,}"


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    shown = list(rows)
    if not shown:
        return ""
    head = "".join(f'<th scope="col">{_said(name)}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{_said(cell)}</td>' for cell in row)}</tr>" for row in shown[:_MOST_ROWS])
    left = f"<p>{len(shown) - _MOST_ROWS:,} more</p>" if len(shown) > _MOST_ROWS else ""
    return f'<table class="grid"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{left}'


def _said(text: str) -> str:
    return html.escape(printable(str(text), _LONGEST))
