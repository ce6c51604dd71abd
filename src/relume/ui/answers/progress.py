"""How far a run has come, and how long it will take: what its journal lets one say, and nothing beyond."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relume.monitor.journal import number

Line = Mapping[str, Any]
_NAMES = ("epochs", "num_epochs", "max_epochs", "n_epochs")
"""Of settings that say how many epochs there will be, in runs that have not said so themselves."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        epochs: how many are planned; None where that is not known.
        begun: step and time at which the process that trains, or trained last, came to its first epoch.
        known: a step and the epochs that were done there.
        updates: of an epoch.
    """

    epochs: int | None = None
    begun: tuple[float, float] | None = None
    known: tuple[float, float] = (0.0, 0.0)
    updates: float | None = None

    def left_seconds(self, step: int, time: float, now: float) -> float | None:
        """Until the end of the last epoch, at the pace since the process began; None where that is not known.

        Args:
            step, time: of the newest line of the journal.
        """
        if self.epochs is None or self.begun is None or not self.updates:
            return None
        first_step, first_time = self.begun
        if step <= first_step or time <= first_time:
            return None
        seconds = (self._all_steps(self.epochs, self.updates) - step) * (time - first_time) / (step - first_step) - max(
            0.0, now - time
        )
        return max(0.0, seconds) if math.isfinite(seconds) else None

    def share(self, step: int) -> float | None:
        """How much of the way lies behind ``step``, from 0 to 1; None where that is not known.

        An epoch that goes on counts for the updates that it has made, and not before their number is known.
        """
        if self.epochs is None or self.begun is None:
            return None
        if not self.updates:
            return min(1.0, self.known[1] / self.epochs)
        return min(1.0, step / self._all_steps(self.epochs, self.updates))

    def _all_steps(self, epochs: int, updates: float) -> float:
        return self.known[0] + (epochs - self.known[1]) * updates


def progress_of(connection: sqlite3.Connection, config: Mapping[str, Any]) -> Progress:
    """What the events in a run's index, and else its settings, say of its way."""
    planned, done, pace = (_newest(connection, kind) for kind in ("epochs", "epoch_end", "pace"))
    place = _place(planned)
    if planned is None or place is None:
        return Progress(_from(config))
    epochs = _natural(planned.get("count")) or _from(config)
    begun = (place[0], place[2])
    ended = _place(done)
    if ended is not None and ended[0] > 0 and ended[1] > 0:
        return Progress(epochs, begun, ended[:2], ended[0] / ended[1])
    updates = number(pace.get("updates")) if pace is not None else None
    return Progress(epochs, begun, place[:2] if place[1] else (0.0, 0.0), updates if updates and updates > 0 else None)


def _newest(connection: sqlite3.Connection, kind: str) -> Line | None:
    query = "SELECT content FROM event WHERE kind=? ORDER BY segment DESC, line DESC LIMIT 1"
    row = connection.execute(query, (kind,)).fetchone()
    return None if row is None else json.loads(row[0])


def _place(line: Line | None) -> tuple[float, float, float] | None:
    """Step, epochs done and time of a line; None where it does not say them."""
    found = [number(line.get(name)) if line is not None else None for name in ("step", "epoch", "time")]
    step, epoch, time = found
    return None if step is None or epoch is None or time is None else (step, epoch, time)


def _from(config: Mapping[str, Any]) -> int | None:
    found = (_natural(config.get(name)) for name in _NAMES)
    return next((count for count in found if count), None)


def _natural(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53 else None
