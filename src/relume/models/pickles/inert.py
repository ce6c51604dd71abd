"""Stand-ins for the objects in a pickle: what a file says of them, and nothing that could run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

_SHOWN_ITEMS = 4
_SHOWN_DEPTH = 3


class Inert:
    """Stands for an object of a class, or for a class or function itself, that relume does not build.

    Attributes:
        class_name: ``package.module.Class``, as the file spells it; the function, for what a function would have made.
        arguments, keywords: what it would have been called with.
        state: what its ``__setstate__`` would have got, or its ``__dict__``; None where the file has none.
        items: what would have been appended to it, where it is a kind of list or set.
        pairs: keys and values that would have been set, where it is a kind of dict.
        is_reference: the class or function itself is meant, and not an object that it makes.

    Two are equal only when they are one. Contents may be shared and may contain themselves: go through them with `walk`.

    Example:
        >>> made = Inert("shop.Basket", ("fruit",))
        >>> made.state = {"apples": 3}
        >>> made, made.attributes
        (<shop.Basket>, {'apples': 3})
    """

    __slots__ = ("arguments", "class_name", "is_reference", "items", "keywords", "pairs", "state")

    def __init__(
        self,
        class_name: str,
        arguments: tuple[Any, ...] = (),
        keywords: dict[Any, Any] | None = None,
        *,
        is_reference: bool = False,
    ) -> None:
        self.class_name = class_name
        self.arguments = arguments
        self.keywords = {} if keywords is None else keywords
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []
        self.is_reference = is_reference

    def __repr__(self) -> str:
        return f"<{'class or function ' if self.is_reference else ''}{self.class_name}>"

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes that the object had, as far as its state tells them."""
        states = self.state if isinstance(self.state, tuple) and len(self.state) == 2 else (self.state,)
        return {
            name: value
            for state in states
            if isinstance(state, dict)
            for name, value in state.items()
            if isinstance(name, str)
        }


def describe(value: Any, depth: int = 0) -> str:
    """A value out of a file in a few words, however large, deep or self-containing it is."""
    if isinstance(value, Inert):
        if value.is_reference or depth >= _SHOWN_DEPTH:
            return value.class_name[:200]
        return f"{value.class_name[:200]}({_listed(value.arguments, depth)})"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (str, bytes, bytearray)):
        return f"{value[:120]!r}" + ("…" if len(value) > 120 else "")
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, dict):
        return "a dictionary" if value else "{}"
    if isinstance(value, (list, tuple, set, frozenset)):
        opening, closing = "()" if isinstance(value, tuple) else "[]" if isinstance(value, list) else "{}"
        return "…" if depth >= _SHOWN_DEPTH else f"{opening}{_listed(value, depth)}{closing}"
    return f"{value!r:.120}"


def _listed(values: Iterable[Any], depth: int) -> str:
    shown: list[str] = []
    for value in values:
        if len(shown) == _SHOWN_ITEMS:
            shown.append("…")
            break
        shown.append(describe(value, depth + 1))
    return ", ".join(shown)


_Place = tuple["_Place", str] | None  # where a value stands, and its label there


def walk(content: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything in a content, level by level, each object once, however it is shared or contains itself.

    Yields:
        Where it stands (keys, positions and names of attributes, as text) and the value.

    Example:
        >>> [(".".join(path), value) for path, value in walk({"a": [1, 2]})]
        [('', {'a': [1, 2]}), ('a', [1, 2]), ('a.0', 1), ('a.1', 2)]
    """
    seen: set[int] = set()
    level: list[tuple[_Place, Any]] = [(None, content)]
    while level:
        below: list[tuple[_Place, Any]] = []
        for place, value in level:
            if isinstance(value, CONTAINERS):
                if id(value) in seen:
                    continue
                seen.add(id(value))
                below += [((place, label), child) for label, child in children(value)]
            yield _path(place), value
        level = below


def _path(place: _Place) -> tuple[str, ...]:
    labels = []
    while place is not None:
        place, label = place
        labels.append(label)
    return tuple(reversed(labels))


CONTAINERS = (dict, list, tuple, set, frozenset, Inert)


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """What a container or a stand-in directly holds, each with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, (tuple, Inert)):
                yield "key", key
            yield key if isinstance(key, str) else describe(key), item
    elif isinstance(value, Inert):
        yield from _parts(value)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for number, item in enumerate(value):
            yield str(number), item


def _parts(value: Inert) -> Iterator[tuple[str, Any]]:
    if isinstance(value.state, dict):
        yield from children(value.state)
    elif value.state is not None:
        yield "state", value.state
    if value.arguments:
        yield "arguments", value.arguments
    if value.keywords:
        yield "keywords", value.keywords
    for number, item in enumerate(value.items):
        yield str(number), item
    for key, item in value.pairs:
        yield "key", key
        yield key if isinstance(key, str) else describe(key), item
