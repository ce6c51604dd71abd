"""Runs as rows: the columns that were asked for, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from relume.recorded.choosing import check_names, value_of
from relume.recorded.expression import parse
from relume.recorded.facts import Facts

_ALWAYS = ("name", "status", "epoch", "step", "seconds")


def shown_columns(runs: Sequence[Facts], columns: str | None, where: str | None, sort: str | None) -> list[str]:
    """The names of columns that were asked for, or else those that a condition and an order speak of.

    Raises:
        UnknownNameError: no run has such a name.
    """
    if columns is not None:
        names = [name.strip() for name in columns.split(",") if name.strip()]
        check_names(names, runs)
        return list(dict.fromkeys(names))
    asked = [*(parse(where).names if where else ()), *([sort] if sort else [])]
    return [name for name in dict.fromkeys(asked) if name not in (*_ALWAYS, "created")]


def as_rows(runs: Sequence[Facts], names: Sequence[str]) -> list[dict[str, Any]]:
    """Each run's name and the values of these names, as JSON can hold them."""
    return [{"name": facts["name"], **{name: _plain(value_of(facts, name)) for name in names}} for facts in runs]


def csv_of(runs: Sequence[Facts], names: Sequence[str]) -> str:
    """Runs as CSV; without names all settings and the best of all metrics."""
    names = [name for name in names if name != "name"] or _all_names(runs)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", *names])
    for facts in runs:
        writer.writerow([facts["name"], *(_csv(value_of(facts, name)) for name in names)])
    return out.getvalue()


def cell(facts: Facts, name: str, number: Callable[[float], str]) -> str:
    """A value for a table."""
    value = value_of(facts, name)
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, bool):
        return str(value).lower()
    from relume.text import printable

    return number(value) if isinstance(value, (int, float)) else printable(_csv(value), 40)


def _all_names(runs: Sequence[Facts]) -> list[str]:
    settings = dict.fromkeys(f"config:{key}" for facts in runs for key in facts.get("config", {}))
    metrics = dict.fromkeys(f"best:{key}" for facts in runs for key in facts["metrics"])
    return [*_ALWAYS[1:], "created", *settings, *metrics]


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else value


def _csv(value: Any) -> Any:
    value = _plain(value)
    if value is None or value != value:
        return ""
    return json.dumps(value) if isinstance(value, (list, dict)) else value
