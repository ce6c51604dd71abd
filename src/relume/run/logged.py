"""What is logged besides numbers, as a companion of the run: its writer, and the hyperparameters at its start and end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from relume.monitor.kinds import HParams, Media
from relume.monitor.kinds.hparams import NAME
from relume.monitor.media import MediaWriter
from relume.run.companions import Companion

if TYPE_CHECKING:
    from relume.run.run import Run


class LoggedMedia(Companion):
    """Keeps what was logged. It comes behind the companions that log, so that what they log last is kept too."""

    def __init__(self) -> None:
        self._writer: MediaWriter | None = None

    def put(self, run: Run, step: int, epoch: int, media: Mapping[str, Media]) -> None:
        """Keep ``media``, by name; returns before it is encoded."""
        self._writer_of(run).put(step, epoch, media)

    def _writer_of(self, run: Run) -> MediaWriter:
        if self._writer is None:
            self._writer = MediaWriter(run.folder, run.journal, run.note)
        return self._writer

    def open(self, run: Run) -> None:
        self._put_hyperparameters(run, {})

    def settle(self, run: Run) -> None:
        if self._writer is not None:
            self._writer.note_numbers(run.last)
            self._writer.settle()

    def close(self, run: Run) -> None:
        self._put_hyperparameters(run, run.best)
        self.settle(run)
        if self._writer is not None:
            self._writer.close()

    def _put_hyperparameters(self, run: Run, metrics: Mapping[str, float]) -> None:
        if run.config:
            self.put(run, run.cursor.step, run.cursor.epoch, {NAME: HParams(run.config, metrics)})
