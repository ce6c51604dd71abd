"""The capture of one start: at once what is at hand, the rest by a thread behind the training."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from relume.errors import RunError
from relume.provenance import machine
from relume.provenance.code import capture_code, capture_notebook
from relume.provenance.datasets import describe
from relume.provenance.keeping import Keeper
from relume.provenance.record import FILE, Provenance, Segment, keep_aside
from relume.provenance.secrets import Redactor
from relume.text import printable

OFF = "RELUME_PROVENANCE"
"""The variable of the environment that, as ``off``, keeps code out of the runs."""

PARTS = ("code", "machine", "packages")


class Capture:
    """Writes the entry of one start to ``provenance.json``.

    Args:
        folder: the run's.
        run, id: its name and its identity.
        segment: what is known already.
        threads: of the computation.
        redactor: what takes secrets out.

    :meth:`start` costs the training's thread some milliseconds. The file is there from then on and says under ``missing``
    what is still to come.
    """

    def __init__(
        self, folder: Path, run: str, id: str, segment: Segment, threads: int | None, redactor: Redactor
    ) -> None:
        self.folder = folder
        self.segment = segment
        self._redactor = redactor
        self._threads = threads
        self._lock = threading.RLock()
        self._seen: set[int] = set()
        self._keeper = Keeper(folder, redactor)
        self.problem = ""
        self.record = self._earlier(run, id)
        self.record.segments = [entry for entry in self.record.segments if entry.segment != segment.segment]
        self.record.segments.append(segment)
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def _earlier(self, run: str, id: str) -> Provenance:
        if not (self.folder / FILE).exists():
            return Provenance(run=run, id=id)
        try:
            record = Provenance.load(self.folder)
        except RunError as error:
            self.problem = f"{error!s} It is kept as {keep_aside(self.folder)}."
            return Provenance(run=run, id=id)
        record.run, record.id = run, id
        return record

    def start(self) -> None:
        self.segment.environment = machine.variables(self._redactor)
        is_on = os.environ.get(OFF, "").strip().lower() not in ("off", "0", "false", "no")
        self.segment.missing = [part for part in PARTS if is_on or part != "code"]
        if not is_on:
            self.segment.missing.append(f"code: turned off by {OFF}")
        self._save()
        self._thread = threading.Thread(target=self._capture, args=(is_on,), name="relume-provenance", daemon=True)
        self._thread.start()

    def _capture(self, with_code: bool) -> None:
        begun = time.perf_counter()
        if with_code:
            self._part("code", self._code)
        self._part("machine", lambda: machine.machine(self._threads))
        self._part("packages", lambda: machine.packages(self._redactor))
        with self._lock:
            self.segment.capture_seconds = round(time.perf_counter() - begun, 4)
            self._save()

    def _code(self) -> Any:
        since = psutil.Process().create_time()
        return capture_code(self._keeper, self.segment.argv[1:], Path(self.segment.directory), since)

    def _part(self, name: str, capture: Callable[[], Any]) -> None:
        """One part; what goes wrong is noted in its place and never reaches the training."""
        try:
            value = capture()
        except Exception as error:
            why = self._redactor.text(printable(f"{type(error).__name__}: {error}", 300))
            with self._lock:
                self.segment.missing = [f"{name}: {why}" if part == name else part for part in self.segment.missing]
            return
        with self._lock:
            setattr(self.segment, name, value)
            self.segment.missing = [part for part in self.segment.missing if part != name]
            self._save()

    def wait(self, seconds: float) -> bool:
        """Wait for the thread; returns whether all that can be captured is."""
        if self._thread is not None and os.getpid() == self._process:
            self._thread.join(seconds)
            return not self._thread.is_alive()
        return True

    def look_at(self, loaders: Iterable[Any]) -> None:
        """Describe the datasets that were not there before. No sample is asked for."""
        with self._lock:
            new = [loader for loader in loaders if id(loader) not in self._seen]
            for loader in new:
                self._seen.add(id(loader))
                dataset = getattr(loader, "dataset", loader)
                self.segment.datasets.append(describe(dataset, getattr(loader, "batch_size", None)))
            if new:
                self._save()

    def look_at_cells(self) -> None:
        """The cells that were executed since the start."""
        with self._lock:
            if self.segment.code is not None and self.segment.code.notebook is not None:
                self.segment.code.notebook = capture_notebook(self._keeper)

    def end(self, status: str, reason: str, seconds: float) -> None:
        with self._lock:
            self.segment.status, self.segment.reason = status, self._redactor.text(reason)
            self.segment.seconds, self.segment.ended = round(seconds, 3), time.time()
            self._save()

    def _save(self) -> None:
        with self._lock:
            self.record.save(self.folder)
