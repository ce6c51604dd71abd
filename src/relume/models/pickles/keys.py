"""Dictionaries and sets of a pickle, whose keys must not be a way to spend hours on one lookup."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from relume.models.pickles.context import Context
from relume.models.pickles.inert import Inert, describe

_MODULUS = 2**61 - 1  # of Python's hash of numbers: those that differ by it have the same
_MAX_TUPLE_KEYS = 2000
_MAX_TUPLE_LENGTH = 64
_PAIR_BYTES = 100

_SCALARS = frozenset({str, bytes, bool, type(None), float, torch.dtype, torch.device})
_IDENTITIES = (Inert, torch.Tensor)  # hashed by their address

Kept = dict[Any, Any] | set[Any]


class Keys:
    """Puts items into the dictionaries and sets of one pickle.

    Strings hash by a secret of the process and objects by their address. Numbers and tuples do not: a file can hold a
    million that all collide, each insertion then looks at all before it. Nested tuples, which can share their parts,
    hash in exponential time. So big integers are refused, tuples are flat, and few in one container.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tuples: dict[int, int] = {}

    def update(self, target: dict[Any, Any], items: list[Any]) -> None:
        """Set keys and values that alternate in ``items``."""
        if len(items) % 2:
            raise self._context.damaged("a dictionary has a key without a value")
        self._context.spend(_PAIR_BYTES * len(items) // 2)
        for index in range(0, len(items), 2):
            key = items[index]
            if type(key) is not str:
                self._check(target, key)
            target[key] = items[index + 1]

    def add(self, target: set[Any], items: Collection[Any]) -> None:
        """Add members to a set."""
        self._context.spend(_PAIR_BYTES * len(items))
        for item in items:
            self._check(target, item)
            target.add(item)

    def _check(self, target: Kept, key: Any) -> None:
        kind = type(key)
        if kind in _SCALARS or isinstance(key, _IDENTITIES):
            return
        if kind is int:
            if -_MODULUS < key < _MODULUS:
                return
        elif kind in (tuple, torch.Size) and len(key) <= _MAX_TUPLE_LENGTH and all(map(_is_flat, key)):
            count = self._tuples.get(id(target), 0) + 1
            self._tuples[id(target)] = count
            if count <= _MAX_TUPLE_KEYS:
                return
            raise self._context.unsafe(f"more than {_MAX_TUPLE_KEYS} tuples are keys of one dictionary or set")
        raise self._context.unsafe(
            f"{describe(key)} is a key of a dictionary or set; keys are text, numbers or flat tuples"
        )


def _is_flat(part: Any) -> bool:
    return type(part) in _SCALARS or isinstance(part, _IDENTITIES) or (type(part) is int and abs(part) < _MODULUS)
