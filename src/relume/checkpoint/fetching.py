"""The way back: a machine that lacks a run, or has less of it, brings it from the mirror."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3

from relume.checkpoint import files
from relume.checkpoint.copying import Copier
from relume.checkpoint.layout import Checkpoint, Layout, temporary
from relume.checkpoint.ledger import Ledger, ledger_path, newest_run_id
from relume.checkpoint.lock import FileLock
from relume.checkpoint.manifest import parse
from relume.checkpoint.store import Store
from relume.errors import CheckpointError, FutureFormatError, ManifestError, StoreLockedError, warn


def restore_from_mirror(
    target: str | os.PathLike[str],
    store: Store,
    folder: str,
    *,
    older: bool = True,
    log: Callable[[str], None] | None = None,
) -> Checkpoint | None:
    """Bring a run from its mirror, so that it resumes here as if it had always been here.

    The newest good checkpoint comes first with the run's small files, then the older ones that the mirror still has.
    Every byte is checked on the way; nothing that is here is changed. Killed in between, the next call goes on, unless
    the newest had arrived: the older ones then stay on the mirror.

    Args:
        target: the mirror's root.
        store: where to.
        folder: ``"<run>/checkpoints"``.
        older: bring older checkpoints too. One that fails is left out, and that is said.
        log: is told what the user should know; None makes it a RelumeWarning.

    Returns:
        The newest checkpoint that was brought. None: there is nothing on the mirror that is newer than what is here,
        or the checkpoints here are those of another run, or some of them never were on the mirror (then the work done
        here wins, which is said).

    Raises:
        CheckpointError: the mirror has checkpoints, there is none here, and none of them can be used; or a disk fails,
            and going back to an older checkpoint, or to none, would lose work.
    """
    say = log or _warn
    mirror = Layout(Path(target).absolute())
    with _explained(mirror.root):
        if not mirror.root.is_dir():
            say(f"the mirror {mirror.root} is not there: is the drive mounted? Nothing was brought from it.")
            return None
        ledger_file = ledger_path(store.layout, folder, mirror.root)
        ledger = Ledger.load(ledger_file)
        there, local = mirror.checkpoints(folder), list(store.list(folder))
        if not there or (local and there[-1].sequence <= local[-1].sequence):
            return None
        if local and (reason := _why_local_wins(local, there, ledger)):
            say(f"{store.layout.manifests(folder)} was left as it is, and nothing brought from the mirror: {reason}.")
            return None
        newest = local[-1].sequence if local else 0
        fetch = _Fetch(mirror, store, folder, ledger)
        return fetch.all([c for c in there if c.sequence > newest], older=older, has_local=bool(local), say=say)


def mirrored_run_id(target: str | os.PathLike[str], folder: str) -> str | None:
    """The id of the run whose checkpoints a mirror has in that folder; None where there are none, or no mirror."""
    mirror = Layout(Path(target).absolute())
    with _explained(mirror.root):
        return newest_run_id(mirror.checkpoints(folder))


class _Fetch:
    """Brings checkpoints of one folder."""

    def __init__(self, mirror: Layout, store: Store, folder: str, ledger: Ledger) -> None:
        self._mirror, self._store, self._folder, self._ledger = mirror, store, folder, ledger
        self._copier = Copier(mirror, store.layout, ledger.owner, is_mounted=False, tick=lambda written: None)

    def all(
        self, candidates: list[Checkpoint], *, older: bool, has_local: bool, say: Callable[[str], None]
    ) -> Checkpoint | None:
        """The newest good one, its files, then the others."""
        self._store.layout.make()
        files.make_folder(self._store.layout.manifests(self._folder))
        first: Checkpoint | None = None
        run_id: str | None = None
        failure: CheckpointError | None = None
        for candidate in reversed(candidates):
            if first is not None and (not older or newest_run_id([candidate]) != run_id):
                continue
            try:
                brought = self._one(candidate, with_files=first is None)
            except (StoreLockedError, FutureFormatError):
                raise  # it may well be whole
            except CheckpointError as error:
                failure = failure or error
                say(
                    f"checkpoint {candidate} on the mirror {self._mirror.root} cannot be used: {error} "
                    + ("An older one is tried." if first is None else "It was left out.")
                )
                continue
            if first is None:
                first, run_id = brought, newest_run_id([candidate])
        if first is None and not has_local and failure is not None:
            raise CheckpointError(
                f"none of the {len(candidates)} checkpoints in {self._mirror.manifests(self._folder)} can be used. "
                f"The newest: {failure} To begin anew, give the run another name, or another mirror= folder."
            ) from failure
        return first

    def _one(self, checkpoint: Checkpoint, *, with_files: bool) -> Checkpoint:
        """Packs, then the run's files, then the manifest, as a save does; gc waits meanwhile."""
        layout = self._store.layout
        path = layout.manifests(self._folder) / checkpoint.path.name
        content = checkpoint.path.read_bytes()  # a drive that fails is no reason to go back to an older one
        manifest = parse(content, checkpoint.path)
        if (manifest.sequence, manifest.label) != (checkpoint.sequence, checkpoint.label):
            raise ManifestError(f"{checkpoint.path} holds checkpoint {manifest.sequence:06d}: it was renamed.")
        with FileLock(layout.lock).shared():
            self._copier.ensure_packs(manifest)
            if with_files:
                self._copy_files()
            with FileLock(layout.commit_lock).exclusive():
                if not path.exists():
                    files.remove(temporary(path))
                    files.write_new(temporary(path), [content])
                    files.publish(temporary(path), path)
        self._ledger.mirrored[path.name] = blake3(content).hexdigest()
        self._ledger.save(ledger_path(layout, self._folder, self._mirror.root))
        return Checkpoint(self._folder, checkpoint.sequence, checkpoint.label, path)

    def _copy_files(self) -> None:
        """The run's small files: those that are not here, and journals that go on where the ones here end."""
        run = self._mirror.manifests(self._folder).parent
        if run == self._mirror.root:  # what else lies there belongs to other runs
            found = [run / "run.json", *sorted((run / "journal").glob("*.jsonl"))]
        else:
            found = sorted(path for path in run.rglob("*") if "checkpoints" not in path.relative_to(run).parts[:1])
        for path in found:
            relative = path.relative_to(self._mirror.root)
            is_hidden = any(part.startswith(".") for part in relative.parts)
            if path.is_file() and not path.is_symlink() and not is_hidden and self._may_replace(relative):
                self._copier.copy_file(relative)

    def _may_replace(self, relative: Path) -> bool:
        here, there = self._store.root / relative, self._mirror.root / relative
        if not here.exists():
            return True
        return here.suffix == ".jsonl" and self._copier.begins_alike(there, here, here.stat().st_size)


def _why_local_wins(local: list[Checkpoint], there: list[Checkpoint], ledger: Ledger) -> str | None:
    """Why what is here must not be continued by what is on the mirror; None: it is an older state of the same run."""
    own, other = newest_run_id(local), newest_run_id(there)
    if own != other:
        return f"it is another run (id {own}) than the one on the mirror (id {other})"
    on_mirror = {checkpoint.path.name: checkpoint.path for checkpoint in there}
    for checkpoint in local:
        digest = blake3(checkpoint.path.read_bytes()).hexdigest()
        name = checkpoint.path.name
        is_there = name in on_mirror and blake3(on_mirror[name].read_bytes()).hexdigest() == digest
        if not is_there and ledger.mirrored.get(name) != digest:
            return f"checkpoint {checkpoint} was made here and never was on the mirror"
    return None


@contextlib.contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Turn a failing disk's error into one that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, CheckpointError):
            raise
        where = f" ({error.filename})" if error.filename else ""
        failure = CheckpointError(
            f"bringing the run from the mirror {root} failed: {error.strerror}{where}. What was here is unchanged. "
            "Look after the disk and start again; without mirror= the run goes on with what is here."
        )
        failure.errno = error.errno
        raise failure from error


def _warn(text: str) -> None:
    warn(text)
