"""What a training gives back."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from relume.monitor import columns
from relume.monitor.pace import duration
from relume.monitor.stored import StoredRun, result_page
from relume.page import Page, Shown
from relume.text import counted
from relume.trackers.board import open_tensorboard


@dataclass
class Result(Shown):
    """How a training went.

    Attributes:
        status: ``"finished"``, ``"interrupted"`` or ``"failed"``.
        reason: why it ended, in words.
        epochs, steps: epochs done and optimizer updates made.
        last, best: newest and best value of each metric; ``best_epoch`` says when (counted from 1).
        seconds: how long it took.
        folder: where the run is stored.
        models: what was trained, by name; a pickle of the result is without them.
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

    def __post_init__(self) -> None:
        self.models: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "models": {}}

    @property
    def history(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that was logged, as columns: see :func:`relume.history`."""
        return columns(self.folder)

    def page(self) -> Page:
        """What a notebook and ``print`` show."""
        epochs, steps = counted(self.epochs, "epoch"), counted(self.steps, "step")
        headline = f"{self.status} ({self.reason}) · {epochs}, {steps} · {duration(self.seconds)}"
        return result_page(headline, self.status, self.folder, self.last, self.best, self.best_epoch)

    def tensorboard(self, height: int = 800, port: int | None = None) -> None:
        """Open TensorBoard on this run, in the cell: see :meth:`relume.Run.tensorboard`."""
        open_tensorboard([self.folder], height=height, port=port)

    def report(self, path: str | os.PathLike[str] | None = None, height: int = 800, **options: Any) -> Path | None:
        """All of the run in one HTML file that opens anywhere: see :meth:`relume.StoredRun.report`."""
        return StoredRun(self.folder).report(path, height, **options)
