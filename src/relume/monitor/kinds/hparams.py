"""Hyperparameters of a run, with what came of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from relume.monitor.kinds.base import Content, Media

NAME = "hparams"
"""The name under which a run logs its own."""

_LONGEST = 400


class HParams(Media):
    """Hyperparameters and the best values that were reached with them. Each run writes its own, of its ``config``.

    Args:
        values: nested mappings become names with slashes, lists their text.
        metrics: the best value of each metric.

    Example:
        >>> HParams({"lr": 0.1, "model": {"width": 64}}, {"val/loss": 0.5}).content(Path())["values"]
        {'lr': 0.1, 'model/width': 64}
    """

    kind = "hparams"

    def __init__(self, values: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> None:
        self._values = dict(_flat("", values))
        self._metrics = dict(metrics or {})

    def describe(self, folder: Path) -> Content:
        return {"values": self._values, "metrics": self._metrics}


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _flat(f"{path}/", value)
        elif value is None or isinstance(value, (bool, int, float)):
            yield path, value
        else:
            yield path, (value if isinstance(value, str) else json.dumps(value, default=str))[:_LONGEST]
