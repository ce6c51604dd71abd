"""Equality to the last bit, for states of any kind."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import torch


def same(one: Any, other: Any) -> bool:
    """Whether two states are of the same types and the same bits, NaN and -0.0 included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return (
            (one.dtype, one.shape, one.requires_grad) == (other.dtype, other.shape, other.requires_grad)
            and _bits(one) == _bits(other)
        )  # fmt: skip
    if isinstance(one, (np.ndarray, np.generic)):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, dict):
        extra = (getattr(one, "default_factory", None), getattr(one, "_metadata", None))
        if extra != (getattr(other, "default_factory", None), getattr(other, "_metadata", None)):
            return False
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (set, frozenset)):
        return one == other
    if isinstance(one, (list, tuple)) or hasattr(one, "maxlen"):
        if getattr(one, "maxlen", None) != getattr(other, "maxlen", None) or len(one) != len(other):
            return False
        return all(map(same, one, other))
    return bool(one == other)


def _bits(tensor: torch.Tensor) -> bytes:
    if tensor.numel() == 0:
        return b""
    flat = tensor.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return bytes(flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy())
