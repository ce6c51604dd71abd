"""Where a run stands, and how it knows: steps are counted by the optimizers themselves."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass
class Cursor:
    """Where a run stands.

    Attributes:
        epoch: the epoch being trained, counted from 0; after the last one, the number of epochs done.
        batch: batches of this epoch that are done.
        step: optimizer updates done, over all epochs.
        samples: training samples seen, over all epochs.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    samples: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class StepCounter:
    """Counts real optimizer updates through ``register_step_post_hook``.

    Several optimizers that update between two batches count as one step; several updates of one optimizer between two
    batches count each. An update that a GradScaler skips is none.

    Args:
        before_update: called before each update, skipped ones included.
    """

    def __init__(
        self,
        cursor: Cursor,
        optimizers: Iterable[torch.optim.Optimizer],
        before_update: Callable[[], None] = lambda: None,
    ) -> None:
        self._cursor = cursor
        self._before_update = before_update
        self._base = cursor.step
        self._was_updated = False
        self._counts: dict[int, int] = {}
        self._keys: dict[int, int] = {}
        self._gradients: dict[int, tuple[Any, Any]] = {}
        self._handles: list[Any] = []
        self.add(optimizers)

    def add(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        for optimizer in optimizers:
            self._keys[id(optimizer)] = len(self._counts)
            self._handles.append(optimizer.register_step_pre_hook(lambda *_: self._before_update()))
            self._handles.append(optimizer.register_step_post_hook(self._hook()))

    def _hook(self) -> Callable[..., None]:
        key = len(self._counts)
        self._counts[key] = 0
        self._gradients[key] = (None, None)
        counts, cursor, gradients = self._counts, self._cursor, self._gradients

        def count(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            # Hot path: 1.5 microseconds. A fused optimizer looks at the scaler's verdict itself, so it must be asked.
            found = getattr(optimizer, "found_inf", None)
            if found is not None and bool(found):
                return
            counts[key] += 1
            held = (p.grad for group in optimizer.param_groups for p in group["params"])
            gradient = next((grad for grad in held if grad is not None), None)  # of the first that is not frozen
            gradients[key] = (gradients[key][1], gradient if gradient is None else weakref.ref(gradient))
            if counts[key] > cursor.step - self._base:
                cursor.step = self._base + counts[key]

        return count

    def next_batch(self) -> None:
        """A batch begins: what the optimizers do from here on is the next step. Without optimizers, batches are steps."""
        if not self._counts:
            self._base = self._cursor.step = self._cursor.step + 1
        self.batch_done()
        self._was_updated = False

    def next_step(self, optimizer: torch.optim.Optimizer) -> int:
        """The number of the step that the next update of ``optimizer`` makes."""
        return self._base + self._counts[self._keys[id(optimizer)]] + 1

    @property
    def has_just_updated(self) -> bool:
        """Whether an update was made in the batch that is done now; without optimizers, each batch is one."""
        return not self._counts or self._was_updated or self._cursor.step != self._base

    @property
    def gradients_are_spent(self) -> bool:
        """Whether the gradients that are there have been used, and will be thrown away before the next ones are computed.

        So it is when an update was made in this batch and each update before found newly made gradients: the training
        clears them in between, and a checkpoint need not hold them.
        """
        if not self._counts or not self.has_just_updated:
            return False
        for before, now in self._gradients.values():
            if now is None or now() is None:
                continue
            if before is None or before() is now():
                return False
        return True

    def batch_done(self) -> None:
        """What the optimizers do from here on is the next step."""
        self._was_updated = self._cursor.step != self._base
        if self._was_updated:
            self._base = self._cursor.step
            for key in self._counts:
                self._counts[key] = 0

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def as_named(value: Any, default: str) -> dict[str, Any]:
    """One object, a list or a mapping of them, as a mapping by name.

    Example:
        >>> as_named(["a", "b"], "optimizer")
        {'optimizer0': 'a', 'optimizer1': 'b'}
    """
    if value is None:
        return {}
    if isinstance(value, Mapping) and not isinstance(value, torch.nn.Module):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return {f"{default}{i}": item for i, item in enumerate(value)} if len(value) != 1 else {default: value[0]}
    return {default: value}
