"""What a run has to do between two steps: checkpoints that are due, and what signals, threads and the user have asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from relume.run.every import Every

_ENDING = ("SIGINT", "SIGTERM", "max_time")
_BY_NAME = ("SIGUSR1", "by hand", "retry")
_MOST_DEFERRED = 64  # batches that a checkpoint waits for the next update


class Due:
    """Requests, and the rules of ``every=`` and ``max_time=``.

    Args:
        every: when checkpoints are made.
        max_seconds: when the run ends by itself.

    Attributes:
        is_wanted: whether anything has asked for attention.
        next_step: the first step at which a checkpoint is due.
        requests: what was asked for since :meth:`take`.
    """

    def __init__(self, every: Every, max_seconds: float | None) -> None:
        self._every = every
        self._max_seconds = max_seconds
        self.is_wanted = False
        self.next_step: float = math.inf
        self.requests: list[str] = []
        self._deferred = 0

    def begin(self, step: int) -> None:
        self.next_step = self._every.next_step(step)
        self.saved()

    def ask(self, what: str) -> None:
        """Ask for attention at the next boundary: from signals and other threads."""
        self.requests.append(what)
        self.is_wanted = True

    def look_at_the_clock(self, started: float) -> None:
        """Ask for what its time has come; ``started`` is the run's, by the performance counter."""
        if self._every.seconds is not None and time.monotonic() - self._last_save >= self._every.seconds:
            self.ask("time")
        if self._max_seconds is not None and time.perf_counter() - started >= self._max_seconds:
            self.ask("max_time")

    def may_pause(self, is_last: bool, has_just_updated: bool) -> bool:
        """Whether a resume from here would be exact in all loops.

        Behind an update, no gradients are half gathered, and a loop that counts its batches to gather them begins a new
        group. Behind the last batch, the code that follows the loop belongs to the epoch: the checkpoint waits for it.
        """
        if is_last and ending_of(self.requests) is None:
            return False
        if has_just_updated or self._deferred >= _MOST_DEFERRED:
            self._deferred = 0
            return True
        self._deferred += 1
        return False

    def take(self) -> list[str]:
        """What was asked for; from here on it is asked for anew."""
        self.is_wanted = False
        requests, self.requests = self.requests, []
        return requests

    def reason(self, requests: Sequence[str], step: int) -> str | None:
        """Why a checkpoint is made now; None where none is due."""
        reason = ending_of(requests) or next((r for r in requests if r in _BY_NAME), None)
        if step >= self.next_step:
            self.next_step = self._every.next_step(step)
            reason = reason or f"{self._every.steps} steps"
        is_old = time.monotonic() - self._last_save >= (self._every.seconds or 0)
        if reason is None and "time" in requests and is_old:
            reason = f"{self._every.seconds:g} s"
        return reason

    def saved(self) -> None:
        self._last_save = time.monotonic()


def ending_of(requests: Sequence[str]) -> str | None:
    """The first of the requests that ends the run, if there is one."""
    return next((request for request in list(requests) if request in _ENDING), None)
