"""What stands at a remote store: one index a bundle, and the objects that its bytes are cut into.

    DEST/fashion.relume.json            the index; written last, which is the commit
    DEST/objects/3f/3f9c…               one chunk of at most 8 MiB, named by its blake3 hash

All files of a bundle, one after the other in the manifest's order, are one row of bytes, and the chunks are that row cut
to pieces. A tensor of 64 KiB or more begins a chunk and ends one, so that two fine-tunings of one backbone share its
chunks, whatever their heads do to the places of the bytes. Small files that are neighbours travel together.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from blake3 import blake3

from relume.checkpoint.files import Buffer
from relume.errors import BundleError, ModelFileError
from relume.models.header import read_header, unique
from relume.share.archive import Layout
from relume.share.bundle import Bundle
from relume.share.manifest import Manifest

ENDING = ".relume.json"
CHUNK_BYTES = 8 << 20
"""No chunk is longer, neither written nor read."""
MAX_INDEX_BYTES = 64 << 20

_ALONE_BYTES = 64 << 10
_KIND = "relume index"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Chunk:
    """A piece of the row of bytes."""

    hash: str
    start: int
    size_bytes: int

    @property
    def path(self) -> str:
        """Where it stands below the destination."""
        return f"objects/{self.hash[:2]}/{self.hash}"


class Index:
    """A bundle as its chunks.

    Attributes:
        manifest: what they come to.
        chunks: in order, without a gap.
    """

    def __init__(self, manifest: Manifest, pieces: list[tuple[str, int]]) -> None:
        ends = accumulate(size for _, size in pieces)
        self.manifest = manifest
        self.chunks = [Chunk(name, end - size, size) for (name, size), end in zip(pieces, ends, strict=True)]

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return self._starts[-1]

    @cached_property
    def layout(self) -> Layout:
        """The archive that the files make."""
        return Layout(self.manifest)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(member.size_bytes for member in self.manifest.members)]

    def places(self, start: int, size_bytes: int) -> Iterator[tuple[int, int]]:
        """Where a stretch of the row lies in the archive: offsets and sizes. Between files, the archive has headers."""
        end = start + size_bytes
        number = bisect_right(self._starts, start) - 1
        while start < end:
            member = self.manifest.members[number]
            part = min(end, self._starts[number + 1]) - start
            if part:
                yield self.layout.offsets[member.path] + start - self._starts[number], part
            start, number = start + part, number + 1

    def text(self) -> bytes:
        """The file."""
        pieces = [[chunk.hash, chunk.size_bytes] for chunk in self.chunks]
        document = {"format": 1, "kind": _KIND, "manifest": self.manifest.text().decode(), "chunks": pieces}
        return (json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n").encode()

    @classmethod
    def read(cls, content: bytes, where: str) -> Index:
        """Take an index apart; nothing in it is believed that contradicts itself.

        Raises:
            BundleError: it is no index, damaged, or of a newer format.
            UnsafeFileError: it names files that no bundle may hold.
        """
        try:
            document = json.loads(content, object_pairs_hook=unique)
            if not isinstance(document, dict) or document.get("kind") != _KIND:
                raise ValueError("it is something else")
            if type(document.get("format")) is int and document["format"] > 1:
                raise BundleError(
                    f"{where} has the format {document['format']}: a newer relume pushed it. Update relume."
                )
            manifest = Manifest.read(document["manifest"].encode(), where)
            made = cls(manifest, [_piece(piece) for piece in document["chunks"]])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(
                f"{where} is no index of a bundle, or a damaged one ({error!s:.120}). Push the bundle again."
            ) from None
        total = made.chunks[-1].start + made.chunks[-1].size_bytes if made.chunks else 0
        if total != made.size_bytes:
            raise BundleError(
                f"{where} contradicts itself: its files have {made.size_bytes:,} bytes and its chunks {total:,}. "
                "Push the bundle again."
            )
        return made


def _piece(piece: object) -> tuple[str, int]:
    match piece:
        case [str(name), int(size)] if _HASH.fullmatch(name) and 0 < size <= CHUNK_BYTES and size is not True:
            return name, size
    raise ValueError(f"the chunk {piece!r:.100}")


class Source:
    """A bundle that is here, cut into chunks. Reads and hashes all of it (575 MB: about 0.2 s).

    Attributes:
        index: what it comes to.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._members = bundle.manifest.members
        self._starts = [0, *accumulate(member.size_bytes for member in self._members)]
        cuts = list(_cuts(bundle))
        pieces = [(self._hash(start, end), end - start) for start, end in pairwise(cuts)]
        self.index = Index(bundle.manifest, pieces)

    def parts(self, start: int, size_bytes: int) -> Iterator[Buffer]:
        """A stretch of the row."""
        end = start + size_bytes
        number = bisect_right(self._starts, start) - 1
        while start < end:
            inner = start - self._starts[number]
            part = min(end, self._starts[number + 1]) - start
            if part:
                yield memoryview(self._bundle.buffer(self._members[number].path))[inner : inner + part]
            start, number = start + part, number + 1

    def content(self, chunk: Chunk) -> bytes:
        """The bytes of a chunk."""
        return b"".join(self.parts(chunk.start, chunk.size_bytes))

    def _hash(self, start: int, end: int) -> str:
        hasher = blake3(max_threads=1)
        for part in self.parts(start, end - start):
            hasher.update(part)
        return hasher.hexdigest()


def _cuts(bundle: Bundle) -> Iterator[int]:
    """Where chunks begin, and at last the end."""
    start = last = 0
    for member in bundle.manifest.members:
        for size in _stretches(bundle, member.path, member.size_bytes):
            if start > last and (size >= _ALONE_BYTES or start + size - last > CHUNK_BYTES):
                yield last
                last = start
            start += size
            while start - last > CHUNK_BYTES:
                yield last
                last += CHUNK_BYTES
            if size >= _ALONE_BYTES:
                yield last
                last = start
    if start > last:
        yield last
    yield start


def _stretches(bundle: Bundle, path: str, size_bytes: int) -> list[int]:
    """What a file consists of: tensors, or one whole."""
    place = bundle.place(path)
    if path.endswith(".safetensors") and size_bytes >= _ALONE_BYTES:
        try:
            entries = read_header(place.path, place.offset, place.size_bytes).entries.values()
        except ModelFileError:
            return [size_bytes]  # not for a transport to judge
        starts = sorted({0, *(entry.offset - place.offset for entry in entries if entry.size_bytes)})
        return [end - start for start, end in zip(starts, [*starts[1:], size_bytes], strict=True)]
    return [size_bytes]
