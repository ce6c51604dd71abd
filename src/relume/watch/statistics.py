"""Norms and histograms of tensors, computed where these are, with few kernels and without waiting for a device.

A histogram is 5 numbers and the counts, in one tensor, until it has come to the host.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from relume.monitor.values import widest

_HEAD = 5  # smallest, largest, sum, norm, number of NaN
_FLOATS = (torch.float32, torch.float64)


def values_of(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """A tensor's numbers in a floating format that sums can be made in; ``None`` where it has none.

    Of a sparse tensor the zeros that it does not hold are left out.
    """
    if tensor is None or tensor.is_meta or not tensor.is_floating_point() or tensor.is_quantized:
        return None
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        if tensor.layout != torch.sparse_coo:
            return None
        tensor = tensor.coalesce().values()
    if not tensor.numel():
        return None
    return tensor if tensor.dtype in _FLOATS else tensor.float()


@torch.no_grad()
def norms(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The Euclidean norm of each tensor, as scalars where the tensors are; one kernel for all of a device.

    Example:
        >>> norms([torch.tensor([3.0, 4.0])])
        [tensor(5.)]
    """
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for number, tensor in enumerate(tensors):
        kinds.setdefault((tensor.device, tensor.dtype), []).append(number)
    found: dict[int, torch.Tensor] = {}
    for numbers in kinds.values():
        found |= zip(numbers, torch._foreach_norm([tensors[n] for n in numbers]), strict=True)
    return [found[number] for number in range(len(tensors))]


@torch.no_grad()
def histogram(values: torch.Tensor, bins: int) -> torch.Tensor:
    """What `content` makes a histogram of: ``(5 + bins,)``, where ``values`` are.

    Bins of equal width lie between the smallest and the largest finite value.
    """
    flat = values.reshape(-1)
    low, high = torch.aminmax(flat)
    clean = flat
    is_cpu = flat.device.type == "cpu"
    must_clean = not is_cpu or not (math.isfinite(low.item()) and math.isfinite(high.item()))
    if must_clean:  # on a device it is not known whether there is a NaN without waiting for it
        is_finite = flat.isfinite()
        clean = flat.where(is_finite, 0)
        low = flat.where(is_finite, math.inf).amin()
        high = flat.where(is_finite, -math.inf).amax()
    width = torch.where(high > low, high - low, 1)
    places = ((clean - low) / width * bins).to(torch.int32).clamp_(0, bins - 1)
    if must_clean:
        places = places.where(is_finite, bins)
    nan = flat.isnan().sum() if must_clean else torch.zeros((), device=flat.device)
    dtype = widest(flat)
    total = clean.sum(dtype=dtype)
    head = torch.stack([x.to(dtype) for x in (low, high, total, torch.linalg.vector_norm(clean), nan)])
    return torch.cat([head, _counts(places, bins).to(dtype)])


def _counts(places: torch.Tensor, bins: int) -> torch.Tensor:
    if places.device.type == "cuda":  # bincount waits for the device, and histc of whole numbers is exact
        return torch.histc(places, bins, 0, bins - 1)
    return torch.bincount(places, minlength=bins + 1)[:bins]  # five times as fast as histc, where both are


def length(bins: int) -> int:
    return _HEAD + bins


def content(numbers: Sequence[float], size: int) -> dict[str, Any]:
    """A histogram as the journal holds it.

    Args:
        numbers: of :func:`histogram`.
        size: how many values there were.
    """
    low, high, total, norm, nan = numbers[:_HEAD]
    counts = [int(count) for count in numbers[_HEAD:]]
    finite = sum(counts)
    edges = _edges(low, high, len(counts))
    if not finite:
        low = high = 0.0
        edges, counts = [0.0, 1.0], [0]
    elif len(edges) == 2:
        counts = [finite]
    return {
        "kind": "histogram",
        "edges": edges,
        "counts": counts,
        "count": size,
        "min": low,
        "max": high,
        "sum": total,
        "sum_squares": norm * norm,
        "nan": int(nan),
        "infinite": size - finite - int(nan),
    }


def _edges(low: float, high: float, bins: int) -> list[float]:
    if not (math.isfinite(low) and math.isfinite(high)):
        return [0.0, 1.0]
    if low == high:  # all the same: one bin around it
        around = max(abs(low) * 1e-6, 1e-12)
        return [low - around, low + around]
    exact: list[float] = np.linspace(low, high, bins + 1).tolist()
    short = [low, *(float(f"{edge:.7g}") for edge in exact[1:-1]), high]  # half the text
    return short if all(a < b for a, b in itertools.pairwise(short)) else exact
