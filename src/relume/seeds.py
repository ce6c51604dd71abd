"""Seeds: one number for a whole training, and the many that are derived from it."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

from relume.determinism import Deterministic, checked, turn_on
from relume.errors import warn

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def derive(seed: int, *path: int | str) -> int:
    """A 63-bit seed that is a pure function of ``seed`` and ``path``.

    Example:
        >>> derive(0, "order", 3) == derive(0, "order", 3) != derive(0, "order", 4)
        True
    """
    text = "/".join([str(int(seed)), *map(str, path)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def mix(key: int, index: int) -> int:
    """The ``index``-th seed of a series, 63 bits (hot path: under 1 microsecond).

    Source: SplitMix64, Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    z = (key + (index + 1) * _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 1


def seed_everything(seed: int, deterministic: Deterministic = False) -> int:
    """Seed torch (all devices), numpy's global generator and ``random``; returns ``seed``.

    Args:
        deterministic: ``True`` turns torch's deterministic algorithms on as well, for the rest of the process (see
            `relume.determinism`): torch raises an error at an operation that has none, or, with ``"warn"``, a warning.
            ``False`` leaves them as they are. Call it before anything is computed on CUDA.

    Changes the state of those generators. Use ``seed=`` of :class:`relume.Run` or :class:`relume.Trainer` for a whole
    training: it covers the order of the data and the augmentation in worker processes too.

    Raises:
        ConfigurationError: ``CUBLAS_WORKSPACE_CONFIG`` is set to what contradicts ``deterministic``.

    Warns:
        RelumeWarning: CUDA was in use before ``deterministic`` came, so that cuBLAS may not follow it.
    """
    if checked(deterministic):
        problem = turn_on(deterministic)
        if problem:
            warn(problem)
    torch.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)
    return seed
