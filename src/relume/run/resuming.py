"""Going on from a checkpoint: which one, what of it fits, and a report in words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from relume.checkpoint import Checkpoint, Store
from relume.errors import CheckpointError, ConfigurationError, UnknownCheckpointError
from relume.monitor.record import RunRecord
from relume.run.saving import candidate_of, keep_from


@dataclass
class Origin:
    """The checkpoint that a run goes on from.

    Attributes:
        state, meta: what it holds, see ``Run``.
        name: how it is called in the report: ``fashion:000012-epoch=3`` or a path.
        skipped: newer ones that are damaged, in words.
        is_own: whether it is this run's own, and not another's that is forked.
    """

    state: Any
    meta: Mapping[str, Any]
    name: str
    skipped: list[str] = field(default_factory=list)
    is_own: bool = True

    @property
    def cursor(self) -> dict[str, int]:
        return dict(self.meta["cursor"])


def newest(store: Store, run: str) -> Origin | None:
    """The newest whole checkpoint of a run; None where it has none.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    folder = f"{run}/checkpoints"
    loaded = store.load_newest(folder)
    if loaded is None:
        return None
    skipped = [f"{checkpoint} is damaged and was passed over: {error}" for checkpoint, error in loaded.skipped]
    return _origin(store, loaded.checkpoint, loaded.state, skipped)


def chosen(store: Store, run: str, wanted: str | int | os.PathLike[str]) -> Origin:
    """The checkpoint of ``run`` that ``resume=`` names: its number, its name or its path."""
    text = os.fspath(wanted) if isinstance(wanted, os.PathLike) else wanted
    if isinstance(text, str) and os.sep in text:
        path = Path(text).absolute()
        if path.parent != (store.root / run / "checkpoints").absolute():
            raise ConfigurationError(
                f"resume={str(wanted)!r} is a checkpoint of another run. To begin a new run from it, give from_checkpoint=."
            )
        text = path.name
    checkpoint = store.find(text, folder=f"{run}/checkpoints")
    return _origin(store, checkpoint, store.load(checkpoint))


def foreign(
    root: Path, source: str | os.PathLike[str], models: Mapping[str, Any], optimizers: Mapping[str, Any]
) -> Origin:
    """A checkpoint of any run, for ``from_checkpoint=``: ``"RUN"``, ``"RUN:12"``, ``"RUN:best"`` or a manifest's path."""
    store, checkpoint = locate(root, source)
    origin = _origin(store, checkpoint, store.load(checkpoint))
    origin.is_own = False
    return origin


def locate(root: Path, source: str | os.PathLike[str]) -> tuple[Store, Checkpoint]:
    """The store and the checkpoint that a text or a path means.

    Raises:
        UnknownCheckpointError: there is none; lists those there are.
    """
    text = os.fspath(source)
    path = Path(text)
    if path.suffix == ".json" and path.parent.name == "checkpoints":
        above = path.absolute().parent.parent
        store = Store(above.parent)
        return store, store.find(path.name, folder=f"{above.name}/checkpoints")
    run, _, which = text.partition(":")
    if (path / "checkpoints").is_dir():  # the path of a run's folder
        root, run, which = path.absolute().parent, path.absolute().name, ""
    store = Store(root)
    folder = f"{run}/checkpoints"
    known = store.list(folder)
    if not known:
        raise UnknownCheckpointError(f"there is no checkpoint {text!r}: the run {run!r} in {root} has none.")
    if which in ("", "newest"):
        found, skipped = store.newest_good(folder)
        if found is None:
            raise skipped[0][1]
        return store, found
    if which == "best":
        return store, _best(store, known)
    return store, store.find(which, folder=folder)


def _best(store: Store, known: Sequence[Checkpoint]) -> Checkpoint:
    ranked = keep_from(None, None, None).ranked([candidate_of(store, checkpoint) for checkpoint in known])
    if not ranked:
        raise UnknownCheckpointError("no checkpoint has val/loss, so none can be told to be the best: give its number.")
    return next(checkpoint for checkpoint in known if checkpoint.sequence == ranked[0].sequence)


def _origin(store: Store, checkpoint: Checkpoint, state: Any, skipped: list[str] | None = None) -> Origin:
    meta = store.meta(checkpoint)
    if not isinstance(meta, Mapping) or meta.get("kind") != "training":
        raise CheckpointError(
            f"{checkpoint.path} is not the checkpoint of a training: it was saved by hand through a Store. "
            "Load it with relume.Store(root).load(...)."
        )
    return Origin(state, meta, f"{checkpoint.folder.partition('/')[0]}:{checkpoint.name}", skipped or [])


def differences(record: RunRecord, config: Mapping[str, Any], versions: Mapping[str, str]) -> list[str]:
    """What differs in configuration and packages between the present start and the one before, in words."""
    found = []
    for name in {**record.config, **config}:
        before, now = record.config.get(name, "(not set)"), config.get(name, "(not set)")
        if before != now and name != "epochs":
            found.append(f"config {name}: {before} before, {now} now")
    for name in {**record.versions, **versions}:
        before, now = record.versions.get(name, "none"), versions.get(name, "none")
        if before != now:
            found.append(f"version of {name}: {before} before, {now} now")
    return found


def machine_differences(meta: Mapping[str, Any], device: str) -> list[str]:
    """What makes a bit for bit continuation impossible: another device or number of threads."""
    found = []
    if meta.get("device") != device:
        found.append(f"device: {meta.get('device')} before, {device} now: the last bits will differ")
    elif device == "cpu" and meta.get("threads") != torch.get_num_threads():
        found.append(
            f"threads: {meta.get('threads')} before, {torch.get_num_threads()} now: the last bits may differ "
            f"(torch.set_num_threads({meta.get('threads')}) keeps them)"
        )
    return found
