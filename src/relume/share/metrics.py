"""Which numbers are measured when a run is packed, and what computes each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from relume.errors import ConfigurationError
from relume.share.claims import computed_by
from relume.share.gather import Source
from relume.share.measuring import ABSOLUTE, ACCURACY, CROSS_ENTROPY, KNOWN, SQUARED

_SPELT = {"cross_entropy": CROSS_ENTROPY, "crossentropy": CROSS_ENTROPY, "l1": ABSOLUTE, "squared": SQUARED}
_OF_TORCH = {
    "cross_entropy": CROSS_ENTROPY,
    "mse_loss": SQUARED,
    "l1_loss": ABSOLUTE,
    "CrossEntropyLoss": CROSS_ENTROPY,
    "MSELoss": SQUARED,
    "L1Loss": ABSOLUTE,
}
_PREFIX = "val/"


@dataclass(frozen=True)
class Wanted:
    """What is measured.

    Attributes:
        kinds: what computes each number, by its name.
        functions: the author's own, by ``module.function``.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def wanted(source: Source, loss: Any, metrics: Mapping[str, Any] | None, recorded: Mapping[str, float]) -> Wanted:
    """What was asked for; without, those that the run recorded for its validation and whose way is known.

    Raises:
        ConfigurationError: one is neither known by name nor a function that can be found again.
    """
    found = Wanted()
    if metrics is not None and not isinstance(metrics, Mapping):
        raise ConfigurationError(
            f"metrics={metrics!r:.80}: give names with what computes them, {{'accuracy': 'accuracy'}}."
        )
    given = {**({"loss": loss} if loss is not None else {}), **(metrics or {})}
    for name, what in given.items():
        full = name if "/" in str(name) else f"{_PREFIX}{name}"
        kind, function = _kind_of(str(name), what)
        found.kinds[full] = kind
        if function is not None:
            found.functions[kind] = function
            found.notes.append(f"{full} is computed by {kind}: who checks it must trust the bundle's code")
    if given:
        return found
    names = [name for name in recorded if name.startswith(_PREFIX)]
    unknown = []
    for name in sorted(names):
        if kind := computed_by(name, source.config.get("loss")):
            found.kinds[name] = kind
        else:
            unknown.append(name)
    if unknown:
        found.notes.append(
            f"{', '.join(unknown)[:200]}: what computes it is not known, so it is claimed as recorded; say it with metrics= "
            "or loss= in Python"
        )
    return found


def _kind_of(name: str, what: Any) -> tuple[str, Callable[..., Any] | None]:
    if isinstance(what, str):
        kind = _SPELT.get(what, what)
        if kind in KNOWN:
            return kind, None
        raise ConfigurationError(f"{name}={what!r:.60} is not known: there are {', '.join(KNOWN)}, and functions.")
    if isinstance(what, nn.Module) and type(what).__module__.startswith("torch.nn"):
        plain = type(what)()
        kind = _OF_TORCH.get(type(what).__name__, "")
        if kind and what.__dict__.keys() == plain.__dict__.keys() and repr(_options(what)) == repr(_options(plain)):
            return kind, None
        raise ConfigurationError(
            f"{name}={what!r:.80} is a loss with settings, which cannot be named in a bundle: put it into a function "
            "loss(output, target) of a module of yours."
        )
    place, title = getattr(what, "__module__", ""), getattr(what, "__qualname__", "")
    if place in ("torch.nn.functional", "torch._C._nn") and title in _OF_TORCH:
        return _OF_TORCH[title], None
    if (place, title) == ("relume.train.metrics", "accuracy"):
        return ACCURACY, None
    if not callable(what) or getattr(sys.modules.get(place), title, None) is not what:
        raise ConfigurationError(
            f"{name}={what!r:.80} cannot be found again by its name: give a function at the top level of a module, or one of "
            f"{', '.join(KNOWN)}."
        )
    return f"{place}.{title}", what


def _options(module: nn.Module) -> dict[str, Any]:
    return {key: value for key, value in vars(module).items() if not key.startswith("_") and key != "training"}
