"""Callbacks: a small set of moments in a training at which code of the user's runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from relume.errors import ConfigurationError

if TYPE_CHECKING:
    from relume.train.trainer import Trainer

MOMENTS = (
    "on_fit_start", "on_fit_end", "on_epoch_start", "on_epoch_end", "on_step_start", "on_step_end",
    "on_evaluation_start", "on_evaluation_end", "on_checkpoint_start", "on_checkpoint_end",
)  # fmt: skip


class Callback:
    """Override what is needed; each method gets the Trainer.

    The Trainer shows ``run``, ``model``, ``optimizer``, ``batch`` (on the device), ``output``, ``loss`` (a tensor: reading
    it waits for the device), ``evaluation`` (the newest metrics), ``checkpoint`` (the newest one that is safe) and
    ``stop(reason)``. A callback that has ``state_dict`` and ``load_state_dict`` is part of each checkpoint.

    A step is from the first batch of a gradient accumulation to the optimizer's update.

    Example:
        >>> class StopAtGoodLoss(Callback):
        ...     def on_evaluation_end(self, trainer):
        ...         if trainer.evaluation["val/loss"] < 0.4:
        ...             trainer.stop("good enough")
    """

    def on_fit_start(self, trainer: Trainer) -> None:
        """The run is open; nothing has been trained."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """The last epoch is done, or an error or an interruption is on its way out."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before the first batch of an epoch."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After the evaluation of an epoch."""

    def on_step_start(self, trainer: Trainer) -> None:
        """A batch is on the device; the forward pass comes next."""

    def on_step_end(self, trainer: Trainer) -> None:
        """The optimizer has updated; ``trainer.loss`` is the last batch's."""

    def on_evaluation_start(self, trainer: Trainer) -> None:
        """Before the evaluation."""

    def on_evaluation_end(self, trainer: Trainer) -> None:
        """``trainer.evaluation`` holds the new metrics, and they are logged."""

    def on_checkpoint_start(self, trainer: Trainer) -> None:
        """A checkpoint is about to be made, between two steps."""

    def on_checkpoint_end(self, trainer: Trainer) -> None:
        """``trainer.checkpoint`` is safe on the disk. This is told between two steps, some of them later."""


class Moments:
    """The callbacks' methods by moment; only those that are overridden, so that an unused moment costs nothing."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise ConfigurationError(f"a callback must be a relume.Callback, not {type(callback).__name__}.")
            for name in vars(type(callback)):
                if name.startswith("on_") and name not in MOMENTS:
                    from relume.errors import closest

                    raise ConfigurationError(
                        f"{type(callback).__name__}.{name} would never be called: {closest(name, MOMENTS)}"
                    )
        self._methods: dict[str, list[Callable[[Any], None]]] = {
            moment: [
                getattr(callback, moment)
                for callback in self.callbacks
                if getattr(type(callback), moment) is not getattr(Callback, moment)
            ]
            for moment in MOMENTS
        }

    def stateful(self) -> dict[str, Any]:
        """The callbacks that have a state, by name."""
        return {
            f"callback/{number}-{type(callback).__name__}": callback
            for number, callback in enumerate(self.callbacks)
            if callable(getattr(callback, "state_dict", None)) and callable(getattr(callback, "load_state_dict", None))
        }

    def __getitem__(self, moment: str) -> list[Callable[[Any], None]]:
        return self._methods[moment]
