"""One process a run: the second gets a clear error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from relume.checkpoint.lock import FileLock
from relume.errors import RunError, StoreLockedError
from relume.monitor.record import Process, status_of

_WAIT_SECONDS = 15.0
_POLL_SECONDS = 0.1


@contextlib.contextmanager
def hold(folder: Path, process: Process | None) -> Iterator[None]:
    """Hold the lock of a run's folder.

    Workers of a process that was killed may keep its lock for some seconds: when the process itself is gone, the wait goes
    on. Where the file system has no locks, the process and its heartbeat tell.

    Raises:
        RunError: another process is writing to the run; names it.
    """
    lock = FileLock(folder / "lock", timeout_seconds=0)
    deadline = time.monotonic() + _WAIT_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock.exclusive())
                break
            except StoreLockedError as error:
                is_without_locks = "cannot be locked" in str(error)
            if is_without_locks:
                if process is None or status_of(folder)[0] != "running":
                    break
                raise _taken(folder, process)
            if process is not None and process.is_here() and process.is_alive():
                raise _taken(folder, process)
            if time.monotonic() >= deadline:
                raise _taken(folder, process)
            time.sleep(_POLL_SECONDS)
        yield


def _taken(folder: Path, process: Process | None) -> RunError:
    who = f"process {process.pid} on {process.host}" if process is not None else "another process"
    return RunError(
        f"{who} is writing to the run {folder.name!r} in {folder.parent}. Wait until it has ended, end it, or choose another "
        "name; resume=False starts a new run beside it."
    )
