"""Media on their way to the journal: encoded on one thread behind the training, their files first, then their line."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relume.errors import warn
from relume.monitor.journal import Journal
from relume.monitor.kinds import Media
from relume.text import printable

_MOST_WAITING = 64

Notice = Callable[[str], None]


@dataclass(frozen=True)
class _Job:
    step: int
    epoch: int
    time: float
    media: Mapping[str, Media]


class MediaWriter:
    """Encodes what was logged and appends its lines, in order. A failure is one warning, and a note in the journal.

    At most 64 calls wait; then a call waits for room, so that nothing is lost and memory stays bounded. The thread starts
    with the first that is logged, and what is logged after :meth:`close` is written in the call.

    Args:
        folder: the run's.
        journal: to which the lines go.
        notice: told in words what was not kept, and of names whose kind changes.
    """

    def __init__(self, folder: Path, journal: Journal, notice: Notice) -> None:
        self._folder, self._journal, self._notice = folder, journal, notice
        self._waiting: queue.Queue[_Job | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._is_closed = False
        self._said: set[str] = set()
        self.kinds: dict[str, str] = {}
        """The newest kind of each name."""

    def put(self, step: int, epoch: int, media: Mapping[str, Media]) -> None:
        """Keep ``media``, by name; returns before it is encoded."""
        job = _Job(step, epoch, time.time(), media)
        for name, one in media.items():
            self._note_kind(name, one.kind)
        with self._start:
            if not self._is_closed and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="relume-media", daemon=True)
                self._thread.start()
            if not self._is_closed:
                self._waiting.put(job)
                return
        self._write(job)

    def settle(self) -> None:
        """Wait until all that was put stands in the journal."""
        self._waiting.join()

    def close(self) -> None:
        """Write what is left and end the thread. May be called twice."""
        with self._start:
            self._is_closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join()

    def note_numbers(self, names: Mapping[str, Any]) -> None:
        """Say which names are those of numbers and of something else too."""
        for name in self.kinds.keys() & names.keys():
            self._say(name, f"{printable(name)!r} is logged as numbers and as {_an(self.kinds[name])}")

    def _note_kind(self, name: str, kind: str) -> None:
        before = self.kinds.get(name)
        self.kinds[name] = kind
        if before is not None and before != kind:
            self._say(name, f"{printable(name)!r} was logged as {_an(before)} and is {_an(kind)} now")

    def _say(self, name: str, text: str) -> None:
        if name not in self._said:
            self._said.add(name)
            self._notice(f"{text}: each kind is kept, as a series of its own. Two names tell them apart better.")

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            try:
                self._write(job)
            finally:
                self._waiting.task_done()
                del job
        self._waiting.task_done()

    def _write(self, job: _Job) -> None:
        contents: dict[str, Any] = {}
        for name, one in job.media.items():
            try:
                contents.update({name + behind: content for behind, content in one.parts(self._folder).items()})
            except Exception as error:
                self._failed(job, name, one, error)
        if not contents:
            return
        try:
            self._journal.write({"step": job.step, "epoch": job.epoch, "time": round(job.time, 4), "media": contents})
        except Exception as error:
            for name, one in job.media.items():
                self._failed(job, name, one, error)

    def _failed(self, job: _Job, name: str, one: Media, error: Exception) -> None:
        lines = str(error).splitlines() or [""]
        text = (
            f"the {one.kind} {printable(name)!r} of step {job.step} was not kept ({type(error).__name__}: {lines[0]:.300}). "
            "The training goes on."
        )
        try:
            self._notice(text)
            warn(text)
        except Exception:  # a warning that is an error would end the thread
            pass


def _an(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind.replace('_', ' ')}"
