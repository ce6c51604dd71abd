"""Companions: what goes along with a run without being part of its training, such as trackers and watchers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from relume.errors import RelumeError, warn

if TYPE_CHECKING:
    from relume.run.run import Run


class Companion:
    """Override what is needed. Only :meth:`open` may end a run, with an error of relume's; any other failure is one warning."""

    def open(self, run: Run) -> None:
        """The journal is open and everything is restored; nothing has been trained."""

    def added(self, run: Run) -> None:
        """Models or optimizers were added to the run."""

    def batches(self, run: Run, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches of an epoch, to be passed on as they are."""
        return batches

    def why_not_finite(self, run: Run) -> str | None:
        """What it knows of where NaN or infinity came from first."""
        return None

    def epoch_done(self, run: Run) -> None:
        """Behind an epoch and its evaluation, before its checkpoint."""

    def settle(self, run: Run) -> None:
        """A checkpoint is about to name a place in the journal: what was logged before must stand there."""

    def look(self, run: Run) -> None:
        """Every two seconds or so, from a thread behind the training."""

    def close(self, run: Run) -> None:
        """The run is over; the journal takes lines still, and then its last."""

    def failed(self) -> None:
        """One of these methods has failed, and no other will be called."""

    def ended(self, run: Run) -> None:
        """The journal is closed, the run's folder not yet given free."""


class Companions:
    """The companions of one run, told of its moments in their order."""

    def __init__(self, companions: Iterable[Companion], run: Run) -> None:
        self._companions = list(companions)
        self._run = run

    def open(self) -> None:
        for companion in list(self._companions):
            try:
                companion.open(self._run)
            except RelumeError:
                raise
            except Exception as error:
                self._drop(companion, error)

    def added(self) -> None:
        self._tell(lambda companion: companion.added(self._run))

    def batches(self, batches: Iterator[Any]) -> Iterator[Any]:
        for companion in self._companions:
            batches = companion.batches(self._run, batches)
        return batches

    def why_not_finite(self) -> str | None:
        found: list[str] = []
        self._tell(lambda companion: found.append(companion.why_not_finite(self._run) or ""))
        return next((text for text in found if text), None)

    def epoch_done(self) -> None:
        self._tell(lambda companion: companion.epoch_done(self._run))

    def settle(self) -> None:
        self._tell(lambda companion: companion.settle(self._run))

    def look(self) -> None:
        self._tell(lambda companion: companion.look(self._run))

    def close(self) -> None:
        self._tell(lambda companion: companion.close(self._run))

    def ended(self) -> None:
        self._tell(lambda companion: companion.ended(self._run))

    def _tell(self, call: Callable[[Companion], None]) -> None:
        for companion in list(self._companions):
            try:
                call(companion)
            except Exception as error:
                self._drop(companion, error)

    def _drop(self, companion: Companion, error: Exception) -> None:
        if companion in self._companions:
            self._companions.remove(companion)
        try:
            companion.failed()
        except Exception:  # it is left out anyway
            pass
        warn_left_out(companion, error)


def warn_left_out(companion: Companion, error: Exception) -> None:
    lines = str(error).splitlines() or [""]
    warn(
        f"{type(companion).__name__} failed and is left out from here on ({type(error).__name__}: {lines[0]:.300}). "
        "The training goes on."
    )
