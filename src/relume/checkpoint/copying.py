"""Copying from one store into another, where either may lie on a slow disk that fails now and then.

Nothing gets its name before it was read back and found whole. What a failed or killed attempt leaves half copied is
continued by the next one of the same owner.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3

from relume.checkpoint import files
from relume.checkpoint.index import Index
from relume.checkpoint.layout import Layout
from relume.checkpoint.manifest import Manifest
from relume.checkpoint.pack import Pack, pack_path, read_pack_file
from relume.errors import PackError

CHUNK_BYTES = 1 << 20
TAIL_BYTES = 1 << 20
"""A journal shorter than this is copied whole; of a longer one only what is new."""

_NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO)
_FULL = (errno.ENOSPC, errno.EDQUOT)

Tick = Callable[[int], None]


class Copier:
    """Copies packs, manifests and small files from one store into another.

    Args:
        source: where from.
        target: where to.
        owner: part of the temporary names, so that several may copy into one store.
        is_mounted: the target may be a mounted drive: a failing fsync does not count there, what is read back does.
        tick: called after each chunk with the bytes that were written; what it raises ends the copying.
    """

    def __init__(self, source: Layout, target: Layout, owner: str, *, is_mounted: bool, tick: Tick) -> None:
        self.source = source
        self.target = target
        self.owner = owner
        self._is_mounted = is_mounted
        self._tick = tick
        self._index = Index(source.packs)
        self._verified: dict[str, int] = {}  # packs of the target that were read whole, and their size
        self._copied: dict[Path, tuple[int, int]] = {}  # files as they were when they were copied: size, time
        self._tails: dict[Path, int] = {}  # journals of the target: the length that was left there

    # ----------------------------------------------------------------------------------------------------------- packs

    def ensure_packs(self, manifest: Manifest) -> None:
        """Copy what the target lacks of the packs that a manifest needs.

        Raises:
            PackError: the source has no whole pack with one of the pieces.
            OSError: a disk fails.
        """
        index = None
        for pack_id, names in _pieces(manifest).items():
            if self.ensure_pack(pack_id):
                continue
            if index is None:
                index = self._index
                index.refresh()
            for name in names:  # they have moved since (gc compacts), or were saved again
                if not any(self.ensure_pack(pack.id) for pack in index.holders(name)):
                    raise PackError(
                        f"no whole pack in {self.source.packs} holds the tensor {name[:16]}… of checkpoint "
                        f"{manifest.sequence:06d}; the manifest names pack {pack_id}."
                    )

    def ensure_pack(self, pack_id: str) -> bool:
        """Whether the target has a pack, whole, after copying it if it had not. False: the source has none either."""
        if self.has_pack(pack_id):
            return True
        try:
            pack = read_pack_file(pack_path(self.source.packs, pack_id), pack_id)
        except PackError as error:
            _raise_if_disk_fails(error)
            return False
        return self._copy_pack(pack)

    def has_pack(self, pack_id: str) -> bool:
        """Whether the target has a pack, whole. It is read once, afterwards its size is looked at."""
        path = pack_path(self.target.packs, pack_id)
        size = _size(path)
        if size is None or self._verified.get(pack_id) != size:
            self._verified.pop(pack_id, None)
            if size is None or not self.is_whole(path, pack_id):
                return False
            self._verified[pack_id] = size
        return True

    def is_whole(self, path: Path, pack_id: str) -> bool:
        """Whether a file is that pack: its header, its length and the hash of each piece, in one pass."""
        try:
            pack = read_pack_file(path, pack_id)
        except PackError as error:
            _raise_if_disk_fails(error)
            return False
        buffer = memoryview(bytearray(CHUNK_BYTES))
        with path.open("rb", buffering=0) as file:
            for name, span in sorted(pack.spans.items(), key=lambda item: item[1].offset):
                file.seek(span.offset)
                hasher, left = blake3(), span.size_bytes  # on one core: training has the others
                while left and (count := file.readinto(buffer[: min(left, CHUNK_BYTES)])):
                    hasher.update(buffer[:count])
                    left -= count
                    self._tick(0)
                if left or hasher.hexdigest() != name:
                    return False
        return True

    def _copy_pack(self, pack: Pack) -> bool:
        path = pack_path(self.target.packs, pack.id)
        staged = self.target.staging / f"{pack.id}.{self.owner}"
        self.make_folder(staged.parent)
        self.make_folder(path.parent)
        for _ in range(2):  # what an earlier attempt left is continued; when that gives no whole pack, from the start
            if not self._fill(staged, pack.path):
                return False
            if self.is_whole(staged, pack.id):
                self._rename(staged, path)
                if _size(path) != pack.size_bytes:
                    raise OSError(errno.EIO, f"{path} is not there whole after it was renamed")
                self._verified[pack.id] = pack.size_bytes
                return True
            self.remove(staged)
        if self.is_whole(pack.path, pack.id):
            raise OSError(errno.EIO, f"{staged} reads back otherwise than it was written")
        return False

    def _fill(self, staged: Path, source: Path) -> bool:
        """Write what a staged file lacks; False when the source is gone."""
        try:
            file = source.open("rb", buffering=0)  # stays readable when gc deletes the name
        except FileNotFoundError:
            return False
        with file:
            done = _size(staged) or 0
            file.seek(done)
            try:
                with self._opened(staged, os.O_APPEND if done else os.O_TRUNC) as fd:
                    buffer = memoryview(bytearray(CHUNK_BYTES))
                    while count := file.readinto(buffer):
                        self._write(fd, buffer[:count])
            except OSError as error:
                if done or error.errno in _FULL:  # it may not be possible to append there; make room on a full disk
                    files.remove(staged)
                raise
        return True

    # ------------------------------------------------------------------------------------------- manifests, small files

    def announced(self, manifest: Path) -> Path:
        """The temporary name of a manifest of the target; whoever removes unneeded packs looks at these too."""
        return manifest.with_name(f".{manifest.name}.{self.owner}.json.tmp")

    def announce(self, manifest: Path, content: bytes) -> None:
        """Write a manifest under its temporary name."""
        if _read(self.announced(manifest)) != content:
            self._write_file(self.announced(manifest), content)

    def publish(self, manifest: Path, content: bytes) -> None:
        """Give an announced manifest its name, which commits the checkpoint in the target."""
        self._rename(self.announced(manifest), manifest)
        if _read(manifest) != content:
            raise OSError(errno.EIO, f"{manifest} is not there whole after it was renamed")

    def withdraw(self, manifest: Path) -> None:
        """Take a manifest's name away. What it needed stays announced, until somebody removes what is unneeded."""
        with contextlib.suppress(FileNotFoundError):
            self._rename(manifest, self.announced(manifest))

    def copy_file(self, relative: Path) -> None:
        """Copy a small file; of a long journal (``.jsonl``, only ever appended to) what is new.

        A reader of the target sees the old content or the new one; of a long journal, which is appended to in place,
        whole lines, and a part of one only after a kill or a failing disk, until the next copy.
        """
        source, target = self.source.root / relative, self.target.root / relative
        try:
            status = source.stat()
        except FileNotFoundError:
            return
        state = (status.st_size, status.st_mtime_ns)
        if self._copied.get(relative) == state and target.exists():
            return
        is_journal = source.suffix == ".jsonl"
        if not (is_journal and status.st_size > TAIL_BYTES and self._append_tail(source, target)):
            content = source.read_bytes()
            self._replace_file(target, content[: content.rfind(b"\n") + 1] if is_journal else content)
        self._copied[relative] = state

    def _replace_file(self, target: Path, content: bytes) -> None:
        if _read(target) == content:
            return
        self.make_folder(target.parent)
        staged = target.with_name(f".{target.name}.{self.owner}.tmp")
        self._write_file(staged, content)
        self._rename(staged, target)

    def _append_tail(self, source: Path, target: Path) -> bool:
        """Append whole lines to a long journal; False when what is there is not how the source begins."""
        there = _size(target)
        if not there or not self.begins_alike(source, target, there):
            return False
        with source.open("rb") as file:
            file.seek(there)
            tail = file.read()
        tail = tail[: tail.rfind(b"\n") + 1]
        if tail:
            self._tails.pop(target, None)
            with self._opened(target, os.O_APPEND) as fd:
                self._write(fd, memoryview(tail))
            with target.open("rb") as file:
                file.seek(there)
                if file.read() != tail:
                    raise OSError(errno.EIO, f"{target} reads back otherwise than it was written")
        self._tails[target] = there + len(tail)
        return True

    def begins_alike(self, source: Path, target: Path, size: int) -> bool:
        """Whether the first ``size`` bytes are the same; where this copier left the target so, only the end of them."""
        start = max(0, size - CHUNK_BYTES) if self._tails.get(target) == size else 0
        with source.open("rb") as one, target.open("rb") as other:
            one.seek(start)
            other.seek(start)
            for position in range(start, size, CHUNK_BYTES):
                count = min(CHUNK_BYTES, size - position)
                part = one.read(count)
                if len(part) != count or part != other.read(count):
                    return False
                self._tick(0)
        return True

    # ------------------------------------------------------------------------------------------------------ file system

    def make_folder(self, folder: Path) -> None:
        """Make a folder and what is missing above it, but never the target's root: a drive may not be mounted."""
        if folder.is_dir():
            return
        if folder == self.target.root:
            raise FileNotFoundError(errno.ENOENT, "the folder is not there", str(folder))
        self.make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            files.system.mkdir(folder)
        self._sync_folder(folder.parent)

    def remove(self, path: Path) -> None:
        """Delete a file of the target, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            files.system.unlink(path)

    def _write_file(self, path: Path, content: bytes) -> None:
        self.make_folder(path.parent)
        with self._opened(path, os.O_TRUNC) as fd:
            for start in range(0, len(content), CHUNK_BYTES):
                self._write(fd, memoryview(content)[start : start + CHUNK_BYTES])
        if _read(path) != content:
            raise OSError(errno.EIO, f"{path} reads back otherwise than it was written")

    @contextlib.contextmanager
    def _opened(self, path: Path, flags: int) -> Iterator[int]:
        """An open file to write to; at the end it is made safe, and forgotten by this machine's cache of it."""
        fd = files.system.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o666)
        try:
            yield fd
            self._sync(fd)
            if hasattr(os, "posix_fadvise"):
                with contextlib.suppress(OSError):
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            files.system.close(fd)

    def _write(self, fd: int, view: memoryview) -> None:
        while view:
            written = files.system.write(fd, view)
            if written <= 0:
                raise OSError(errno.EIO, "nothing was written")
            view = view[written:]
            self._tick(written)

    def _rename(self, source: Path, target: Path) -> None:
        files.system.replace(source, target)
        self._sync_folder(target.parent)

    def _sync_folder(self, folder: Path) -> None:
        with self._fsync_may_fail():
            files.sync_folder(folder)

    def _sync(self, fd: int) -> None:
        with self._fsync_may_fail():
            files.system.fsync(fd)

    @contextlib.contextmanager
    def _fsync_may_fail(self) -> Iterator[None]:
        """Many mounted drives cannot fsync, some not even open a folder: there, reading back must do."""
        try:
            yield
        except OSError as error:
            if not self._is_mounted or error.errno not in (*_NO_FSYNC, errno.EACCES, errno.EISDIR):
                raise


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def _pieces(manifest: Manifest) -> dict[str, set[str]]:
    """For each pack that a manifest names, the pieces that it takes from there."""
    found: dict[str, set[str]] = defaultdict(set)
    for entry in manifest.entries:
        for piece in entry.pieces:
            pack_id = manifest.packs[piece.pack] if piece.pack < len(manifest.packs) else "0" * 32
            found[pack_id].add(piece.hash)
    return found


def _raise_if_disk_fails(error: PackError) -> None:
    """A pack that cannot be read now may be whole: that is another matter than one which is not there or damaged."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno not in (None, errno.ENOENT, errno.ENOTDIR):
        raise cause


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
