"""The thread behind a training's back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from relume.monitor import Journal, beat, fold

_FOLD_SECONDS = 10.0


class Keeper(threading.Thread):
    """Behind the training's back: heartbeat, lines that wait for room, and the index."""

    def __init__(self, folder: Path, journal: Journal, on_time: Callable[[], None], seconds: float) -> None:
        super().__init__(name="relume-keeper", daemon=True)
        self._folder = folder
        self._journal = journal
        self._on_time = on_time
        self._seconds = seconds
        self._ended = threading.Event()

    def run(self) -> None:
        next_fold = time.monotonic() + _FOLD_SECONDS
        beat(self._folder)
        while not self._ended.wait(self._seconds):
            self._on_time()
            beat(self._folder)
            self._attempt(self._journal.flush_waiting)
            if time.monotonic() >= next_fold:
                self._attempt(lambda: fold(self._folder))
                next_fold = time.monotonic() + _FOLD_SECONDS

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # monitoring must never end a training; the index can be made again
            pass

    def stop(self) -> None:
        self._ended.set()
        self.join()
