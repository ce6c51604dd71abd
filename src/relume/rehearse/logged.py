"""What two runs logged, value by value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from relume.monitor.index import SYSTEM
from relume.rehearse.journals import Line, live_lines
from relume.rehearse.nature import differs_by_nature
from relume.rehearse.states import MISSING, leaf_difference


@dataclass(frozen=True)
class LoggedDifference:
    """The first line in which two runs logged something else.

    Attributes:
        step, epoch: of the line; ``batch`` counts the updates of that epoch, from 1.
        metric: the first metric that differs; None when a line is missing or too many.
        line: in the second run; None when that one ends before.
        resumed_step: where the second run had carried on last; None when it had not yet.
    """

    step: int
    epoch: int
    batch: int
    metric: str | None
    text: str
    line: Line | None
    resumed_step: int | None


@dataclass
class JournalComparison:
    """What a comparison of two journals found.

    Attributes:
        lines, values: how many were compared.
        first: the first difference.
        different_lines: how many lines differ.
        by_nature: metrics of time and the like that differ, as they must.
    """

    lines: int = 0
    values: int = 0
    first: LoggedDifference | None = None
    different_lines: int = 0
    by_nature: list[str] = field(default_factory=list)


def compare_journals(one: Path, other: Path) -> JournalComparison:
    """Compare what two runs logged, in order: step, epoch and the bits of each value. When it was logged is left out."""
    found = JournalComparison()
    by_nature: dict[str, None] = {}
    epoch_start = 0
    before: Line | None = None
    resumed_step: int | None = None
    for left, right in zip_longest(value_lines(one), value_lines(other)):
        found.lines += 1
        found.values += len((left or right).content["values"])
        if left is not None and left.content.get("event") == "epoch_end":
            epoch_start = left.step
        if right is not None:
            if before is not None and before.segment != right.segment:
                resumed_step = before.step
            before = right
        difference = _line_difference(left, right, by_nature)
        if difference is None:
            continue
        found.different_lines += 1
        if found.first is None:
            metric, text = difference
            line = left or right
            found.first = LoggedDifference(
                line.step, line.epoch, line.step - epoch_start, metric, text, right, resumed_step
            )
        if left is None or right is None or _place(left) != _place(right):
            break  # from here on the lines do not belong together
    found.by_nature = list(by_nature)
    return found


def value_lines(run_folder: Path) -> Iterator[Line]:
    """Lines with values, and the ends of epochs with none."""
    for line in live_lines(run_folder):
        if line.content.get("event") == "epoch_end":
            yield Line({**line.content, "values": {}}, line.segment)
        elif isinstance(line.content.get("values"), dict) and not _is_of_the_machine(line.content["values"]):
            yield line


def _is_of_the_machine(values: dict[str, Any]) -> bool:
    return bool(values) and all(name.startswith(SYSTEM) for name in values)


def _place(line: Line) -> tuple[int, int]:
    return line.step, line.epoch


def _line_difference(
    left: Line | None, right: Line | None, by_nature: dict[str, None]
) -> tuple[str | None, str] | None:
    if left is None or right is None:
        line, who = (left, "second") if right is None else (right, "first")
        return None, f"the {who} run has no more lines; the other one goes on at step {line.step if line else 0}"
    if _place(left) != _place(right):
        places = [f"step {line.step}, epoch {line.epoch}" for line in (left, right)]
        return None, f"the next line is of {places[0]} in the first run, and of {places[1]} in the second"
    one, other = left.content["values"], right.content["values"]
    for metric in dict.fromkeys((*one, *other)):
        text = leaf_difference(one.get(metric, MISSING), other.get(metric, MISSING))
        if text is not None and differs_by_nature(metric):
            by_nature[metric] = None
        elif text is not None:
            return metric, text
    return None
