"""What travels, counted, and shown on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, TypeVar

from relume.text import size

THREADS = 8
"""Requests at a time: an object store answers each slowly and all together fast."""

_Item = TypeVar("_Item")


class Meter:
    """Counts bytes from any thread; on a terminal, a bar with the rate.

    Attributes:
        total_bytes: how much there is altogether.
        moved_bytes: what travelled, tries that failed included.
        there_bytes: what had not to.
    """

    def __init__(self, verb: str, total_bytes: int, shown: bool | None) -> None:
        self.moved_bytes = self.there_bytes = 0
        self.total_bytes, self._verb = total_bytes, verb
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._bar: Any = None

    def __enter__(self) -> Meter:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TextColumn("{task.fields[there]}"))
            self._bar = Progress("{task.description}", *columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._verb, total=self.total_bytes, there="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def moved(self, count: int) -> None:
        with self._lock:
            self.moved_bytes += count
        self._show()

    def there(self, count: int) -> None:
        with self._lock:
            self.there_bytes += count
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            there = f"({size(self.there_bytes)} were there)" if self.there_bytes else ""
            done = min(self.moved_bytes + self.there_bytes, self.total_bytes)
            self._bar.update(self._task, completed=done, total=self.total_bytes, there=there)


def in_parallel(action: Callable[[_Item], None], items: Iterable[_Item], stop: threading.Event) -> None:
    """Do it for all items, some at a time. The first error ends the others, which look at ``stop``."""
    with ThreadPoolExecutor(THREADS, "relume-exchange") as pool:
        futures = [pool.submit(action, item) for item in items]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
