"""Every change that a checkpoint makes to a disk, and nothing else.

All of them pass through ``system``, so that a test can put a layer in its place that counts the boundaries of a save
and kills the process, or fails, at the n-th.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from relume.errors import StoreWriteError

Buffer = bytes | bytearray | memoryview

_GATHER_BYTES = 1 << 20
_WRITE_BYTES = 8 << 20


class System(Protocol):
    """The operating system's calls that change files."""

    def open(self, path: Path, flags: int, mode: int = 0o777, /) -> int: ...
    def write(self, fd: int, data: Buffer, /) -> int: ...
    def fsync(self, fd: int, /) -> None: ...
    def close(self, fd: int, /) -> None: ...
    def replace(self, source: Path, target: Path, /) -> None: ...
    def unlink(self, path: Path, /) -> None: ...
    def mkdir(self, path: Path, /) -> None: ...


system: System = os


def write_new(path: Path, chunks: Iterable[Buffer]) -> int:
    """Create ``path``, write ``chunks`` to it and wait until they are on the disk; returns the number of bytes.

    The half-written file is removed when that fails.
    """

    def write_all(file: NewFile) -> None:
        for chunk in chunks:
            file.write(chunk)

    return write_new_by(path, write_all)


def write_new_by(path: Path, produce: Callable[[NewFile], object]) -> int:
    """`write_new` for those who want a file to write to, such as ``torch.save``."""
    fd = system.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    file = NewFile(fd)
    try:
        try:
            produce(file)
            file.flush()
            system.fsync(fd)
        finally:
            system.close(fd)
    except BaseException:
        remove(path)
        raise
    return file.size_bytes


class NewFile:
    """A file that is being written, from its beginning to its end.

    Small neighbours are joined, so that a thousand scalars are one write.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._small = bytearray()
        self._written_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How much there is of it."""
        return self._written_bytes + len(self._small)

    def write(self, data: Buffer) -> int:
        """Write all of ``data``, now or later; returns how many bytes that are."""
        if len(data) < _GATHER_BYTES:
            self._small += data
            if len(self._small) >= _GATHER_BYTES:
                self.flush()
        else:
            self.flush()
            self._written_bytes = _write_all(self._fd, data, self._written_bytes)
        return len(data)

    def flush(self) -> None:
        """Write what was held back."""
        self._written_bytes = _write_all(self._fd, self._small, self._written_bytes)
        self._small = bytearray()


def publish(staged: Path, target: Path) -> None:
    """Give a finished file its name, and wait until the name is on the disk."""
    try:
        system.replace(staged, target)
    except BaseException:
        remove(staged)
        raise
    sync_folder(target.parent)


def remove(path: Path) -> bool:
    """Delete a file where that is possible; whether it was."""
    try:
        system.unlink(path)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk."""
    if os.name == "nt":  # has no such call: NTFS journals names
        return
    fd = system.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        system.fsync(fd)
    finally:
        system.close(fd)


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, each name on the disk before the next."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        system.mkdir(folder)
    sync_folder(folder.parent)


@contextlib.contextmanager
def explained(action: str, root: Path) -> Iterator[None]:
    """Turn the operating system's errors into one that says what to do."""
    try:
        yield
    except StoreWriteError:
        raise
    except OSError as error:
        if error.errno is None:  # relume's own errors are OSErrors without a number
            raise
        failure = StoreWriteError(f"{action} failed in {root}: {os.strerror(error.errno)}. {_advice(error, root)}")
        failure.errno = error.errno
        raise failure from error


def _advice(error: OSError, root: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{_free_megabytes(root)} MB are free. Make room, or keep fewer checkpoints and run gc; then save again."
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "The folder cannot be written to: check its owner and how it is mounted, or choose another root."
    return "What was saved before is untouched; check the disk and save again."


def _free_megabytes(root: Path) -> int:
    with contextlib.suppress(OSError):
        status = os.statvfs(root)
        return status.f_bavail * status.f_frsize // 1_000_000
    return 0


def _write_all(fd: int, data: Buffer, position: int) -> int:
    """Write ``data`` at ``position`` of the file; returns where it ends."""
    view = memoryview(data)
    while view:
        written = system.write(fd, view[:_WRITE_BYTES])
        if written <= 0:
            raise OSError(errno.EIO, "nothing was written")
        if hasattr(os, "posix_fadvise") and len(view) >= _WRITE_BYTES:
            # Linux takes this for a wish to write the range out now, and goes on behind our back: the fsync at the end
            # then finds nothing to do (575 MB: 245 ms become 155).
            os.posix_fadvise(fd, position, written, os.POSIX_FADV_DONTNEED)
        view = view[written:]
        position += written
    return position
