"""The checkpoints that runs have saved: what they are worth, and how a user names one.

To describe them needs no torch; to find one that is whole does, and imports it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relume.checkpoint.layout import CHECKPOINTS, Checkpoint, Layout
from relume.checkpoint.manifest import Manifest, read_manifest
from relume.checkpoint.plain import plain
from relume.checkpoint.retention import Candidate, Keep
from relume.direction import mode_of
from relume.errors import (
    ConfigurationError,
    ManifestError,
    RelumeError,
    UnknownCheckpointError,
    UnknownNameError,
    closest,
    warn,
)
from relume.monitor import find_run

if TYPE_CHECKING:
    from relume.checkpoint import Store


@dataclass(frozen=True)
class Saved:
    """One checkpoint of a run, described without its tensors.

    Attributes:
        checkpoint: which one.
        epoch: epochs done; None where the checkpoint does not say, as for all that follows.
        batch: batches done of the epoch that was going on.
        step: optimizer updates done.
        samples: samples seen.
        metrics: the last values at that time.
        reason: why it was saved: ``"1 epoch"``.
        time: when, in seconds since 1970.
        stored_bytes: what this save added to the store.
        total_bytes: what its tensors come to; the difference is shared with other checkpoints.
        problem: why its manifest cannot be read.
    """

    checkpoint: Checkpoint
    epoch: int | None = None
    batch: int | None = None
    step: int | None = None
    samples: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    time: float | None = None
    stored_bytes: int = 0
    total_bytes: int = 0
    problem: ManifestError | None = None


@dataclass(frozen=True)
class Saves:
    """All checkpoints of a run, oldest first.

    Attributes:
        disk_bytes: what their tensors, each counted once, and their manifests take on the disk.
        apart_bytes: what it would be if each checkpoint had its own tensors.
    """

    saved: Sequence[Saved]
    disk_bytes: int
    apart_bytes: int

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics, those that say most first: losses and accuracies of the validation, then the rest."""
        names = dict.fromkeys(name for saved in self.saved for name in saved.metrics)
        return sorted(names, key=_interest)

    def best(self, metric: str) -> Saved | None:
        """The checkpoint with the best value, the earlier of equals; None where the metric's name does not tell."""
        mode = mode_of(metric)
        candidates = [Candidate(saved.checkpoint.sequence, saved.epoch, saved.metrics) for saved in self.saved]
        ranked = Keep(monitor=metric, mode=mode).ranked(candidates) if mode else []
        return next((s for s in self.saved if ranked and s.checkpoint.sequence == ranked[0].sequence), None)


def saves_of(store: Store, folder: str) -> Saves:
    """The checkpoints in a folder of manifests; a damaged one is among them and says so."""
    return described(store.list(folder))


def saves_in(folder: Path) -> Saves:
    """The checkpoints of the run in ``folder``.

    Raises:
        StorageError: the folder cannot be read.
    """
    folder = folder.absolute()
    return described(Layout(folder.parent).checkpoints(f"{folder.name}/{CHECKPOINTS}"))


def described(checkpoints: Sequence[Checkpoint]) -> Saves:
    """Checkpoints by what their manifests say."""
    saved = []
    pieces: dict[str, int] = {}
    manifest_bytes = 0
    for checkpoint in checkpoints:
        try:
            status = checkpoint.path.stat()
            manifest_bytes += status.st_size
            one, own = _read(checkpoint, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:  # a training that goes on has deleted it
            continue
        except ManifestError as error:
            saved.append(Saved(checkpoint, problem=error))
            continue
        saved.append(one)
        pieces |= own
    apart_bytes = sum(one.total_bytes for one in saved)
    return Saves(saved, manifest_bytes + sum(pieces.values()), manifest_bytes + apart_bytes)


@lru_cache(maxsize=128)
def _read(checkpoint: Checkpoint, modified_ns: int, size_bytes: int) -> tuple[Saved, dict[str, int]]:
    """What a manifest says, and its pieces with their sizes. It does not change once it is there."""
    manifest = read_manifest(checkpoint.path)
    pieces = {piece.hash: piece.size_bytes for entry in manifest.entries for piece in entry.pieces}
    return _describe(checkpoint, manifest), pieces


def find_checkpoint(name: str, root: str | Path = "runs", *, monitor: str | None = None) -> tuple[Store, Checkpoint]:
    """The checkpoint that a user means.

    Args:
        name: ``RUN`` (the newest that is whole; warns of newer ones that are not), ``RUN@NUMBER``, ``RUN@best``,
            ``RUN@NAME`` (a colon does as well), the path of a manifest, or the name of a checkpoint of any run. ``RUN``
            is a run's name below ``root``, or its path.
        monitor: the metric that tells the best; None takes the loss of the validation, or else the first metric whose
            name tells its direction.

    Raises:
        UnknownNameError: no such run; lists the closest names.
        UnknownCheckpointError: no such checkpoint; lists those there are.
        ConfigurationError: ``best``, and no metric that tells; or a name that several runs have.
    """
    if name.endswith(".json") and Path(name).is_file():
        return _by_path(Path(name))
    run, which = _parted(name, root)
    try:
        folder = find_run(run, root)
    except UnknownNameError:
        found = _by_name(name, Path(root))
        if found is None:
            raise
        return found
    store, manifests = store_of(folder)
    if which == "best":
        return store, _best(store, manifests, monitor)
    if which:
        return store, store.find(which, folder=manifests)
    return store, _newest(store, manifests)


def _parted(name: str, root: str | Path) -> tuple[str, str]:
    """``RUN@WHICH`` as its two parts; the second is empty where a name has none. A run's own name may have an ``@``."""
    at = max(name.rfind("@"), name.rfind(":"))
    if at <= 0 or _is_run(name, root):
        return name, ""
    return name[:at], name[at + 1 :]


def _is_run(name: str, root: str | Path) -> bool:
    try:
        return bool(find_run(name, root))
    except RelumeError:
        return False


def store_of(folder: Path) -> tuple[Store, str]:
    """The store of a run's folder, and what its folder of manifests is called there."""
    from relume.checkpoint import Store

    return Store(folder.absolute().parent), f"{folder.absolute().name}/{CHECKPOINTS}"


def _by_path(path: Path) -> tuple[Store, Checkpoint]:
    from relume.checkpoint import Store

    path = path.absolute()
    below = path.parent.parent
    is_run = not (below / "store").is_dir()
    root, folder = (below.parent, f"{below.name}/{CHECKPOINTS}") if is_run else (below, CHECKPOINTS)
    if path.parent.name != CHECKPOINTS or not (root / "store").is_dir():
        raise UnknownCheckpointError(
            f"{path} is no checkpoint of a store: those are called <root>/<run>/{CHECKPOINTS}/<number>-<label>.json, "
            "and their tensors are in <root>/store."
        )
    store = Store(root)
    return store, store.find(path.stem, folder=folder)


def _by_name(name: str, root: Path) -> tuple[Store, Checkpoint] | None:
    from relume.checkpoint import Store

    store = Store(root)
    found = [
        point for folder in store.folders() for point in store.list(folder) if point.name == name.removesuffix(".json")
    ]
    if len(found) > 1:
        places = ", ".join(str(point.path) for point in found)
        raise ConfigurationError(f"several checkpoints are called {name!r}. Give the path of one: {places}.")
    return (store, found[0]) if found else None


def _newest(store: Store, folder: str) -> Checkpoint:
    newest = store.load_newest(folder)
    if newest is None:
        raise _none(store, folder)
    for checkpoint, error in newest.skipped:
        _warn(f"{checkpoint} is newer than {newest.checkpoint}, and is left out because it is damaged: {error}")
    return newest.checkpoint


def _none(store: Store, folder: str) -> UnknownCheckpointError:
    return UnknownCheckpointError(f"there is no checkpoint in {store.root / folder}.")


def _warn(text: str) -> None:
    warn(text)


def _best(store: Store, folder: str, monitor: str | None) -> Checkpoint:
    saves = saves_of(store, folder)
    if not saves.saved:
        raise _none(store, folder)
    for saved in saves.saved:
        if saved.problem is not None:
            _warn(f"{saved.checkpoint} is not compared: {saved.problem}")
    metrics = saves.metrics
    if monitor is not None and monitor not in metrics:
        raise UnknownNameError(
            f"no checkpoint in {store.root / folder} has the metric {monitor!r}: {closest(monitor, metrics)}"
        )
    looked_at = [monitor] if monitor else metrics
    for metric in looked_at:
        if best := saves.best(metric):
            return best.checkpoint
    why = f"no name among {', '.join(looked_at)} says whether small is good" if metrics else "they have no metrics"
    numbers = ", ".join(str(saved.checkpoint.sequence) for saved in saves.saved)
    raise ConfigurationError(
        f"which checkpoint in {store.root / folder} is the best cannot be told: {why}. Give one of the numbers {numbers}."
    )


def _describe(checkpoint: Checkpoint, manifest: Manifest) -> Saved:
    meta = _mapping(plain(manifest.meta))
    cursor, metrics = _mapping(meta.get("cursor")), _mapping(meta.get("metrics"))
    return Saved(
        checkpoint,
        epoch=_count(cursor.get("epoch")),
        batch=_count(cursor.get("batch")),
        step=_count(cursor.get("step")),
        samples=_count(cursor.get("samples")),
        metrics={str(name): value for name, value in metrics.items() if isinstance(value, (int, float))},
        reason=str(meta.get("reason", "")),
        time=_seconds(manifest.time),
        stored_bytes=manifest.stored_bytes,
        total_bytes=manifest.total_bytes,
    )


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _seconds(time: str) -> float | None:
    try:
        return datetime.datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _interest(metric: str) -> tuple[bool, bool, bool]:
    return not metric.startswith("val"), "loss" not in metric, mode_of(metric) is None
