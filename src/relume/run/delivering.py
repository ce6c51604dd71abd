"""The trackers of a run, as its companion."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from relume.errors import ConfigurationError, warn
from relume.run.companions import Companion
from relume.trackers.delivery import Delivery
from relume.trackers.rebuilding import trackers_of
from relume.trackers.tracker import Tracker

if TYPE_CHECKING:
    from relume.run.run import Run

Wanted = str | Tracker | Iterable[str | Tracker] | None
VARIABLE = "RELUME_TRACKERS"
WAIT_VARIABLE = "RELUME_TRACKERS_WAIT"
RANKS_VARIABLE = "RELUME_TRACKERS_RANKS"
_WAIT_SECONDS = 10.0


class Delivering(Companion):
    """Feeds the run's trackers; nothing of theirs can reach the training."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._delivery = Delivery(trackers, _wait_seconds())

    def open(self, run: Run) -> None:
        self._delivery.start(run.folder)

    def look(self, run: Run) -> None:
        self._delivery.look(run.note, lambda text: _warn(run, text))

    def ended(self, run: Run) -> None:
        self._delivery.wait(run.console.note)
        self._delivery.look(run.console.note, _warn_only)


def delivering(wanted: Wanted) -> list[Companion]:
    """The companion for the trackers that are asked for and those of ``RELUME_TRACKERS``.

    In a rehearsal there are none. Of several processes that torchrun has started rank 0 alone has them, or all with
    ``RELUME_TRACKERS_RANKS=all`` (each with a run of its own name).

    Raises:
        ConfigurationError: something that is no tracker; the variable is neither ``0`` nor ``all``.
        MissingPackageError: a tracker's package is not installed.
    """
    trackers = trackers_of(wanted, os.environ.get(VARIABLE))
    ranks = os.environ.get(RANKS_VARIABLE) or "0"
    if ranks not in ("0", "all"):
        raise ConfigurationError(f'{RANKS_VARIABLE} is {ranks!r}: it is "0" (rank 0 alone has trackers) or "all".')
    is_silent = ranks == "0" and os.environ.get("RANK", "0") not in ("", "0")
    return [Delivering(trackers)] if trackers and not is_silent and not os.environ.get("RELUME_REHEARSAL") else []


def _wait_seconds() -> float:
    text = os.environ.get(WAIT_VARIABLE) or str(_WAIT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise ConfigurationError(f"{WAIT_VARIABLE} is {text!r}: it must be a number of seconds, 0 to 86400.")
    return seconds


def _warn(run: Run, text: str) -> None:
    run.journal.write({"event": "note", "text": text, **_place(run)})
    _warn_only(text)


def _place(run: Run) -> dict[str, Any]:
    return {"step": run.cursor.step, "epoch": run.cursor.epoch}


def _warn_only(text: str) -> None:
    warn(text)
