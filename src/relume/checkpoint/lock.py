"""The store's lock: held by an open file, so that the end of a process, however it comes, releases it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import portalocker

from relume.errors import StoreLockedError

_POLL_SECONDS = 0.005


class _NoLocksError(StoreLockedError):
    """The file system has no locks."""


class FileLock:
    """A lock that many may hold shared or one exclusively, between processes and between threads.

    Args:
        path: the lock's own file; it stays when the lock is released.
        timeout_seconds: how long to wait for others.
    """

    def __init__(self, path: Path, timeout_seconds: float = 60.0) -> None:
        self.path = path
        self.timeout_seconds = timeout_seconds

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with others; raises StoreLockedError when the wait is over."""
        with self._held(portalocker.LockFlags.SHARED, self.timeout_seconds, "a"):
            yield

    @contextlib.contextmanager
    def exclusive(self, timeout_seconds: float | None = None) -> Iterator[None]:
        """Hold the lock alone; raises StoreLockedError when the wait is over."""
        timeout = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        with self._held(portalocker.LockFlags.EXCLUSIVE, timeout, "a"):
            yield

    @contextlib.contextmanager
    def for_reading(self) -> Iterator[None]:
        """Hold the lock shared where there is one: a store on a read-only disk has no writers to wait for."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(FileNotFoundError, PermissionError, _NoLocksError):
                stack.enter_context(self._held(portalocker.LockFlags.SHARED, self.timeout_seconds, "r"))
            yield

    @contextlib.contextmanager
    def _held(self, flags: portalocker.LockFlags, timeout_seconds: float, mode: str) -> Iterator[None]:
        with self.path.open(mode) as file:
            self._acquire(file, flags, timeout_seconds)
            try:
                yield
            finally:
                # A forked DataLoader worker holds a copy of the open file: closing ours alone would not release it.
                portalocker.unlock(file)

    def _acquire(self, file: IO[str], flags: portalocker.LockFlags, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not _try_lock(file, flags):
            if time.monotonic() >= deadline:
                raise StoreLockedError(
                    f"{self.path} is locked by another process, still after {timeout_seconds:g} s: a save or a gc of "
                    f"this store is running (this is process {os.getpid()}). Wait for it, or end it; nothing is lost."
                )
            time.sleep(_POLL_SECONDS)


def _try_lock(file: IO[str], flags: portalocker.LockFlags) -> bool:
    try:
        portalocker.lock(file, flags | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException as error:
        raise _NoLocksError(
            f"{file.name} cannot be locked: {error!s:.200}. Some network and mounted drives have no locks. "
            "Put the root on a local disk, and copy from there."
        ) from error
    return True
