"""Two states, bit for bit."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from relume.rehearse.nature import differs_by_nature


@dataclass(frozen=True)
class Difference:
    """One leaf of a state that is not the same.

    Attributes:
        path: keys on the way to it, such as ``("models", "model", "0.weight")``.
        text: what differs, for people.
    """

    path: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        return ".".join(self.path)


@dataclass
class Counts:
    """How much was compared: leaves, the tensors and arrays among them, and the bytes of these."""

    leaves: int = 0
    tensors: int = 0
    size_bytes: int = 0


@dataclass
class StateComparison:
    """What a comparison of two states found.

    Attributes:
        counts: how much was compared, for each part of the state (``"models"``, ``"optimizers"``, …).
        differences: all that differ, in the state's order.
        by_nature: metrics of time and the like that differ, as they must.
    """

    counts: dict[str, Counts] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    by_nature: list[str] = field(default_factory=list)


def compare_states(one: Any, other: Any) -> StateComparison:
    """Compare two states to the last bit: types, dtypes, shapes and values; a NaN equals only the same NaN.

    Example:
        >>> found = compare_states({"weight": torch.zeros(3)}, {"weight": torch.tensor([0.0, 0.0, 1.0])})
        >>> found.differences[0].place, found.differences[0].text
        ('weight', '1 of 3 values differs, first at [2]: 0.0 and 1.0')
    """
    found = StateComparison()
    for path, left, right in _leaves(one, other, ()):
        counts = found.counts.setdefault(path[0] if path else "", Counts())
        counts.leaves += not _is_empty(left) or not _is_empty(right)
        if isinstance(left, (torch.Tensor, np.ndarray)):
            counts.tensors += 1
            counts.size_bytes += left.nbytes
        text = leaf_difference(left, right)
        if text is not None and _is_time(path):
            found.by_nature.append(path[-1])
        elif text is not None:
            found.differences.append(Difference(path, text))
    return found


class _Missing:
    """Stands where only the other state has something."""


MISSING = _Missing()


def _leaves(one: Any, other: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if type(one) is type(other) and isinstance(one, Mapping) and one:
        for key in dict.fromkeys((*one, *other)):
            yield from _leaves(one.get(key, MISSING), other.get(key, MISSING), (*path, str(key)))
    elif type(one) is type(other) and _is_sequence(one) and one:
        for index, (left, right) in enumerate(zip_longest(one, other, fillvalue=MISSING)):
            yield from _leaves(left, right, (*path, str(index)))
    else:
        yield path, one, other


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (Mapping, list, tuple)) and not value)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def leaf_difference(one: Any, other: Any) -> str | None:
    """What differs between two leaves; None where nothing does."""
    if one is MISSING or other is MISSING:
        return f"only the {'second' if one is MISSING else 'first'} run has it"
    if type(one) is not type(other):
        return f"of type {type(one).__name__} and of type {type(other).__name__}"
    if isinstance(one, (torch.Tensor, np.ndarray, np.generic)):
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            return f"{one.dtype} {list(one.shape)} and {other.dtype} {list(other.shape)}".replace("torch.", "")
        return _element_difference(one, other)
    if isinstance(one, (float, complex)):
        return None if _number_bytes(one) == _number_bytes(other) else f"{one!r} and {other!r}"
    return None if one == other else f"{one!r:.80} and {other!r:.80}"


def _number_bytes(value: complex) -> bytes:
    return struct.pack("dd", value.real, value.imag)


def _element_difference(one: Any, other: Any) -> str | None:
    """What differs between two tensors or arrays of one dtype and shape."""
    left, right = _elements(one), _elements(other)
    if np.array_equal(left, right):
        return None
    differing = (left != right).any(axis=1)
    first, count = int(differing.argmax()), int(differing.sum())
    index = tuple(int(i) for i in np.unravel_index(first, one.shape)) if one.shape else ()
    if len(differing) == 1:
        return f"{one[index].item()} and {other[index].item()}"
    return (
        f"{count:,} of {len(differing):,} values {'differs' if count == 1 else 'differ'}, first at {list(index)}: "
        f"{one[index].item()} and {other[index].item()}"
    )


def _elements(value: Any) -> np.ndarray[Any, Any]:
    """The bytes of a tensor or array, a row for each element."""
    if not isinstance(value, torch.Tensor):
        return np.frombuffer(value.tobytes(), np.uint8).reshape(value.size, -1 if value.nbytes else 1)
    flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if not flat.numel():
        return np.empty((0, 1), np.uint8)
    return flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy().reshape(flat.numel(), -1)


def _is_time(path: tuple[str, ...]) -> bool:
    """Whether it is one of the numbers that a run keeps of itself, and a time: its metrics, how long it took."""
    return path[:1] == ("run",) and differs_by_nature(path[-1])
