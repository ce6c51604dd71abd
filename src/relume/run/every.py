"""When to save: ``"1 epoch"``, ``"500 steps"``, ``"10 min"``, in words that are read once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from relume.errors import ConfigurationError

_SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_FORM = re.compile(r"\s*(?P<count>\d+(?:\.\d+)?)\s*(?P<unit>[a-z]+)\s*")


@dataclass(frozen=True)
class Every:
    """How often checkpoints are made; what is None is no reason to make one.

    Attributes:
        epochs, steps: at each multiple of these.
        seconds: since the last checkpoint.
    """

    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def read(cls, text: str | Iterable[str] | bool | None) -> Every:
        """Read one or several rules; ``None`` is ``"1 epoch"``, and ``False`` or an empty list means only at the end.

        Raises:
            ConfigurationError: a rule that is not understood, or two of one kind.

        Example:
            >>> Every.read(["1 epoch", "10 min"])
            Every(epochs=1, steps=None, seconds=600.0)
        """
        if text is None or text is True:
            return cls(epochs=1)
        if text is False:
            return cls()
        found: dict[str, Any] = {}
        for rule in [text] if isinstance(text, str) else list(text):
            kind, value = _rule(rule)
            if kind in found:
                raise ConfigurationError(f"every={text!r} has two rules in {kind}: give one.")
            found[kind] = value
        return cls(**found)

    def next_step(self, step: int) -> float:
        """The first step after ``step`` at which a checkpoint is due; infinity when steps do not count."""
        return (step // self.steps + 1) * self.steps if self.steps else math.inf

    def is_due_after(self, epoch: int) -> bool:
        """Whether a checkpoint is due when ``epoch`` epochs are done."""
        return self.epochs is not None and epoch % self.epochs == 0


def _rule(rule: Any) -> tuple[str, float]:
    match = _FORM.fullmatch(rule.lower()) if isinstance(rule, str) else None
    if match is not None:
        count, unit = float(match["count"]), match["unit"]
        singular = unit.removesuffix("s") or unit
        if singular in ("epoch", "step") and count >= 1 and count == int(count):
            return f"{singular}s", int(count)
        if count > 0 and (unit in _SECONDS or singular in _SECONDS):
            return "seconds", count * _SECONDS.get(unit, _SECONDS.get(singular, 0))
    raise ConfigurationError(
        f'every={rule!r} is not understood. Examples: "1 epoch", "500 steps", "10 min", "2 h", or a list of such.'
    )


def read_duration(value: Any, name: str = "max_time") -> float | None:
    """A duration in seconds, from a number of seconds or words such as ``"30 min"`` or ``"11 h 30 min"``.

    Raises:
        ConfigurationError: not understood, or not above 0.

    Example:
        >>> read_duration("1 h 30 min")
        5400.0
    """
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    if isinstance(value, str):
        text = value.lower().strip()
        if re.fullmatch(r"\d+(?:\.\d+)?", text) and float(text) > 0:
            return float(text)
        parts = _FORM.findall(text)
        units = [unit if unit in _SECONDS else unit.removesuffix("s") for _, unit in parts]
        if parts and all(unit in _SECONDS for unit in units) and not _FORM.sub("", text).strip():
            seconds = sum(float(count) * _SECONDS[unit] for (count, _), unit in zip(parts, units, strict=True))
            if seconds > 0:
                return seconds
    raise ConfigurationError(f'{name}={value!r} is not understood. Examples: 3600 (seconds), "30 min", "11 h 30 min".')
