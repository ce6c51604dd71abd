"""The provenance of a run, captured along with it: what ran, with which settings, on which data and machine."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from relume.determinism import numerics
from relume.monitor import jsonable
from relume.provenance.capture import Capture
from relume.provenance.record import Segment
from relume.provenance.secrets import process_redactor
from relume.run.companions import Companion

if TYPE_CHECKING:
    from relume.run.run import Run

_PATIENCE_SECONDS = 30.0
"""How long the first checkpoint, and the end, wait for a capture that takes long, as in a huge repository."""


class CapturedProvenance(Companion):
    """Writes ``provenance.json`` and ``code/``."""

    def __init__(self) -> None:
        self._capture: Capture | None = None
        self._is_complete = False

    def open(self, run: Run) -> None:
        redactor = process_redactor()
        segment = Segment(
            segment=run._segment,
            started=time.time(),
            resumed_from=run._origin.name if run._origin is not None else "",
            argv=redactor.arguments(jsonable(sys.argv)),
            command=redactor.arguments(jsonable(list(getattr(sys, "orig_argv", [])))),
            directory=redactor.text(str(Path.cwd())),
            seed=run.seed,
            config=redactor.config(run.config),
            numerics=numerics(),
        )
        self._capture = Capture(run.folder, run.name, run._id, segment, torch.get_num_threads(), redactor)
        self._capture.start()
        if self._capture.problem:
            run.note(self._capture.problem)

    def settle(self, run: Run) -> None:
        if self._capture is not None and not self._is_complete:
            if not self._capture.wait(_PATIENCE_SECONDS):
                run.note("the code of this run is still being captured: the repository is large, or its disk slow")
            self._is_complete = True
        self.look(run)

    def look(self, run: Run) -> None:
        if self._capture is not None:
            self._capture.look_at(run._loaders.met)

    def close(self, run: Run) -> None:
        self.settle(run)
        if self._capture is not None:
            self._capture.look_at_cells()

    def ended(self, run: Run) -> None:
        if self._capture is not None:
            self._capture.end(run.status, run.reason, time.perf_counter() - run.started)
