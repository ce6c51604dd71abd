"""The store: checkpoints of all runs below one root, their tensors stored once.

A save writes at most one pack and one manifest, in an order in which a kill at any moment costs nothing that was
committed: pack staged, on the disk, named; manifest written beside its place, on the disk, named. The manifest's name
is the commit.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from relume.checkpoint import files
from relume.checkpoint.checking import Progress, VerifyReport, check
from relume.checkpoint.garbage import GcReport, collect, sweep
from relume.checkpoint.index import Index
from relume.checkpoint.layout import CHECKPOINTS, Checkpoint, Layout, temporary
from relume.checkpoint.loading import decode_meta, load_tree
from relume.checkpoint.lock import FileLock
from relume.checkpoint.manifest import FORMAT, VERSION, Entry, Manifest, Piece, file_name, read_manifest, to_bytes
from relume.checkpoint.pack import Blob, write_pack
from relume.checkpoint.reader import Verify, damaged
from relume.checkpoint.snapshot import Leaf, Snapshot, live_snapshot
from relume.checkpoint.tensors import as_buffer
from relume.errors import CheckpointError, FutureFormatError, PackError, StoreLockedError, UnknownCheckpointError


@dataclass(frozen=True)
class Loaded:
    """A state with where it came from.

    Attributes:
        state: what was saved.
        checkpoint: which one it is.
        skipped: newer checkpoints that could not be used, newest first, and why.
    """

    state: Any
    checkpoint: Checkpoint
    skipped: list[tuple[Checkpoint, CheckpointError]] = field(default_factory=list)


class Store:
    """Checkpoints below one root.

    Any number of processes may save to one store and load from it at once.

    Args:
        root: the folder; it is made at the first save.
        lock_timeout_seconds: how long to wait for another process that holds the store.

    Example:
        >>> store = Store(tmp_path / "runs")
        >>> checkpoint = store.save({"weight": torch.ones(3), "epoch": 1}, label="epoch=1")
        >>> checkpoint.name
        '000001-epoch=1'
        >>> store.load(checkpoint)["weight"]
        tensor([1., 1., 1.])
    """

    def __init__(self, root: str | os.PathLike[str], *, lock_timeout_seconds: float = 60.0) -> None:
        self.root = Path(root).absolute()
        self.layout = Layout(self.root)
        self._lock = FileLock(self.layout.lock, lock_timeout_seconds)
        self._commit_lock = FileLock(self.layout.commit_lock, lock_timeout_seconds)
        self._index = Index(self.layout.packs)

    def save(self, state: object, meta: object = None, *, folder: str = CHECKPOINTS, label: str = "") -> Checkpoint:
        """Write ``state`` and return when it is safe on the disk. Nothing may change it meanwhile.

        Args:
            state: nested Python state with tensors; see `codec.encode`.
            meta: a description that can be read without the state: the same kinds without tensors.
            folder: ``"checkpoints"`` or ``"<run>/checkpoints"``.
            label: becomes part of the manifest's name, such as ``"epoch=3-val_loss=0.43"``.

        Raises:
            UnstorableError: the path to an object that cannot be stored.
            StoreWriteError: the disk is full, read-only or fails; the store is as it was.
        """
        self.check_name(folder, label)
        return self.commit(live_snapshot(state, meta), folder=folder, label=label)

    def check_name(self, folder: str, label: str) -> None:
        """Raise StorageError when no checkpoint can be called so."""
        self.layout.manifests(folder)
        file_name(0, label)

    def commit(
        self,
        snapshot: Snapshot,
        *,
        folder: str = CHECKPOINTS,
        label: str = "",
        before_commit: Callable[[], None] | None = None,
    ) -> Checkpoint:
        """Write a snapshot; see `save`.

        Args:
            before_commit: called when the tensors are safe and the manifest is not yet written: the place to make
                safe what the manifest refers to. What it raises ends the save.

        Raises:
            ConstantChangedError: a constant tensor is not what it was; names it. The store is as it was.
        """
        manifests = self.layout.manifests(folder)
        snapshot.hash()
        with files.explained("saving a checkpoint", self.root):
            self.layout.make()
            files.make_folder(manifests)
            self._sweep_when_alone()
            with self._lock.shared():
                placed, stored_bytes = self._place(snapshot.leaves)
                for leaf in snapshot.leaves:
                    leaf.ensure_unchanged()
                if before_commit is not None:
                    before_commit()
                document = _manifest(snapshot, placed, stored_bytes)
                with self._commit_lock.exclusive():
                    return self._publish(document, folder, label)

    def load(
        self,
        checkpoint: Checkpoint | str | int,
        *,
        folder: str = CHECKPOINTS,
        verify: Verify = True,
        device: torch.device | str | None = None,
        mmap: bool = True,
        part: Sequence[str | int] = (),
    ) -> Any:
        """The state of a checkpoint.

        Args:
            checkpoint: itself, its number (``12`` or ``"000012"``) or its name.
            folder: where to look a number or name up.
            verify: True checks every byte (long tensors by checksum, short ones by hash), ``"hash"`` computes every
                hash, False checks only headers and lengths.
            device: where tensors go; None is the CPU.
            mmap: tensors are pages of the packs, read when used. Writing to them stays in this process.
            part: keys on the way to the part that is wanted: ``("model",)``. Nothing else is read.

        Raises:
            UnknownCheckpointError: there is no such checkpoint; lists those there are.
            ManifestError, PackError, CorruptionError: it is damaged.
        """
        found = self.find(checkpoint, folder=folder)
        with self._lock.for_reading():
            manifest = read_manifest(found.path)
            return load_tree(manifest, found, self._index, verify=verify, device=device, mmap=mmap, part=part)

    def load_newest(
        self,
        folder: str = CHECKPOINTS,
        *,
        verify: Verify = True,
        device: torch.device | str | None = None,
        mmap: bool = True,
        part: Sequence[str | int] = (),
    ) -> Loaded | None:
        """The newest state that is whole, and the newer ones that are not; None where no checkpoint was ever saved.

        Raises:
            CheckpointError: there are checkpoints, and none can be used.
            FutureFormatError, StoreLockedError: the newest may well be whole, and cannot be read now.
        """
        skipped: list[tuple[Checkpoint, CheckpointError]] = []
        for checkpoint in reversed(self.list(folder)):
            try:
                state = self.load(checkpoint, verify=verify, device=device, mmap=mmap, part=part)
            except (StoreLockedError, FutureFormatError):
                raise  # it is whole, and going back to an older one would lose work
            except CheckpointError as error:
                skipped.append((checkpoint, error))
            else:
                return Loaded(state, checkpoint, skipped)
        if skipped:
            raise CheckpointError(
                f"none of the {len(skipped)} checkpoints in {self.layout.manifests(folder)} can be used. "
                f"The newest, {skipped[0][0]}: {skipped[0][1]}"
            ) from skipped[0][1]
        return None

    def newest_good(
        self, folder: str = CHECKPOINTS, *, verify: Verify = True
    ) -> tuple[Checkpoint | None, Sequence[tuple[Checkpoint, CheckpointError]]]:
        """The newest checkpoint that is whole, and the newer ones that are not, with the reasons."""
        try:
            loaded = self.load_newest(folder, verify=verify)
        except (StoreLockedError, FutureFormatError):
            raise
        except CheckpointError:
            return None, [
                (checkpoint, _failure(self, checkpoint, verify)) for checkpoint in reversed(self.list(folder))
            ]
        return (loaded.checkpoint, loaded.skipped) if loaded else (None, [])

    def list(self, folder: str = CHECKPOINTS) -> Sequence[Checkpoint]:
        """The committed checkpoints of a folder, oldest first."""
        return self.layout.checkpoints(folder)

    def folders(self) -> Sequence[str]:
        """The folders that have checkpoints."""
        return self.layout.folders()

    def find(self, checkpoint: Checkpoint | str | int, *, folder: str = CHECKPOINTS) -> Checkpoint:
        """The checkpoint with that number or name; raises UnknownCheckpointError, which lists those there are."""
        if isinstance(checkpoint, Checkpoint):
            folder = checkpoint.folder
        known = self.list(folder)
        for candidate in known:
            if checkpoint == candidate or _is_named(candidate, checkpoint):
                return candidate
        names = ", ".join(candidate.name for candidate in known) or "none"
        raise UnknownCheckpointError(
            f"there is no checkpoint {str(checkpoint)!r:.200} in {self.layout.manifests(folder)}. There are: {names}."
        )

    def manifest(self, checkpoint: Checkpoint | str | int, *, folder: str = CHECKPOINTS) -> Manifest:
        """The manifest of a checkpoint, checked: sizes, times, the table of tensors."""
        return read_manifest(self.find(checkpoint, folder=folder).path)

    def meta(self, checkpoint: Checkpoint | str | int, *, folder: str = CHECKPOINTS) -> Any:
        """The description that was saved with a checkpoint."""
        return decode_meta(self.manifest(checkpoint, folder=folder))

    def delete(self, checkpoint: Checkpoint | str | int, *, folder: str = CHECKPOINTS) -> None:
        """Delete a checkpoint's manifest. Its tensors go at the next `gc`, when nothing else needs them."""
        path = self.find(checkpoint, folder=folder).path
        with files.explained("deleting a checkpoint", self.root):
            with contextlib.suppress(FileNotFoundError):
                files.system.unlink(path)
            files.sync_folder(path.parent)

    def verify(self, folders: Sequence[str] | None = None, *, progress: Progress | None = None) -> VerifyReport:
        """Read every manifest and compute the hash of every tensor.

        Args:
            folders: only these folders of checkpoints, such as ``["fashion/checkpoints"]``, and what they need.
            progress: called now and then with the bytes read and the bytes there are to read.
        """
        with self._lock.for_reading():
            return check(self.layout, self._index, folders, progress)

    def gc(self, *, dry_run: bool = True, timeout_seconds: float | None = None) -> GcReport:
        """Delete the tensors that no checkpoint needs, and what killed writers left behind.

        Args:
            dry_run: only say what would go.
            timeout_seconds: how long to wait until nobody saves or loads.

        Raises:
            StoreLockedError: somebody still does.
        """
        if not self.layout.store.is_dir():
            return GcReport()
        if dry_run:
            with self._lock.for_reading():
                return collect(self.layout, self._index, dry_run=True)
        with files.explained("collecting garbage", self.root), self._lock.exclusive(timeout_seconds):
            return collect(self.layout, self._index, dry_run=False)

    def _sweep_when_alone(self) -> None:
        """What is staged while nobody holds the lock belongs to nobody."""
        if self.layout.leftovers():
            with contextlib.suppress(StoreLockedError), self._lock.exclusive(timeout_seconds=0):
                sweep(self.layout)

    def _place(self, leaves: Sequence[Leaf]) -> tuple[dict[str, str], int]:
        """The pack of each hash, after writing one pack with those that the store lacks; and what that added."""
        self._index.refresh()
        wanted = {leaf.hash: leaf for leaf in leaves if leaf.source.size_bytes}
        placed = {name: pack_id for name in wanted if (pack_id := self._reusable(name))}
        missing = [leaf for name, leaf in wanted.items() if name not in placed]
        if not missing:
            return placed, 0
        pack = write_pack(self.layout.packs, self.layout.staging, map(_blob, missing))
        live = {leaf.hash: leaf for leaf in missing if leaf.is_live}
        for name in damaged(pack, list(live), verify="hash") if live else ():
            files.remove(pack.path)  # nobody knows of it yet
            raise live[name].changed()
        self._index.add(pack, trusted=True)
        return placed | {leaf.hash: pack.id for leaf in missing}, pack.size_bytes

    def _reusable(self, name: str) -> str | None:
        """A pack that holds the piece whole: bytes that this process has not seen are read before they are built on."""
        for pack in self._index.holders(name):
            with contextlib.suppress(PackError):
                is_trusted = (pack.id, name) in self._index.trusted
                if not damaged(pack, [name], verify=False if is_trusted else "hash"):
                    self._index.trusted.add((pack.id, name))
                    return pack.id
        return None

    def _publish(self, document: dict[str, Any], folder: str, label: str) -> Checkpoint:
        known = self.list(folder)
        sequence = known[-1].sequence + 1 if known else 1
        path = self.layout.manifests(folder) / file_name(sequence, label)
        manifest = Manifest(sequence=sequence, label=label, **document)
        files.write_new(temporary(path), [to_bytes(manifest)])
        try:
            files.publish(temporary(path), path)
        except BaseException:
            files.remove(path)  # named, but perhaps not for ever: a failed save leaves nothing
            raise
        return Checkpoint(folder, sequence, label, path)


def _manifest(snapshot: Snapshot, placed: dict[str, str], stored_bytes: int) -> dict[str, Any]:
    packs = sorted(set(placed.values()))
    numbers = {pack_id: number for number, pack_id in enumerate(packs)}
    entries = []
    for leaf in snapshot.leaves:
        source, size = leaf.source, leaf.source.size_bytes
        pieces = [Piece(hash=leaf.hash, pack=numbers[placed[leaf.hash]], offset=0, size_bytes=size)] if size else []
        entries.append(
            Entry(
                name=source.path.removeprefix("state."),
                dtype=source.dtype,
                shape=list(source.shape),
                pieces=pieces,
                is_parameter=source.is_parameter,
                requires_grad=source.requires_grad,
            )
        )
    return {
        "format": FORMAT,
        "version": VERSION,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "meta": snapshot.meta,
        "stored_bytes": stored_bytes,
        "total_bytes": sum({leaf.hash: leaf.source.size_bytes for leaf in snapshot.leaves}.values()),
        "packs": packs,
        "entries": entries,
        "tree": snapshot.tree,
    }


def _blob(leaf: Leaf) -> Blob:
    return Blob(leaf.hash, as_buffer(leaf.bytes()), leaf.source.dtype, leaf.source.shape)


def _is_named(candidate: Checkpoint, name: Checkpoint | str | int) -> bool:
    if isinstance(name, int):
        return candidate.sequence == name
    if isinstance(name, str):
        return name.removesuffix(".json") in (candidate.name, f"{candidate.sequence:06d}", str(candidate.sequence))
    return False


def _failure(store: Store, checkpoint: Checkpoint, verify: Verify) -> CheckpointError:
    try:
        store.load(checkpoint, verify=verify)
    except CheckpointError as error:
        return error
    return CheckpointError(f"{checkpoint.path} could not be read a moment ago.")
