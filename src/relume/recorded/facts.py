"""What is known of a run, in one dictionary that is JSON: what tables show, and filters and orders look at."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relume.direction import mode_of
from relume.errors import RelumeError
from relume.monitor import RunRecord, metric_summary, runs_in, status_of
from relume.monitor.edits import edits_of

Facts = dict[str, Any]


def facts_of(folder: Path, summary: Mapping[str, Mapping[str, float]] | None = None) -> Facts:
    """How a run stands: name, id, status, reason, created, seconds, epoch, step, seed, tags, notes, archived, config, metrics.

    A metric has ``last``, ``best``, ``min`` and ``max`` with their places; the best is the largest of what is known to be
    better when it is larger (accuracy, F1, …), and else the smallest. A run that cannot be read has the status "damaged".
    ``summary`` is that of its metrics, where it is at hand.
    """
    try:
        record = RunRecord.load(folder)
        status, line = status_of(folder)
        summary = metric_summary(folder) if summary is None else summary
    except (RelumeError, OSError, ValueError, ArithmeticError) as error:  # one run must not hide the others
        return {"name": folder.name, "status": "damaged", "reason": str(error), "folder": str(folder), "metrics": {}}
    now = time.time() if status == "running" else _number(line.get("time"), record.created)
    return {
        "name": folder.name,
        "id": record.id,
        "status": status,
        "reason": line.get("reason", ""),
        "created": record.created,
        "seconds": round(_number(line.get("seconds"), now - record.created), 3),
        "epoch": line.get("epoch", 0),
        "step": line.get("step", 0),
        "folder": str(folder),
        "metrics": {name: _metric(name, entry) for name, entry in summary.items()},
        "seed": record.seed,
        "tags": record.tags,
        "notes": record.notes,
        "archived": bool(edits_of(folder).archived),
        "config": record.config,
    }


def facts_below(root: str | Path) -> list[Facts]:
    """The facts of all runs below ``root``, oldest first."""
    return [facts_of(folder) for folder in runs_in(root)]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dots between their names; an empty mapping is left as it is.

    Example:
        >>> flat({"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}})
        {'optimizer.lr': 0.1, 'optimizer.betas': [0.9, 0.99]}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _metric(name: str, entry: Mapping[str, float]) -> dict[str, Any]:
    better = mode_of(name) or "min"
    return {
        "last": entry["last"],
        "best": entry[better],
        "best_epoch": entry[f"{better}_epoch"],
        "best_step": entry[f"{better}_step"],
        "count": entry["count"],
        "min": entry["min"],
        "max": entry["max"],
    }


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) else otherwise
