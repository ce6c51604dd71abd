"""`Store.verify`: every byte of a store against its name."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relume.checkpoint.index import Index
from relume.checkpoint.layout import Checkpoint, Layout
from relume.checkpoint.loading import load_tree
from relume.checkpoint.manifest import Manifest, Piece, read_manifest
from relume.checkpoint.pack import Pack, pack_path
from relume.checkpoint.reader import damaged
from relume.errors import CheckpointError, CorruptionError, ManifestError, PackError

Progress = Callable[[int, int], None]
"""Called now and then with the bytes that were read, and those there are to read."""

_REPORT_BYTES = 64 << 20


@dataclass(frozen=True)
class Problem:
    """One file that is damaged or gone.

    Attributes:
        path: of the pack or manifest.
        error: what is wrong with it.
        checkpoints: those that cannot be loaded because of it; none where nothing needs what is damaged, or another
            pack holds it too.
    """

    path: Path
    error: CheckpointError
    checkpoints: list[Checkpoint]


@dataclass(frozen=True)
class VerifyReport:
    """What `Store.verify` found.

    Attributes:
        checkpoints: how many were checked.
        good: for each folder of manifests its newest checkpoint that is whole; None where there is none.
        packs: how many were read.
        tensors: how many were hashed.
        read_bytes: of tensors hashed.
        seconds: how long it took.
        problems: what is damaged, and how; empty when all is well.
    """

    checkpoints: int
    good: Mapping[str, Checkpoint | None]
    packs: int
    tensors: int
    read_bytes: int
    seconds: float
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems


def check(
    layout: Layout, index: Index, folders: Sequence[str] | None = None, progress: Progress | None = None
) -> VerifyReport:
    """Hash every tensor once, and decode every checkpoint.

    Args:
        folders: look at the checkpoints of these folders of manifests, and at the tensors that they need; None looks at
            all there is.
    """
    started = time.perf_counter()
    index.refresh()
    listed = [
        point for folder in (layout.folders() if folders is None else folders) for point in layout.checkpoints(folder)
    ]
    manifests, problems = _read_manifests(listed)
    wanted = _all(index) if folders is None else _needed(manifests.values(), index)
    broken = _hash(wanted, index, progress)
    if folders is None:
        broken.update(index.unreadable)
    hits: dict[str, list[Checkpoint]] = defaultdict(list)
    for checkpoint, manifest in manifests.items():
        error = _problem(checkpoint, manifest, index)
        lost = _lost_packs(manifest, index) if isinstance(error, PackError) else []
        for pack_id in lost:
            broken.setdefault(pack_id, index.unreadable.get(pack_id) or _missing(layout.packs, pack_id))
            hits[pack_id].append(checkpoint)
        if error and not lost:
            problems.append(Problem(checkpoint.path, error, [checkpoint]))
    problems = [Problem(pack_path(layout.packs, name), broken[name], hits[name]) for name in sorted(broken)] + problems
    return VerifyReport(
        checkpoints=len(listed),
        good=_newest_good(listed, problems),
        packs=len(wanted),
        tensors=sum(len(names) for _, names in wanted),
        read_bytes=sum(pack.spans[name].size_bytes for pack, names in wanted for name in names),
        seconds=time.perf_counter() - started,
        problems=problems,
    )


def _read_manifests(checkpoints: Iterable[Checkpoint]) -> tuple[dict[Checkpoint, Manifest], list[Problem]]:
    manifests, problems = {}, []
    for checkpoint in checkpoints:
        try:
            manifests[checkpoint] = read_manifest(checkpoint.path)
        except ManifestError as error:
            problems.append(Problem(checkpoint.path, error, [checkpoint]))
    return manifests, problems


def _all(index: Index) -> list[tuple[Pack, list[str]]]:
    return [(pack, list(pack.spans)) for pack in index.packs()]


def _needed(manifests: Iterable[Manifest], index: Index) -> list[tuple[Pack, list[str]]]:
    """What these checkpoints need, in every pack that holds it."""
    hashes = {piece.hash for manifest in manifests for _, piece in _pieces(manifest)}
    needed = [(pack, [name for name in pack.spans if name in hashes]) for pack in index.packs()]
    return [(pack, names) for pack, names in needed if names]


def _pieces(manifest: Manifest) -> Iterator[tuple[str, Piece]]:
    """The pieces of a checkpoint, each with the id of the pack that the manifest names for it."""
    for entry in manifest.entries:
        for piece in entry.pieces:
            yield (manifest.packs[piece.pack] if piece.pack < len(manifest.packs) else ""), piece


def _hash(
    wanted: Sequence[tuple[Pack, list[str]]], index: Index, progress: Progress | None
) -> dict[str, CheckpointError]:
    """Read the wanted pieces, and note in the index which are whole; what is wrong, by the pack's id."""
    total = sum(pack.spans[name].size_bytes for pack, names in wanted for name in names)
    done = 0
    broken: dict[str, CheckpointError] = {}
    for pack, names in wanted:
        bad: set[str] = set()
        for some in _portions(pack, names):
            try:
                bad |= damaged(pack, some, verify="hash")
            except CheckpointError as error:
                broken[pack.id] = error
                bad |= set(some)
            done += sum(pack.spans[name].size_bytes for name in some)
            if progress is not None:
                progress(done, total)
        index.trusted.difference_update((pack.id, name) for name in bad)
        index.trusted.update((pack.id, name) for name in names if name not in bad)
        if bad:
            broken.setdefault(pack.id, _damage(pack, bad))
    return broken


def _portions(pack: Pack, names: Iterable[str]) -> Iterator[list[str]]:
    some: list[str] = []
    size = 0
    for name in names:
        some.append(name)
        size += pack.spans[name].size_bytes
        if size >= _REPORT_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _problem(checkpoint: Checkpoint, manifest: Manifest, index: Index) -> CheckpointError | None:
    try:
        load_tree(manifest, checkpoint, index, verify="hash", only_trusted=True)
    except CheckpointError as error:
        return error
    return None


def _lost_packs(manifest: Manifest, index: Index) -> list[str]:
    """The packs by which a checkpoint lost something: those that hold it damaged, or else the one said to hold it."""
    found: dict[str, None] = {}
    for pack_id, piece in _pieces(manifest):
        holders = [pack.id for pack in index.holders(piece.hash)]
        if not any((holder, piece.hash) in index.trusted for holder in holders):
            found |= dict.fromkeys(holders or [pack_id])
    return sorted(found)


def _newest_good(checkpoints: Iterable[Checkpoint], problems: Iterable[Problem]) -> dict[str, Checkpoint | None]:
    bad = {checkpoint for problem in problems for checkpoint in problem.checkpoints}
    good: dict[str, Checkpoint | None] = {}
    for checkpoint in checkpoints:  # oldest first
        good[checkpoint.folder] = good.get(checkpoint.folder) if checkpoint in bad else checkpoint
    return good


def _damage(pack: Pack, bad: set[str]) -> CorruptionError:
    return CorruptionError(
        f"{pack.path} does not hold what was saved: {len(bad)} of its {len(pack.spans)} tensors differ (the first: "
        f"{min(bad)[:16]}…). "
        "A save of the same tensors writes them anew."
    )


def _missing(packs: Path, pack_id: str) -> PackError:
    return PackError(f"{pack_path(packs, pack_id)} is gone, and no other pack holds what was in it.")
