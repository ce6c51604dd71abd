"""The machine's load beside a run, measured behind the training's back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from relume.errors import ConfigurationError
from relume.monitor.index import SYSTEM
from relume.monitor.machine import Machine
from relume.run.companions import Companion
from relume.run.every import read_duration

if TYPE_CHECKING:
    from relume.run.run import Run


class System(Companion):
    """Processors, memory and disk, and each GPU's use, memory, temperature and power, by the clock.

    Args:
        every: how often, as ``"10 s"`` or in seconds; more often than each two seconds is not possible.

    Each run has one, unless it is given another or ``watch=False``. It measures in a thread behind the training, and its
    numbers are ``system/cpu_percent``, ``system/gpu0/temperature_celsius`` and so on. Each step has them at most once: where
    a step takes longer, the next line tells of all the time since the one before. They are in the journal and go to each
    tracker; the console, ``run.last``, checkpoints and the rows of :func:`relume.history` are without them, unless it is
    asked for them by name.

    GPUs need the package ``nvidia-ml-py``. ``process_cpu_percent`` and ``process_memory_bytes`` are of this process and those
    that it has started; 100 percent is one processor. Pages that processes share are counted in each of them.

    Raises:
        ConfigurationError: ``every`` is not understood.
    """

    def __init__(self, every: float | str = "10 s") -> None:
        self.every_seconds = read_duration(every, "every") or 10.0
        self._machine: Machine | None = None
        self._lock = threading.Lock()

    def open(self, run: Run) -> None:
        self._machine = None
        self._last_step = run.cursor.step if run.cursor.step else -1  # what goes on has this step behind it
        self._next = time.monotonic() + self.every_seconds

    def look(self, run: Run) -> None:
        with self._lock:
            if self._machine is None:
                self._machine = Machine(run.folder)  # here, for it takes milliseconds
            step = run.cursor.step
            if time.monotonic() < self._next or step == self._last_step or run.is_replaying:
                return
            self._next = time.monotonic() + self.every_seconds
            readings = self._machine.read()
            self._last_step = step
            line: dict[str, Any] = {"values": {f"{SYSTEM}{name}": value for name, value in readings.items()}}
            run.journal.write({**run.moment(step), **line})

    def close(self, run: Run) -> None:
        with self._lock:  # the journal ends behind this
            self._next = float("inf")

    def ended(self, run: Run) -> None:
        if self._machine is not None:
            self._machine.close()
            self._machine = None


def watchers(watch: Iterable[Companion] | Companion | bool | None) -> list[Companion]:
    """What is given as ``watch=``, and the machine's load with it.

    Raises:
        ConfigurationError: something that is no watcher.
    """
    if watch is False:
        return []
    if watch is None or watch is True:
        return [System()]
    try:
        found = [watch] if isinstance(watch, Companion) else list(watch)
    except TypeError:
        found = [watch]  # type: ignore[list-item]
    for number, one in enumerate(found):
        if isinstance(one, type) or not isinstance(one, Companion):
            what = f"the class {one.__name__}: call it" if isinstance(one, type) else f"{one!r:.80}"
            raise ConfigurationError(
                f"watch= holds {what}. Give watchers, such as watch=[relume.Watch(), relume.Speed()], or False for none."
            )
        if any(one is other for other in found[:number]):
            raise ConfigurationError(f"watch= holds the same {type(one).__name__} twice.")
    return found if any(isinstance(one, System) for one in found) else [System(), *found]
