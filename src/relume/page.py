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

_COLOURS = {
    "bold red": "#d03b3b", "red": "#d03b3b", "yellow": "#a66f00", "green": "#1a8a4a", "cyan": "#3b82f6",
    "bold green": "#1a8a4a", "bold yellow": "#a66f00", "bold cyan": "#3b82f6",
}  # fmt: skip
"""Colours of a notebook that can be read on white and on black."""

_LINE_COLOUR = "rgba(128, 128, 128, .3)"
_TABLE = (
    "border-collapse: collapse; border: none; margin: 6px 0; font-size: inherit; font-variant-numeric: tabular-nums"
)
_EDGE = f"border: none; border-bottom: 1px solid {_LINE_COLOUR}; padding: 4px 14px 4px 0; background: none"


@dataclass(frozen=True)
class Styled:
    """Text in one of rich's styles."""

    text: object
    style: str = ""


@dataclass(frozen=True)
class Drawing:
    """What a notebook can draw, and what stands there elsewhere.

    Args:
        html: made by relume alone: nothing out of a file may be in it that is not escaped.
    """

    html: str
    text: Styled


Cell = str | int | Styled | Drawing


@dataclass
class Grid:
    """A table; of its rows each has a cell for each column."""

    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    note: str = ""


@dataclass
class Folded:
    """Blocks under a heading that a notebook shows on a click."""

    heading: str
    blocks: list[Styled | Drawing | Grid]


Block = Styled | Drawing | Grid | Folded
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
        elif isinstance(block, Folded):
            console.print(Text(printable(block.heading, _LINE), style="dim"), highlight=False)
            print_page(block.blocks, console)
        else:
            block = _styled(block)
            console.print(Text(printable(block.text, _LINE), style=block.style), soft_wrap=False, highlight=False)


def text_of(page: Iterable[Block], width: int = WIDTH) -> str:
    """A page as text without colours, no line longer than ``width``."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(
        file=out, width=width, color_system=None, force_terminal=False, force_jupyter=False, legacy_windows=False
    )  # in a notebook it would show what is asked for as text
    print_page(page, console)
    return "\n".join(row.rstrip() for row in out.getvalue().splitlines())


def html_of(page: Iterable[Block]) -> str:
    """A page for a notebook: no script, nothing from elsewhere, and colours that suit a light and a dark one."""
    return f'<div style="font-size: 90%; line-height: 1.5">{"".join(map(_html_block, page))}</div>'


class Shown:
    """Base of what shows itself as a page: as text where it is printed, as HTML in notebooks. Override :meth:`page`."""

    def page(self) -> Iterable[Block]:
        raise NotImplementedError

    def __str__(self) -> str:
        return text_of(self.page())

    def _repr_html_(self) -> str:
        return html_of(self.page())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def __init_subclass__(cls) -> None:
        cls._repr_pretty_ = Shown._repr_pretty_  # type: ignore[method-assign]  # IPython takes a class's own __repr__ first


def _html_block(block: Block) -> str:
    if isinstance(block, Grid):
        return _html_table(block)
    if isinstance(block, Folded):
        inner = "".join(map(_html_block, block.blocks))
        heading = html.escape(printable(block.heading, _LINE))
        return (
            f'<details style="margin: 4px 0"><summary style="cursor: pointer; opacity: .7">{heading}</summary>'
            f"{inner}</details>"
        )
    return f"<div>{_html(block)}</div>"


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
        weight = "font-weight: 500; opacity: .65; " if tag == "th" else ""
        shown = zip(cells, sides, strict=True)
        return "".join(f'<{tag} style="{weight}text-align: {side}; {_EDGE}">{_html(c)}</{tag}>' for c, side in shown)

    body = "".join(f'<tr style="background: none">{row(cells, "td")}</tr>' for cells in grid.rows)
    note = f"<div>{_html(Styled(grid.note, 'dim'))}</div>" if grid.note else ""
    head = f"<thead><tr>{row(grid.columns, 'th')}</tr></thead>"
    scroll = '<div style="overflow-x: auto">'
    return f'{scroll}<table style="{_TABLE}">{head}<tbody>{body}</tbody></table></div>{note}'


def _html(cell: Cell) -> str:
    if isinstance(cell, Drawing):
        return cell.html
    cell = _styled(cell)
    text = str(cell.text)
    indent = len(text) - len(text.lstrip(" "))
    safe = "&nbsp;" * min(indent, 40) + html.escape(printable(text.lstrip(" "), _LINE))
    return f'<span style="{style}">{safe}</span>' if (style := css_of(cell.style)) else safe


def css_of(style: str) -> str:
    """One of rich's styles as a notebook draws it, on white or on black.

    Example:
        >>> css_of("bold green"), css_of("dim"), css_of("")
        ('color: #1a8a4a; font-weight: 600', 'opacity: .65', '')
    """
    if style == "dim":
        return "opacity: .65"
    colour, weight = _COLOURS.get(style, ""), "600" if "bold" in style else ""
    return "; ".join(part for part in (colour and f"color: {colour}", weight and f"font-weight: {weight}") if part)


def heading(text: str) -> Drawing:
    """The name of what is shown."""
    safe = html.escape(printable(text, _LINE))
    return Drawing(f'<span style="font-size: 115%; font-weight: 600">{safe}</span>', Styled(text, "bold"))


def dot(text: str, style: str) -> Drawing:
    """A word with a dot of its colour before it, such as a status."""
    colour = _COLOURS.get(style, "#888")
    mark = (
        f"display: inline-block; width: 9px; height: 9px; border-radius: 50%; background: {colour}; margin-right: 6px"
    )
    return Drawing(f'<span style="{mark}"></span>{html.escape(printable(text, _LINE))}', Styled(text, style))


def _styled(cell: Cell) -> Styled:
    if isinstance(cell, Drawing):
        return cell.text
    return cell if isinstance(cell, Styled) else Styled(cell)
