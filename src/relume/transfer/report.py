"""What of a model is trainable and what is frozen, by block, in words."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from relume.names import is_uninitialized
from relume.text import counted, printable
from relume.transfer.modes import is_batchnorm, is_held
from relume.transfer.selection import Anatomy

if TYPE_CHECKING:
    from rich.table import Table

_MOST_ROWS = 24


@dataclass(frozen=True)
class Block:
    """A part of a model.

    Attributes:
        name: its canonical name; that of the model itself is empty.
        kind: its class.
        trainable, frozen: how many numbers there are in its parameters.
        note: what to know of its statistics, or nothing.
    """

    name: str
    kind: str
    trainable: int
    frozen: int
    note: str = ""


@dataclass(frozen=True)
class FreezeReport:
    """What of a model is trainable and what is frozen.

    Attributes:
        model: its class.
        blocks: its parts in order, as few as tell what is frozen.
        trainable, frozen: how many numbers there are in its parameters; tied ones count once.
        trainable_names, frozen_names: canonical names of the parameters.
        drifting: batch norms whose parameters are frozen and whose statistics move in training all the same.
    """

    model: str
    blocks: tuple[Block, ...]
    trainable: int
    frozen: int
    trainable_names: tuple[str, ...]
    frozen_names: tuple[str, ...]
    drifting: tuple[str, ...]

    def __str__(self) -> str:
        rows = [("", "trainable", "frozen", ""), *map(_cells, self.blocks)]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in rows]
        return "\n".join([self._headline(), *lines])

    def __rich__(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self._headline(), title_justify="left", title_style="bold", box=None, header_style="dim")
        for number, heading in enumerate(("", "trainable", "frozen", "")):
            table.add_column(heading, justify="right" if number in (1, 2) else "left")
        for block in self.blocks:
            name, trainable, rest, note = _cells(block)
            style = "" if block.trainable else "dim"
            table.add_row(Text(name, style), Text(trainable, "green"), Text(rest, "dim"), Text(note, "yellow"))
        return table

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:{'right' if n in (1, 2) else 'left'}'>{html.escape(cell)}</td>"
                             for n, cell in enumerate(_cells(block))) + "</tr>"
            for block in self.blocks
        )  # fmt: skip
        head = "<tr><th></th><th>trainable</th><th>frozen</th><th></th></tr>"
        return f"<div><b>{html.escape(self._headline())}</b><table>{head}{rows}</table></div>"

    def _headline(self) -> str:
        total = self.trainable + self.frozen
        share = f" ({100 * self.trainable / total:.3g}%)" if total else ""
        return f"{self.model}: {self.trainable:,} of {counted(total, 'parameter')} trainable{share}"


def report_of(anatomy: Anatomy) -> FreezeReport:
    """The report of a model."""
    trainable = {name: p for name, p in anatomy.parameters.items() if p.requires_grad}
    rest = {name: p for name, p in anatomy.parameters.items() if not p.requires_grad}
    return FreezeReport(
        model=type(anatomy.model).__name__,
        blocks=tuple(_blocks(anatomy)),
        trainable=_count(trainable.values()),
        frozen=_count(rest.values()),
        trainable_names=tuple(trainable),
        frozen_names=tuple(rest),
        drifting=tuple(path for path, module in anatomy.modules.items() if _drifts(module)),
    )


def _blocks(anatomy: Anatomy) -> Iterator[Block]:
    """The deepest view of the model that has not too many rows; what is all alike is one row."""
    best = _view(anatomy.model, "", 1)
    for depth in range(2, 9):
        deeper = _view(anatomy.model, "", depth)
        if len(deeper) > _MOST_ROWS:
            break
        best = deeper
    seen: set[int] = set()
    for row in best:
        own = [p for p in row.parameters if id(p) not in seen]
        seen |= {id(p) for p in own}
        counts = [_count(p for p in own if p.requires_grad is flag) for flag in (True, False)]
        if own:
            yield Block(row.name, row.kind, counts[0], counts[1], _note(row.modules))


class _Row(NamedTuple):
    name: str
    kind: str
    parameters: list[nn.Parameter]
    modules: list[nn.Module]


def _view(module: nn.Module, name: str, depth: int) -> list[_Row]:
    prefix = f"{name}." if name else ""
    parameters = list(module.parameters())
    is_alike = len({p.requires_grad for p in parameters}) < 2
    children = [(key, child) for key, child in module.named_children() if any(True for _ in child.parameters())]
    if depth == 0 or not children or (name and is_alike):
        return [_Row(name, type(module).__name__, parameters, list(module.modules()))]
    own = list(module.named_parameters(recurse=False))
    rows = [_Row(prefix + key, "Parameter", [parameter], []) for key, parameter in own]
    return rows + [row for key, child in children for row in _view(child, prefix + key, depth - 1)]


def _cells(block: Block) -> tuple[str, str, str, str]:
    name = f"{printable(block.name or '(all)', 60)} {printable(block.kind, 40)}"
    return (
        name,
        f"{block.trainable:,}" if block.trainable else "-",
        f"{block.frozen:,}" if block.frozen else "-",
        block.note,
    )


def _note(modules: Iterable[nn.Module]) -> str:
    norms = [one for one in modules if is_batchnorm(one)]
    if any(map(_drifts, norms)):
        return "statistics move: freeze(…, batchnorm='eval') pins them"
    pinned = sum(is_held(one) for one in norms)
    return "" if not pinned else "statistics pinned" if pinned == len(norms) else "statistics pinned in part"


def _drifts(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return is_batchnorm(module) and bool(own) and not any(p.requires_grad for p in own) and not is_held(module)


def _count(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers they hold; a lazy one holds none yet."""
    return sum(0 if is_uninitialized(p) else p.numel() for p in parameters)
