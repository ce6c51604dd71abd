"""Text for people: sizes, counts, tables, and names out of files, which may hold anything."""

from __future__ import annotations

from typing import Any

REDACTED = "[redacted]"
"""What stands in a run's files in the place of a secret."""

_LEFT = {
    "run", "status", "", "setting", "value", "reason", "tensor", "shape", "dtype", "layer", "kind", "output", "here",
    "there", "what", "from", "callable", "largest at", "own tensors", "class", "metric", "taken for", "image", "others",
    "curve", "started", "part", "data",
}  # fmt: skip
"""Columns of text, which stand on the left; numbers stand on the right."""


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


def printable(text: object, limit: int = 80) -> str:
    r"""Any text on one line of at most ``limit`` characters, with nothing in it that a terminal would obey.

    Line ends, escapes and marks that turn the direction of writing are written as Python writes them; a long text loses
    its middle.

    Example:
        >>> printable("a\nb\x1b[31m"), printable("abcdefghijklmnop", 9)
        ('a\\nb\\x1b[31m', 'abcdef…op')
    """
    text = str(text)
    if len(text) > 2 * limit:  # megabytes are not looked through
        text = text[:limit] + text[-limit:]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    if len(safe) <= limit:
        return safe
    tail = limit // 4
    return f"{safe[: limit - 1 - tail]}…{safe[-tail:] if tail else ''}"


def table_of(*columns: str) -> Any:
    """An empty table with these columns; those that hold text are on the left of theirs."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if is_text(column) else "right", overflow="fold")
    return table


def is_text(column: str) -> bool:
    """Whether a column holds text rather than numbers."""
    return column in _LEFT
