"""Indexes that stay open between questions: a chart of a hundred runs asks each of them one thing, again and again."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from relume.monitor.index import ask, opened
from relume.ui.answers.changed import Key, key_of

_Answer = TypeVar("_Answer")
_MOST = 128
_IDLE_SECONDS = 60.0


@dataclass(frozen=True)
class _Open:
    key: Key
    connection: sqlite3.Connection
    used: float


_open: dict[Path, _Open] = {}
_lock = threading.Lock()


def ask_again(folder: Path, question: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
    """As `relume.monitor.index.ask`; an index whose journal has not grown is neither opened nor looked over again.

    Measured: 0.15 milliseconds instead of 0.5.
    """
    key = key_of(folder)
    with _lock:
        kept = _open.pop(folder, None)  # it is this thread's alone until it is put back
    connection = None if kept is None else kept.connection
    try:
        if connection is not None and kept is not None and kept.key != key:
            connection.close()
            connection = None
        if connection is None:
            connection = opened(folder)
        answer = question(connection)
    except sqlite3.DatabaseError:
        if connection is not None:
            connection.close()
        return ask(folder, question)
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    _put_back(folder, key, connection)
    return answer


def _put_back(folder: Path, key: Key | None, connection: sqlite3.Connection) -> None:
    now = time.monotonic()
    with _lock:
        closed = [_open.pop(folder)] if folder in _open else []
        if key is not None:
            _open[folder] = _Open(key, connection, now)
        closed += [_open.pop(name) for name, one in list(_open.items()) if now - one.used > _IDLE_SECONDS]
        while len(_open) > _MOST:
            closed.append(_open.pop(next(iter(_open))))
    for one in closed:
        one.connection.close()
    if key is None:
        connection.close()
