"""What tells whether a tensor has changed, and what a gradient is, without keeping either.

Measured on one core for the 144 million numbers of VGG19 (575 MB): 30 ms for all sums, 70 ms for all norms.
"""

from __future__ import annotations

import math

import torch

from relume.names import is_uninitialized
from relume.transfer.findings import Gradient

_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def version_of(tensor: torch.Tensor) -> int:
    """How often it was written to, as far as torch counts; -1 where it does not."""
    try:
        return tensor._version
    except RuntimeError:  # an inference tensor
        return -1


@torch.no_grad()
def sums(tensors: list[torch.Tensor]) -> list[int | None]:
    """For each tensor the sum of its bits as whole numbers: differs after a change. ``None`` where that cannot be had.

    A device is waited for once.

    Example:
        >>> one = torch.zeros(3)
        >>> sums([one]) == sums([one.clone()]), sums([one]) == sums([one + 1e-30])
        (True, False)
    """
    found = [_bits(tensor) for tensor in tensors]
    values = _fetched([one for one in found if one is not None])
    known = iter(values)
    return [None if one is None else int(next(known)) for one in found]


@torch.no_grad()
def gradients(tensors: list[torch.Tensor | None]) -> list[tuple[Gradient, float]]:
    """For each gradient what it is, and its Euclidean norm (NaN where there is none). A device is waited for once or twice.

    Example:
        >>> gradients([None, torch.zeros(2), torch.tensor([3.0, 4.0])])
        [('none', nan), ('zero', 0.0), ('finite', 5.0)]
    """
    values = [None if tensor is None else _dense(tensor) for tensor in tensors]
    norms = iter(_fetched([_norm(value) for value in values if value is not None]))
    found: list[tuple[Gradient, float]] = []
    for value in values:
        if value is None:
            found.append(("none", math.nan))
            continue
        norm = float(next(norms))
        kind: Gradient = "finite"
        if norm == 0.0 and not bool(value.any()):  # squares of small numbers vanish
            kind = "zero"
        elif not math.isfinite(norm) and not bool(torch.isfinite(value).all()):  # those of large ones overflow
            kind = "not finite"
        found.append((kind, norm))
    return found


def _bits(tensor: torch.Tensor) -> torch.Tensor | None:
    try:
        if is_uninitialized(tensor):
            return None
        tensor = _local(tensor.detach())
        if tensor.device.type == "meta" or tensor.layout != torch.strided:
            return None
        if not tensor.numel():
            return torch.zeros((), dtype=torch.int64)
        if not tensor.is_contiguous():
            strides = tensor.stride()
            order = sorted(range(tensor.dim()), key=lambda axis: -strides[axis])
            tensor = tensor.permute(order)
        if not tensor.is_contiguous():
            tensor = tensor.contiguous()
        flat = torch.view_as_real(tensor).reshape(-1) if tensor.is_complex() else tensor.view(-1)
        flat = flat.view(_WHOLE[flat.element_size()])
        a_word = 8 // flat.element_size()
        whole = flat.numel() // a_word * a_word
        if not whole or flat.device.type == "mps":
            return flat.sum(dtype=torch.int64)
        if flat.data_ptr() % 8:  # the sum of a tensor must not depend on where it lies
            flat = flat.clone()
        # Eight bytes at once are 25 times faster than four that are made eight.
        return flat[:whole].view(torch.int64).sum() + flat[whole:].sum(dtype=torch.int64)
    except (RuntimeError, NotImplementedError, TypeError, KeyError):  # a tensor of another kind: quantized, sharded
        return None


def _norm(value: torch.Tensor) -> torch.Tensor:
    if value.dtype in (torch.float64, torch.complex128):
        norm: torch.Tensor = torch.linalg.vector_norm(value)
    else:
        norm = torch.linalg.vector_norm(value, dtype=torch.complex64 if value.is_complex() else torch.float32)
    return norm


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    if gradient.layout == torch.sparse_coo:
        gradient = gradient._values()
    return _local(gradient.detach())


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a sharded tensor that is here."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _fetched(scalars: list[torch.Tensor]) -> list[float | int]:
    """The values, with one transfer a device and dtype."""
    by_kind: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for number, one in enumerate(scalars):
        by_kind.setdefault((one.device, one.dtype), []).append(number)
    found: dict[int, float | int] = {}
    for places in by_kind.values():
        found.update(zip(places, torch.stack([scalars[place] for place in places]).tolist(), strict=True))
    return [found[number] for number in range(len(scalars))]
