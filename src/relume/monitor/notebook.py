"""A table in a Jupyter or Colab cell."""

from __future__ import annotations

import html
import importlib
import time
from collections.abc import Mapping
from typing import Any

from relume.monitor.pace import Pace, Summary, duration, number, shown


class Notebook:
    """A table in a Jupyter or Colab cell, one row an epoch, with the epoch that is running at its foot."""

    def __init__(self) -> None:
        display_module: Any = importlib.import_module("IPython.display")
        self.pace = Pace()
        self._html = display_module.HTML
        self._rows: list[tuple[int, float, dict[str, float]]] = []
        self._notes: list[str] = []
        self._foot = ""
        self._next_draw = 0.0
        self._handle: Any = display_module.display(self._html(""), display_id=True)

    def note(self, text: str) -> None:
        self._notes.append(text)
        self._draw()

    def epoch_start(self, epoch: int, epochs: int, batches: int | None, done: int = 0) -> None:
        self.pace.start(epoch, epochs, batches, done)

    def batch(self, samples: int) -> None:
        pace = self.pace
        pace.count(samples)
        if time.perf_counter() >= self._next_draw:
            left = pace.seconds_left()
            self._foot = (
                f"<progress value='{pace.done}' max='{pace.total or pace.done}'></progress> {pace.place()}"
                f"{html.escape(shown(pace.shown))} {pace.samples_per_second():,.0f} samples/s"
                + (f", {duration(left)} left" if left is not None else "")
            )
            self._draw()

    def values(self, values: Mapping[str, float]) -> None:
        self.pace.shown = dict(values)

    def epoch_end(self, values: Mapping[str, float]) -> None:
        self._rows.append((self.pace.epoch, self.pace.seconds(), dict(values)))
        self._foot = ""
        self._draw()

    def finish(self, summary: Summary) -> None:
        best = ", ".join(f"{name} {number(value)} (epoch {epoch})" for name, _, value, epoch in summary.metrics)
        head, folder = html.escape(summary.headline()), html.escape(summary.folder)
        self._foot = f"<b>{head}</b> Best: {html.escape(best)}<br>Stored in {folder}"
        self._draw()

    def _draw(self) -> None:
        self._next_draw = time.perf_counter() + 0.5
        names = list(dict.fromkeys(name for *_, values in self._rows for name in values))
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ["epoch", *names, "time"])
        body = "".join(
            f"<tr><td>{epoch}</td>"
            + "".join(f"<td>{number(values[n]) if n in values else ''}</td>" for n in names)
            + f"<td>{duration(seconds)}</td></tr>"
            for epoch, seconds, values in self._rows
        )
        notes = "".join(f"<div style='opacity:.6'>{html.escape(note)}</div>" for note in self._notes)
        table = f"<table><tr>{head}</tr>{body}</table>" if self._rows else ""
        self._handle.update(self._html(f"{notes}{table}<div>{self._foot}</div>"))
