"""Histograms: how values are distributed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from relume.errors import ConfigurationError
from relume.monitor.kinds.arrays import Array, Snapshot, is_tensor, snapshot
from relume.monitor.kinds.base import Content, Media

_BINS = 64
_MOST_BINS = 4096
_SMALLEST, _RELATIVE = 1e-290, 2e-15  # ranges below which there are too few doubles for edges
_LARGEST = float(np.finfo(np.float64).max)


class Histogram(Media):
    """How the values of a tensor or array are distributed. NaN and infinite ones are counted apart.

    A tensor on a CUDA device is counted there, without waiting for it: only the counts are copied.

    Args:
        values: a tensor, an array or lists, of any shape and any real type; it may be empty.
        bins: how many bins of equal width, from 1 to 4096.

    Raises:
        ConfigurationError: no real numbers, or a wrong number of bins.

    Example:
        >>> content = Histogram([0.0, 1.0, 1.0, float("nan")], bins=2).content(Path())
        >>> content["edges"], content["counts"], content["count"], content["nan"]
        ([0.0, 0.5, 1.0], [1, 2], 3, 1)
    """

    kind = "histogram"

    def __init__(self, values: Any, bins: int = _BINS) -> None:
        if isinstance(bins, bool) or not isinstance(bins, int) or not 1 <= bins <= _MOST_BINS:
            raise ConfigurationError(f"Histogram: bins must be a whole number from 1 to {_MOST_BINS}, not {bins!r}.")
        self._bins = bins
        self._counted = is_tensor(values) and values.device.type == "cuda" and values.numel() > 4 * bins
        self._values: Snapshot = snapshot(_on_device(values, bins) if self._counted else values, "Histogram")
        self._known: Content | None = None

    @classmethod
    def of_counts(cls, edges: Any, counts: Any) -> Histogram:
        """A histogram that was counted elsewhere.

        Args:
            edges: n + 1 rising numbers.
            counts: n whole numbers, none below 0.

        Raises:
            ConfigurationError: they do not belong together.

        Example:
            >>> Histogram.of_counts([0, 1, 2], [5, 3]).content(Path())["count"]
            8
        """
        limits = snapshot(edges, "Histogram").read().astype(np.float64)
        numbers = snapshot(counts, "Histogram").read()
        is_good = limits.ndim == numbers.ndim == 1 and len(limits) == len(numbers) + 1 > 1
        if not is_good or not (np.diff(limits) > 0).all() or not (numbers >= 0).all() or not _is_whole(numbers):
            raise ConfigurationError(
                f"Histogram: {limits.shape} edges and {numbers.shape} counts do not belong together. Give n + 1 rising "
                "edges, and n counts that are whole numbers of at least 0."
            )
        made = cls(())
        middles, count = (limits[1:] + limits[:-1]) / 2, int(numbers.sum())
        made._known = {
            "edges": limits.tolist(),
            "counts": [int(n) for n in numbers],
            "count": count,
            "min": float(limits[0]) if count else 0.0,
            "max": float(limits[-1]) if count else 0.0,
            "sum": float((middles * numbers).sum()),
            "sum_squares": float((middles**2 * numbers).sum()),
            "nan": 0,
            "infinite": 0,
        }
        return made

    def describe(self, folder: Path) -> Content:
        if self._known is None:
            values = self._values.read()
            self._known = _from_device(values, self._bins) if self._counted else _counted(values, self._bins)
            self._values = snapshot((), "Histogram")  # what it was made from is no longer needed
        return self._known


def _is_whole(numbers: Array) -> bool:
    return bool((numbers == np.floor(numbers)).all())


def _counted(values: Array, bins: int) -> Content:
    flat = values.reshape(-1)
    if flat.dtype.kind != "f":
        flat = flat.astype(np.float64)
    nan, infinite = int(np.isnan(flat).sum()), int(np.isinf(flat).sum())
    finite = (flat[np.isfinite(flat)] if nan or infinite else flat).astype(np.float64, copy=False)
    if not len(finite):
        return _content(np.array([0.0, 1.0]), np.zeros(1, int), 0.0, 0.0, 0.0, 0.0, nan, infinite)
    low, high = float(finite.min()), float(finite.max())
    edges = _edges(low, high, bins)
    with np.errstate(over="ignore"):
        total, squares = float(finite.sum()), float(np.square(finite).sum())
        if 1e-300 < edges[-1] - edges[0] < 1e300:  # else its inverse is none that one can count with
            place = ((finite - edges[0]) * (bins / (edges[-1] - edges[0]))).astype(np.int64)
            counts = np.bincount(place.clip(0, bins - 1), minlength=bins)
        else:
            counts = np.bincount((np.searchsorted(edges, finite, "right") - 1).clip(0, bins - 1), minlength=bins)
    return _content(edges, counts, low, high, total, squares, nan, infinite)


def _edges(low: float, high: float, bins: int) -> Array:
    """Rising edges; those around a single value are as far from it as can be told from it."""
    if not high - low > max(max(abs(low), abs(high)) * bins * _RELATIVE, _SMALLEST):
        half = max(0.5, max(abs(low), abs(high)) * 1e-9)
        low, high = max(low - half, -_LARGEST), min(high + half, _LARGEST)
    return np.linspace(low / 2, high / 2, bins + 1) * 2  # halved, as the difference of two doubles may be none


def _content(
    edges: Array, counts: Array, low: float, high: float, total: float, squares: float, nan: int, infinite: int
) -> Content:
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "count": int(counts.sum()),
        "min": low,
        "max": high,
        "sum": total,
        "sum_squares": squares,
        "nan": nan,
        "infinite": infinite,
    }


_SUMS = 6


def _on_device(values: Any, bins: int) -> Any:
    """Counts and sums of a tensor, float64 of shape (6 + bins): computed where it is, without waiting."""
    import torch

    flat = snapshot_ready(values).reshape(-1)
    wide = flat.to(torch.float64 if flat.dtype == torch.float64 or not flat.is_floating_point() else torch.float32)
    is_nan, is_infinite = wide.isnan(), wide.isinf()
    is_finite = ~(is_nan | is_infinite)
    largest = torch.finfo(wide.dtype).max
    low = torch.where(is_finite, wide, largest).amin()
    high = torch.where(is_finite, wide, -largest).amax()
    kept = torch.where(is_finite, wide, 0.0)
    edge_low, edge_high = _device_edges(low.double(), high.double(), bins)
    place = ((kept.double() - edge_low) * (bins / (edge_high - edge_low))).nan_to_num().clamp(0, bins - 1).long()
    counts = torch.zeros(bins, dtype=torch.int64, device=wide.device).scatter_add_(0, place, is_finite.long())
    sums = (low, high, kept.sum(dtype=torch.float64), kept.double().square().sum(), is_nan.sum(), is_infinite.sum())
    return torch.cat((torch.stack([one.double() for one in sums]), counts.double()))


def _device_edges(low: Any, high: Any, bins: int) -> tuple[Any, Any]:
    """As `_edges`, on a device."""
    import torch

    size = torch.maximum(low.abs(), high.abs())
    half = torch.where(high - low > (size * bins * _RELATIVE).clamp(min=_SMALLEST), 0.0, (size * 1e-9).clamp(min=0.5))
    return (low - half).clamp(min=-_LARGEST), (high + half).clamp(max=_LARGEST)


def snapshot_ready(values: Any) -> Any:
    """A tensor as it can be counted: dense, without gradients.

    Raises:
        ConfigurationError: it is of complex numbers.
    """
    if values.is_complex() or values.is_quantized:
        raise ConfigurationError(f"Histogram: a tensor of {values.dtype} cannot be shown. Give one of real numbers.")
    values = values.detach()
    if hasattr(values, "full_tensor"):
        values = values.full_tensor()
    return values.to_dense() if values.layout != _strided() else values


def _strided() -> Any:
    import torch

    return torch.strided


def _from_device(found: Array, bins: int) -> Content:
    low, high, total, squares, nan, infinite = found[:_SUMS].tolist()
    counts = found[_SUMS:].astype(np.int64)
    if not counts.sum():
        return _content(np.array([0.0, 1.0]), np.zeros(1, int), 0.0, 0.0, 0.0, 0.0, int(nan), int(infinite))
    return _content(_edges(low, high, bins), counts, low, high, total, squares, int(nan), int(infinite))
