"""Small things that all parts of a state need: copies, equality, names in a sentence."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

_SHOWN = 8


def listed(names: Sequence[str]) -> str:
    """Names for a sentence: the first ones, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def counted(count: int, noun: str) -> str:
    """``1 tensor``, ``2 tensors``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """New containers of the same kinds, with ``function`` applied to what is none of dict, list, tuple and deque."""
    if isinstance(value, dict):
        made = copy.copy(value)  # which keeps a defaultdict's factory and a state_dict's versions
        for key, item in value.items():
            made[key] = map_leaves(function, item)
        return made
    if type(value) in (list, tuple):
        return type(value)([map_leaves(function, item) for item in value])
    if type(value) is deque:
        return deque([map_leaves(function, item) for item in value], maxlen=value.maxlen)
    return function(value)


def copied(value: Any) -> Any:
    """A copy that shares no memory with ``value``, whose tensors are all detached."""

    def leaf(item: Any) -> Any:
        return item.detach().clone() if isinstance(item, torch.Tensor) else copy.deepcopy(item)

    return map_leaves(leaf, value)


def equal(one: Any, other: Any) -> bool:
    """Whether two values say the same; a tensor with one element equals the number in it."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return _equal_tensors(one, other)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other) or (one != one and other != other)


def _equal_tensors(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.equal(one.detach().cpu(), other.detach().cpu())
    tensor, number = (one, other) if isinstance(one, torch.Tensor) else (other, one)
    if tensor.numel() != 1 or not isinstance(number, (int, float)):
        return False
    return bool(tensor.detach().cpu() == torch.tensor(number, dtype=tensor.dtype))


def shown(value: Any) -> str:
    """A value for a sentence."""
    if isinstance(value, torch.Tensor):
        return str(value.item()) if value.numel() == 1 else f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value!r:.60}"


def grouped(notes: Iterable[str]) -> list[str]:
    """Each note once, in order."""
    return list(dict.fromkeys(notes))
