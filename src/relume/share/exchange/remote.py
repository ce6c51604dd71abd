"""What a place for bundles can do, whatever it is: a folder, an object store, a web server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from relume.checkpoint.files import Buffer
from relume.errors import ExchangeError

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between the tries of what may pass; after the last, it is an error."""

_Result = TypeVar("_Result")


class PassingError(ExchangeError):
    """What may be gone at the next try: the connection broke, the server is overloaded."""


@dataclass
class Opened:
    """A file at a remote place that is being read.

    Attributes:
        start: where its pieces begin: where they were asked to, or 0 where the place cannot do that.
        total: the size of the whole file; None where the place does not say.
        tag: what changes with its content; empty where the place has none.
        pieces: the bytes, at most a megabyte each.
        close: ends the connection.
    """

    start: int
    total: int | None
    tag: str
    pieces: Iterator[bytes]
    close: Callable[[], object]


class Remote(Protocol):
    """A place for bundles. Paths are below it; all methods may be called from several threads.

    Everything that goes wrong is an ExchangeError that names the place, without passwords. A file that is not there is
    None or, where it is needed, a MissingError.

    Attributes:
        name: for messages.
        is_writable: whether it can be pushed to at all.
    """

    name: str
    is_writable: bool

    def size(self, path: str) -> int | None:
        """The size of a file in bytes."""

    def open(self, path: str, start: int = 0, tag: str = "") -> Opened | None:
        """Read a file from ``start``, if it still has the ``tag``; else from its beginning."""

    def write(self, path: str, content: Buffer) -> None:
        """Make a file. Another process sees all of it, or what was there before."""

    def names(self) -> list[str] | None:
        """The files at the top; None where the place cannot tell."""


def read_whole(remote: Remote, path: str, limit_bytes: int) -> bytes | None:
    """A small file.

    Raises:
        ExchangeError: it is longer than ``limit_bytes``, or the place fails.
    """

    def read() -> bytes | None:
        opened = remote.open(path)
        if opened is None:
            return None
        content = bytearray()
        with closing(opened):
            for piece in opened.pieces:
                content += piece
                if len(content) > limit_bytes:
                    raise ExchangeError(
                        f"{remote.name}: {path} is longer than {limit_bytes:,} bytes. Nothing of it was used."
                    )
        if opened.total is not None and len(content) != opened.total:
            raise PassingError(f"{remote.name}: {path} ended after {len(content):,} of {opened.total:,} bytes.")
        return bytes(content)

    return retried(read)


def retried(action: Callable[[], _Result]) -> _Result:
    """Do it again, some seconds later, where it fails in a way that may pass."""
    for pause in PAUSES:
        try:
            return action()
        except PassingError:
            time.sleep(pause)
    try:
        return action()
    except PassingError as error:
        raise ExchangeError(
            f"{error} Tried {len(PAUSES) + 1} times. Call it again later: it goes on where it was."
        ) from error
