"""The checkpoints of one run: saved behind the training's back, kept or deleted by rule, mirrored."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

import torch

from relume.checkpoint import Candidate, Checkpoint, Keep, Store, Writer
from relume.errors import CheckpointError, ConstantChangedError, StoreLockedError, UnstorableError, warn

_GC_SECONDS = 30.0
_LABEL_METRICS = 3


class Checkpoints:
    """Saves the checkpoints of one run and applies retention.

    Args:
        store: of the run's root.
        name: the run's.
        keep: which to keep.
        committed: called in the background thread with each checkpoint that is safe.
        retry: called there when a save should be made again: a tensor that was taken for constant was not.

    A save that fails costs nothing but itself: training goes on, and a warning says why.
    """

    def __init__(
        self, store: Store, name: str, keep: Keep, committed: Callable[[Checkpoint], None], retry: Callable[[], None]
    ) -> None:
        self.store = store
        self.folder = f"{name}/checkpoints"
        self.keep = keep
        self.done: deque[Checkpoint] = deque()
        self.failures = 0
        self._committed = committed
        self._retry = retry
        self._trusts_constants = True
        self._writer = Writer(store)
        self._pending: Future[Checkpoint] | None = None
        self._uncopied: list[torch.Tensor] = []  # what `_pending` reads where the training has it
        self._candidates = [candidate_of(store, checkpoint) for checkpoint in store.list(self.folder)]
        self._lock = threading.Lock()
        self._next_gc = time.monotonic() + _GC_SECONDS
        self._has_garbage = False

    def save(
        self,
        state: Any,
        meta: Mapping[str, Any],
        label: str,
        constant: Iterable[torch.Tensor],
        verify_constant: bool,
        before_commit: Callable[[], None],
    ) -> bool:
        """Take a snapshot and go on; whether a save was begun.

        Raises:
            UnstorableError: the path to an object that cannot be stored.
        """
        self.settle()
        uncopied = list(constant) if self._trusts_constants else []
        try:
            future = self._writer.save(
                state,
                meta,
                folder=self.folder,
                label=label,
                constant=uncopied,
                verify_constant=verify_constant,
                before_commit=before_commit,
            )
        except UnstorableError:
            raise
        except CheckpointError as error:
            self.failed(error)
            return False
        metrics, cursor = meta["metrics"], meta["cursor"]
        future.add_done_callback(lambda done: self._after(done, metrics, cursor))
        self._pending, self._uncopied = future, uncopied
        return True

    def before_update(self) -> None:
        """Finish what is being written if a part of it that was not copied is trained from here on."""
        # Hot path: 0.1 microseconds, and 0.03 for each frozen parameter while a checkpoint is written.
        if not self._uncopied:
            return
        if self._pending is None or self._pending.done():
            self._uncopied = []
        elif any(tensor.requires_grad for tensor in self._uncopied):
            self.settle()

    def settle(self) -> bool:
        """Wait until nothing is being written; warn of what went wrong. Whether all went well."""
        if self._pending is None:
            return True
        is_good = True
        try:
            self._writer.wait()
        except CheckpointError as error:
            is_good = False
            self.failed(error)
        if self._pending.done():
            self._pending = None
        return is_good

    def close(self) -> None:
        """Finish what is being written, end the thread, and delete the tensors that nothing needs any more."""
        self.settle()
        try:
            self._writer.close()
        except CheckpointError as error:
            self.failed(error)
        if self._has_garbage:
            self._collect()

    def best(self) -> Checkpoint | None:
        """The best of those that are kept, by the metric of ``keep``."""
        self.settle()
        with self._lock:
            ranked = self.keep.ranked(self._candidates)
        return self.store.find(ranked[0].sequence, folder=self.folder) if ranked else None

    def value_of(self, checkpoint: Checkpoint) -> float:
        """Its value of the metric of ``keep``; NaN where it has none."""
        with self._lock:
            found = [c.metrics for c in self._candidates if c.sequence == checkpoint.sequence]
        return float(found[0].get(self.keep.monitor or "", float("nan"))) if found else float("nan")

    def failed(self, error: CheckpointError) -> None:
        """Say that a checkpoint was not saved. The training goes on."""
        self.failures += 1
        warn(f"a checkpoint was not saved: {error} Training goes on.")

    # ------------------------------------------------------------------------------------ in the background thread

    def _after(self, done: Future[Checkpoint], metrics: Mapping[str, float], cursor: Mapping[str, int]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            if isinstance(error, ConstantChangedError):
                self._trusts_constants = False  # from here on all is copied
                self._retry()
            return
        checkpoint = done.result()
        self.done.append(checkpoint)
        epoch = cursor["epoch"] if cursor["batch"] == 0 else None
        with self._lock:
            self._candidates.append(Candidate(checkpoint.sequence, epoch, metrics))
            to_delete = self.keep.to_delete(self._candidates)
        try:
            for sequence in to_delete:
                self._delete(sequence)
            if self._has_garbage and time.monotonic() >= self._next_gc:
                self._collect()
        except (CheckpointError, OSError):  # an old checkpoint too many is no harm; it is tried again
            pass
        self._committed(checkpoint)

    def _delete(self, sequence: int) -> None:
        self.store.delete(sequence, folder=self.folder)
        with self._lock:
            self._candidates = [c for c in self._candidates if c.sequence != sequence]
        self._has_garbage = True

    def _collect(self) -> None:
        self._next_gc = time.monotonic() + _GC_SECONDS
        try:
            self.store.gc(dry_run=False, timeout_seconds=0)
            self._has_garbage = False
        except StoreLockedError:  # somebody saves or loads: the next one does it
            pass
        except (CheckpointError, OSError):
            self._has_garbage = False


def candidate_of(store: Store, checkpoint: Checkpoint) -> Candidate:
    """What retention looks at, from a manifest; one that is damaged is nobody's best."""
    try:
        meta = store.meta(checkpoint)
        cursor, metrics = meta["cursor"], meta["metrics"]
        return Candidate(checkpoint.sequence, cursor["epoch"] if cursor["batch"] == 0 else None, metrics)
    except (CheckpointError, KeyError, TypeError):
        return Candidate(checkpoint.sequence)


def label_of(cursor: Mapping[str, int], metrics: Mapping[str, float]) -> str:
    """A checkpoint's label: the name of its file alone tells where it is from and how good it is.

    Example:
        >>> label_of({"epoch": 3, "step": 2814, "batch": 0}, {"train/loss": 0.5, "val/loss": 0.4321, "val/accuracy": 0.8712})
        'epoch=3-step=2814-val_loss=0.4321-val_accuracy=0.8712'
    """
    parts = [f"epoch={cursor['epoch']}", f"step={cursor['step']}"]
    chosen = [name for name in metrics if name.startswith(("val/", "test/"))] or [
        name for name in metrics if name.endswith(("loss", "loss_epoch")) and f"{name}_epoch" not in metrics
    ]
    for name in sorted(chosen, key=lambda name: ("loss" not in name, list(metrics).index(name)))[:_LABEL_METRICS]:
        short = re.sub(r"[^A-Za-z0-9.]+", "_", name)[:40].strip("_")
        parts.append(f"{short}={_short(metrics[name])}")
    return "-".join(parts)[:180]


def _short(value: float) -> str:
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def keep_from(keep: Keep | None, monitor: str | None, mode: Any) -> Keep:
    """The rule that holds: the user's, with the metric of early stopping where it names none."""
    if os.environ.get("RELUME_REHEARSAL"):
        return Keep(last=1_000_000)
    if keep is None:
        return Keep(monitor=monitor or "val/loss", mode=mode)
    if keep.monitor is None and monitor is not None and keep.best:
        return Keep(last=keep.last, best=keep.best, monitor=monitor, mode=mode, every=keep.every)
    return keep
