"""Numbers of a run that its author stands for: those that it recorded itself, with their curves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from relume.errors import RelumeError
from relume.share.documents import Claim, Claims, Evaluation
from relume.share.gather import Source, command_of

MOST_POINTS = 1000
_ROUNDED = 1e-5
"""What a sum of float32 numbers in another order may differ by, relative to its size."""
_ELSEWHERE = 1e-3
"""The same from another kind of device, or with fewer bits."""

KNOWN = {"accuracy": "accuracy", "acc": "accuracy", "loss": "cross entropy", "mse": "mse", "mae": "mae"}
_LOSSES = {"CrossEntropyLoss": "cross entropy", "MSELoss": "mse", "L1Loss": "mae"}


def recorded(source: Source, data: int | None) -> Claims:
    """What the run had measured when it made the checkpoint: its validation's numbers.

    Args:
        data: which of the bundle's data sets it was measured on; None where that is not known.
    """
    metrics = {
        name: value for name, value in source.metrics.items() if _is_of_validation(name) and math.isfinite(value)
    }
    if not metrics:
        return Claims(curves=curves(source))
    precision = str(source.config.get("precision") or "float32")
    device = str(source.meta.get("device") or "cpu")
    evaluation = Evaluation(
        data=data,
        where="training",
        metrics={name: kind for name in metrics if (kind := computed_by(name, source.config.get("loss")))},
        batch_size=_batch_size(source),
        precision=precision,
        device=device,
        command=command_of(source),
        seed=source.record.seed if source.record is not None else None,
        environment=environment(source),
    )
    share = _ROUNDED if device.startswith("cpu") and precision == "float32" else _ELSEWHERE
    claims = [
        Claim(name=name, value=value, evaluation=0, tolerance=share * max(1.0, abs(value)))
        for name, value in sorted(metrics.items())
    ]
    return Claims(claims=claims, evaluations=[evaluation], curves=curves(source))


def computed_by(name: str, loss: Any) -> str:
    """What computes a metric of this name; empty where a name does not tell."""
    last = name.rpartition("/")[2]
    if last in ("loss", "loss_epoch"):
        return _LOSSES.get(str(loss), "")
    return KNOWN.get(last, "")


def environment(source: Source) -> dict[str, Any]:
    """Where the run measured: torch, device, threads, cpu."""
    versions: Any = source.meta.get("versions")
    machine = source.segment.machine if source.segment is not None else None
    found = {
        "torch": versions.get("torch", "") if isinstance(versions, dict) else "",
        "device": str(source.meta.get("device") or ""),
        "threads": source.meta.get("threads"),
        "cpu": machine.cpu if machine is not None else "",
    }
    return {key: value for key, value in found.items() if value not in ("", None)}


def curves(source: Source) -> dict[str, list[tuple[int, int, float]]]:
    """(step, epoch, value) of all that the run logged up to its end, thinned to a thousand points each."""
    from relume.recorded.reading import series_of

    if source.folder is None:
        return {}
    try:
        found = series_of(source.folder)
    except RelumeError:
        return {}
    return {name: _thinned(found[name]) for name in sorted(found)}


def _thinned(points: Any) -> list[tuple[int, int, float]]:
    """The first, the last, and others evenly between; what is not finite cannot be drawn, nor written as JSON."""
    kept = points[np.isfinite(points["value"])]
    if len(kept) > MOST_POINTS:
        kept = kept[np.linspace(0, len(kept) - 1, MOST_POINTS).round().astype(int)]
    return [(int(p["step"]), int(p["epoch"]), float(p["value"])) for p in kept]


def _is_of_validation(name: str) -> bool:
    return name.startswith(("val/", "val_", "valid/", "test/", "eval/"))


def _batch_size(source: Source) -> int:
    size = source.config.get("batch_size")
    return size if isinstance(size, int) and size > 0 else 1
