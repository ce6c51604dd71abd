"""A manifest's state, built from the packs."""

from __future__ import annotations

import itertools
import mmap as memory_map
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from relume.checkpoint.codec import Json, decode, members, places
from relume.checkpoint.index import Index
from relume.checkpoint.layout import Checkpoint
from relume.checkpoint.manifest import Entry, Manifest, Piece
from relume.checkpoint.pack import Pack
from relume.checkpoint.reader import Verify, damaged, map_pack, mapped, read
from relume.checkpoint.tensors import from_bytes, size_bytes
from relume.errors import CorruptionError, ManifestError, PackError


def load_tree(
    manifest: Manifest,
    checkpoint: Checkpoint,
    index: Index,
    *,
    verify: Verify,
    device: torch.device | str | None = None,
    mmap: bool = True,
    part: Sequence[str | int] = (),
    only_trusted: bool = False,
) -> Any:
    """Build the state, or one part of it.

    Args:
        only_trusted: do not read again what the index says was read.
    """
    tree = _part(manifest.tree, part, checkpoint)
    wanted = places(tree)
    if any(place < 0 or place >= len(manifest.entries) for place in wanted):
        raise ManifestError(f"{checkpoint.path} refers to a tensor that it does not list.")
    entries = {place: manifest.entries[place] for place in wanted}
    for entry in entries.values():
        _check_entry(entry, manifest, checkpoint)
    holders = _locate(entries, manifest, checkpoint, index, verify, only_trusted)
    builder = _Builder(holders, mmap, torch.device(device) if device is not None else None)
    built: dict[int, object] = {}

    def data(place: int) -> object:
        if place not in built:
            built[place] = builder.build(entries[place])
        return built[place]

    try:
        return decode(tree, data)
    except ManifestError as error:
        raise ManifestError(f"{checkpoint.path}: {error}") from error


def decode_meta(manifest: Manifest) -> Any:
    """The description that was saved with a checkpoint."""

    def no_data(place: int) -> object:
        raise ValueError("tensors in meta")

    return decode(manifest.meta, no_data)


def _part(tree: Json, part: Sequence[str | int], checkpoint: Checkpoint) -> Json:
    for depth, key in enumerate(part):
        known = members(tree)
        try:
            tree = known[key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            names = ", ".join(map(str, known)) if isinstance(known, dict) else f"{len(known)} items"
            raise ManifestError(
                f"{checkpoint.path} has no {'.'.join(map(str, part[: depth + 1]))!r}. There are: {names:.500}."
            ) from None
    return tree


def _check_entry(entry: Entry, manifest: Manifest, checkpoint: Checkpoint) -> None:
    try:
        size = size_bytes(entry.dtype, entry.shape)
    except ValueError as error:
        raise ManifestError(f"{checkpoint.path}: {entry.name}: {error}.") from None
    ends = itertools.accumulate((piece.size_bytes for piece in entry.pieces), initial=0)
    has_holes = any(piece.offset != end or not piece.size_bytes for piece, end in zip(entry.pieces, ends, strict=False))
    if has_holes or sum(piece.size_bytes for piece in entry.pieces) != size:
        raise ManifestError(
            f"{checkpoint.path}: the pieces of {entry.name} do not come to the {size} bytes of {entry.dtype} "
            f"{entry.shape}."
        )
    if any(piece.pack >= len(manifest.packs) for piece in entry.pieces):
        raise ManifestError(f"{checkpoint.path}: {entry.name} lies in a pack that is not listed.")


def _locate(
    entries: dict[int, Entry],
    manifest: Manifest,
    checkpoint: Checkpoint,
    index: Index,
    verify: Verify,
    only_trusted: bool,
) -> dict[str, Pack]:
    """The pack to take each piece from: where it is whole, the one that the manifest names before others."""
    index.refresh()
    wanted = {piece.hash: (piece, entry) for entry in entries.values() for piece in entry.pieces}
    candidates = {name: _holders(piece, manifest, index) for name, (piece, _) in wanted.items()}
    found: dict[str, Pack] = {}
    failures: dict[str, str] = {}
    while open_names := [name for name in wanted if name not in found]:
        by_pack: dict[str, list[str]] = defaultdict(list)
        packs: dict[str, Pack] = {}
        for name in open_names:
            if not candidates[name]:
                piece, entry = wanted[name]
                raise _lost(entry, piece, manifest, checkpoint, index, failures.get(name))
            pack = candidates[name].pop(0)
            packs[pack.id] = pack
            by_pack[pack.id].append(name)
        for pack_id, names in by_pack.items():
            bad, reason = _damaged(packs[pack_id], names, index, verify, only_trusted)
            failures |= dict.fromkeys(bad, reason)
            found |= {name: packs[pack_id] for name in names if name not in bad}
    return found


def _damaged(pack: Pack, names: list[str], index: Index, verify: Verify, only_trusted: bool) -> tuple[set[str], str]:
    """Which pieces cannot be taken from this pack, and why."""
    try:
        if only_trusted:
            damaged(pack, [], verify=False)
            bad = {name for name in names if (pack.id, name) not in index.trusted}
        else:
            bad = damaged(pack, names, verify)
            if verify:
                index.trusted.update((pack.id, name) for name in names if name not in bad)
    except PackError as error:
        return set(names), str(error)
    index.trusted.difference_update((pack.id, name) for name in bad)
    return bad, f"its bytes in {pack.path} are not those that were saved."


def _holders(piece: Piece, manifest: Manifest, index: Index) -> list[Pack]:
    packs = index.holders(piece.hash, first=manifest.packs[piece.pack])
    return [pack for pack in packs if pack.spans[piece.hash].size_bytes == piece.size_bytes]


def _lost(
    entry: Entry, piece: Piece, manifest: Manifest, checkpoint: Checkpoint, index: Index, failure: str | None
) -> PackError:
    advice = "Load an older checkpoint, or the newest good one with load_newest()."
    pack_id = manifest.packs[piece.pack]
    if failure:
        return CorruptionError(f"{checkpoint.path}: {entry.name} is damaged: {failure} {advice}")
    if pack_id in index.unreadable:
        return CorruptionError(f"{checkpoint.path}: {entry.name} is lost: {index.unreadable[pack_id]} {advice}")
    return PackError(f"{checkpoint.path}: {entry.name} is lost: no pack in {index.folder} holds it. {advice}")


class _Builder:
    """Makes tensors of pieces; each has memory of its own, however often its bytes are used."""

    def __init__(self, holders: dict[str, Pack], mmap: bool, device: torch.device | None) -> None:
        self._holders = holders
        self._mmap = mmap
        self._device = device
        self._maps: dict[str, memory_map.mmap] = {}
        self._taken: set[str] = set()

    def build(self, entry: Entry) -> torch.Tensor | np.ndarray[Any, Any] | bytes:
        """The tensor, array or bytes that an entry of the manifest describes."""
        value = from_bytes(self._bytes(entry), entry.dtype, entry.shape)
        if not isinstance(value, torch.Tensor):
            return value
        value = value if self._device is None else value.to(self._device)
        if entry.is_parameter:
            return torch.nn.Parameter(value, requires_grad=entry.requires_grad)
        return value.requires_grad_() if entry.requires_grad else value

    def _bytes(self, entry: Entry) -> torch.Tensor:
        parts = [self._piece(piece) for piece in entry.pieces]
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)

    def _piece(self, piece: Piece) -> torch.Tensor:
        pack = self._holders[piece.hash]
        if not self._mmap:
            return read(pack, pack.spans[piece.hash])
        if pack.id not in self._maps:
            self._maps[pack.id] = map_pack(pack)
        flat = mapped(self._maps[pack.id], pack.spans[piece.hash])
        if piece.hash in self._taken:  # two tensors that were equal when saved must not become one
            return flat.clone()
        self._taken.add(piece.hash)
        return flat
