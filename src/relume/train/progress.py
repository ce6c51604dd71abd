"""Where the Trainer stands within an epoch: the mean of the losses so far, and the batches that make one update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from relume.train.cached import CachedFeatures
from relume.train.metrics import Mean


class Progress:
    """Where the Trainer stands within an epoch: the mean of the losses so far, the group that is accumulated, and what of
    the data is read as features."""

    def __init__(self, accumulate: int, features: CachedFeatures) -> None:
        self._accumulate = accumulate
        self._features = features
        self._is_restored = False
        self.mean = Mean()
        self.group = Group(accumulate)

    def begin_epoch(self) -> tuple[Mean, Group]:
        """The mean and the group to go on with: new ones, but for an epoch that is resumed."""
        if not self._is_restored:
            self.mean, self.group = Mean(), Group(self._accumulate)
        self._is_restored = False
        return self.mean, self.group

    def end_epoch(self) -> None:
        self.mean, self.group = Mean(), Group(self._accumulate)

    def state_dict(self) -> dict[str, Any]:
        return {
            "mean": self.mean.state_dict(),
            "group": self.group.state_dict(),
            "accumulate": self._accumulate,
            "features": self._features.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._features.load_state_dict(state.get("features", {}))
        if state["accumulate"] == self._accumulate:
            self.mean.load_state_dict(state["mean"])
            self.group.load_state_dict(state["group"])
            self._is_restored = self.mean.has_values


class Group:
    """The batches that make one update. Their gradients add up to the mean over all their samples."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._count = 0
        self._first = 0
        self._samples = 0

    def state_dict(self) -> dict[str, int]:
        return {"count": self._count, "first": self._first, "samples": self._samples}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._count, self._first, self._samples = state["count"], state["first"], state["samples"]

    @property
    def is_empty(self) -> bool:
        return self._count == 0

    @property
    def is_full(self) -> bool:
        return self._count == self._size

    def weigh(self, loss: torch.Tensor, samples: int) -> torch.Tensor:
        """The batch's share, on the supposition that the group gets full with batches like its first."""
        self._count += 1
        self._samples += samples
        if self._count == 1:
            self._first = max(samples, 1)
        if self._size == 1:
            return loss
        loss = loss / self._size
        return loss if samples == self._first else loss * (samples / self._first)

    def settle(self, parameters: list[nn.Parameter]) -> None:
        """Correct the gradients when the supposition was wrong, and begin the next group."""
        supposed = self._size * self._first
        if self._size > 1 and self._samples != supposed and self._samples:
            gradients = [p.grad for p in parameters if p.grad is not None]
            torch._foreach_mul_(gradients, supposed / self._samples)
        self._count = self._samples = 0
