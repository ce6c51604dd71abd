"""Bytes out of packs: checked, and mapped into memory so that they are read when they are used."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import torch

from relume.checkpoint.hashing import BLOCK_BYTES, block_sum, hash_parts, seal
from relume.checkpoint.pack import Pack, Span
from relume.checkpoint.tensors import as_buffer
from relume.errors import PackError

Verify = bool | Literal["hash"]
"""How bytes are checked: True by checksum (long pieces) or hash (short ones), "hash" all by hash, False not at all."""

_READ_BYTES = 8 << 20
_MAX_THREADS = 8


def damaged(pack: Pack, names: Sequence[str], verify: Verify) -> set[str]:
    """Which of the pieces ``names`` of a pack are not what they were when it was written.

    They are read and not mapped: a disk that fails is then an error and not the end of the process.

    Raises:
        PackError: the pack is gone, cut short, or cannot be read.
    """
    with _opened(pack) as file:
        if not verify:
            return set()
        long = [name for name in names if pack.spans[name].checksum and verify != "hash"]
        short = [name for name in names if name not in set(long)]
        bad = {name for name in short if _hash(file, pack, pack.spans[name]) != name}
        found = _checksums(pack, [pack.spans[name] for name in long])
        return bad | {name for name, value in zip(long, found, strict=True) if value != pack.spans[name].checksum}


def digests(pack: Pack, spans: list[Span]) -> list[str]:
    """The checksum of each long piece and the hash of each short one, as `relume.checkpoint.hashing.digest` gives them.

    Raises:
        PackError: the file is gone, cut short, or cannot be read.
    """
    long = [span for span in spans if span.size_bytes >= BLOCK_BYTES]
    with _opened(pack) as file:
        sums = iter(_checksums(pack, long) if long else ())
        return [next(sums) if span.size_bytes >= BLOCK_BYTES else _hash(file, pack, span) for span in spans]


def map_pack(pack: Pack) -> mmap.mmap:
    """The whole pack as memory of this process: what is written to it stays here and never reaches the file."""
    with _opened(pack) as file:
        return mmap.mmap(file.fileno(), pack.size_bytes, access=mmap.ACCESS_COPY)


def mapped(memory: mmap.mmap, span: Span) -> torch.Tensor:
    """The bytes of one piece in a mapped pack."""
    return torch.frombuffer(memory, dtype=torch.uint8, count=span.size_bytes, offset=span.offset)


def read(pack: Pack, span: Span) -> torch.Tensor:
    """The bytes of one piece, in fresh memory."""
    flat = torch.empty(span.size_bytes, dtype=torch.uint8)
    view = as_buffer(flat)
    with _opened(pack) as file:
        _fill(file, view, span.offset, pack.path)
    return flat


@contextlib.contextmanager
def _opened(pack: Pack) -> Iterator[io.FileIO]:
    """An open pack, whose length is still what its header promises."""
    try:
        file = io.FileIO(pack.path)
    except OSError as error:
        raise PackError(f"{pack.path} cannot be read: {error.strerror}.") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size != pack.size_bytes:
            raise PackError(f"{pack.path} has {size} bytes where {pack.size_bytes} were written: it was cut.")
        yield file


def _hash(file: io.FileIO, pack: Pack, span: Span) -> str:
    return hash_parts(_parts(file, pack.path, span), span.size_bytes)


def _parts(file: io.FileIO, path: Path, span: Span) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(_READ_BYTES, span.size_bytes)))
    for start in range(0, span.size_bytes, _READ_BYTES):
        part = buffer[: min(len(buffer), span.size_bytes - start)]
        _fill(file, part, span.offset + start, path)
        yield part


def _checksums(pack: Pack, spans: list[Span]) -> list[str]:
    """The checksums of several pieces, block by block on several cores (575 MB: 21 ms on two)."""
    blocks = [
        (span.offset + start, min(BLOCK_BYTES, span.size_bytes - start))
        for span in spans
        for start in range(0, span.size_bytes, BLOCK_BYTES)
    ]
    workers = max(1, min(os.cpu_count() or 1, _MAX_THREADS, len(blocks) // 4))

    def sums(worker: int) -> list[int]:
        buffer = memoryview(bytearray(BLOCK_BYTES))
        found = []
        with _opened(pack) as file:
            for offset, size in blocks[worker::workers]:
                _fill(file, buffer[:size], offset, pack.path)
                found.append(block_sum(buffer[:size]))
        return found

    totals = [0] * len(blocks)
    with ThreadPoolExecutor(workers) as pool:
        for worker, found in enumerate(pool.map(sums, range(workers))):
            totals[worker::workers] = found
    parts = iter(totals)
    return [seal(next(parts) for _ in range(0, span.size_bytes, BLOCK_BYTES)) for span in spans]


def _fill(file: io.FileIO, view: memoryview, offset: int, path: Path) -> None:
    done = 0
    file.seek(offset)
    while done < len(view):
        try:
            count = file.readinto(view[done:])
        except OSError as error:
            raise PackError(f"{path} cannot be read at byte {offset + done}: {error.strerror}.") from error
        if not count:
            raise PackError(f"{path} ends at byte {offset + done}, before what its header promises: it was cut.")
        done += count
