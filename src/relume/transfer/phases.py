"""One phase of a training: what is trained, how long, and how fast."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from relume.direction import Mode as Direction
from relume.direction import mode_of
from relume.errors import ConfigurationError
from relume.text import counted
from relume.transfer.freezing import Mode
from relume.transfer.selection import Part, as_parts

_LENGTH = re.compile(r"\s*(\d+)\s*(epoch|step)s?\s*")


@dataclass(frozen=True)
class Length:
    """A number of epochs or of steps.

    Example:
        >>> Length.read("100 steps", "every"), str(Length.read(1, "warmup", unit="epochs"))
        (Length(count=100, unit='steps'), '1 epoch')
    """

    count: int
    unit: Literal["epochs", "steps"]

    @classmethod
    def read(cls, value: Any, what: str, unit: Literal["epochs", "steps"] = "steps") -> Length:
        """From words, or from a number of ``unit``.

        Raises:
            ConfigurationError: not understood, or below 1; names ``what``.
        """
        if isinstance(value, Length):
            return value
        match = _LENGTH.fullmatch(value.lower()) if isinstance(value, str) else None
        if match is not None:
            value, unit = int(match[1]), "epochs" if match[2] == "epoch" else "steps"
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigurationError(
                f'{what}={value!r} is not understood. Examples: "1 epoch", "100 steps", 100 ({unit}).'
            )
        if value < 1:
            raise ConfigurationError(f"{what}={value}: it lasts at least 1 of the {unit}.")
        return cls(value, unit)

    def __str__(self) -> str:
        return counted(self.count, self.unit[:-1])


@dataclass(frozen=True)
class Stall:
    """The end of a phase: when a metric has not got better for ``patience`` values in a row.

    It is looked at after each epoch that logged it; what was seen is part of each checkpoint.

    Args:
        monitor: the metric's name, such as ``"val/loss"``.
        patience: how many values without an improvement are borne; at least 1.
        mode: whether ``"min"`` or ``"max"`` is good; None infers it from the name.
        min_delta: by how much a value must be better than the best to count as better.

    Raises:
        ConfigurationError: an argument that makes no sense, or a name that does not tell its direction.

    Example:
        >>> str(Stall("val/accuracy", patience=2))
        'val/accuracy stalls (2)'
    """

    monitor: str
    patience: int = 2
    mode: Direction | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.monitor, str) or not self.monitor:
            raise ConfigurationError(f"Stall: the metric's name is needed, such as 'val/loss', not {self.monitor!r}.")
        if isinstance(self.patience, bool) or not isinstance(self.patience, int) or self.patience < 1:
            raise ConfigurationError(f"Stall: patience must be a whole number of at least 1, not {self.patience!r}.")
        if not 0 <= self.min_delta < math.inf:
            raise ConfigurationError(f"Stall: min_delta must be at least 0, not {self.min_delta!r}.")
        if self.mode not in (None, "min", "max"):
            raise ConfigurationError(f"Stall: mode is 'min' or 'max', not {self.mode!r}.")
        if self.mode is None and mode_of(self.monitor) is None:
            raise ConfigurationError(
                f"Stall: {self.monitor!r} does not tell whether smaller or larger is better: say mode='min' or mode='max'."
            )

    def __str__(self) -> str:
        return f"{self.monitor} stalls ({self.patience})"


class Phase:
    """What is trained for a while; everything else is frozen.

    Args:
        trainable: what is trained: patterns, modules or parameters as in :func:`relume.freeze`; ``"*"`` or None is everything.
        epochs: how many epochs it lasts. A phase that begins within an epoch has these whole epochs after it.
        steps: how many optimizer updates it lasts, instead.
        until: what ends it, instead: a :class:`Stall`. The last phase needs no end, and has none.
        lr: the learning rate of the group with the largest one; all others keep their proportion to it. None: the
            optimizer's own.
        warmup: how long the learning rate rises to that: ``"1 epoch"``, ``"100 steps"`` or a number of steps.
        name: what it is called; by default by what is trained.
        batchnorm: the running statistics of what is trained: ``"train"`` lets them move, ``"eval"`` keeps them as they
            are, which is what small batches need. Those of frozen parts never move.
        state: what the optimizer keeps of parameters that this phase freezes: ``"keep"``, so that they go on with their
            momentum later, or ``"drop"``, so that they begin anew and take no memory.

    Raises:
        ConfigurationError: an argument that makes no sense; names it.

    Example:
        >>> print(Phase(["layer4", "fc"], epochs=2, lr=1e-4))
        layer4, fc: 2 epochs, lr 0.0001
    """

    def __init__(
        self,
        trainable: Part | Iterable[Part] | None = None,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        until: Stall | None = None,
        lr: float | None = None,
        warmup: int | str | None = None,
        name: str | None = None,
        batchnorm: Mode = "train",
        state: Literal["keep", "drop"] = "keep",
    ) -> None:
        self.trainable: tuple[Part, ...] = ("*",) if trainable is None else tuple(_checked_parts(trainable))
        if sum(value is not None for value in (epochs, steps, until)) > 1:
            raise ConfigurationError(f"{self._called(name)}: give one of epochs=, steps= and until=.")
        if until is not None and not isinstance(until, Stall):
            raise ConfigurationError(
                f"{self._called(name)}: until={until!r:.60} must be a relume.Stall, such as relume.Stall('val/loss')."
            )
        self.length: Length | Stall | None = until
        if epochs is not None:
            self.length = Length.read(epochs, "epochs", "epochs")
        elif steps is not None:
            self.length = Length.read(steps, "steps")
        if lr is not None and (isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 < lr < math.inf):
            raise ConfigurationError(f"{self._called(name)}: lr must be a number above 0, not {lr!r}.")
        if name is not None and (not isinstance(name, str) or not name):
            raise ConfigurationError(f"the name of a phase is a text, not {name!r}.")
        if batchnorm not in ("train", "eval"):
            raise ConfigurationError(f"{self._called(name)}: batchnorm={batchnorm!r}: it is 'eval' or 'train'.")
        if state not in ("keep", "drop"):
            raise ConfigurationError(f"{self._called(name)}: state={state!r}: it is 'keep' or 'drop'.")
        self.lr = lr
        self.warmup = None if warmup is None else Length.read(warmup, "warmup")
        self.name = name
        self.batchnorm: Mode = batchnorm
        self.state = state

    @property
    def sets_lr(self) -> bool:
        """Whether it has a learning rate or a warm-up of its own."""
        return self.lr is not None or self.warmup is not None

    def parts(self) -> str:
        """What is trained, in words.

        Example:
            >>> Phase([nn.Linear(2, 1), "head.*"]).parts()
            'a Linear, head.*'
        """
        if self.trainable == ("*",):
            return "all"
        return ", ".join(part if isinstance(part, str) else f"a {type(part).__name__}" for part in self.trainable)

    def describe(self) -> dict[str, Any]:
        """All that it says, as plain values, in which two schedules can be compared."""
        return {
            "name": self.name,
            "trainable": self.parts(),
            "length": None if self.length is None else str(self.length),
            "lr": self.lr,
            "warmup": None if self.warmup is None else str(self.warmup),
            "batchnorm": self.batchnorm,
            "state": self.state,
        }

    def __str__(self) -> str:
        said = [f"{self.name} ({self.parts()})" if self.name not in (None, self.parts()) else self.parts()]
        said += [str(self.length)] if self.length is not None else []
        said += [f"lr {self.lr:g}"] if self.lr is not None else []
        said += [f"warm-up {self.warmup}"] if self.warmup is not None else []
        return said[0] + (f": {', '.join(said[1:])}" if said[1:] else "")

    def __repr__(self) -> str:
        return f"Phase({self})"

    def _called(self, name: object) -> str:
        return f"phase {name!r}" if name is not None else f"the phase of {self.parts()}"


def _checked_parts(trainable: Part | Iterable[Part]) -> list[Part]:
    try:
        parts = as_parts(trainable)
    except TypeError as error:
        raise ConfigurationError(
            f"{trainable!r:.80} is a {type(trainable).__name__}: parts of a model are given by name, as modules or as parameters."
        ) from error
    if not parts:
        raise ConfigurationError("a phase trains nothing: trainable=[] is empty. For everything, leave it out.")
    for part in parts:
        if not isinstance(part, (str, nn.Module, nn.Parameter)):
            raise ConfigurationError(
                f"{part!r:.80} is a {type(part).__name__}: parts of a model are given by name, as modules or as parameters."
            )
    return parts
