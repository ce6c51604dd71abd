"""What is known of each parameter in training, and what contradicts itself: as data, and in words."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from relume.errors import ConfigurationError, OptimizerError, PreflightError
from relume.text import counted, printable

if TYPE_CHECKING:
    from rich.console import Group

Gradient = Literal["", "none", "zero", "finite", "not finite"]
_MOST_BLOCKS = 24
_MOST_NAMES = 5
_OF_OPTIMIZERS = {"nothing to train", "no optimizer", "holds none", "left out", "two groups", "holds only frozen"}


@dataclass(frozen=True)
class Problem:
    """A contradiction.

    Attributes:
        code: two or three words that name its kind, such as ``"left out"``.
        severity: ``"error"``: what was meant cannot come of it; ``"warning"``: it may be meant.
        text: what it is, where, and the remedy.
        names: canonical names of the parameters or modules.
    """

    code: str
    severity: Literal["error", "warning"]
    text: str
    names: tuple[str, ...] = ()

    def error(self) -> ConfigurationError:
        """It as an exception."""
        return OptimizerError(self.text) if self.code in _OF_OPTIMIZERS else PreflightError(self.text)


@dataclass(frozen=True)
class Row:
    """One parameter in training.

    Attributes:
        name: its canonical name, with that of its model before it where there are several; a tied one has the first.
        count: how many numbers it holds.
        trainable: its ``requires_grad``.
        optimizer, group: the optimizer that holds it, and the place of its group; empty and ``None`` where none does.
        lr, weight_decay: of that group; ``None`` where it has none.
        gradient: what came of the backward pass: ``"none"``, ``"zero"``, ``"finite"``, ``"not finite"``; empty: not looked at.
        norm: the Euclidean norm of the gradient; NaN without one.
        held: its module stays in evaluation mode whatever ``model.train()`` says.
        moved: whether the first step changed it; ``None`` where that is not known (yet).
    """

    name: str
    count: int
    trainable: bool
    optimizer: str = ""
    group: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    gradient: Gradient = ""
    norm: float = math.nan
    held: bool = False
    moved: bool | None = None


@dataclass(frozen=True)
class PreflightReport:
    """Each parameter in training, and what contradicts itself. Shows itself as a table by block.

    Attributes:
        model: its class, or the names of several models.
        rows: one for each parameter, in the model's order.
        problems: errors first.
    """

    model: str
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that are errors."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that may be meant."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")

    def raise_for_errors(self) -> PreflightReport:
        """Raise the errors, if there are any; returns the report itself.

        Raises:
            PreflightError, OptimizerError: with the text of each error.
        """
        if len(self.errors) == 1:
            raise self.errors[0].error()
        if self.errors:
            raise PreflightError("\n".join(f"{number}. {one.text}" for number, one in enumerate(self.errors, 1)))
        return self

    def __str__(self) -> str:
        rows = [_HEADINGS, *self._cells()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
        lines = [
            "  "
            + "  ".join(
                f"{cell:>{width}}" if number in _NUMBERS else f"{cell:<{width}}"
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([self._headline(), *lines, *(f"{one.severity}: {one.text}" for one in self.problems)])

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self._headline(), title_justify="left", title_style="bold", box=None, header_style="dim")
        for number, heading in enumerate(_HEADINGS):
            table.add_column(heading, justify="right" if number in _NUMBERS else "left")
        for cells in self._cells():
            table.add_row(*map(Text, cells))
        colour = {"error": "bold red", "warning": "yellow"}
        said = [Text.assemble((f"{one.severity}: ", colour[one.severity]), one.text) for one in self.problems]
        return Group(table, *said)

    def _repr_html_(self) -> str:
        def row(cells: Iterable[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        table = row(_HEADINGS, "th") + "".join(row(cells, "td") for cells in self._cells())
        said = "".join(f"<p><b>{one.severity}</b>: {html.escape(one.text)}</p>" for one in self.problems)
        return f"<div><b>{html.escape(self._headline())}</b><table>{table}</table>{said}</div>"

    def _headline(self) -> str:
        total = sum(row.count for row in self.rows)
        trained = sum(row.count for row in self.rows if row.trainable and row.optimizer)
        found = [
            counted(len(some), what) for some, what in ((self.errors, "error"), (self.warnings, "warning")) if some
        ]
        return (
            f"{self.model}: {trained:,} of {counted(total, 'parameter')} trained; {', '.join(found) or 'no problems'}"
        )

    def _cells(self) -> Iterator[tuple[str, ...]]:
        for name, rows in blocks(self.rows).items():
            trainable = sum(row.count for row in rows if row.trainable)
            frozen = sum(row.count for row in rows if not row.trainable)
            yield (
                printable(name or "(all)", 60),
                f"{trainable:,}" if trainable else "-",
                f"{frozen:,}" if frozen else "-",
                _together(_place(row) for row in rows),
                _together(row.gradient for row in rows if row.trainable),
                _norm(rows),
                _together({True: "yes", False: "no", None: ""}[row.moved] for row in rows),
            )


_HEADINGS = ("", "trainable", "frozen", "optimizer", "gradient", "norm", "moved")
_NUMBERS = (1, 2, 5)


def blocks(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows by the modules they are in, as deep as leaves few enough of them.

    Example:
        >>> list(blocks([Row("body.0.weight", 4, True), Row("body.0.bias", 2, True), Row("head", 1, True)]))
        ['body.0', '']
    """
    rows = list(rows)
    best = _at_depth(rows, 1)
    for depth in range(2, 9):
        deeper = _at_depth(rows, depth)
        if len(deeper) > _MOST_BLOCKS:
            break
        best = deeper
    return best


def listed(names: Iterable[str]) -> str:
    """Some names, and how many more there are.

    Example:
        >>> listed("abcdefg")
        'a, b, c, d, e and 2 more'
    """
    names = [printable(name, 100) for name in names]
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _at_depth(rows: list[Row], depth: int) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(".".join(row.name.split(".")[:-1][:depth]), []).append(row)
    return found


def _place(row: Row) -> str:
    if not row.optimizer:
        return "none"
    rate = "" if row.lr is None else f" lr {row.lr:g}"
    decay = f" decay {row.weight_decay:g}" if row.weight_decay else ""
    return f"{row.optimizer}[{row.group}]{rate}{decay}"


def _norm(rows: list[Row]) -> str:
    squares = [row.norm**2 for row in rows if not math.isnan(row.norm)]
    return f"{math.sqrt(sum(squares)):.3g}" if squares else ""


def _together(values: Iterable[str]) -> str:
    found = list(dict.fromkeys(value for value in values if value))
    return " / ".join(found[:2]) + (" / …" if len(found) > 2 else "")
