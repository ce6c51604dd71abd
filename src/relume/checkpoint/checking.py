"""`Store.verify`: every byte of a store against its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relume.checkpoint.index import Index
from relume.checkpoint.layout import Checkpoint, Layout
from relume.checkpoint.loading import load_tree
from relume.checkpoint.manifest import read_manifest
from relume.checkpoint.pack import pack_path
from relume.checkpoint.reader import damaged
from relume.errors import CheckpointError, CorruptionError


@dataclass(frozen=True)
class VerifyReport:
    """What `Store.verify` found.

    Attributes:
        checkpoints: how many there are.
        packs: how many there are.
        read_bytes: of tensors hashed.
        problems: what is damaged, and how; empty when all is well.
    """

    checkpoints: int
    packs: int
    read_bytes: int
    problems: list[tuple[Path, CheckpointError]]

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems


def check(layout: Layout, index: Index) -> VerifyReport:
    """Hash every tensor of every pack once, and decode every checkpoint."""
    index.refresh()
    packs = index.packs()
    problems: list[tuple[Path, CheckpointError]] = [
        (pack_path(layout.packs, pack_id), error) for pack_id, error in index.unreadable.items()
    ]
    for pack in packs:
        try:
            bad = damaged(pack, list(pack.spans), verify="hash")
        except CheckpointError as error:
            problems.append((pack.path, error))
            continue
        index.trusted.difference_update((pack.id, name) for name in bad)
        index.trusted.update((pack.id, name) for name in pack.spans.keys() - bad)
        if bad:
            problems.append((pack.path, _damage(pack.path, bad)))
    checkpoints = [checkpoint for folder in layout.folders() for checkpoint in layout.checkpoints(folder)]
    for checkpoint in checkpoints:
        if problem := _problem(checkpoint, index):
            problems.append((checkpoint.path, problem))
    read_bytes = sum(span.size_bytes for pack in packs for span in pack.spans.values())
    return VerifyReport(len(checkpoints), len(packs), read_bytes, problems)


def _problem(checkpoint: Checkpoint, index: Index) -> CheckpointError | None:
    try:
        load_tree(read_manifest(checkpoint.path), checkpoint, index, verify="hash", only_trusted=True)
    except CheckpointError as error:
        return error
    return None


def _damage(path: Path, bad: set[str]) -> CorruptionError:
    return CorruptionError(
        f"{path}: {len(bad)} of its tensors are not what was saved (the first: {min(bad)[:16]}…). "
        "Checkpoints that need them are listed as well; a save of the same tensors writes them anew."
    )
