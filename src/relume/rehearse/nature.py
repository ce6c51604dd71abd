"""Metrics that no two runs agree on."""

from __future__ import annotations

import re

_BY_NATURE = {
    "time", "times", "seconds", "second", "sec", "secs", "ms", "duration", "elapsed", "eta", "speed", "throughput", "fps",
    "memory", "mem",
}  # fmt: skip


def differs_by_nature(metric: str) -> bool:
    """Whether a metric measures the machine and not the training, so that no two runs agree on it.

    Example:
        >>> [name for name in ("train/loss", "step_time", "samples_per_second", "timestep_loss") if differs_by_nature(name)]
        ['step_time', 'samples_per_second']
    """
    words = re.split(r"[^a-z0-9]+", metric.lower())
    return any(word in _BY_NATURE or word.endswith("time") for word in words)
