"""Going on from a checkpoint: which one, what of it fits, and a report in words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from relume import determinism
from relume.checkpoint import Checkpoint, Store
from relume.errors import CheckpointError, ConfigurationError
from relume.monitor.record import RunRecord
from relume.run.cursor import Cursor
from relume.saved import find_checkpoint

_CLASSIC = (".pt", ".pth", ".bin", ".ckpt", ".tar")


@dataclass
class Origin:
    """The checkpoint that a run goes on from.

    Attributes:
        state, meta: what it holds, see ``Run``.
        name: how it is called in the report: ``fashion@000012-epoch=3`` or a path.
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
    root: Path,
    source: str | os.PathLike[str],
    models: Mapping[str, Any],
    optimizers: Mapping[str, Any],
    schedulers: Mapping[str, Any] | None = None,
) -> Origin:
    """What ``from_checkpoint=`` names: a checkpoint of any run (see `find_checkpoint`), or a classic ``.pt`` file.

    Raises:
        UnknownNameError, UnknownCheckpointError: there is none; lists those there are.
        ModelFileError, MismatchError: a classic file that is damaged, unsafe, not understood or does not fit.
    """
    text = os.fspath(source)
    if Path(text).suffix in _CLASSIC:
        from relume.models.classic import read_classic  # few trainings begin from an old file
        from relume.run.classic import to_state

        saved, meta = to_state(read_classic(text), models, optimizers, schedulers)
        return Origin(saved, meta, text, is_own=False)
    store, checkpoint = find_checkpoint(text, root)
    origin = _origin(store, checkpoint, store.load(checkpoint))
    origin.is_own = False
    return origin


def _origin(store: Store, checkpoint: Checkpoint, state: Any, skipped: list[str] | None = None) -> Origin:
    meta = store.meta(checkpoint)
    if not isinstance(meta, Mapping) or meta.get("kind") != "training":
        raise CheckpointError(
            f"{checkpoint.path} is not the checkpoint of a training: it was saved by hand through a Store. "
            "Load it with relume.Store(root).load(...)."
        )
    return Origin(state, meta, f"{checkpoint.folder.partition('/')[0]}@{checkpoint.name}", skipped or [])


def resumed_from(origin: Origin | None) -> dict[str, Any] | None:
    """For the head of a journal's segment: where in the journal the run goes on; None where it begins."""
    if origin is None or not origin.is_own:
        return None
    place = {name: origin.cursor[name] for name in ("step", "epoch")}
    return {**origin.meta["journal"], "checkpoint": origin.name, **place}


def beginning(origin: Origin, cursor: Cursor) -> list[str]:
    """From which checkpoint and where a run goes on, in words, and which newer ones were passed over."""
    verb = "resumes" if origin.is_own else "begins"
    place = f"epoch {cursor.epoch + 1}, batch {cursor.batch + 1}" if cursor.batch else f"epoch {cursor.epoch + 1}"
    return [f"{verb} from {origin.name} at {place} (step {cursor.step})", *origin.skipped]


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
    """What makes a bit for bit continuation impossible: another device, number of threads or kind of algorithms."""
    found = []
    if meta.get("device") != device:
        found.append(f"device: {meta.get('device')} before, {device} now: the last bits will differ")
    elif device == "cpu" and meta.get("threads") != torch.get_num_threads():
        found.append(
            f"threads: {meta.get('threads')} before, {torch.get_num_threads()} now: the last bits may differ "
            f"(torch.set_num_threads({meta.get('threads')}) keeps them)"
        )
    return found + determinism.differences(meta.get("numerics"), device)
