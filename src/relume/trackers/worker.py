"""The process that feeds one tracker of one run: ``python -m relume.trackers.worker RUN_FOLDER NAME``.

It shares no interpreter with the training: TensorBoard's or W&B's code cannot slow, hang or crash that. When the training is
killed, it delivers what is left, and closes the tracker with the right status.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from relume.errors import RelumeError
from relume.monitor.record import is_run, status_of
from relume.trackers.follow import Follower
from relume.trackers.rebuilding import rebuild, without_secrets
from relume.trackers.state import State, held, state_path

_LOOK_SECONDS = 0.25
_STUCK_SECONDS = 60.0
_LEFT_ALONE_SECONDS = 600.0


def main(folder: Path, name: str, spec: dict[str, Any] | None) -> int:
    """Deliver until the run has ended. The exit status is 0 where everything has arrived."""
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    path = state_path(folder, name)
    spec = spec or State.load(path).spec
    if spec is None:
        raise RelumeError(f"{path} does not say what tracker this is.")
    while is_run(folder) and not leaving.is_set():
        with held(folder, name) as is_mine:
            if is_mine:
                return _follow(folder, spec, path, leaving)
        _end_if_stuck(State.load(path))
        if status_of(folder)[0] != "running":
            return 0  # whoever has it delivers the rest
        leaving.wait(_LOOK_SECONDS)
    return 0


def _follow(folder: Path, spec: dict[str, Any], path: Path, leaving: threading.Event) -> int:
    try:
        tracker = rebuild(spec)
    except RelumeError as error:
        state = State.load(path)
        state.spec, state.stage, state.error = without_secrets(spec), "failed", str(error)
        state.save(path)
        raise
    threading.Thread(target=_watch, args=(folder, path), name="relume-watch", daemon=True).start()
    state = Follower(folder, tracker, spec, leaving.wait).run()
    return 1 if state.stage == "failed" else 0


def _watch(folder: Path, path: Path) -> None:
    """A tracker that hangs keeps no process for ever, once the run has ended."""
    while True:
        time.sleep(_LEFT_ALONE_SECONDS / 20)
        if not is_run(folder):
            os._exit(0)
        if State.load(path).stuck_seconds() > _LEFT_ALONE_SECONDS and status_of(folder)[0] != "running":
            os._exit(1)


def _end_if_stuck(state: State) -> None:
    """A worker of an execution that is over may hang in its tracker: then it stands in the way of this one."""
    pid = (state.process or {}).get("pid")
    if (
        isinstance(pid, int)
        and pid != os.getpid()
        and state.stuck_seconds() > _STUCK_SECONDS
        and _is_worker(state, pid)
    ):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)


def _is_worker(state: State, pid: int) -> bool:
    import psutil

    try:
        return state.is_alive() and "relume.trackers.worker" in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


if __name__ == "__main__":
    with contextlib.suppress(OSError, AttributeError):
        os.nice(5)  # the training comes first
    given = sys.stdin.read() if not sys.stdin.isatty() else ""
    try:
        status = main(Path(sys.argv[1]), sys.argv[2], json.loads(given) if given.strip() else None)
    except Exception:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)  # a tracker's threads do not keep it
