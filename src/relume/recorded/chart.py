"""Curves as text: dots of braille, with a letter on each curve so that they can be told apart without colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.text import Text

from relume.monitor.pace import number
from relume.text import printable

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
"""Okabe and Ito, Color Universal Design (2008): told apart by people with colour blindness of any kind."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_LETTER_EVERY = 16


@dataclass(frozen=True)
class Curve:
    """A curve in buckets: where each is, its smallest, largest and mean value. NaN is not drawn."""

    x: np.ndarray[Any, Any]
    low: np.ndarray[Any, Any]
    high: np.ndarray[Any, Any]
    mean: np.ndarray[Any, Any]


def draw(
    title: str, curves: Sequence[Curve | None], width: int = 80, height: int = 10, axis: str = "step"
) -> list[Text]:
    """A chart of several curves over one axis, as lines of at most ``width`` columns.

    A curve that is None has no letter here; the letters of the others stay theirs.
    """
    there = [(i, curve) for i, curve in enumerate(curves) if curve is not None]
    values = np.concatenate([np.concatenate([c.low, c.high]) for _, c in there]) if there else np.zeros(0)
    values = values[np.isfinite(values)]
    lines = [Text(printable(title, width), style="bold")]
    if not len(values):
        return [*lines, Text("no finite value", style="dim")]
    bottom, top = _range(float(values.min()), float(values.max()))
    left = float(min(np.min(c.x) for _, c in there))
    right = float(max(np.max(c.x) for _, c in there))
    labels = [number(top), number((top + bottom) / 2), number(bottom)]
    margin = max(map(len, labels)) + 2
    columns = max(10, width - margin - 1)
    canvas = _Canvas(columns, height)
    for i, curve in there:
        canvas.add(i, curve, (left, right), (bottom, top))
    for row in range(height):
        place = {0: 0, height // 2: 1, height - 1: 2}.get(row)
        label = labels[place] if place is not None else ""
        lines.append(Text.assemble((label.rjust(margin - 2) + (" ┤" if label else " │"), "dim"), canvas.row(row)))
    lines.append(Text(_axis(left, right, margin, columns, axis), style="dim"))
    return lines


def legend(names: Sequence[str], width: int = 80) -> Text:
    """Which letter and colour belong to which run, in lines of at most ``width``."""
    lines = [Text()]
    for i, name in enumerate(names):
        part = Text.assemble((f"{LETTERS[i % 26]} ", f"bold {COLOURS[i % len(COLOURS)]}"), printable(name, 40))
        if lines[-1] and len(lines[-1]) + 3 + len(part) > width:
            lines.append(Text())
        lines[-1].append_text(Text.assemble("   " if lines[-1] else "", part))
    return Text("\n").join(lines)


class _Canvas:
    """Dots, two in a column and four in a row of text, each cell in the colour of the curve that came last."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.dots = np.zeros((rows, columns), np.int64)
        self.owner = np.full((rows, columns), -1)
        self.letters: dict[tuple[int, int], int] = {}

    def add(self, number: int, curve: Curve, across: tuple[float, float], up: tuple[float, float]) -> None:
        """A vertical stroke from the smallest to the largest value in each column of dots, joined to the next."""
        wide, high = self.columns * 2, self.rows * 4
        at = _scaled(curve.x, across, wide - 1)
        bounds: dict[int, tuple[int, int]] = {}
        means: dict[int, int] = {}
        for x, low, top, mean in zip(at, curve.low, curve.high, curve.mean, strict=True):
            if math.isnan(low) or math.isnan(top):
                continue
            first, last = (int(v) for v in _scaled(np.array([low, top]), up, high - 1))
            known = bounds.get(int(x), (first, last))
            bounds[int(x)] = (min(first, known[0]), max(last, known[1]))
            if math.isfinite(mean):
                means[int(x)] = int(_scaled(np.array([mean]), up, high - 1)[0])
        before: tuple[int, int, int] | None = None
        for x in sorted(bounds):
            low, top = bounds[x]
            if before is not None:
                self._join(number, before, (x, low, top))
            self._stroke(number, x, low, top)
            before = (x, low, top)
        self._letter(number, means)

    def _join(self, number: int, before: tuple[int, int, int], now: tuple[int, int, int]) -> None:
        begin, end = before[0], now[0]
        start, stop = (before[1] + before[2]) / 2, (now[1] + now[2]) / 2
        if end == begin + 1:  # neighbours: only the gap between their strokes
            start, stop = (before[2], now[1]) if before[2] < now[1] else (before[1], now[2])
            if (before[2] >= now[1]) and (now[2] >= before[1]):
                return
        previous = start
        for x in range(begin, end + 1):
            y = start + (stop - start) * (x - begin) / (end - begin)
            self._stroke(number, x, round(min(previous, y)), round(max(previous, y)))
            previous = y

    def _stroke(self, number: int, x: int, low: int, high: int) -> None:
        for y in range(low, high + 1):
            row, column = self.rows - 1 - y // 4, x // 2
            self.dots[row, column] |= _DOTS[3 - y % 4, x % 2]
            self.owner[row, column] = number

    def _letter(self, number: int, means: dict[int, int]) -> None:
        """At its right end and here and there on the way, staggered so that curves on top of each other are all named."""
        if not means:
            return
        wanted = [max(means), *range(max(means) - _LETTER_EVERY * 2 - number * 6, -1, -_LETTER_EVERY * 2)]
        for x in wanted:
            nearest = min(means, key=lambda known: abs(known - x))
            cell = (self.rows - 1 - means[nearest] // 4, nearest // 2)
            while cell in self.letters and cell[1] > 0:  # taken by another curve
                cell = (cell[0], cell[1] - 1)
            self.letters.setdefault(cell, number)

    def row(self, row: int) -> Text:
        text = Text()
        for column in range(self.columns):
            letter = self.letters.get((row, column))
            if letter is not None:
                text.append(LETTERS[letter % 26], style=f"bold {COLOURS[letter % len(COLOURS)]}")
            elif self.dots[row, column]:
                owner = int(self.owner[row, column])
                text.append(chr(0x2800 + int(self.dots[row, column])), style=COLOURS[owner % len(COLOURS)])
            else:
                text.append(" ")
        text.rstrip()
        return text


def _scaled(values: np.ndarray[Any, Any], bounds: tuple[float, float], most: int) -> np.ndarray[Any, Any]:
    low, high = bounds
    share = (np.clip(np.asarray(values, np.float64), low, high) / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
    return np.rint(share * most).astype(np.int64)


def _range(low: float, high: float) -> tuple[float, float]:
    if low == high:
        room = abs(low) * 0.05 or 1.0
        return low - room, high + room
    return low, high


def _axis(left: float, right: float, margin: int, columns: int, axis: str) -> str:
    begin, end = number(left), number(right)
    room = columns - len(begin) - len(end)
    return " " * (margin - 1) + "└" + begin + axis.center(max(len(axis) + 2, room)) + end
