"""What the commands share: their common options, tables, sizes and JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

Root = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_LEFT = ("run", "status", "", "setting", "value", "reason")


def console() -> Any:
    from rich.console import Console

    return Console()


def print_json(value: Any) -> None:
    typer.echo(json.dumps(_finite(value), indent=1, allow_nan=False))


def table_of(*columns: str) -> Any:
    """An empty table with these columns; those that hold text are on the left of theirs."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in _LEFT else "right", overflow="fold")
    return table


def size(count: float) -> str:
    """Bytes as a person reads them, in powers of ten as disks are sold.

    Example:
        >>> size(0), size(812), size(15_400), size(3_000_000_000)
        ('0 B', '812 B', '15.4 kB', '3.0 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.95 or (unit == "GB" and count < 999_950):
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "pack"), counted(1200, "pack"), counted(0, "entry", "entries")
        ('1 pack', '1,200 packs', '0 entries')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _finite(value: Any) -> Any:
    """JSON has no NaN: it is null there."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
