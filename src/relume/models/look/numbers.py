"""Numbers about tensors, read in parts so that memory stays bounded however large they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from relume.checkpoint.hashing import hash_bytes
from relume.checkpoint.tensors import as_buffer, as_bytes

PART_ELEMENTS = 1 << 18
"""Elements looked at at a time: in float64 they take 2 MB, which the processor's cache holds."""

_WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: None, torch.float64: None}
"""Floating point that torch sums and compares as it is, and the dtype in which a sum of many does not overflow."""


@dataclass(frozen=True)
class Stats:
    """What the values of a tensor are. Of complex numbers the real and the imaginary parts are looked at, each for itself.

    Attributes:
        minimum, maximum, mean: of the finite values; None where there are none.
        std: of the finite values, with Bessel's correction as ``Tensor.std`` has it; None for fewer than two.
        zeros, nan, infinite: how many.
        hash: blake3 of its bytes.

    Of a dtype that torch does not calculate with, such as ``float4_e2m1fn_x2``, the hash alone is known.
    """

    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    zeros: int
    nan: int
    infinite: int
    hash: str

    @property
    def is_constant(self) -> bool:
        """Whether all values are one and the same."""
        return self.minimum == self.maximum and not self.nan and not self.infinite


def stats_of(tensor: torch.Tensor) -> Stats:
    """Minimum, maximum, mean, deviation, and the values that are zero, NaN or infinite; read once, in parts.

    Example:
        >>> found = stats_of(torch.tensor([1.0, 3.0, float("nan"), 0.0]))
        >>> found.minimum, found.maximum, found.zeros, found.nan
        (0.0, 3.0, 1, 1)
    """
    digest = hash_bytes(as_buffer(as_bytes(tensor.detach())))
    try:
        return _computed(tensor, digest)
    except NotImplementedError:
        return Stats(None, None, None, None, 0, 0, 0, digest)


def _computed(tensor: torch.Tensor, digest: str) -> Stats:
    count = zeros = nan = infinite = 0
    mean = squares = 0.0
    minimum, maximum = math.inf, -math.inf
    for part in parts(tensor):
        values = as_float64(part)
        zeros += values.numel() - int(values.count_nonzero())
        low, high = _extremes(values)
        if not math.isfinite(low + high):
            nan += int(values.isnan().sum())
            infinite += int(values.isinf().sum())
            values = values[values.isfinite()]
            low, high = _extremes(values)
        if not values.numel():
            continue
        minimum, maximum = min(minimum, low), max(maximum, high)
        middle = values.mean().item()
        spread = values.sub_(middle) if values.data_ptr() != part.data_ptr() else values - middle
        count, mean, squares = _merged(count, mean, squares, spread.numel(), middle, torch.dot(spread, spread).item())
    std = math.sqrt(max(squares, 0.0) / (count - 1)) if count > 1 else None
    if not count:
        return Stats(None, None, None, None, zeros, nan, infinite, digest)
    return Stats(minimum, maximum, mean, std, zeros, nan, infinite, digest)


def count_not_finite(tensor: torch.Tensor) -> int:
    """How many values are NaN or infinite; 0 for a dtype that torch does not calculate with."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 0
    try:
        return sum(map(_not_finite_in, parts(tensor)))
    except NotImplementedError:
        return 0


def _not_finite_in(part: torch.Tensor) -> int:
    values = part if part.dtype in _WIDE else as_float64(part)
    # A sum is finite only if all values are: that costs 30 ms for 100 MB, a fifth of looking at each.
    if math.isfinite(values.sum(dtype=_WIDE[values.dtype]).item()):
        return 0
    return values.numel() - int(values.isfinite().sum())


def parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The values of a tensor as flat pieces, in row-major order. Complex ones come as pairs of numbers."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.is_contiguous():
        flat = tensor.view(-1)
        for start in range(0, flat.numel(), PART_ELEMENTS):
            yield flat[start : start + PART_ELEMENTS]
    elif tensor.numel() <= PART_ELEMENTS:
        yield tensor.reshape(-1)
    else:
        rows = max(1, PART_ELEMENTS // max(1, tensor[0].numel()))
        for start in range(0, len(tensor), rows):
            block = tensor[start : start + rows]
            yield from parts(block if block.numel() <= PART_ELEMENTS else block[0])


def as_float64(values: torch.Tensor) -> torch.Tensor:
    """Values of any dtype as float64."""
    if values.dtype.itemsize == 1 and values.is_floating_point():
        values = values.float()  # fp8 knows no other way
    return values.double()


def _extremes(values: torch.Tensor) -> tuple[float, float]:
    """The smallest and the largest value; NaN where one is among them, or where there are none."""
    if not values.numel():
        return math.nan, math.nan
    low, high = values.aminmax()
    return low.item(), high.item()


def _merged(
    count: int, mean: float, squares: float, more: int, middle: float, more_squares: float
) -> tuple[int, float, float]:
    """Mean and sum of squared deviations of two sets together (Chan, Golub and LeVeque, 1979)."""
    total = count + more
    delta = middle - mean
    return total, mean + delta * more / total, squares + more_squares + delta * delta * count * more / total
