"""The checkpoints of a run: what each is worth, what it takes, and why it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relume.monitor.pace import number
from relume.saved import Saved, Saves, saves_in


def checkpoints(folder: Path) -> dict[str, Any]:
    """A row for each checkpoint, oldest first.

    Returns:
        ``rows``; ``metric``, by which the best was told (None where none tells), as ``RUN@best`` has it; ``metrics``, the
        most telling first; ``disk_bytes``, what all of them take together, and ``apart_bytes``, if each had its own tensors.
        ``size_bytes`` of a row are its tensors, ``stored_bytes`` what of them was new when it was saved, and
        ``shared_bytes`` what lay in the store before.
    """
    saves = saves_in(folder)
    metric, best = _best(saves)
    good = [saved for saved in saves.saved if saved.problem is None]
    newest = good[-1] if good else None
    rows = [_row(saved, saved is best, saved is newest, metric) for saved in saves.saved]
    return {
        "rows": rows,
        "metric": metric,
        "metrics": saves.metrics,
        "disk_bytes": saves.disk_bytes,
        "apart_bytes": saves.apart_bytes,
    }


def _best(saves: Saves) -> tuple[str | None, Saved | None]:
    for metric in saves.metrics:
        best = saves.best(metric)
        if best is not None:
            return metric, best
    return None, None


def _row(saved: Saved, is_best: bool, is_newest: bool, metric: str | None) -> dict[str, Any]:
    return {
        "number": saved.checkpoint.sequence,
        "name": saved.checkpoint.name,
        "epoch": saved.epoch,
        "batch": saved.batch,
        "step": saved.step,
        "samples": saved.samples,
        "created": saved.time,
        "metrics": dict(saved.metrics),
        "reason": saved.reason,
        "size_bytes": saved.total_bytes,
        "stored_bytes": saved.stored_bytes,
        "shared_bytes": max(0, saved.total_bytes - saved.stored_bytes),
        "is_best": is_best,
        "is_newest": is_newest,
        "kept": "; ".join(_reasons(saved, is_best, is_newest, metric)),
        "problem": "" if saved.problem is None else str(saved.problem),
    }


def _reasons(saved: Saved, is_best: bool, is_newest: bool, metric: str | None) -> list[str]:
    """Why a checkpoint is there, in words."""
    found = [f"the best by {metric}: {number(saved.metrics[metric])}"] if is_best and metric else []
    found += ["the newest: a resume begins here"] if is_newest else []
    return found + ([f"saved {_when(saved.reason)}"] if saved.reason else [])


def _when(reason: str) -> str:
    """``1 epoch`` and the like say how often, all else says why."""
    count, _, unit = reason.partition(" ")
    if not count.isdecimal():
        return f"({reason})"
    return f"each {unit}" if count == "1" else f"each {reason}"
