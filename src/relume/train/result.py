"""What a training gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from relume.monitor import columns, find_run
from relume.monitor.pace import duration
from relume.monitor.stored import result_page
from relume.page import Page, html_of, text_of
from relume.text import counted
from relume.trackers.board import open_tensorboard


def history(
    run: str | Path, root: str | Path = "runs", metrics: list[str] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """The metrics of a run as columns of equal length, while it goes on or afterwards.

    Args:
        run: a run's name below ``root``, or its path.
        metrics: only these; all by default.

    Returns:
        ``{"step": int64, "epoch": int64, "time": float64 (Unix seconds), "train/loss": float64, …}``, one row for each step
        at which something was logged; NaN where a metric was not. ``pandas.DataFrame`` takes it as it is.

    Raises:
        UnknownNameError: there is no such run; lists the closest names.
    """
    return columns(find_run(run, root), metrics)


@dataclass
class Result:
    """How a training went.

    Attributes:
        status: ``"finished"``, ``"interrupted"`` or ``"failed"``.
        reason: why it ended, in words.
        epochs, steps: epochs done and optimizer updates made.
        last, best: newest and best value of each metric; ``best_epoch`` says when (counted from 1).
        seconds: how long it took.
        folder: where the run is stored.
    """

    status: str
    reason: str
    epochs: int
    steps: int
    seconds: float
    folder: Path
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    best_epoch: dict[str, int] = field(default_factory=dict)

    @property
    def history(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that was logged, as columns: see :func:`relume.history`."""
        return columns(self.folder)

    def page(self) -> Page:
        """What a notebook and ``print`` show."""
        epochs, steps = counted(self.epochs, "epoch"), counted(self.steps, "step")
        headline = f"{self.status} ({self.reason}) · {epochs}, {steps} · {duration(self.seconds)}"
        return result_page(headline, self.status, self.folder, self.last, self.best, self.best_epoch)

    def __str__(self) -> str:
        return text_of(self.page())

    def _repr_html_(self) -> str:
        return html_of(self.page())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def tensorboard(self, height: int = 800, port: int | None = None) -> None:
        """Open TensorBoard on this run, in the cell: see :meth:`relume.Run.tensorboard`."""
        open_tensorboard([self.folder], height=height, port=port)
