"""Packs: immutable safetensors files that hold the tensors which were new to the store at one save.

Each tensor in a pack is called by its blake3 hash, so that any reader of safetensors can open it. The pack's own name
is the hash of its header, which lists all that it holds: a flipped bit anywhere in the file contradicts a name.
Format: https://huggingface.co/docs/safetensors (8 bytes of header length, a JSON header, the bytes).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from relume.checkpoint import files
from relume.checkpoint.files import Buffer
from relume.checkpoint.hashing import checksum
from relume.errors import PackError

ALIGNMENT_BYTES = 64
MAX_HEADER_BYTES = 100_000_000

HASH = re.compile(r"[0-9a-f]{64}\Z")
PACK_ID = re.compile(r"[0-9a-f]{32}\Z")

SAFETENSORS_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32",
    "int64": "I64", "uint64": "U64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


@dataclass(frozen=True)
class Blob:
    """Bytes to be put into a pack, with the dtype and shape that other readers will show."""

    hash: str
    data: Buffer
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """Where one piece lies in a pack; ``checksum`` is empty for a short one."""

    offset: int
    size_bytes: int
    checksum: str


@dataclass(frozen=True)
class Pack:
    """A pack's header, read and checked."""

    id: str
    path: Path
    spans: dict[str, Span]
    size_bytes: int


def pack_path(packs: Path, pack_id: str) -> Path:
    """Where the pack of that id lies below the folder of all packs."""
    return packs / pack_id[:2] / f"{pack_id}.safetensors"


def write_pack(packs: Path, staging: Path, blobs: Iterable[Blob]) -> Pack:
    """Write one pack: staged, on the disk, then named, then its name on the disk.

    The same blobs give the same pack under the same name, so that two writers cannot hurt each other.
    """
    ordered = sorted(blobs, key=_placement)
    header = _header(ordered)
    pack_id = blake3(header).hexdigest(16)
    path = pack_path(packs, pack_id)
    files.make_folder(staging)
    files.make_folder(path.parent)
    staged = staging / f"{pack_id}.{os.getpid()}-{os.urandom(4).hex()}"
    files.write_new(staged, [header, *(blob.data for blob in ordered)])
    files.publish(staged, path)
    return _parse(header[8:], pack_id, path)


def read_pack(packs: Path, pack_id: str) -> Pack:
    """Read and check the header of a pack, and the length of the file.

    Raises:
        PackError: the file is missing, cut short, or not the pack that its name promises.
    """
    return read_pack_file(pack_path(packs, pack_id), pack_id)


def read_pack_file(path: Path, pack_id: str) -> Pack:
    """`read_pack` of a file that may have any name."""
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            size = os.fstat(file.fileno()).st_size
            if len(prefix) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise PackError(f"{path} is not a pack: {size} bytes cannot hold its header of {length} bytes.")
            header = file.read(length)
    except OSError as error:
        if isinstance(error, PackError):
            raise
        raise PackError(f"{path} cannot be read: {error.strerror}.") from error
    if blake3(prefix + header).hexdigest(16) != pack_id:
        raise PackError(f"{path}: the header was changed after the pack was written.")
    pack = _parse(header, pack_id, path)
    if pack.size_bytes != size:
        raise PackError(f"{path} has {size} bytes where its header promises {pack.size_bytes}: it was cut or added to.")
    return pack


def list_packs(packs: Path) -> list[str]:
    """The ids of all packs there are, in order."""
    found = []
    for folder in _entries(packs):
        if folder.is_dir():
            found += [entry.name.removesuffix(".safetensors") for entry in _entries(Path(folder.path))]
    return sorted(name for name in found if PACK_ID.match(name))


def _entries(folder: Path) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise PackError(f"{folder} cannot be read: {error.strerror}. Check its owner and its rights.") from error


def placement(size_bytes: int) -> int:
    """What pieces are sorted by so that each lies aligned, with no holes: the power of two that divides its size."""
    return -min(size_bytes & -size_bytes, ALIGNMENT_BYTES)


def framed(entries: Mapping[str, Any]) -> bytes:
    """A header as it stands in the file: its length, and JSON filled up so that the bytes begin aligned."""
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text


def _placement(blob: Blob) -> tuple[int, str]:
    return (placement(memoryview(blob.data).nbytes), blob.hash)


def _header(blobs: Sequence[Blob]) -> bytes:
    entries: dict[str, Any] = {}
    offset = 0
    for blob in blobs:
        size = memoryview(blob.data).nbytes
        dtype = SAFETENSORS_DTYPES.get(blob.dtype)
        entries[blob.hash] = {
            "dtype": dtype or "U8",
            "shape": list(blob.shape) if dtype else [size],
            "data_offsets": [offset, offset + size],
        }
        offset += size
    checksums = {blob.hash: checksum(blob.data) for blob in blobs}
    metadata = {"relume": "pack 1", "checksums": json.dumps({k: v for k, v in checksums.items() if v})}
    return framed({"__metadata__": metadata, **entries})


def _parse(header: bytes, pack_id: str, path: Path) -> Pack:
    try:
        entries = json.loads(header)
        checksums = json.loads(entries.pop("__metadata__")["checksums"])
        start = 8 + len(header)
        spans: dict[str, Span] = {}
        end = start
        for name, entry in entries.items():
            first, last = entry["data_offsets"]
            if not HASH.match(name) or type(first) is not int or type(last) is not int:
                raise ValueError(f"an entry {name!r:.80}")
            if start + first != end or last <= first:
                raise ValueError(f"a hole or an overlap at {name}")
            end = start + last
            spans[name] = Span(start + first, last - first, str(checksums.get(name, "")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PackError(f"{path} is not a pack of relume: its header has {error!s:.200}.") from error
    return Pack(pack_id, path, spans, end)
