"""A live line on a terminal. A module of its own, because rich takes long to import."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from relume.monitor.pace import Pace, Summary, duration, number


class Terminal:
    """A live line at the bottom of a terminal, drawn at most four times a second; a line for each epoch above it.

    What the user prints appears above the live line.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.pace = Pace()
        self._live: Live | None = None
        self._next_draw = 0.0
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            _PaceColumn(self.pace),
            console=self.console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=None)

    def note(self, text: str) -> None:
        self.console.print(Text(text, style="dim"))

    def epoch_start(self, epoch: int, epochs: int, batches: int | None, done: int = 0) -> None:
        self.pace.start(epoch, epochs, batches, done)
        self._progress.reset(self._task, total=batches, description=self.pace.place())
        if self._live is None:
            self._live = Live(self._progress, console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        self._draw()

    def batch(self, samples: int) -> None:
        pace = self.pace
        pace.count(samples)
        if time.perf_counter() >= self._next_draw:
            self._draw()

    def _draw(self) -> None:
        self._next_draw = time.perf_counter() + 0.25
        self._progress.update(self._task, completed=self.pace.done)
        if self._live is not None:
            self._live.refresh()

    def values(self, values: Mapping[str, float]) -> None:
        self.pace.shown = dict(values)

    def epoch_end(self, values: Mapping[str, float]) -> None:
        line = Text.assemble((self.pace.place(), "bold"), ("  " + duration(self.pace.seconds()).rjust(7), "dim"))
        for name, value in values.items():
            line.append(f"   {name} ", style="dim")
            line.append(number(value), style="cyan")
        self.console.print(line)
        self._draw()

    def finish(self, summary: Summary) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("")
        for heading in ("last", "best", "at epoch"):
            table.add_column(heading, justify="right")
        for name, last, best, epoch in summary.metrics:
            table.add_row(Text(name), number(last), Text(number(best), style="bold green"), str(epoch))
        style = {"finished": "bold green", "interrupted": "bold yellow"}.get(summary.status, "bold red")
        headline = Text(summary.status, style=style) + Text(summary.headline()[len(summary.status) :])
        self.console.print(headline)
        if summary.metrics:
            self.console.print(table)
        self.console.print(Text.assemble(("stored in ", "dim"), summary.folder))


class _PaceColumn(ProgressColumn):
    """Batch, newest values, speed and time left, as far as the terminal is wide enough."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self.pace = pace

    def render(self, task: Task) -> Text:
        pace, left = self.pace, self.pace.seconds_left()
        text = Text(f"{pace.done}/{pace.total}" if pace.total else f"{pace.done}", no_wrap=True, overflow="ellipsis")
        for name, value in list(pace.shown.items())[:1]:
            text.append(f"  {name} ", style="dim").append(number(value), style="cyan")
        text.append(f"  {pace.samples_per_second():,.0f} samples/s", style="dim")
        if left is not None:
            text.append(f"  {duration(left)} left", style="dim")
        return text
