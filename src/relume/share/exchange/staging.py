"""A bundle that is arriving: its archive, with holes where chunks are missing, in a hidden folder beside its place.

Nothing is noted down about what has arrived: the hashes tell. A hole is zeros, so that what a chunk has before its zeros
at the end is what arrived of it; its hash tells whether that was so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from blake3 import blake3

from relume.checkpoint import files
from relume.checkpoint.files import Buffer
from relume.checkpoint.lock import FileLock
from relume.errors import BundleError, ExchangeError, StoreLockedError, UnsafeFileError
from relume.share.bundle import Bundle
from relume.share.exchange.index import CHUNK_BYTES, Chunk, Index, Source
from relume.text import size

_MAX_BYTES = 1 << 50


class Arriving:
    """The archive of an index, while it is put together.

    Args:
        folder: the staging folder.
        index: what it will be.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self.index = index
        self.path = folder / f"{index.manifest.digest[:32]}.relume"
        self._lock = threading.Lock()

    def __enter__(self) -> Arriving:
        self._fd = files.system.open(
            self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | os.O_CLOEXEC, 0o666
        )
        if os.fstat(self._fd).st_size != self.index.layout.size_bytes:
            os.ftruncate(self._fd, 0)
            os.ftruncate(self._fd, self.index.layout.size_bytes)
        text = self.index.manifest.text()
        self._put(self.index.layout.offsets[self.index.layout.members[-1].path], text)
        for _, offset, frame in self.index.layout.frames():
            self._put(offset, frame)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        files.system.close(self._fd)

    def read(self, chunk: Chunk) -> bytes:
        """What is there of a chunk: all of it, or a part and zeros."""
        with self._lock:
            return b"".join(
                self._get(offset, count) for offset, count in self.index.places(chunk.start, chunk.size_bytes)
            )

    def write(self, chunk: Chunk, position: int, content: Buffer) -> None:
        """Put a part of a chunk in its place."""
        view = memoryview(content)
        with self._lock:
            for offset, count in self.index.places(chunk.start + position, len(view)):
                self._put(offset, view[:count])
                view = view[count:]

    def clear(self, chunk: Chunk) -> None:
        """Forget what arrived of a chunk."""
        self.write(chunk, 0, bytes(chunk.size_bytes))

    def finish(self) -> None:
        """Wait until all of it is on the disk."""
        files.system.fsync(self._fd)

    def _get(self, offset: int, count: int) -> bytes:
        os.lseek(self._fd, offset, os.SEEK_SET)
        parts = []
        while count and (part := os.read(self._fd, count)):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _put(self, offset: int, content: Buffer) -> None:
        os.lseek(self._fd, offset, os.SEEK_SET)
        view = memoryview(content)
        while view:
            view = view[files.system.write(self._fd, view) :]


class Local:
    """Chunks that are on this machine: in an older bundle, or in one that was arriving when it was stopped."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Source | Path, Index, Chunk]] = {}

    def add_bundle(self, path: Path) -> None:
        """The bundle at ``path``, if there is one, damaged or not: each chunk is compared when it is used."""
        with contextlib.suppress(BundleError, UnsafeFileError):
            source = Source(Bundle(path))
            for chunk in source.index.chunks:
                self._known.setdefault(chunk.hash, (source, source.index, chunk))

    def add_arriving(self, path: Path, index: Index) -> None:
        """An archive with holes."""
        for chunk in index.chunks:
            self._known.setdefault(chunk.hash, (path, index, chunk))

    def content(self, hashed: str) -> bytes | None:
        """The bytes of a chunk, if they are here."""
        if hashed not in self._known:
            return None
        source, index, chunk = self._known[hashed]
        try:
            content = source.content(chunk) if isinstance(source, Source) else _cut(source, index, chunk)
        except (OSError, ValueError):
            return None
        return content if blake3(content, max_threads=1).hexdigest() == hashed else None


def _cut(path: Path, index: Index, chunk: Chunk) -> bytes:
    with path.open("rb") as file:
        parts = []
        for offset, count in index.places(chunk.start, chunk.size_bytes):
            file.seek(offset)
            parts.append(file.read(count))
    return b"".join(parts)


def arrived(content: bytes) -> int:
    """How much of a chunk with a hole at its end is surely there."""
    return len(content.rstrip(b"\0"))


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """The hidden folder beside ``target``, held by this process. It stays where an error leaves this, and goes else.

    Raises:
        ExchangeError: another process is pulling to the same file.
            Or the disk is full, or the folder cannot be written to.
    """
    folder = target.with_name(f".{target.name}.pull")
    try:
        files.make_folder(folder)
        with FileLock(folder / "lock").exclusive(0):
            yield folder
            shutil.rmtree(folder, ignore_errors=True)
    except StoreLockedError:
        raise ExchangeError(
            f"{target} is being pulled by another process. Wait for it, or choose another -o."
        ) from None
    except OSError as error:
        if error.errno is None:  # relume's own errors are OSErrors without a number
            raise
        raise ExchangeError(f"pulling to {target} failed: {os.strerror(error.errno)}. {_advice(error)}") from error


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Make room, and call it again: it goes on where it was."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Check the folder's owner and how it is mounted, or choose another with -o."
    return "Call it again: it goes on where it was."


def check_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Raises ExchangeError where the disk has no room for it."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > min(free, _MAX_BYTES):
        raise ExchangeError(
            f"{what} needs {size(needed_bytes)}, and {size(free)} are free in {folder.parent}. Make room, or choose another -o. "
            "Nothing was changed; what has arrived is kept."
        )


def check_size(index: Index, where: str) -> None:
    """Raises BundleError where no disk could ever hold it."""
    if index.size_bytes > _MAX_BYTES or any(chunk.size_bytes > CHUNK_BYTES for chunk in index.chunks):
        raise BundleError(f"{where} says that it has {index.size_bytes:,} bytes. Nothing of it was used.")
