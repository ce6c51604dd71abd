"""Saving in the background: training waits for the snapshot, one thread does the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

from relume.checkpoint.layout import CHECKPOINTS, Checkpoint
from relume.checkpoint.snapshot import Snapshot, Snapshotter
from relume.checkpoint.store import Store

_logger = logging.getLogger(__name__)


class Writer:
    """Saves checkpoints to a store behind the training's back, one at a time.

    A second save waits for the first. A save that failed is raised at the next call of `save` or `wait`, or at
    `close`; the store is then as it was before it.

    Example:
        >>> with Writer(Store(tmp_path)) as writer:
        ...     future = writer.save({"weight": torch.ones(3)}, label="epoch=1")
        >>> future.result().name
        '000001-epoch=1'
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._snapshotter = Snapshotter()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="relume-checkpoint")
        self._pending: Future[Checkpoint] | None = None

    def save(
        self,
        state: object,
        meta: object = None,
        *,
        folder: str = CHECKPOINTS,
        label: str = "",
        constant: Iterable[torch.Tensor] = (),
        verify_constant: bool = False,
        before_commit: Callable[[], None] | None = None,
    ) -> Future[Checkpoint]:
        """Take a snapshot of ``state`` and return; `wait`, or the result of what is returned, says when it is safe.

        Args:
            state: nested Python state with tensors; see `codec.encode`.
            meta: a description that can be read without the state; it holds no tensors.
            folder: ``"checkpoints"`` or ``"<run>/checkpoints"``.
            label: becomes part of the manifest's name.
            constant: tensors that nobody changes, such as frozen parameters: neither copied nor, while their address
                and version counter stay the same, read again.
            verify_constant: read them all the same, and raise ConstantChangedError when one has changed.
            before_commit: called by the background thread when the tensors are safe, before the manifest is written.

        Raises:
            UnstorableError: at once; nothing is written.
            CheckpointError: the save before this one failed; this one was not begun.
        """
        self.wait()
        self.store.check_name(folder, label)
        snapshot = self._snapshotter.take(state, meta, constant=constant, verify_constant=verify_constant)
        self._pending = self._thread.submit(self._write, snapshot, folder, label, before_commit)
        return self._pending

    def wait(self) -> Checkpoint | None:
        """Wait until nothing is being written; the checkpoint that was, if any. Raises what went wrong with it."""
        if self._pending is None:
            return None
        try:
            return self._pending.result()
        finally:
            if self._pending.done():  # and not when Ctrl-C ended the wait
                self._pending = None

    def close(self) -> None:
        """Finish what is being written, and end the thread. Raises what went wrong."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write(
        self, snapshot: Snapshot, folder: str, label: str, before_commit: Callable[[], None] | None
    ) -> Checkpoint:
        try:
            checkpoint = self.store.commit(snapshot, folder=folder, label=label, before_commit=before_commit)
        except BaseException as error:
            self._snapshotter.forget()
            _logger.error("a checkpoint was not saved: %s", error)
            raise
        self._snapshotter.remember(snapshot)
        return checkpoint
