"""Runs side by side for the page: what differs, and who did best."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from relume.direction import mode_of
from relume.errors import ConfigurationError
from relume.monitor.record import jsonable
from relume.recorded.comparing import Difference, MetricComparison, comparison_of
from relume.ui.answers.runs import as_json, by_interest, cut

MOST_RUNS = 50


def compared(folders: Sequence[Path]) -> dict[str, Any]:
    """Settings, code, environment and metrics of runs, one value for each run.

    Returns:
        ``names``; ``config``, ``code`` and ``environment``, each ``[{"name", "values", "differs"}]``; ``metrics``, most
        interesting first, ``[{"name", "mode", "best", "last", "best_step", "winner"}]``; ``winner`` is the place of the run
        with the best value, or None.

    Raises:
        ConfigurationError: fewer than two runs, or more than 50.
    """
    if len(folders) > MOST_RUNS:
        raise ConfigurationError(f"{len(folders)} runs are too many to compare: {MOST_RUNS} at most.")
    if len(folders) < 2:
        raise ConfigurationError("a comparison needs two runs at least: pick another one.")
    found = comparison_of(folders)
    metrics = {metric.name: metric for metric in found.metrics}
    return {
        "names": jsonable(found.names),
        "status": list(found.status),
        **{part: _differences(getattr(found, part)) for part in ("config", "code", "environment")},
        "metrics": [_metric(metrics[name]) for name in by_interest(metrics)],
    }


def _differences(entries: Iterable[Difference]) -> list[dict[str, Any]]:
    return [
        {
            "name": jsonable(entry.name),
            "values": [cut(jsonable(value)) for value in entry.values],
            "differs": entry.differs,
        }
        for entry in entries
    ]


def _metric(metric: MetricComparison) -> dict[str, Any]:
    found = dataclasses.asdict(metric)
    lists = {name: [as_json(value) for value in found[name]] for name in ("best", "last", "best_step")}
    return {"name": metric.name, "mode": mode_of(metric.name), **lists, "winner": metric.winner}
