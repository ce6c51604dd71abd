"""Lines and tables that are shown on a terminal, as plain text and in a notebook.

Whatever comes from a file passes `printable` here, and is text for rich and for HTML: nothing in a name is obeyed.
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from relume.text import is_text, printable, table_of

WIDTH = 100
"""Columns of plain text."""

_CELL = 56
_LINE = 2000
_FOLDED = {"tensor", "layer", "kind", "what", "callable", "own tensors"}
"""Columns that give way where a terminal is narrow."""

_COLOURS = {"bold red": "#c00", "red": "#c00", "yellow": "#a60", "green": "#080", "dim": "#777"}


@dataclass(frozen=True)
class Styled:
    """Text in one of rich's styles."""

    text: object
    style: str = ""


Cell = str | int | Styled


@dataclass
class Grid:
    """A table; of its rows each has a cell for each column."""

    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    note: str = ""


Block = Styled | Grid
Page = list[Block]


def line(text: object, style: str = "") -> Styled:
    """A line of a page."""
    return Styled(text, style)


def print_page(page: Iterable[Block], console: Any) -> None:
    """Show a page on a console of rich."""
    from rich.text import Text

    for block in page:
        if isinstance(block, Grid):
            console.print(_table(block))
        else:
            console.print(Text(printable(block.text, _LINE), style=block.style), soft_wrap=False, highlight=False)


def text_of(page: Iterable[Block], width: int = WIDTH) -> str:
    """A page as text without colours, no line longer than ``width``."""
    from rich.console import Console

    out = io.StringIO()
    print_page(page, Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False))
    return "\n".join(row.rstrip() for row in out.getvalue().splitlines())


def html_of(page: Iterable[Block]) -> str:
    """A page for a notebook."""
    parts = [_html_table(block) if isinstance(block, Grid) else f"<div>{_html(block)}</div>" for block in page]
    return f'<div style="font-size: 90%">{"".join(parts)}</div>'


def _table(grid: Grid) -> Any:
    from rich.text import Text

    table = table_of(*grid.columns)
    for column, name in zip(table.columns, grid.columns, strict=True):
        column.no_wrap = name not in _FOLDED
    for row in grid.rows:
        table.add_row(*(Text(printable(c.text, _CELL), style=c.style) for c in map(_styled, row)))
    if grid.note:
        table.caption = Text(printable(grid.note, _LINE), style="dim")
        table.caption_justify = "left"
    return table


def _html_table(grid: Grid) -> str:
    sides = ["left" if is_text(column) else "right" for column in grid.columns]

    def row(cells: Iterable[Cell], tag: str) -> str:
        shown = zip(cells, sides, strict=True)
        return "".join(f'<{tag} style="text-align: {side}">{_html(_styled(cell))}</{tag}>' for cell, side in shown)

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in grid.rows)
    note = f"<div>{_html(Styled(grid.note, 'dim'))}</div>" if grid.note else ""
    return f"<table><thead><tr>{row(grid.columns, 'th')}</tr></thead><tbody>{body}</tbody></table>{note}"


def _html(cell: Styled) -> str:
    text = str(cell.text)
    indent = len(text) - len(text.lstrip(" "))
    safe = "&nbsp;" * min(indent, 40) + html.escape(printable(text.lstrip(" "), _LINE))
    colour, weight = _COLOURS.get(cell.style, ""), "bold" if "bold" in cell.style else ""
    style = "; ".join(part for part in (colour and f"color: {colour}", weight and f"font-weight: {weight}") if part)
    return f'<span style="{style}">{safe}</span>' if style else safe


def _styled(cell: Cell) -> Styled:
    return cell if isinstance(cell, Styled) else Styled(cell)
