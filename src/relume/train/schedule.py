"""When a learning-rate scheduler moves: with each step, with each epoch, or with a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import lr_scheduler

from relume.errors import ConfigurationError, closest


class Schedules:
    """Moves all schedulers of a training.

    Args:
        every: ``"step"`` or ``"epoch"``; by default ``OneCycleLR`` and ``CyclicLR`` move each step, others each epoch.
        monitor: the metric that ``ReduceLROnPlateau`` is given.
    """

    def __init__(self, schedulers: Mapping[str, Any], every: str | None, monitor: str) -> None:
        if every not in (None, "step", "epoch"):
            raise ConfigurationError(f'schedule_every must be "step" or "epoch", not {every!r}.')
        self._by_step: list[Any] = []
        self._by_epoch: list[Any] = []
        self._monitor = monitor
        for scheduler in schedulers.values():
            if not callable(getattr(scheduler, "step", None)):
                raise ConfigurationError(f"a scheduler needs a step() method; {type(scheduler).__name__} has none.")
            follows_metric = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
            moves_by_step = (every == "step" and not follows_metric) or (
                every is None and isinstance(scheduler, (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR))
            )
            (self._by_step if moves_by_step else self._by_epoch).append(scheduler)

    def after_step(self) -> None:
        for scheduler in self._by_step:
            scheduler.step()

    def after_epoch(self, metrics: Mapping[str, float]) -> None:
        for scheduler in self._by_epoch:
            if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                scheduler.step(self._value(metrics))
            else:
                scheduler.step()

    def _value(self, metrics: Mapping[str, float]) -> float:
        value = metrics.get(self._monitor, math.nan)
        if math.isnan(value) and self._monitor not in metrics:
            raise ConfigurationError(
                f"ReduceLROnPlateau needs the metric {self._monitor!r}, which is not there: {closest(self._monitor, metrics)} "
                "Say which with monitor=."
            )
        return value
