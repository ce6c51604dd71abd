"""Equality of weights to the last bit, and weights of every dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def bits(tensor: torch.Tensor) -> bytes:
    """The elements in row-major order."""
    if tensor.numel() == 0:
        return b""
    flat = tensor.detach().cpu().resolve_conj().resolve_neg()
    flat = flat.view(_WORDS[flat.element_size()]).clone(memory_format=torch.contiguous_format)
    return bytes(flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy())


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}


def assert_same(found: Mapping[str, Any], expected: Mapping[str, Any], *, ordered: bool = True) -> None:
    """The same names in the same order, with the same dtypes, shapes and bits."""
    assert (list(found) if ordered else sorted(found)) == (list(expected) if ordered else sorted(expected))
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        assert bits(found[name]) == bits(value), name


def filled(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Random bits as elements of that dtype (0 and 1 for bool)."""
    count = dtype.itemsize
    for size in shape:
        count *= size
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), dtype=torch.uint8, generator=generator)
    return flat.view(dtype).view(shape)


def _has_tensors(dtype: torch.dtype) -> bool:
    try:
        return bits(filled(dtype, (2, 3))) != b"" and not str(dtype).startswith("torch.q")
    except (RuntimeError, TypeError, NotImplementedError):
        return False


DTYPES = sorted(
    {value for value in vars(torch).values() if isinstance(value, torch.dtype) and _has_tensors(value)}, key=str
)
"""Every dtype of this torch that has ordinary tensors."""
