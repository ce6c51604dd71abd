"""The zip archive that a bundle is: stored, aligned, and a function of its files alone.

Format: PKWARE's APPNOTE.TXT 6.3.10. Every byte that is not a file's own follows from the manifest, so that packing twice
gives the same bytes, a pull can build the archive anew from its files, and a changed byte has no place to hide in. Files
begin at multiples of 64 bytes (by an extra field that zipalign uses too), so that tensors are mapped where they lie.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from relume.checkpoint import files
from relume.checkpoint.files import Buffer
from relume.checkpoint.hashing import hash_bytes, hash_parts, hasher_for
from relume.errors import BundleError
from relume.share.manifest import MANIFEST, Manifest, Member, check_paths

Parts = Callable[[], Iterable[Buffer]]
"""Gives the content of a file, piece by piece and the same each time."""

ALIGNMENT_BYTES = 64
_ALIGNMENT_FIELD = 0xD935
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_LOCATOR = struct.Struct("<4sLQL")
_UNSET16, _UNSET32 = 0xFFFF, 0xFFFF_FFFF
_VERSION, _VERSION64 = 20, 45
_UTF8 = 1 << 11
_DATE = (1980 - 1980) << 9 | 1 << 5 | 1  # the first day that the format has
_MADE_BY_UNIX = 3 << 8
_MODE = 0o100644 << 16
_PIECE_BYTES = 8 << 20


def write_archive(
    path: Path, name: str, contents: Mapping[str, Parts], relume: str, known: Mapping[str, Member] | None = None
) -> Manifest:
    """Write a bundle, whole or not at all.

    Args:
        name: what the manifest calls the bundle.
        contents: the files by their paths in the bundle.
        known: what `measured` gave for some of them, which are not read for that again.

    Raises:
        UnsafeFileError: a path that no bundle may have.
        StoreWriteError: the disk is full, read-only or fails. The file that was there is untouched.
        BundleError: a file had other bytes when it was written than when it was measured: something writes to it meanwhile.

    Cost: each byte is hashed twice and written once (575 MB on two cores: see docs/measurements.md).
    """
    from relume.models.tensorfile import staged

    check_paths(list(contents))
    there = known or {}
    members = [there.get(path_in) or measured(path_in, parts) for path_in, parts in contents.items()]
    manifest = Manifest.of(name, members, relume)
    with files.explained(f"writing {path.name}", path.absolute().parent), staged(path) as beside:
        compared = {member.path: _compared(member, contents[member.path]) for member in manifest.members}
        files.write_new(beside, assembled(manifest, compared))
        files.publish(beside, path)
    return manifest


def _compared(member: Member, parts: Parts) -> Parts:
    """The content of a file, which is an error at its end where it is another than was measured."""

    def read() -> Iterator[Buffer]:
        hasher = hasher_for(member.size_bytes)
        with ThreadPoolExecutor(1) as pool:  # its thread starts with the first large piece
            for piece in parts():
                is_large = memoryview(piece).nbytes >= _PIECE_BYTES
                job = pool.submit(hasher.update, piece) if is_large else None
                yield piece
                if job is None:
                    hasher.update(piece)
                else:
                    job.result()
        if hasher.hexdigest() != member.blake3:
            raise BundleError(
                f"{member.path} changed while it was packed: something writes to it, such as a training that goes on with the "
                "same memory. Nothing was written; pack again when it is done."
            )

    return read


def measured(path: str, parts: Parts) -> Member:
    """A file's size and digests."""
    pieces = list(parts())
    size_bytes = sum(memoryview(piece).nbytes for piece in pieces)
    with ThreadPoolExecutor(1) as pool:
        crc = pool.submit(_crc, pieces)
        hashed = hash_parts(pieces, size_bytes)
        return Member(path=path, size_bytes=size_bytes, blake3=hashed, crc32=crc.result())


def assembled(manifest: Manifest, contents: Mapping[str, Parts]) -> Iterator[Buffer]:
    """The bytes of the archive, in order."""
    text = manifest.text()
    for piece in Layout(manifest).pieces():
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from [text] if piece.path == MANIFEST else contents[piece.path]()


class Layout:
    """Where everything lies in the archive of a manifest.

    Attributes:
        members: all files, in the order of the archive: the manifest is the last.
        offsets: where the content of each begins.
        size_bytes: of the whole archive.
    """

    def __init__(self, manifest: Manifest) -> None:
        text = manifest.text()
        own = Member(path=MANIFEST, size_bytes=len(text), blake3=hash_bytes(text), crc32=zlib.crc32(text))
        self.members: Sequence[Member] = [*manifest.members, own]
        self.offsets: dict[str, int] = {}
        self._frames: list[tuple[str, int, bytes]] = []
        position, directory = 0, b""
        for member in self.members:
            header = _local(member, position)
            self._frames.append((f"the header of {member.path}", position, header))
            directory += _central(member, position)
            position += len(header)
            self.offsets[member.path] = position
            position += member.size_bytes
        end = directory + _end(len(self.members), len(directory), position)
        self._frames.append(("its directory", position, end))
        self.size_bytes = position + len(end)

    def frames(self) -> Iterator[tuple[str, int, bytes]]:
        """What stands between the files: a name for it, where it begins, and its bytes."""
        yield from self._frames

    def pieces(self) -> Iterator[bytes | Member]:
        """The whole archive: bytes, and the files between them."""
        for (_, _, frame), member in zip(self._frames, self.members, strict=False):
            yield frame
            yield member
        yield self._frames[-1][2]


def file_parts(path: Path) -> Parts:
    """The content of a file on the disk."""

    def read() -> Iterator[Buffer]:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    return read


def _crc(pieces: Iterable[Buffer]) -> int:
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc


def _local(member: Member, position: int) -> bytes:
    raw = member.path.encode()
    is_wide = member.size_bytes >= _UNSET32
    size = _UNSET32 if is_wide else member.size_bytes
    extra = struct.pack("<2H2Q", 1, 16, member.size_bytes, member.size_bytes) if is_wide else b""
    start = position + _LOCAL.size + len(raw) + len(extra) + 6
    fill = -start % ALIGNMENT_BYTES
    extra += struct.pack("<3H", _ALIGNMENT_FIELD, 2 + fill, ALIGNMENT_BYTES) + bytes(fill)
    version = _VERSION64 if is_wide else _VERSION
    fields = (b"PK\x03\x04", version, _UTF8, 0, 0, _DATE, member.crc32, size, size, len(raw), len(extra))
    return _LOCAL.pack(*fields) + raw + extra


def _central(member: Member, position: int) -> bytes:
    raw = member.path.encode()
    is_wide, is_far = member.size_bytes >= _UNSET32, position >= _UNSET32
    wide = [member.size_bytes, member.size_bytes] * is_wide + [position] * is_far
    extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    size, at = (_UNSET32 if is_wide else member.size_bytes), (_UNSET32 if is_far else position)
    version = _VERSION64 if wide else _VERSION
    numbers = (version | _MADE_BY_UNIX, version, _UTF8, 0, 0, _DATE, member.crc32, size, size, len(raw), len(extra))
    return _CENTRAL.pack(b"PK\x01\x02", *numbers, 0, 0, 0, _MODE, at) + raw + extra


def _end(count: int, size_bytes: int, position: int) -> bytes:
    is_wide = count >= _UNSET16 or size_bytes >= _UNSET32 or position >= _UNSET32
    end = b""
    if is_wide:
        numbers = (44, _VERSION64 | _MADE_BY_UNIX, _VERSION64, 0, 0, count, count, size_bytes, position)
        end = _END64.pack(b"PK\x06\x06", *numbers)
        end += _END64_LOCATOR.pack(b"PK\x06\x07", 0, position + size_bytes, 1)
    small = (min(count, _UNSET16), min(size_bytes, _UNSET32), min(position, _UNSET32))
    return end + _END.pack(b"PK\x05\x06", 0, 0, small[0], *small, 0)
