"""Tables."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from relume.errors import ConfigurationError
from relume.monitor.journal import encode
from relume.monitor.kinds.arrays import is_tensor
from relume.monitor.kinds.base import Content, Media
from relume.monitor.kinds.files import keep

_LARGEST_IN_LINE = 4096


class Table(Media):
    """A table: of numbers, texts, truth values and empty cells. Other cells become their text.

    Args:
        data: a DataFrame (of pandas or polars); a mapping of columns; a list of mappings, one a row; or a list of rows, with
            ``columns``; or a 2-D array or tensor, with or without ``columns``.
        columns: the names of the columns of a list of rows.

    Raises:
        ConfigurationError: rows or columns of different length, or something that is no table.

    Example:
        >>> Table({"class": ["cat", "dog"], "recall": [0.5, 1.0]}).content(Path())["rows"]
        [['cat', 0.5], ['dog', 1.0]]
    """

    kind = "table"

    def __init__(self, data: Any, columns: Sequence[Any] | None = None) -> None:
        names, rows = _read(data, columns)
        self._columns = [_text(name) for name in names]
        self._rows = [[_cell(value) for value in row] for row in rows]
        if is_frame(data):
            _empty_where_missing(self._rows)
        for number, row in enumerate(self._rows):
            if len(row) != len(self._columns):
                raise ConfigurationError(
                    f"Table: row {number} has {len(row)} cells, and there are {len(self._columns)} columns."
                )

    def describe(self, folder: Path) -> Content:
        data = encode({"columns": self._columns, "rows": self._rows})
        if len(data) <= _LARGEST_IN_LINE:
            return {"columns": self._columns, "rows": self._rows}
        return {"file": keep(folder, data, "json"), "count": len(self._rows)}


def _read(data: Any, columns: Sequence[Any] | None) -> tuple[Sequence[Any], Sequence[Sequence[Any]]]:
    if is_frame(data):
        if columns is not None:
            data = data[list(columns)]
        parts = [_listed(data[name]) for name in data.columns]
        return list(data.columns), list(zip(*parts, strict=True))
    if isinstance(data, Mapping):
        parts = [_listed(part) for part in data.values()]
        if len({len(part) for part in parts}) > 1:
            sizes = ", ".join(f"{name!s:.30}: {len(part)}" for name, part in zip(data, parts, strict=True))
            raise ConfigurationError(f"Table: its columns have different lengths ({sizes:.200}).")
        return list(data), list(zip(*parts, strict=True))
    rows = _listed(data)
    if rows and all(isinstance(row, Mapping) for row in rows):
        names = list(columns) if columns is not None else list(dict.fromkeys(name for row in rows for name in row))
        return names, [[row.get(name) for name in names] for row in rows]
    rows = [_listed(row) for row in rows]
    return list(columns) if columns is not None else [str(n) for n in range(len(rows[0]) if rows else 0)], rows


def _listed(part: Any) -> list[Any]:
    if is_tensor(part):
        part = part.detach().tolist()
    elif hasattr(part, "to_list"):
        part = part.to_list()
    elif hasattr(part, "tolist"):
        part = part.tolist()
    if isinstance(part, (str, bytes)) or not hasattr(part, "__iter__"):
        raise ConfigurationError(
            f"Table: a {type(part).__name__} is no list of cells ({part!r:.60}). Give a DataFrame, a mapping of columns, a "
            "list of mappings, or a list of rows with columns=."
        )
    return list(part)


def _empty_where_missing(rows: list[list[Any]]) -> None:
    """In columns that are not of numbers, a DataFrame's NaN is a missing cell."""
    for place in range(len(rows[0]) if rows else 0):
        if any(isinstance(row[place], str) for row in rows):
            for row in rows:
                row[place] = None if row[place] != row[place] else row[place]


def is_frame(value: Any) -> bool:
    """Whether it is a DataFrame, of pandas or another library."""
    return type(value).__name__ == "DataFrame" and hasattr(value, "columns") and hasattr(value, "__getitem__")


def _cell(value: Any) -> str | int | float | bool | None:
    if is_tensor(value):
        value = value.detach().tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool)) or type(value) is float:
        return _text(value) if isinstance(value, str) else value
    if isinstance(value, numbers.Integral):
        return int(value) if abs(int(value)) < 2**63 else str(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat() if str(value) != "NaT" else None
    return None if type(value).__name__ in ("NAType", "NaTType") else _text(value)


def _text(value: Any) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()
