"""Removing from a mirror what no checkpoint there needs, while other machines may be copying into it without any lock.

Only packs are removed that a withdrawn or never published manifest of this very run names, so only what this run put
there or relied on. A pack is first put aside, then every manifest of every run is looked at, the announced ones and
the local ones included, and only then it is deleted or put back. Whoever copies announces its manifest before it looks
which packs are there, and looks again after it has published it; so either it sees that the pack is gone and copies it
again, or this sees the manifest and puts the pack back.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from relume.checkpoint import files
from relume.checkpoint.copying import Copier
from relume.checkpoint.layout import is_temporary
from relume.checkpoint.manifest import parse, parse_file_name
from relume.checkpoint.pack import PACK_ID, pack_path, read_pack_file
from relume.errors import ManifestError, PackError

ABANDONED_SECONDS = 86_400.0
"""A temporary file that another machine has not touched for so long belongs to nobody."""

_ASIDE = ".unneeded"

Needs = dict[str, set[str]]
"""For the hash of each piece the packs that manifests name for it."""


@dataclass(frozen=True)
class _Read:
    """A manifest that was read: its file's size and time, and the pairs of piece and pack; None if it is damaged."""

    state: tuple[int, int]
    pieces: frozenset[tuple[str, str]] | None


class Pruner:
    """Removes unneeded packs of one run from a mirror.

    Args:
        copier: from the run's store to the mirror.
        folder: of the run's checkpoints.
        clock: the time of day in seconds.
    """

    def __init__(self, copier: Copier, folder: str, *, clock: Callable[[], float] = time.time) -> None:
        self._copier = copier
        self._local, self._target = copier.source, copier.target
        self._folder = self._target.manifests(folder)
        self._local_folder = self._local.manifests(folder)
        self._clock = clock
        self._cache: dict[Path, _Read] = {}

    def withdrawn(self) -> list[Path]:
        """Manifests of this run that have no name, or none any more, and are none of its present checkpoints."""
        ending = f".{self._copier.owner}.json.tmp"
        found = []
        for path in _entries(self._folder):
            if is_temporary(path) and path.name.endswith(ending):
                name = path.name.removeprefix(".").removesuffix(ending)
                if not (self._local_folder / name).exists():
                    found.append(path)
            elif self._is_abandoned(path):
                found.append(path)
        return found

    def prune(self) -> int:
        """Remove what is unneeded; returns how many packs that were. Does nothing while a manifest is unreadable."""
        withdrawn = self.withdrawn()
        candidates = {pack for path in withdrawn for _, pack in self._read(path).pieces or ()}
        aside = {path.name.removesuffix(_ASIDE): path for path in self._staged() if path.name.endswith(_ASIDE)}
        if candidates:
            needs = self._needs(set(withdrawn))
            if needs is None:
                return 0
            for pack_id in sorted(candidates):
                path = pack_path(self._target.packs, pack_id)
                if path.exists() and not self._is_needed(path, pack_id, needs):
                    aside[pack_id] = self._target.staging / f"{pack_id}{_ASIDE}"
                    files.system.replace(path, aside[pack_id])
        removed = self._decide(aside, set(withdrawn))
        for path in [*withdrawn, *self._staged_for_nothing()]:
            self._copier.remove(path)
        return removed

    def _decide(self, aside: dict[str, Path], withdrawn: set[Path]) -> int:
        """Delete what was put aside, or put it back where a manifest has come meanwhile."""
        if not aside:
            return 0
        needs = self._needs(withdrawn)
        removed = 0
        for pack_id, path in aside.items():
            try:
                if needs is None or self._is_needed(path, pack_id, needs):
                    files.system.replace(path, pack_path(self._target.packs, pack_id))
                else:
                    files.system.unlink(path)
                    removed += 1
            except FileNotFoundError:  # another machine has decided the same
                continue
        return removed

    def _is_needed(self, path: Path, pack_id: str, needs: Needs) -> bool:
        """Whether a manifest names it, or takes a piece from it because the pack that it names is not there."""
        try:
            names = read_pack_file(path, pack_id).spans.keys()
        except PackError:
            return any(pack_id in packs for packs in needs.values())
        for packs in (needs[name] for name in names if name in needs):
            if pack_id in packs or not all(pack_path(self._target.packs, pack).exists() for pack in packs):
                return True
        return False

    def _needs(self, withdrawn: set[Path]) -> Needs | None:
        """What all manifests there are need; None when one of them cannot be read: it might need anything."""
        found: Needs = defaultdict(set)
        for path in self._manifests():
            if path in withdrawn:
                continue
            try:
                pieces = self._read(path).pieces
            except FileNotFoundError:
                continue
            if pieces is None:
                return None
            for name, pack in pieces:
                found[name].add(pack)
        return found

    def _manifests(self) -> Iterator[Path]:
        for layout in (self._target, self._local):
            for folder in layout.folders():
                for path in _entries(layout.manifests(folder)):
                    is_announced = layout is self._target and is_temporary(path) and not self._is_abandoned(path)
                    if parse_file_name(path.name) or is_announced:
                        yield path

    def _read(self, path: Path) -> _Read:
        status = path.stat()
        state = (status.st_size, status.st_mtime_ns)
        known = self._cache.get(path)
        if known is None or known.state != state:
            try:
                manifest = parse(path.read_bytes(), path)
                pairs = ((piece.hash, manifest.packs[piece.pack]) for e in manifest.entries for piece in e.pieces)
                known = _Read(state, frozenset(pairs))
            except (ManifestError, IndexError):
                known = _Read(state, None)
            self._cache[path] = known
        return known

    def _staged(self) -> list[Path]:
        return [path for path in _entries(self._target.staging) if PACK_ID.match(path.name.partition(".")[0])]

    def _staged_for_nothing(self) -> list[Path]:
        """Half-copied packs of this run that no checkpoint here waits for, and those that everybody has left."""
        found = []
        for path in self._staged():
            pack_id, _, owner = path.name.partition(".")
            is_own = owner == self._copier.owner and not pack_path(self._local.packs, pack_id).exists()
            if is_own or (f".{owner}" != _ASIDE and self._is_old(path)):
                found.append(path)
        return found

    def _is_abandoned(self, path: Path) -> bool:
        return is_temporary(path) and self._is_old(path)

    def _is_old(self, path: Path) -> bool:
        try:
            return self._clock() - path.stat().st_mtime > ABANDONED_SECONDS
        except FileNotFoundError:
            return False


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
