"""What a run is given, checked; and what it notes of its surroundings."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any

import torch

from relume.errors import ConfigurationError
from relume.monitor import jsonable


def check_seed(seed: Any) -> int:
    """The seed as a number; raises ConfigurationError unless it is a whole number from 0 to 2**63 - 1."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= int(seed) < 2**63:
        raise ConfigurationError(f"seed must be a whole number from 0 to 2**63 - 1, not {seed!r}.")
    return int(seed)


def check_step(step: Any) -> int:
    if isinstance(step, (bool, torch.Tensor)) or not hasattr(step, "__index__") or not 0 <= int(step) < 2**63:
        raise ConfigurationError(f"step must be a whole number from 0 to 2**63 - 1, not {step!r}.")
    return int(step)


def check_epochs(count: Any) -> None:
    """Raise ConfigurationError unless ``count`` is a whole number of at least 1."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigurationError(f"epochs must be a whole number of at least 1, not {count!r}.")


def as_config(config: Any) -> dict[str, Any]:
    plain = jsonable(config) if config is not None else {}
    if not isinstance(plain, dict):
        raise ConfigurationError(
            f"config must be a mapping, a dataclass, a Namespace or a pydantic model, not {type(config).__name__}."
        )
    return plain


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("relume", "torch", "torchvision", "timm", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
