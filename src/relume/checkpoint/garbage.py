"""Garbage: packs that no checkpoint needs, and what killed writers left behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from relume.checkpoint import files
from relume.checkpoint.index import Index
from relume.checkpoint.layout import Layout
from relume.checkpoint.manifest import Manifest, read_manifest
from relume.checkpoint.pack import Blob, Pack, write_pack
from relume.checkpoint.reader import damaged, map_pack
from relume.errors import ManifestError, PackError

COMPACT_BELOW = 0.5
"""A pack of which less than this share is needed is written anew without the rest."""

_COMPACT_BYTES = 1 << 20


@dataclass(frozen=True)
class GcReport:
    """What gc freed, or in a dry run would free.

    Attributes:
        deleted: packs that nothing needs.
        compacted: packs of which little was needed; that was moved to new ones.
        freed_bytes: of packs, net of what was written anew.
        leftovers: files of writers that were killed; in a dry run perhaps of one that is writing now.
        leftover_bytes: what these come to.
        unreadable: manifests that cannot be read. While there are any no pack is deleted: one of them might need it.
    """

    deleted: list[Path] = field(default_factory=list)
    compacted: list[Path] = field(default_factory=list)
    freed_bytes: int = 0
    leftovers: list[Path] = field(default_factory=list)
    leftover_bytes: int = 0
    unreadable: list[tuple[Path, ManifestError]] = field(default_factory=list)


def collect(layout: Layout, index: Index, *, dry_run: bool) -> GcReport:
    """Find and delete garbage. The caller holds the store's lock alone, unless it is a dry run."""
    leftovers = layout.leftovers()
    leftover_bytes = sum(map(_file_size, leftovers))
    if not dry_run:
        sweep(layout)
    manifests, unreadable = _read_manifests(layout)
    if unreadable:
        return GcReport(leftovers=leftovers, leftover_bytes=leftover_bytes, unreadable=unreadable)
    index.refresh()
    needed = _needed(manifests, index)
    dead = [pack for pack in index.packs() if not needed[pack.id]]
    sparse = [pack for pack in index.packs() if needed[pack.id] and _is_sparse(pack, needed[pack.id])]
    if not dry_run:
        sparse = _compact(layout, index, sparse, needed)
        for pack in dead + sparse:
            files.system.unlink(pack.path)
        for folder in {pack.path.parent for pack in dead + sparse}:
            files.sync_folder(folder)
        index.refresh()
    freed = sum(pack.size_bytes for pack in dead)
    freed += sum(pack.size_bytes - _size(pack, needed[pack.id]) for pack in sparse)
    return GcReport([pack.path for pack in dead], [pack.path for pack in sparse], freed, leftovers, leftover_bytes)


def sweep(layout: Layout) -> None:
    """Delete what killed writers left behind. The caller holds the store's lock alone."""
    for path in layout.leftovers():
        files.system.unlink(path)


def _read_manifests(layout: Layout) -> tuple[list[Manifest], list[tuple[Path, ManifestError]]]:
    manifests, unreadable = [], []
    for folder in layout.folders():
        for checkpoint in layout.checkpoints(folder):
            try:
                manifests.append(read_manifest(checkpoint.path))
            except ManifestError as error:
                unreadable.append((checkpoint.path, error))
    return manifests, unreadable


def _needed(manifests: Iterable[Manifest], index: Index) -> dict[str, set[str]]:
    """For each pack the pieces that are needed from it: where the manifest says, or, if it is not there, wherever."""
    needed: dict[str, set[str]] = defaultdict(set)
    for manifest in manifests:
        for entry in manifest.entries:
            for piece in entry.pieces:
                pack_id = manifest.packs[piece.pack] if piece.pack < len(manifest.packs) else ""
                holders = index.holders(piece.hash, first=pack_id)
                for pack in holders[:1] if holders and holders[0].id == pack_id else holders:
                    needed[pack.id].add(piece.hash)
    return needed


def _is_sparse(pack: Pack, names: set[str]) -> bool:
    size = _size(pack, names)
    return size < COMPACT_BELOW * pack.size_bytes and pack.size_bytes - size >= _COMPACT_BYTES


def _size(pack: Pack, names: set[str]) -> int:
    return sum(pack.spans[name].size_bytes for name in names)


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # its writer lives, and has given it its name
        return 0


def _compact(layout: Layout, index: Index, sparse: list[Pack], needed: dict[str, set[str]]) -> list[Pack]:
    """Write the needed pieces of sparse packs into one new pack; returns those that can go."""
    blobs: dict[str, Blob] = {}
    moved = []
    for pack in sparse:
        names = sorted(needed[pack.id])
        try:
            if damaged(pack, names, verify="hash"):
                continue  # left for verify to find
            memory = memoryview(map_pack(pack))
        except PackError:
            continue
        for name in names:
            span = pack.spans[name]
            blobs[name] = Blob(name, memory[span.offset : span.offset + span.size_bytes], "uint8", (span.size_bytes,))
        moved.append(pack)
    if blobs:
        index.add(write_pack(layout.packs, layout.staging, blobs.values()), trusted=True)
    return moved
