"""What lies ahead of a run, as lines of its journal: who looks from outside can tell how long it will take."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from relume.monitor import Journal

_BATCHES = 20


class Planned:
    """Notes how many epochs there will be, and, in the first that this process trains, how many updates an epoch has."""

    def __init__(self) -> None:
        self.batches: int | None = None
        """In an epoch, where that is known."""
        self._begun: tuple[int, int, int] | None = None
        self._lock = threading.Lock()

    def epochs(self, journal: Journal, count: int, place: Mapping[str, Any], batch: int) -> None:
        """A loop over ``count`` epochs goes on in the epoch of ``place``, behind ``batch`` batches."""
        journal.write({"event": "epochs", "count": count, "batch": batch, **place})
        self._begun = (place["epoch"], batch, place["step"])

    def look(self, journal: Journal, place: Mapping[str, Any], batch: int) -> None:
        """Called by the keeper's thread: once an epoch's length can be told, it is written down.

        The training goes on meanwhile, so that the count of batches may be one behind that of the updates.
        """
        with self._lock:
            if self._begun is None or not self.batches:
                return
            epoch, first_batch, first_step = self._begun
            if place["epoch"] == epoch and batch - first_batch < _BATCHES:
                return
            if place["epoch"] == epoch:  # else the end of the epoch said it better
                updates = self.batches * (place["step"] - first_step) / (batch - first_batch)
                journal.write({"event": "pace", "updates": round(updates, 1), **place, "epoch": epoch + 1})
            self._begun = None

    def end(self) -> None:
        """The loop is over: nothing is written from here on, the run's end least of all followed by something."""
        with self._lock:
            self._begun = None
