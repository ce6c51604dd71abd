"""Early stopping: end a training when a metric gets no better."""

from __future__ import annotations

import math
from typing import Any

from relume.checkpoint import infer_mode
from relume.direction import Mode
from relume.errors import ConfigurationError


class EarlyStopping:
    """Stops a run when ``monitor`` has not improved for ``patience`` values in a row.

    It looks at the metric after each epoch that logged it, so ``patience`` counts evaluations. What it has seen is part of
    each checkpoint.

    Args:
        monitor: the metric's name, such as ``"val/loss"``.
        patience: how many values without an improvement are borne; at least 1.
        mode: whether ``"min"`` or ``"max"`` is good; None infers it from the name.
        min_delta: by how much a value must be better than the best to count as better.
        baseline: a value that must be beaten: until then nothing counts as an improvement.
        warmup: values at the beginning that are not counted against the patience.
        stop_on_nan: end at once when the metric is NaN or infinite.
        restore_best: at the end, give the model the weights of the best checkpoint that is kept.

    Raises:
        ConfigurationError: an argument that makes no sense, or a name that does not tell its direction.

    Example:
        >>> stop = EarlyStopping("val/loss", patience=2)
        >>> [stop.update(value) for value in (0.5, 0.4, 0.41, 0.42)][-1]
        'val/loss has not improved for 2 evaluations (best 0.4)'
    """

    def __init__(
        self,
        monitor: str,
        *,
        patience: int = 3,
        mode: Mode | None = None,
        min_delta: float = 0.0,
        baseline: float | None = None,
        warmup: int = 0,
        stop_on_nan: bool = True,
        restore_best: bool = False,
    ) -> None:
        if not isinstance(monitor, str) or not monitor:
            raise ConfigurationError(f"monitor must be the name of a metric, such as 'val/loss', not {monitor!r}.")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ConfigurationError(f"patience must be a whole number of at least 1, not {patience!r}.")
        if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0:
            raise ConfigurationError(f"warmup must be a whole number of at least 0, not {warmup!r}.")
        if not 0 <= min_delta < math.inf:
            raise ConfigurationError(f"min_delta must be at least 0, not {min_delta!r}.")
        if baseline is not None and not math.isfinite(baseline):
            raise ConfigurationError(f"baseline must be a number, not {baseline!r}.")
        self.monitor = monitor
        self.mode = infer_mode(monitor, mode)
        self.patience = patience
        self.min_delta = min_delta
        self.baseline = baseline
        self.warmup = warmup
        self.stop_on_nan = stop_on_nan
        self.restore_best = restore_best
        self.best: float | None = None
        self.waited = 0
        self.seen = 0
        self._last = 0.0

    def update(self, value: float) -> str | None:
        """Take in a value; returns the reason for stopping, or None to go on."""
        self.seen += 1
        self._last = value
        reference = self.best if self.best is not None else self.baseline
        if self._is_better(value, reference):
            self.best = value
            self.waited = 0
        elif self.seen > self.warmup:
            self.waited += 1
        return self.reason

    @property
    def reason(self) -> str | None:
        """Why the run is to stop, by what was seen so far."""
        if self.seen and self.stop_on_nan and not math.isfinite(self._last):
            return f"{self.monitor} is {self._last}"
        if self.waited < self.patience:
            return None
        count = f"{self.waited} {'evaluation' if self.waited == 1 else 'evaluations'}"
        if self.best is None and self.baseline is not None:
            return f"{self.monitor} has not beaten the baseline {self.baseline:g} in {count}"
        best = "" if self.best is None else f" (best {self.best:.6g})"
        return f"{self.monitor} has not improved for {count}{best}"

    def _is_better(self, value: float, reference: float | None) -> bool:
        if math.isnan(value):
            return False
        if reference is None:
            return True
        return value > reference + self.min_delta if self.mode == "max" else value < reference - self.min_delta

    def state_dict(self) -> dict[str, Any]:
        return {
            "monitor": self.monitor,
            "best": self.best,
            "waited": self.waited,
            "seen": self.seen,
            "last": self._last,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``; what was seen of another metric does not count."""
        if state["monitor"] == self.monitor:
            self.best, self.waited, self.seen = state["best"], state["waited"], state["seen"]
            self._last = state["last"]
