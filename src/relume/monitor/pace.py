"""Where a training stands, how fast it goes and how it ended; and how numbers and times are written for a person."""

from __future__ import annotations

import time
from collections.abc import Mapping


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

    def seconds(self) -> float:
        """Since this epoch was started, in this process."""
        return time.perf_counter() - self.started

    def samples_per_second(self) -> float:
        return self.samples / max(1e-9, self.seconds())

    def seconds_left(self) -> float | None:
        """Until the end of the last epoch, at the pace of this one; evaluations not counted."""
        if not self.total or self.done == self.before:
            return None
        per_batch = self.seconds() / (self.done - self.before)
        return per_batch * (self.total - self.done + (self.epochs - self.epoch) * self.total)

    def place(self) -> str:
        return f"epoch {self.epoch}/{self.epochs}"


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
