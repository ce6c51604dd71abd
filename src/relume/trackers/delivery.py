"""Feed the trackers of a run while it goes on: start what feeds them, look at how they are, wait for them at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from relume.text import counted, printable, size
from relume.trackers.follow import Follower
from relume.trackers.rebuilding import search_path, spec_of
from relume.trackers.state import FOLDER, State, held, state_path
from relume.trackers.tracker import Tracker

_STUCK_SECONDS = 30.0
_BEHIND_BYTES = 32_000_000
_RESTARTS = 3
_RESTART_SECONDS = 10.0
_LARGEST_LOG = 1_000_000
_FINAL = ("done", "left", "failed")


class _Feeder(Protocol):
    """What feeds one tracker."""

    def is_running(self) -> bool: ...
    def look(self) -> str | None: ...
    def leave(self) -> None: ...


class Delivery:
    """The trackers of one execution of a run.

    Args:
        wait_seconds: how long the end of the run waits for all of them together.
    """

    def __init__(self, trackers: Sequence[Tracker], wait_seconds: float = 10.0) -> None:
        self.trackers = list(trackers)
        self.wait_seconds = wait_seconds
        self._feeders: dict[str, _Feeder] = {}
        self._said: set[tuple[str, str]] = set()
        self._is_started = 0.0

    def start(self, run_folder: Path) -> None:
        """Begin to deliver. Costs the time of starting a process for each tracker; nothing is waited for."""
        self._folder = run_folder
        self._is_started = time.time()
        (run_folder / FOLDER).mkdir(exist_ok=True)
        for tracker in self.trackers:
            spec = spec_of(tracker)
            if spec is None:
                self._feeders[tracker.name] = _InThread(run_folder, tracker)
            else:
                self._feeders[tracker.name] = _InProcess(run_folder, tracker.name, spec)

    def look(self, note: Callable[[str], None], warn: Callable[[str], None]) -> None:
        """How are they? Each thing that a person should know is said once."""
        for name, feeder in self._feeders.items():
            problem = feeder.look()
            state = State.load(state_path(self._folder, name))
            url = state.remembered.get("url")
            if isinstance(url, str):
                self._once(note, name, "url", f"{name}: {printable(url, 300)}")
            if state.skipped_kinds:
                kinds = ", ".join(kind.replace("_", " ") for kind in state.skipped_kinds)
                self._once(
                    note, name, f"kinds {kinds}", f"{name} cannot show: {kinds}. It stands in the run's own record."
                )
            text = problem or self._problem(name, state)
            if text is not None:
                self._once(warn, name, "problem", text)

    def _problem(self, name: str, state: State) -> str | None:
        rest = f"The training goes on and its own record is complete; `relume sync {self._folder.name}` sends what is left."
        if state.error and state.stage in ("failed", "left"):
            return f"{name} fails ({state.error}). {rest}"
        if state.left_out:
            return f"{name} could not take {counted(state.left_out, 'line')} ({state.error or 'see its log'}). {rest}"
        seconds = state.stuck_seconds()
        if seconds > _STUCK_SECONDS and state.busy_since and state.busy_since >= self._is_started:
            return f"{name} has not come back for {seconds:.0f} s. {rest}"
        behind = self._bytes_behind(state)
        if behind > _BEHIND_BYTES:
            return f"{name} is {size(behind)} of the journal behind. {rest}"
        return None

    def _bytes_behind(self, state: State) -> int:
        try:
            files = sorted((self._folder / "journal").glob("*.jsonl"))
            return files[-1].stat().st_size - (state.offset if int(files[-1].stem) == state.segment else 0)
        except (OSError, ValueError, IndexError):
            return 0

    def _once(self, say: Callable[[str], None], name: str, what: str, text: str) -> None:
        if (name, what) not in self._said:
            self._said.add((name, what))
            say(text)

    def wait(self, say: Callable[[str], None]) -> None:
        """The run has ended: wait a bounded time for what is left, and leave it to the workers, or to ``relume sync``."""
        deadline, said_at = time.monotonic() + self.wait_seconds, time.monotonic() + 1.0
        try:
            while left := self._unfinished():
                if time.monotonic() >= deadline:
                    break
                if time.monotonic() >= said_at:
                    said_at = float("inf")
                    say(f"waiting up to {self.wait_seconds:g} s for {' and '.join(left)} to take what is left …")
                time.sleep(0.02)
        except KeyboardInterrupt:
            left = self._unfinished()
        for name in left:
            feeder = self._feeders[name]
            how = (
                "a process of its own goes on with it"
                if isinstance(feeder, _InProcess)
                else "it ends with this process"
            )
            say(f"{name} has not taken everything: {how}. Should it fail: relume sync {self._folder.name}")
        for feeder in self._feeders.values():
            feeder.leave()

    def _unfinished(self) -> list[str]:
        return [name for name, feeder in self._feeders.items() if feeder.is_running()]


class _InProcess:
    """A process of its own, which outlives the training's where it has to."""

    def __init__(self, run_folder: Path, name: str, spec: dict[str, Any]) -> None:
        self._folder, self._name, self._spec = run_folder, name, spec
        self._log = run_folder / FOLDER / f"{name}.log"
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._why_not = ""
        self._start()

    def _start(self) -> None:
        """Start it; where that cannot be now (no memory, no more processes, a full disk), it is tried again later."""
        try:
            self._begin_process()
        except OSError as error:
            self._process, self._why_not = None, f"{type(error).__name__}: {error}"

    def _begin_process(self) -> None:
        self._starts += 1
        self._started = time.monotonic()
        is_large = self._log.exists() and self._log.stat().st_size > _LARGEST_LOG
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(search_path())}
        with self._log.open("wb" if is_large else "ab") as log:
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", "-m", "relume.trackers.worker", str(self._folder.absolute()), self._name],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C and a closed terminal are for the training
            )
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                pipe.write(json.dumps(self._spec).encode())
        except OSError:
            pass  # it has died; that is seen later

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def look(self) -> str | None:
        """Start it again where it died; says so where that is in vain."""
        if self._process is None:
            return self._look_where_none_began()
        status = self._process.poll()
        if status is None or State.load(state_path(self._folder, self._name)).stage in _FINAL:
            return None
        if self._starts > _RESTARTS:
            return (
                f"the process that feeds {self._name} has ended {self._starts} times (exit status {status}"
                f"{self._last_words()}); it is left alone now. The training goes on; `relume sync {self._folder.name}` "
                f"sends what is left, {self._log} has what it said."
            )
        self._start_when_due()
        return None

    def _look_where_none_began(self) -> str | None:
        self._start_when_due()
        if self._process is not None:
            return None
        return (
            f"the process that feeds {self._name} cannot be started ({printable(self._why_not, 200)}); it is tried again. "
            f"The training goes on; `relume sync {self._folder.name}` sends what is left."
        )

    def _start_when_due(self) -> None:
        if time.monotonic() - self._started >= _RESTART_SECONDS * (self._starts - 1):
            self._start()

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        return f": {printable(lines[-1], 200)}" if lines else ""

    def leave(self) -> None:
        if (
            self._process is not None and self.is_running()
        ):  # somebody must take note of its end, while this process lives
            threading.Thread(target=self._process.wait, name=f"relume-{self._name}-end", daemon=True).start()


class _InThread:
    """A thread of the training's process, for a tracker that is only here."""

    def __init__(self, run_folder: Path, tracker: Tracker) -> None:
        self._folder, self._tracker = run_folder, tracker
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"relume-{tracker.name}", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._leaving.is_set():
            with held(self._folder, self._tracker.name) as is_mine:
                if is_mine:
                    Follower(self._folder, self._tracker, None, self._leaving.wait).run()
                    return
            self._leaving.wait(0.1)

    def is_running(self) -> bool:
        return self._thread.is_alive()

    def look(self) -> str | None:
        return None

    def leave(self) -> None:
        self._leaving.set()
