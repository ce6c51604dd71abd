"""Gradients that explode or vanish."""

from __future__ import annotations

import math
import statistics as means
from collections import deque

import torch
from torch import nn

from relume.errors import ConfigurationError
from relume.names import named_parameters
from relume.run.run import Run
from relume.watch import statistics
from relume.watch.steps import StepWatcher, labels, read_interval
from relume.watch.watch import _unscale

_REMEMBERED = 50
_LEAST_LOOKS = 5
_IN_A_ROW = 3


class GradientHealth(StepWatcher):
    """Warns once of exploding and once of vanishing gradients, with the layer's name and what to do.

    Args:
        every: how often it looks, in steps; the first step is looked at, too.
        exploding: how many times the usual norm.
        vanishing: the smallest share of the strongest layer.

    *Exploding*: the norm of all gradients together, before clipping where the Trainer clips, is infinite, NaN, or more than
    ``exploding`` times the median of the last 50 looks, of which there must be 5 (Pascanu, Mikolov and Bengio, "On the
    difficulty of training recurrent neural networks", ICML 2013: a large increase of the norm during training, against which
    they clip at up to ten times its average). The layer named is the one whose gradient has the largest norm.

    *Vanishing*: the root mean square of a layer's gradient is below ``vanishing`` times that of the strongest layer, at three
    looks in a row (Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS
    2010: gradients get smaller from the output layer down; Hochreiter 1991: exponentially with depth). Only parameters with
    two axes or more count, as biases and the scales of norms are of another size; gradients that are zero throughout belong
    to parameters without use or to dead units (:class:`relume.DeadUnits`), and are left to those.

    Nothing is logged but the warnings; :class:`relume.Watch` logs the norms.

    Raises:
        ConfigurationError: an argument that makes no sense.
    """

    def __init__(self, every: str = "10 steps", *, exploding: float = 100.0, vanishing: float = 1e-6) -> None:
        self.every = read_interval(every)
        if isinstance(exploding, bool) or not isinstance(exploding, (int, float)) or not 1 < exploding < math.inf:
            raise ConfigurationError(f"exploding must be a number above 1, not {exploding!r}.")
        if isinstance(vanishing, bool) or not isinstance(vanishing, (int, float)) or not 0 < vanishing < 1:
            raise ConfigurationError(f"vanishing must be a number between 0 and 1, not {vanishing!r}.")
        self.exploding, self.vanishing = float(exploding), float(vanishing)

    def begin(self, run: Run) -> None:
        self._usual: dict[str, deque[float]] = {}
        self._faint: dict[str, int] = {}

    def bound(self, run: Run) -> None:
        label = labels(run.models)
        self._names: dict[int, str] = {}
        for name, parameter in named_parameters(run.models):
            model, _, path = name.partition(".")
            self._names.setdefault(id(parameter), label(model, path))

    def before(self, name: str, optimizer: torch.optim.Optimizer, step: int) -> None:
        found: dict[str, tuple[torch.Tensor, nn.Parameter]] = {}
        for number, group in enumerate(optimizer.param_groups):
            for place, p in enumerate(group["params"]):
                values = statistics.values_of(p.grad)
                if values is not None and p.requires_grad:
                    found[self._names.get(id(p), f"parameter {place} of group {number} of {name}")] = (values, p)
        if not found:
            return
        unscale = _unscale(optimizer)
        tensors = [unscale(norm) for norm in statistics.norms([values for values, _ in found.values()])]
        assert self._run is not None
        clipped = self._run.norm_before_clipping
        sizes = {key: p.numel() for key, (_, p) in found.items()}
        deep = {key for key, (_, p) in found.items() if p.dim() >= 2}

        def judge(numbers: list[float]) -> None:
            norms = dict(zip(sizes, numbers, strict=False))
            total = numbers[-1] if clipped is not None else math.sqrt(sum(norm * norm for norm in norms.values()))
            self._look_for_exploding(name, step, total, norms)
            self._look_for_vanishing(step, {key: norms[key] / math.sqrt(sizes[key]) for key in norms if key in deep})

        self.later.put([*tensors, *([clipped] if clipped is not None else [])], judge)

    def _look_for_exploding(self, name: str, step: int, total: float, norms: dict[str, float]) -> None:
        usual = self._usual.setdefault(name, deque(maxlen=_REMEMBERED))
        median = means.median(usual) if len(usual) >= _LEAST_LOOKS else math.nan
        if math.isfinite(total):
            usual.append(total)
            if not total > self.exploding * median:
                return
        if not self.is_first("exploding"):
            return
        layer = max(norms, key=lambda key: math.inf if math.isnan(norms[key]) else norms[key])
        against = "" if math.isnan(median) else f", {total / median:,.0f} times its usual {median:.3g}"
        if not math.isfinite(total):
            against = "" if math.isnan(median) else f", after {median:.3g} as usual"
        self.warn(
            f"exploding gradients at step {step}: their norm is {total:.3g}{against}; the largest is that of {layer} "
            f"({norms[layer]:.3g}). Try clip_norm=1.0 (torch.nn.utils.clip_grad_norm_ in a loop of your own), a smaller "
            "learning rate or a warm-up, and look for unusual samples in the batch."
        )

    def _look_for_vanishing(self, step: int, sizes: dict[str, float]) -> None:
        strongest = max(sizes, key=lambda key: sizes[key], default=None)
        if strongest is None or not math.isfinite(sizes[strongest]):
            return
        faint = {key for key, size in sizes.items() if 0 < size < self.vanishing * sizes[strongest]}
        self._faint = {key: self._faint.get(key, 0) + 1 for key in faint}
        lasting = [key for key, count in self._faint.items() if count >= _IN_A_ROW]
        if lasting and self.is_first("vanishing"):
            layer = min(lasting, key=lambda key: sizes[key])
            more = f" (and {len(lasting) - 1} more)" if len(lasting) > 1 else ""
            self.warn(
                f"vanishing gradients at step {step}: that of {layer}{more} has a root mean square of {sizes[layer]:.3g}, and "
                f"that of {strongest} {sizes[strongest]:.3g}. What comes first hardly learns: use ReLU or GELU in the place of "
                "sigmoid or tanh, residual connections, norm layers, or an initialisation that fits (torch.nn.init)."
            )
