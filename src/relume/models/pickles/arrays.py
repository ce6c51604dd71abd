"""Arrays and scalars of numpy out of a pickle, of those dtypes whose elements are plain bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from relume.checkpoint.tensors import array_dtype
from relume.models.pickles.inert import Inert

Array = np.ndarray[Any, Any]

_MAX_DIMENSIONS = 64


class NumpyDtype(Inert):
    """Stands for a ``numpy.dtype``, whose own ``__setstate__`` changes dtypes that everybody shares."""

    __slots__ = ()

    def plain(self) -> np.dtype[Any]:
        """The dtype; raises ValueError where its elements are not plain bytes."""
        state = self.state if isinstance(self.state, tuple) else ()
        order = state[1] if len(state) > 1 else "|"
        name = self.arguments[0] if self.arguments else None
        if len(state) > 3 and any(part is not None for part in state[2:5]):
            raise ValueError("a dtype of numpy with fields")
        if isinstance(name, str) and name.lstrip("<>|=")[:1] in ("M", "m") and len(state) > 8:
            raise ValueError("a dtype of numpy with a unit")
        return array_dtype(f"{_text(order)}{_text(name)}")


class PendingArray(Inert):
    """An array between its two steps in a pickle: first that there is one, then what it is."""

    __slots__ = ()

    def made(self) -> Array | None:
        """The array; None where it is none of plain bytes."""
        state = self.state
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("an array of numpy with a state of another form")
        shape, dtype, is_fortran, raw = state[-4:]
        if not isinstance(raw, (bytes, bytearray, str)):
            return None  # a list of objects
        return plain_array(raw, dtype, shape, "F" if is_fortran else "C")


def plain_array(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> Array | None:
    """An array of these bytes; None where its dtype is not of plain bytes. Raises ValueError where they do not fit."""
    try:
        kind = dtype.plain() if isinstance(dtype, NumpyDtype) else None
    except ValueError:
        kind = None
    if kind is None:
        return None
    data = bytearray(raw.encode() if isinstance(raw, str) else raw)
    if (
        not isinstance(shape, (tuple, list))
        or len(shape) > _MAX_DIMENSIONS
        or not all(type(size) is int and size >= 0 for size in shape)
    ):
        raise ValueError("an array of numpy whose shape is none")
    if math.prod(shape) * kind.itemsize != len(data) or not kind.itemsize:
        raise ValueError(f"an array of numpy claims another size than its {len(data):,} bytes")
    if not data:
        return np.zeros(tuple(shape), kind)
    return np.frombuffer(data, kind).reshape(tuple(shape), order="F" if order == "F" else "C")


def plain_scalar(dtype: Any, raw: Any) -> Any:
    """A scalar of numpy as Python's own kind; an `Inert` where it is not of plain bytes."""
    array = plain_array(raw, dtype, ()) if isinstance(raw, (bytes, bytearray, str)) else None
    return Inert("numpy.core.multiarray.scalar", (dtype, raw)) if array is None else array[()].item()


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value if isinstance(value, str) else "?"
