"""What a person sees while a run goes on: a live line on a terminal, plain lines elsewhere, a table in a notebook."""

from __future__ import annotations

import html
import importlib
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

_PLAIN_EVERY = 100


class Reporter(Protocol):
    """Shows a run. ``batch`` is called for each batch and must stay under 2 microseconds on average."""

    def note(self, text: str) -> None: ...
    def epoch_start(self, epoch: int, epochs: int, batches: int | None, done: int = 0) -> None: ...
    def batch(self, samples: int) -> None: ...
    def values(self, values: Mapping[str, float]) -> None: ...
    def epoch_end(self, values: Mapping[str, float]) -> None: ...
    def finish(self, summary: Summary) -> None: ...


class Summary:
    """What is shown when a run has ended."""

    def __init__(
        self, status: str, reason: str, seconds: float, folder: str, metrics: list[tuple[str, float, float, int]]
    ) -> None:
        self.status = status
        self.reason = reason
        self.seconds = seconds
        self.folder = folder
        self.metrics = metrics  # name, last, best, epoch of the best

    def headline(self) -> str:
        return f"{self.status} after {duration(self.seconds)} ({self.reason})"


class Pace:
    """Where an epoch stands and how fast it goes."""

    def __init__(self) -> None:
        self.epoch = self.epochs = self.done = self.samples = self.before = 0
        self.total: int | None = None
        self.shown: dict[str, float] = {}
        self.started = time.perf_counter()

    def start(self, epoch: int, epochs: int, total: int | None, done: int = 0) -> None:
        self.epoch, self.epochs, self.total = epoch, epochs, total
        self.done = self.before = done
        self.samples = 0
        self.started = time.perf_counter()

    def count(self, samples: int) -> None:
        self.done += 1
        self.samples += samples

    def samples_per_second(self) -> float:
        return self.samples / max(1e-9, time.perf_counter() - self.started)

    def seconds_left(self) -> float | None:
        """Until the end of the last epoch, at the pace of this one; evaluations not counted."""
        if not self.total or self.done == self.before:
            return None
        per_batch = (time.perf_counter() - self.started) / (self.done - self.before)
        return per_batch * (self.total - self.done + (self.epochs - self.epoch) * self.total)

    def place(self) -> str:
        return f"epoch {self.epoch}/{self.epochs}"


class Quiet:
    """Shows nothing."""

    def note(self, text: str) -> None: ...
    def epoch_start(self, epoch: int, epochs: int, batches: int | None, done: int = 0) -> None: ...
    def batch(self, samples: int) -> None: ...
    def values(self, values: Mapping[str, float]) -> None: ...
    def epoch_end(self, values: Mapping[str, float]) -> None: ...
    def finish(self, summary: Summary) -> None: ...


class Plain:
    """Lines of text: each 100 batches and each epoch. For files, pipes and CI."""

    def __init__(self) -> None:
        self.pace = Pace()

    def note(self, text: str) -> None:
        """Print; a console that cannot show a letter, or is gone, stops no training."""
        try:
            print(text, flush=True)  # noqa: T201
        except UnicodeEncodeError:
            print(text.encode("ascii", "backslashreplace").decode(), flush=True)  # noqa: T201
        except (OSError, ValueError):
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - nobody reads any more

    def epoch_start(self, epoch: int, epochs: int, batches: int | None, done: int = 0) -> None:
        self.pace.start(epoch, epochs, batches, done)

    def batch(self, samples: int) -> None:
        pace = self.pace
        pace.count(samples)
        if pace.done % _PLAIN_EVERY == 0:
            total = f"/{pace.total}" if pace.total else ""
            left = pace.seconds_left()
            self.note(
                f"{pace.place()}  batch {pace.done}{total}{shown(pace.shown)}  {pace.samples_per_second():,.0f} samples/s"
                + (f"  {duration(left)} left" if left is not None else "")
            )

    def values(self, values: Mapping[str, float]) -> None:
        self.pace.shown = dict(values)

    def epoch_end(self, values: Mapping[str, float]) -> None:
        seconds = time.perf_counter() - self.pace.started
        self.note(f"{self.pace.place()}  done in {duration(seconds)}{shown(values)}")

    def finish(self, summary: Summary) -> None:
        self.note(summary.headline())
        for name, last, best, epoch in summary.metrics:
            self.note(f"  {name:24} last {number(last):>10}   best {number(best):>10} (epoch {epoch})")
        self.note(f"  stored in {summary.folder}")


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
        seconds = time.perf_counter() - self.pace.started
        line = Text.assemble((self.pace.place(), "bold"), ("  " + duration(seconds).rjust(7), "dim"))
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
        self._rows.append((self.pace.epoch, time.perf_counter() - self.pace.started, dict(values)))
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


def reporter(*, quiet: bool = False) -> Reporter:
    """The reporter that fits where this process runs."""
    if quiet or sys.stdout is None:
        return Quiet()
    if _is_notebook():
        return Notebook()
    if getattr(sys.stdout, "isatty", bool)() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb":
        return Terminal()
    return Plain()


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell: Any = getattr(ipython, "get_ipython", lambda: None)()
    return shell is not None and (hasattr(shell, "kernel") or "google.colab" in sys.modules)


def duration(seconds: float) -> str:
    """Seconds as a person reads them.

    Example:
        >>> duration(3.21), duration(75), duration(3700)
        ('3.2 s', '1:15', '1:01:40')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: float) -> str:
    """A metric with four significant digits.

    Example:
        >>> number(0.87654), number(2.0), number(0.0000123), number(60000)
        ('0.8765', '2', '1.23e-05', '60000')
    """
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < 1e9):
        return str(int(value))
    return f"{value:.4g}"


def shown(values: Mapping[str, float]) -> str:
    return "".join(f"  {name} {number(value)}" for name, value in values.items())
