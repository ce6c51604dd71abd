"""Which checkpoints to keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from relume.direction import Mode, mode_of
from relume.errors import ConfigurationError


@dataclass(frozen=True)
class Candidate:
    """What retention looks at: one committed checkpoint.

    Attributes:
        sequence: its number; later ones are larger.
        epoch: the epoch that it completed; None in the middle of one.
        metrics: the last values at that time.
    """

    sequence: int
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Keep:
    """Keep the newest, the best and every n-th; delete the rest.

    Args:
        last: how many of the newest; at least one.
        best: how many of the best, where ``monitor`` is given.
        monitor: the metric that says how good a checkpoint is. One that lacks it, or has NaN, is never among the best.
        mode: whether ``"min"`` or ``"max"`` is good; None infers it from the metric's name.
        every: keep the checkpoints of every n-th epoch for good.

    Example:
        >>> keep = Keep(last=1, best=1, monitor="val/loss")
        >>> keep.to_delete([Candidate(n, n, {"val/loss": loss}) for n, loss in enumerate([3.0, 1.0, 2.0, 2.5])])
        [0, 2]
    """

    last: int = 2
    best: int = 1
    monitor: str | None = None
    mode: Mode | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        if self.last < 1:
            raise ConfigurationError(
                f"Keep(last={self.last!r}): the newest checkpoint must stay, so last is at least 1."
            )
        if self.best < 0 or (self.every is not None and self.every < 1):
            raise ConfigurationError(
                f"Keep(best={self.best!r}, every={self.every!r}): these count checkpoints and epochs."
            )
        if self.best > 1 and self.monitor is None:
            raise ConfigurationError(f"Keep(best={self.best}) needs the metric that tells: monitor='val/loss', say.")
        if self.monitor is not None:
            object.__setattr__(self, "mode", infer_mode(self.monitor, self.mode))

    def to_keep(self, candidates: Sequence[Candidate]) -> list[int]:
        """The numbers of the checkpoints that stay, in order."""
        newest = sorted(candidate.sequence for candidate in candidates)[-self.last :]
        best = [candidate.sequence for candidate in self.ranked(candidates)[: self.best]]
        nth = [candidate.sequence for candidate in candidates if self._is_nth(candidate)]
        return sorted({*newest, *best, *nth})

    def to_delete(self, candidates: Sequence[Candidate]) -> list[int]:
        """The numbers of the checkpoints that go, in order. All of ``candidates`` are committed."""
        kept = set(self.to_keep(candidates))
        return sorted(candidate.sequence for candidate in candidates if candidate.sequence not in kept)

    def ranked(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The checkpoints that have the metric, best first; of equals the earlier."""
        if self.monitor is None:
            return []
        measured = [candidate for candidate in candidates if not math.isnan(self._value(candidate))]
        sign = -1 if self.mode == "max" else 1
        return sorted(measured, key=lambda candidate: (sign * self._value(candidate), candidate.sequence))

    def _value(self, candidate: Candidate) -> float:
        value = candidate.metrics.get(self.monitor or "")
        return math.nan if value is None else float(value)

    def _is_nth(self, candidate: Candidate) -> bool:
        return self.every is not None and candidate.epoch is not None and candidate.epoch % self.every == 0


def infer_mode(monitor: str, mode: Mode | None = None) -> Mode:
    """Whether a smaller or a larger value of a metric is better, from its name unless it is given.

    Raises:
        ConfigurationError: the name does not tell.

    Example:
        >>> infer_mode("val/top5_accuracy"), infer_mode("val_loss")
        ('max', 'min')
    """
    if mode is not None:
        if mode not in ("min", "max"):
            raise ConfigurationError(f"mode={mode!r} for the metric {monitor!r}: it is 'min' or 'max'.")
        return mode
    inferred = mode_of(monitor)
    if inferred is None:
        raise ConfigurationError(
            f"whether a small {monitor!r} is good cannot be told from its name: give mode='min' or 'max'."
        )
    return inferred
