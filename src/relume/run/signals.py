"""Signals: SIGTERM, SIGUSR1 and Ctrl-C wait for the step that is going on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_HINT = b"\nCtrl-C: saving a checkpoint after this step; once more ends at once.\n"


TRY_AGAIN = 75  # the exit status of a program that ran out of its time: start it again


class Signals:
    """Catches the signals that ask a training to save, or to save and end.

    Signals can be caught in the main thread only. A handler that the user has installed is left alone.

    Args:
        request: called with ``"SIGINT"``, ``"SIGTERM"`` or ``"SIGUSR1"``; it must only take a note.
        can_wait: whether there is a step to wait for; otherwise Ctrl-C ends at once.
    """

    def __init__(self, request: Callable[[str], None], can_wait: Callable[[], bool]) -> None:
        self._request = request
        self._can_wait = can_wait
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()
        self._was_interrupted = False
        self.came_outside = False  # of all loops: what the training is then is whole

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for name, ours in (("SIGINT", self._interrupt), ("SIGTERM", self._end), ("SIGUSR1", self._end)):
            number = getattr(signal, name, None)
            if number is None:
                continue
            present = signal.getsignal(number)
            if present is signal.SIG_DFL or present is signal.default_int_handler:
                self._before[number] = signal.signal(number, ours)

    def remove(self) -> None:
        """Put back the handlers that were there."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid or self._was_interrupted or not self._can_wait():
            self.came_outside = not self._was_interrupted
            raise KeyboardInterrupt
        self._was_interrupted = True
        os.write(2, _HINT)  # print is not safe in a handler
        self._request("SIGINT")

    def _end(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if os.getpid() != self._pid:  # a worker process: do what it would have done
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if name == "SIGTERM" and not self._can_wait():
            self.came_outside = True
            raise RunEnded(name, 128 + number)
        self._request(name)


class RunEnded(SystemExit):
    """Ends the program after a checkpoint, with an exit status that tells why."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(code)
        self.reason = reason
