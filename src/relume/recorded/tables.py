"""A run's numbers as a file that other programs read: CSV, Parquet, JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from pathlib import Path
from typing import Any

from relume.errors import ConfigurationError, MissingPackageError, StorageError
from relume.recorded.reading import Columns

FORMATS = ("csv", "parquet", "json")


def format_of(out: Path) -> str:
    """The format that a file's name tells.

    Raises:
        ConfigurationError: it tells none.
    """
    found = out.suffix.lower().lstrip(".")
    if found not in FORMATS:
        raise ConfigurationError(f"{out.name!r} does not say what it is: its name ends in .csv, .parquet or .json.")
    return found


def as_csv(columns: Columns) -> str:
    """Columns as CSV (RFC 4180 with single line ends): numbers as Python writes them; empty where nothing was logged, or NaN."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    # Parts, so that a million rows are not held as Python numbers all at once.
    length = len(columns["step"])
    for start in range(0, length, 10_000):
        parts = [column[start : start + 10_000].tolist() for column in columns.values()]
        writer.writerows([("" if v != v else v) for v in row] for row in zip(*parts, strict=True))
    return out.getvalue()


def as_json(columns: Columns) -> str:
    """Columns as a JSON object of arrays; null for NaN, ``"Infinity"`` and ``"-Infinity"`` as texts."""
    return json.dumps({name: [_json_number(v) for v in column.tolist()] for name, column in columns.items()})


def write_table(columns: Columns, out: str | Path, form: str | None = None) -> None:
    """Write columns to a file, whole or not at all.

    Args:
        form: ``"csv"``, ``"parquet"`` or ``"json"``; by default what the file's name tells.

    Raises:
        ConfigurationError: the name does not tell the format.
        MissingPackageError: pyarrow is not installed, which Parquet needs.
        StorageError: the file cannot be written.
    """
    out = Path(out)
    form = form or format_of(out)
    if form not in FORMATS:
        raise ConfigurationError(f"{form!r} is no format of tables: {', '.join(FORMATS)}.")
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        if form == "parquet":
            _parquet(columns, temporary)
        else:
            temporary.write_text(as_csv(columns) if form == "csv" else as_json(columns) + "\n", "utf-8")
        temporary.replace(out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written ({error.strerror or error}). Choose another file.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _parquet(columns: Columns, out: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingPackageError('pyarrow is not installed: pip install "relume[tables]"') from None
    with out.open("wb") as file:
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), file)


def _json_number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
