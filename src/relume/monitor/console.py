"""What a person sees while a run goes on: a live line on a terminal, plain lines elsewhere, a table in a notebook."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from relume.monitor.pace import Pace, Summary, duration, number, shown

_PLAIN_EVERY = 100


class Reporter(Protocol):
    """Shows a run. ``batch`` is called for each batch and must stay under 2 microseconds on average."""

    def note(self, text: str) -> None: ...
    def epoch_start(self, epoch: int, epochs: int, batches: int | None, done: int = 0) -> None: ...
    def batch(self, samples: int) -> None: ...
    def values(self, values: Mapping[str, float]) -> None: ...
    def epoch_end(self, values: Mapping[str, float]) -> None: ...
    def finish(self, summary: Summary) -> None: ...


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
        self.note(f"{self.pace.place()}  done in {duration(self.pace.seconds())}{shown(values)}")

    def finish(self, summary: Summary) -> None:
        self.note(summary.headline())
        for name, last, best, epoch in summary.metrics:
            self.note(f"  {name:24} last {number(last):>10}   best {number(best):>10} (epoch {epoch})")
        self.note(f"  stored in {summary.folder}")


def reporter(*, quiet: bool = False, folder: Path | None = None) -> Reporter:
    """The reporter that fits where this process runs; ``folder`` is where it finds what a run that goes on did before."""
    if quiet or sys.stdout is None:
        return Quiet()
    if _is_notebook():
        from relume.monitor.notebook import Notebook

        return Notebook(folder)
    if getattr(sys.stdout, "isatty", bool)() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb":
        from relume.monitor.terminal import Terminal

        return Terminal()
    return Plain()


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell: Any = getattr(ipython, "get_ipython", lambda: None)()
    return shell is not None and (hasattr(shell, "kernel") or "google.colab" in sys.modules)
