"""A frozen VGG19 with a small trained head: what does a checkpoint of it cost?"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import harness

import checkpoint


@dataclass(frozen=True)
class Contestant:
    key: str
    label: str
    packages: tuple[str, ...]
    ways: tuple[str, ...]


ALL = [Contestant("all", "all ways of checkpoint.py", ("relume", "torchvision"), tuple(checkpoint.WAYS))]


def measure(contestant: Contestant, options: Any) -> dict[str, Any]:
    """All ways in one process: ``checkpoint.measure`` lets them take turns, and leaves out what is not installed."""
    with tempfile.TemporaryDirectory(prefix="relume-bench-") as scratch:
        build = checkpoint.MODELS["vgg19-frozen"]
        figures = checkpoint.measure(build, options.rounds, Path(scratch), harness.status)
    return {"ways": {name: asdict(row) for name, row in figures.items()}}
