"""The bytes of tensors, arrays and long bytes, and what is made of them again."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

ARRAY_DTYPE = "numpy:"
"""Dtypes that begin with it are numpy's, in numpy's own spelling: ``numpy:<f8``."""

_PLAIN_ARRAY = re.compile(r"(?:[<>|][biufcSU]\d{1,9}|[<>][mM]8(?:\[\d{0,9}[a-zA-Z]{1,2}\])?)\Z")
_TORCH_DTYPES = {
    str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)
}
_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}


@dataclass(frozen=True)
class Source:
    """One entry of a state whose bytes go into a pack.

    Attributes:
        path: where it stands in the state, for messages.
        value: the tensor (detached, not copied), array or bytes itself.
        dtype: ``float32``, ``numpy:<f8``, ``bytes``.
        shape: its sizes.
        is_parameter: whether it was an ``nn.Parameter``.
        requires_grad: whether it was a leaf that wants gradients.
    """

    path: str
    value: torch.Tensor | np.ndarray[Any, Any] | bytes
    dtype: str
    shape: tuple[int, ...]
    is_parameter: bool = False
    requires_grad: bool = False

    @property
    def size_bytes(self) -> int:
        """How many bytes it comes to."""
        value = self.value
        return len(value) if isinstance(value, bytes) else value.nbytes


def torch_dtype(name: object) -> torch.dtype:
    """The dtype of torch with that name; raises ValueError."""
    if not isinstance(name, str) or name not in _TORCH_DTYPES:
        raise ValueError(f"{name!r:.60} is not a dtype that this torch ({torch.__version__}) knows")
    return _TORCH_DTYPES[name]


def array_dtype(name: object) -> np.dtype[Any]:
    """The dtype of numpy with that name, from the plain ones only; raises ValueError."""
    if not isinstance(name, str) or not is_plain_array_dtype(name):
        raise ValueError(f"{name!r:.60} is not a dtype of numpy that is stored")
    try:
        return np.dtype(name)
    except TypeError:
        raise ValueError(f"{name!r:.60} is not a dtype that this numpy ({np.__version__}) knows") from None


def is_plain_array_dtype(name: str) -> bool:
    """Whether elements of that dtype are bytes and nothing else: no objects, no fields."""
    return _PLAIN_ARRAY.match(name) is not None


def size_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of an entry of that dtype and shape; raises ValueError for a dtype that is not known."""
    if dtype == "bytes":
        return math.prod(shape)
    if dtype.startswith(ARRAY_DTYPE):
        return math.prod(shape) * array_dtype(dtype.removeprefix(ARRAY_DTYPE)).itemsize
    return math.prod(shape) * torch_dtype(dtype).itemsize


def as_bytes(value: torch.Tensor | np.ndarray[Any, Any] | bytes) -> torch.Tensor:
    """The bytes of ``value`` in row-major order, as a uint8 tensor on the CPU that shares memory where it can."""
    if isinstance(value, bytes):
        return torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else _empty()
    if isinstance(value, np.ndarray):
        if value.nbytes == 0:
            return _empty()
        return torch.from_numpy(np.array(value, order="C").reshape(-1).view(np.uint8))
    if value.numel() == 0:
        return _empty()
    value = value.cpu().resolve_conj().resolve_neg()
    if not value.is_contiguous():  # as integers of the same size: torch cannot copy elements of every dtype
        value = value.view(_SAME_SIZE[value.element_size()]).contiguous()
    return flat_bytes(value)


def flat_bytes(value: torch.Tensor) -> torch.Tensor:
    """The memory of a contiguous tensor, with elements, as a flat uint8 tensor."""
    # Not reshape(-1): a tensor with one element may have any stride, and view refuses all but 1.
    return value.as_strided((value.numel(),), (1,)).view(torch.uint8)


def as_buffer(flat: torch.Tensor) -> memoryview:
    """The memory of a uint8 tensor on the CPU."""
    return memoryview(cast(Any, flat.numpy()))


def from_bytes(flat: torch.Tensor, dtype: str, shape: Sequence[int]) -> torch.Tensor | np.ndarray[Any, Any] | bytes:
    """What `as_bytes` took apart; a tensor and an array share the memory of ``flat``."""
    if dtype == "bytes":
        return bytes(as_buffer(flat))
    if dtype.startswith(ARRAY_DTYPE):
        kind = array_dtype(dtype.removeprefix(ARRAY_DTYPE))
        return flat.numpy().view(kind).reshape(shape) if flat.numel() else np.zeros(shape, kind)
    return flat.view(torch_dtype(dtype)).view(tuple(shape))


def _empty() -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8)
