"""A vetted reader of zip archives: the ``.pt`` and TorchScript files that torch writes, and ``.pt2``.

Format: PKWARE's APPNOTE.TXT 6.3.10 (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT). Readers of zip files
differ in what they make of odd ones, which is how a file gets past one reader and harms by another. Torch writes
archives of one plain form, so that everything else is refused.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import torch

from relume.errors import ModelFileError, UnsafeFileError

ZIP_MAGIC = b"PK\x03\x04"

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")

_UNSET32, _UNSET16 = 0xFFFF_FFFF, 0xFFFF
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_SIZES_FOLLOW = 1 << 3
_STORED, _DEFLATED = 0, 8
_REGULAR, _FOLDER = 0o10, 0o4
_MAX_ENTRIES = 200_000
_MAX_INFLATED_BYTES = 64 << 20
_MAX_RATIO = 200
_CHECKED_BYTES = 4096  # a mapped entry up to this size is read at once, and its checksum compared
_CHUNK_BYTES = 4 << 20
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive.

    Attributes:
        name: its path in the archive.
        header_offset, offset: where its header and its data begin.
        stored_bytes: what it takes in the archive; ``size_bytes`` what it is.
        crc: the checksum of its data. 0 where none was computed, see ``torch.serialization.set_crc32_options``.
        is_deflated: whether it is compressed.
    """

    name: str
    header_offset: int
    offset: int
    stored_bytes: int
    size_bytes: int
    crc: int
    is_deflated: bool


class Archive:
    """A zip archive whose directory has been checked: no entry leaves the archive, overlaps another or hides one.

    Args:
        path: the file. It is mapped, and nothing may overwrite it in place while the archive or a tensor of it is in use.
        writer: whose files these are, for messages.

    Attributes:
        entries: the files in it by name, in the order of the directory. Folders are left out.

    Raises:
        ModelFileError: there is no such file, it cannot be read, is cut short or damaged, or is no zip archive.
        UnsafeFileError: names that lead out of the archive or are there twice, entries that overlap, are links, are
            encrypted or would inflate without measure, headers that contradict the directory.

    Example:
        >>> torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
        >>> archive = Archive(tmp_path / "a.pt")
        >>> archive.read("a/byteorder", limit_bytes=16)
        b'little'
        >>> archive.mapped("a/data/0").view(torch.float32)
        tensor([1., 1.])
    """

    def __init__(self, path: str | Path, writer: str = "torch") -> None:
        self.path = Path(path)
        self._writer = writer
        self._memory = map_file(self.path)
        self.size_bytes = len(self._memory)
        if self._memory[:4] != ZIP_MAGIC:
            self._damaged("it does not begin as a zip archive does")
        try:
            entries = list(self._directory())
            self._check_together(entries)
        except (struct.error, IndexError) as error:
            raise ModelFileError(f"{self.path} is damaged: its directory is cut short ({error}).") from error
        self.entries: Mapping[str, Entry] = MappingProxyType(
            {entry.name: entry for entry in entries if not entry.name.endswith("/")}
        )

    @property
    def content(self) -> mmap.mmap:
        """The whole file, mapped."""
        return self._memory

    def read(self, name: str, limit_bytes: int) -> bytes:
        """The content of an entry, its checksum compared.

        Raises:
            ModelFileError: there is no such entry, or it is damaged.
            UnsafeFileError: it is longer than ``limit_bytes``.
        """
        entry = self._entry(name)
        if entry.size_bytes > limit_bytes:
            self._unsafe(f"{name!r} has {entry.size_bytes:,} bytes, where at most {limit_bytes:,} are expected")
        data = self._memory[entry.offset : entry.offset + entry.stored_bytes]
        if entry.is_deflated:
            data = self._inflated(entry, data)
        if entry.crc and zlib.crc32(data) != entry.crc:
            self._damaged(f"the bytes of {name!r} are not those that were written (its checksum differs)")
        return data

    def mapped(self, name: str) -> torch.Tensor:
        """An entry that is not compressed as a flat uint8 tensor, read when it is used.

        What is written to the tensor stays in this process and never reaches the file.

        Raises:
            ModelFileError: there is no such entry, or it is small and its checksum differs.
            UnsafeFileError: it is compressed.
        """
        entry = self._entry(name)
        if entry.is_deflated:
            self._unsafe(f"{name!r} is compressed, which torch never does with tensors")
        if not entry.size_bytes:
            return torch.empty(0, dtype=torch.uint8)
        if entry.size_bytes <= _CHECKED_BYTES:
            self.read(name, _CHECKED_BYTES)
        return torch.frombuffer(self._memory, dtype=torch.uint8, count=entry.size_bytes, offset=entry.offset)

    def damaged(self) -> list[str]:
        """The names of all entries whose bytes are not those that were written. Reads the whole file."""
        bad = []
        for entry in self.entries.values():
            if entry.is_deflated:
                data = self._memory[entry.offset : entry.offset + entry.stored_bytes]
                crc = zlib.crc32(self._inflated(entry, data))
            else:
                crc = self._crc(entry)
            if entry.crc and crc != entry.crc:
                bad.append(entry.name)
        return bad

    # ------------------------------------------------------------------------------------------------------- directory

    def _directory(self) -> Iterator[Entry]:
        position, size, count = self._end()
        end = position + size
        if count > _MAX_ENTRIES:
            self._unsafe(f"its directory names {count:,} entries; at most {_MAX_ENTRIES:,} are read")
        for _ in range(count):
            fields = _CENTRAL.unpack_from(self._memory, position)
            name_length, extra_length, comment_length = fields[10:13]
            position += _CENTRAL.size
            name = self._memory[position : position + name_length]
            extra = self._memory[position + name_length : position + name_length + extra_length]
            position += name_length + extra_length + comment_length
            if fields[0] != b"PK\x01\x02" or position > end:
                self._damaged("its directory is cut short or overwritten")
            yield self._entry_of(fields, name, extra, end - size)
        if position != end:
            self._unsafe("its directory holds more than the entries that it counts")

    def _end(self) -> tuple[int, int, int]:
        """Where the directory begins, its size, and how many entries it has."""
        at = self.size_bytes - _END.size
        magic, disk, start_disk, here, count, size, offset, comment = _END.unpack_from(self._memory, max(at, 0))
        if magic != b"PK\x05\x06" or comment:
            self._damaged("it does not end with a zip archive's directory: it was cut short, or something was appended")
        locator_at = at - _END64_LOCATOR.size
        if locator_at >= 0 and self._memory[locator_at : locator_at + 4] == b"PK\x06\x07":
            _, start_disk, at, disks = _END64_LOCATOR.unpack_from(self._memory, locator_at)
            if at + _END64.size > locator_at:
                self._damaged("its zip64 directory lies beyond its end")
            small = (here, count, size, offset)
            magic, length, _, _, disk, _, here, count, size, offset = _END64.unpack_from(self._memory, at)
            if magic != b"PK\x06\x06" or at + 12 + length != locator_at or disks > 1:
                self._damaged("the end of its zip64 directory is not where it should be")
            unset = (_UNSET16, _UNSET16, _UNSET32, _UNSET32)
            if any(a not in (b, u) for a, b, u in zip(small, (here, count, size, offset), unset, strict=True)):
                self._unsafe("its two directories contradict each other")
        if disk or start_disk or here != count:
            self._unsafe("it claims to be one part of several")
        if offset + size != at:
            self._damaged("its directory is not where it should be: it was cut, or something was put before it")
        return offset, size, count

    def _entry_of(self, fields: tuple[int, ...], raw_name: bytes, extra: bytes, directory_offset: int) -> Entry:
        _, made_by, _, flags, method, _, _, crc, stored, size, *_ = fields
        disk, external, header_offset = fields[13], fields[15], fields[16]
        name = self._name(raw_name)
        wide = _zip64(extra)
        sizes = []
        for value in (size, stored, header_offset):
            if value == _UNSET32 and wide:
                value = wide.pop(0)
            sizes.append(value)
        size, stored, header_offset = sizes
        kind = external >> 28 if made_by >> 8 == 3 else 0
        if kind not in (0, _REGULAR, _FOLDER):
            self._unsafe(f"{name!r} is a link or another special file")
        if flags & _ENCRYPTED:
            self._unsafe(f"{name!r} is encrypted")
        if method not in (_STORED, _DEFLATED):
            self._unsafe(f"{name!r} is compressed by method {method}; torch stores or deflates")
        if disk not in (0, _UNSET16):
            self._unsafe(f"{name!r} claims to be in another part of the archive")
        if (method == _STORED and stored != size) or (name.endswith("/") and size):
            self._unsafe(f"{name!r} claims {size:,} bytes and takes {stored:,}")
        offset = self._local(header_offset, raw_name, flags, method, (crc, stored, size))
        if offset + stored > directory_offset:
            self._unsafe(f"{name!r} claims {stored:,} bytes from byte {offset:,}, beyond where the entries end")
        return Entry(name, header_offset, offset, stored, size, crc, method == _DEFLATED)

    def _local(self, at: int, raw_name: bytes, flags: int, method: int, sizes: tuple[int, int, int]) -> int:
        """Where an entry's data begins; its own header must say what the directory says."""
        if at + _LOCAL.size > self.size_bytes:
            self._unsafe(f"{self._name(raw_name)!r} claims to begin at byte {at:,}, beyond the end")
        magic, _, local_flags, local_method, _, _, *local_sizes, name_length, extra_length = _LOCAL.unpack_from(
            self._memory, at
        )
        name_at = at + _LOCAL.size
        if magic != ZIP_MAGIC:
            self._damaged(f"the header of {self._name(raw_name)!r} is overwritten")
        agree = self._memory[name_at : name_at + name_length] == raw_name
        agree = agree and method == local_method and not (flags ^ local_flags) & (_ENCRYPTED | _SIZES_FOLLOW)
        extra = self._memory[name_at + name_length : name_at + name_length + extra_length]
        unknown = {0} if flags & _SIZES_FOLLOW else set()
        wide = _zip64(extra)
        agree = agree and local_sizes[0] in {sizes[0], *unknown}
        agree = agree and all(
            local in {value, *unknown, *([_UNSET32] if wide else [])}
            for value, local in zip(sizes[1:], local_sizes[1:], strict=True)
        )
        agree = agree and all(value in {*sizes[1:], at, *unknown} for value in wide)  # torch repeats its own place
        if not agree:
            self._unsafe(f"the header of {self._name(raw_name)!r} contradicts the directory")
        return int(name_at + name_length + extra_length)

    def _name(self, raw: bytes) -> str:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            self._unsafe(f"a name in it is not UTF-8: {raw!r:.80}")
        parts = name.removesuffix("/").split("/")
        if any(part in ("", ".", "..") for part in parts) or _DRIVE.match(name):
            self._unsafe(f"the name {name!r:.200} leads out of the archive, or has no one meaning")
        if "\\" in name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
            self._unsafe(f"the name {name!r:.200} has a backslash or a control character in it")
        return name

    def _check_together(self, entries: list[Entry]) -> None:
        seen: set[str] = set()
        for entry in entries:
            key = unicodedata.normalize("NFC", entry.name.removesuffix("/")).casefold()
            if key in seen:
                self._unsafe(f"{entry.name!r} is in it twice, or differs from another name by case only")
            seen.add(key)
        end = 0
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            if entry.header_offset < end:
                self._unsafe(f"{entry.name!r} overlaps another entry")
            end = entry.offset + entry.stored_bytes
        deflated = [entry for entry in entries if entry.is_deflated]
        inflated_bytes = sum(entry.size_bytes for entry in deflated)
        if inflated_bytes > max(_MAX_INFLATED_BYTES, _MAX_RATIO * sum(entry.stored_bytes for entry in deflated)):
            self._unsafe(f"it would inflate from {self.size_bytes:,} bytes to {inflated_bytes:,}: a compression bomb")

    # ------------------------------------------------------------------------------------------------------------ data

    def _entry(self, name: str) -> Entry:
        entry = self.entries.get(name)
        if entry is None:
            self._damaged(f"there is no {name!r:.200} in it")
        return entry

    def _inflated(self, entry: Entry, data: bytes) -> bytes:
        inflater = zlib.decompressobj(-15)
        try:
            content = inflater.decompress(data, entry.size_bytes + 1)
        except zlib.error as error:
            raise ModelFileError(f"{self.path} is damaged: {entry.name!r} cannot be inflated ({error}).") from error
        if len(content) > entry.size_bytes:
            self._unsafe(f"{entry.name!r} inflates to more than the {entry.size_bytes:,} bytes that it claims")
        if len(content) < entry.size_bytes or not inflater.eof:
            self._damaged(f"{entry.name!r} inflates to less than the {entry.size_bytes:,} bytes that it claims")
        return content

    def _crc(self, entry: Entry) -> int:
        crc, end = 0, entry.offset + entry.size_bytes
        for start in range(entry.offset, end, _CHUNK_BYTES):
            crc = zlib.crc32(self._memory[start : min(start + _CHUNK_BYTES, end)], crc)
        return crc

    def _damaged(self, problem: str) -> NoReturn:
        raise ModelFileError(f"{self.path} is damaged: {problem}. Get the file again, or save it anew.")

    def _unsafe(self, problem: str) -> NoReturn:
        raise UnsafeFileError(
            f"{self.path} is refused: {problem}. {self._writer} writes no such file; nothing of it was used."
        )


def map_file(path: Path) -> mmap.mmap:
    """A whole file as memory of this process: what is written to it stays here and never reaches the file.

    Raises:
        ModelFileError: there is no such file, it is a folder or empty, or it cannot be read.
    """
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else ""
            raise ModelFileError(f"{path} {what}, not a file of weights." if what else f"there is no file {path}.")
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise ModelFileError(f"{path} is empty: whatever wrote it was stopped before it had written anything.")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except ModelFileError:
        raise
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        raise ModelFileError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _zip64(extra: bytes) -> list[int]:
    """The 64-bit values of an extra field; raises struct.error for a field that ends in the middle of a block."""
    position, values = 0, []
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == 1:
            values += [
                value for (value,) in struct.iter_unpack("<Q", extra[position : position + min(length, 24) // 8 * 8])
            ]
        position += length
    return values
