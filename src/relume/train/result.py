"""What a training gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from relume.monitor import columns
from relume.recorded.reading import history as history


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
