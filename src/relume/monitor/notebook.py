"""A table in the cell of a notebook that grows while a run goes on, and stays when the notebook is saved."""

from __future__ import annotations

import html
import importlib
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from relume.monitor.curves import Curve, drawing
from relume.monitor.index import columns, metric_summary
from relume.monitor.pace import Pace, Summary, duration, number, shown
from relume.page import Block, Cell, Drawing, Folded, Grid, Styled, dot, html_of, line, text_of
from relume.text import counted

_SECONDS_BETWEEN_DRAWS = 0.5
_SECONDS_BETWEEN_EPOCHS = 0.2  # shorter ones wait for the next draw: all is shown anew in 10 ms at most
_MOST_ROWS, _MOST_COLUMNS, _MOST_NOTES = 15, 8, 8
_STATUS = {"finished": "green", "interrupted": "yellow"}


class Notebook:
    """One row an epoch below the metrics' curves, and a bar for the epoch that is running at its foot.

    A cell that is executed again makes a new table, which begins with the epochs that the run has behind it.

    Args:
        folder: where the run is stored.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.pace = Pace()
        self._folder = folder
        self._rows: list[tuple[int, float | None, dict[str, float]]] = []
        self._notes: list[str] = []
        self._foot: list[Block] = []
        self._next_draw = 0.0
        self._last_draw = 0.0
        self._has_looked_back = False
        self._upper: str | None = None  # what stands above the foot, as HTML
        display = importlib.import_module("IPython.display").display
        self._handle: Any = display({"text/html": "", "text/plain": ""}, raw=True, display_id=True)

    def note(self, text: str) -> None:
        self._notes.append(text)
        self._upper = None
        self._draw(text)

    def epoch_start(self, epoch: int, epochs: int, batches: int | None, done: int = 0) -> None:
        self._look_back(epoch)
        self.pace.start(epoch, epochs, batches, done)
        self._draw_bar()

    def batch(self, samples: int) -> None:
        # Hot path: 0.3 microseconds; a draw takes about a millisecond, twice a second.
        self.pace.count(samples)
        if time.perf_counter() >= self._next_draw:
            self._draw_bar()

    def values(self, values: Mapping[str, float]) -> None:
        self.pace.shown = dict(values)

    def epoch_end(self, values: Mapping[str, float]) -> None:
        self._rows.append((self.pace.epoch, self.pace.seconds(), dict(values)))
        self._foot = []
        self._upper = None
        if time.perf_counter() >= self._last_draw + _SECONDS_BETWEEN_EPOCHS:
            self._draw(f"{self.pace.place()}{shown(values)}")

    def finish(self, summary: Summary) -> None:
        self._look_back(None)
        bests = [f"{name} {number(best)} (epoch {epoch})" for name, _, best, epoch in summary.metrics[:_MOST_COLUMNS]]
        self._foot = [dot(summary.headline(), _STATUS.get(summary.status, "red"))]
        self._foot += [line(f"best: {', '.join(bests)}")] if bests else []
        self._foot += [line(f"stored in {summary.folder}", "dim")]
        self._upper, text = None, summary.headline()
        with suppress(Exception):
            text = text_of([*self._note_blocks(), *self._table(), *self._foot], 120)
        self._draw(text)

    def _look_back(self, before: int | None) -> None:
        """The rows of epochs that another execution has done."""
        if self._has_looked_back or self._folder is None:
            return
        self._has_looked_back = True
        if before == 1:
            return
        with suppress(Exception):  # what cannot be read is not shown
            rows = _epochs(self._folder)
            self._upper = None
            self._rows = [(epoch, None, values) for epoch, values in rows if before is None or epoch < before]

    def _draw_bar(self) -> None:
        pace, left = self.pace, self.pace.seconds_left()
        place = f"{pace.done}/{pace.total}" if pace.total else f"{pace.done}"
        left_text = f", {duration(left)} left" if left is not None else ""
        newest = dict(list(pace.shown.items())[:3])
        text = f"{pace.place()}  {place}{shown(newest)}  {pace.samples_per_second():,.0f} samples/s{left_text}"
        self._foot = [Drawing(_bar(pace, text), Styled(text))]
        self._draw(text)

    def _draw(self, text: str) -> None:
        """Show all, and ``text`` where there is no HTML. A notebook that is gone stops no training."""
        now = time.perf_counter()
        self._last_draw, self._next_draw = now, now + _SECONDS_BETWEEN_DRAWS
        with suppress(Exception):
            if self._upper is None:
                self._upper = html_of([*self._note_blocks(), *self._table()])
            self._handle.update({"text/html": self._upper + html_of(self._foot), "text/plain": text}, raw=True)

    def _note_blocks(self) -> list[Block]:
        notes = [line(text, "dim") for note in self._notes for text in note.splitlines()]
        earlier, newest = notes[:-_MOST_NOTES], notes[-_MOST_NOTES:]
        return [*([Folded(counted(len(earlier), "earlier note"), list(earlier))] if earlier else []), *newest]

    def _table(self) -> list[Block]:
        if not self._rows:
            return []
        names = list(dict.fromkeys(name for *_, values in self._rows for name in values))[:_MOST_COLUMNS]
        grid = Grid(["epoch", *names, "time"])
        if len(self._rows) > 1:
            curves: list[Cell] = [drawing(self._curve(name), name, width=96) for name in names]
            grid.rows.append(["", *curves, ""])
        for epoch, seconds, values in self._rows[-_MOST_ROWS:]:
            cells = [number(values[name]) if name in values else "" for name in names]
            grid.rows.append([str(epoch), *cells, "" if seconds is None else duration(seconds)])
        left_out = len(self._rows) - _MOST_ROWS
        grid.note = f"{counted(left_out, 'earlier epoch')} not shown" if left_out > 0 else ""
        return [grid]

    def _curve(self, name: str) -> Curve:
        rows = self._rows if len(self._rows) <= 200 else self._rows[:: len(self._rows) // 100]
        return Curve.of([values.get(name, float("nan")) for *_, values in rows], [epoch for epoch, *_ in rows])


def _bar(pace: Pace, text: str) -> str:
    """A bar with what stands beside it, and when it was drawn: a kernel that dies leaves it as it was."""
    percent = 100 * min(1.0, pace.done / pace.total) if pace.total else 100
    outer = "display: inline-block; width: 180px; height: 8px; border-radius: 4px; background: rgba(128, 128, 128, .25)"
    inner = f"width: {percent:.1f}%; height: 100%; border-radius: 4px; background: #3b82f6"
    return (
        f'<div style="{outer}; margin-right: 10px; vertical-align: middle"><div style="{inner}"></div></div>'
        f'<span style="font-variant-numeric: tabular-nums">{html.escape(text)}</span>'
        f'<span style="opacity: .45; margin-left: 10px">{time.strftime("%H:%M:%S")}</span>'
    )


def _epochs(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """What was logged once an epoch, by epoch."""
    summary = metric_summary(folder)
    epochs = max((int(entry["epoch"]) for entry in summary.values()), default=0)
    names = [
        name
        for name, entry in summary.items()
        if entry["count"] <= epochs and f"{name}_epoch" not in summary and not name.startswith(("freeze/", "system/"))
    ]
    table = columns(folder, names)
    found: dict[int, dict[str, float]] = {}
    for row, epoch in enumerate(table["epoch"].tolist()):
        values = {name: float(table[name][row]) for name in names if name in table and not np.isnan(table[name][row])}
        found.setdefault(int(epoch), {}).update(values)
    return [(epoch, values) for epoch, values in sorted(found.items()) if values]
