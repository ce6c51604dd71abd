"""Numbers about tensors, read in parts so that memory stays bounded however large they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from relume.checkpoint.hashing import hash_bytes
from relume.checkpoint.tensors import as_buffer, as_bytes

PART_ELEMENTS = 1 << 20
"""Elements looked at at a time: in float64 they take 8 MB."""


@dataclass(frozen=True)
class Stats:
    """What the values of a tensor are. Of complex numbers the real and the imaginary parts are looked at, each for itself.

    Attributes:
        minimum, maximum, mean: of the finite values; None where there are none.
        std: of the finite values, with Bessel's correction as ``Tensor.std`` has it; None for fewer than two.
        zeros, nan, infinite: how many.
        hash: blake3 of its bytes.
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
    count = zeros = nan = infinite = 0
    mean = squares = 0.0
    minimum, maximum = math.inf, -math.inf
    for part in parts(tensor):
        values = as_float64(part)
        zeros += values.numel() - int(values.count_nonzero())
        finite = values.isfinite()
        if not bool(finite.all()):
            nan += int(values.isnan().sum())
            infinite += int(values.isinf().sum())
            values = values[finite]
        if not values.numel():
            continue
        low, high = values.aminmax()
        minimum, maximum = min(minimum, low.item()), max(maximum, high.item())
        variance, middle = torch.var_mean(values, correction=0)
        count, mean, squares = _merged(count, mean, squares, values.numel(), middle.item(), variance.item())
    digest = hash_bytes(as_buffer(as_bytes(tensor.detach())))
    std = math.sqrt(max(squares, 0.0) / (count - 1)) if count > 1 else None
    if not count:
        return Stats(None, None, None, None, zeros, nan, infinite, digest)
    return Stats(minimum, maximum, mean, std, zeros, nan, infinite, digest)


def count_not_finite(tensor: torch.Tensor) -> int:
    """How many values are NaN or infinite."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 0
    found = 0
    for part in parts(tensor):
        values = part if part.dtype in _NATIVE else as_float64(part)
        # A sum is finite only if all values are, and costs a quarter of looking at each.
        if not math.isfinite(values.sum(dtype=torch.float64).item()):
            found += values.numel() - int(values.isfinite().sum())
    return found


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


_NATIVE = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _merged(
    count: int, mean: float, squares: float, more: int, middle: float, variance: float
) -> tuple[int, float, float]:
    """Mean and sum of squared deviations of two sets together (Chan, Golub and LeVeque, 1979)."""
    total = count + more
    delta = middle - mean
    return total, mean + delta * more / total, squares + variance * more + delta * delta * count * more / total
