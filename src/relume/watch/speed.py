"""How long a step takes, and how much of it is waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from relume.run.companions import Companion
from relume.run.run import Run
from relume.watch.steps import is_due, read_interval


class Speed(Companion):
    """Seconds a step, seconds of it that were waited for data, and samples a second, as means since the line before.

    Args:
        every: the interval, in steps. The first step is told by itself: it is often slow.

    Logged are ``speed/step_seconds``, ``speed/data_seconds`` (of each step) and ``speed/samples_per_second``. A step is from
    one update to the next, accumulated batches, checkpoints and the moving of batches to a device included; evaluation, and
    what else is done between epochs, is not. Waiting for data is the time until :meth:`relume.Run.batches` has the next
    batch: loading it, or waiting for the workers that do.

    A GPU computes while the loop goes on. Nothing waits for it here, so a single step may look shorter than it is, and
    waiting for data while the GPU is busy costs nothing though it is counted; the mean over many steps is right, as the loop
    cannot run ahead for long.

    Measures loops over ``run.batches(loader)``; of several that are read side by side, the first.

    Raises:
        ConfigurationError: ``every`` is not understood.
    """

    def __init__(self, every: str = "100 steps") -> None:
        self.every = read_interval(every)

    def open(self, run: Run) -> None:
        self._is_used = False
        self._step = run.cursor.step
        self._clear(run)

    def _clear(self, run: Run) -> None:
        self._first_step, self._first_sample = run.cursor.step, run.cursor.samples
        self._waited = self._computed = 0.0

    def batches(self, run: Run, batches: Iterator[Any]) -> Iterator[Any]:
        # Hot path: half a microsecond a batch, and nothing where there is no such watcher.
        self._is_used = True
        clock = time.perf_counter
        begin = clock()
        for batch in batches:
            ready = clock()
            self._waited += ready - begin
            yield batch
            begin = clock()
            self._computed += begin - ready
            if run.cursor.step != self._step:
                self._step_done(run, run.cursor.step)

    def _step_done(self, run: Run, step: int) -> None:
        before, self._step = self._step, step
        # where several updates are made for one batch, a multiple may have been passed
        if not (is_due(step, self.every) or step // self.every != before // self.every):
            return
        steps, samples = step - self._first_step, run.cursor.samples - self._first_sample
        seconds = self._waited + self._computed
        if steps > 0 and seconds > 0:
            values = {
                "speed/step_seconds": seconds / steps,
                "speed/data_seconds": self._waited / steps,
                "speed/samples_per_second": samples / seconds,
            }
            run.journal.write({**run.moment(step), "values": values})
        self._clear(run)

    def close(self, run: Run) -> None:
        if not self._is_used and run.cursor.step > 0:
            run.note("speed: this loop does not use run.batches(loader): nothing was measured")
