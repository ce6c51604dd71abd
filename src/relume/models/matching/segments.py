"""What the parts of a tensor's name say: words, numbers, and the role of its last part."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_SAME_ROLE = {
    "gamma": "weight", "scale": "weight", "kernel": "weight",
    "beta": "bias", "offset": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var", "moving_var": "running_var",
}  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """One part of a name between dots.

    Attributes:
        text: as it is written: ``"_bn1"``.
        words: ``("bn",)``.
        numbers: ``(1,)``.
    """

    text: str
    words: tuple[str, ...]
    numbers: tuple[int, ...]

    @property
    def parts(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """What it says, however it is spelt: ``_bn1``, ``bn_1`` and ``BN1`` are alike."""
        return self.words, self.numbers


@functools.lru_cache(maxsize=65536)
def segment(text: str) -> Segment:
    """Take one part of a name apart.

    Example:
        >>> segment("_bn1").parts, segment("selfAttention").words
        ((('bn',), (1,)), ('self', 'attention'))
    """
    parts = _PARTS.findall(text)
    words = tuple(part.lower() for part in parts if not part[0].isdigit())
    numbers = tuple(int(part[:18]) for part in parts if part[0].isdigit())
    return Segment(text, words, numbers)


def segments_of(name: str) -> list[Segment]:
    """The parts of a tensor's name between dots."""
    return [segment(text) for text in name.split(".")]


class Roles:
    """What a tensor is in its layer, as far as both sides agree on the word for it."""

    def __init__(self, source: Iterable[str], own: Iterable[str]) -> None:
        theirs, ours = {_role(name) for name in source}, {_role(name) for name in own}
        self._shared = theirs & ours
        self._is_renamed = not theirs <= ours

    def of(self, name: str) -> str | None:
        """``"weight"``, ``"running_mean"``; None for all where the source has words of its own."""
        return None if self._is_renamed else _role(name)

    def agree(self, name: str, target: str) -> bool:
        """Whether two tensors can be the same, as far as their roles tell."""
        first, second = _role(name), _role(target)
        return first == second or first not in self._shared or second not in self._shared


def _role(name: str) -> str:
    leaf = name.rpartition(".")[2]
    return _SAME_ROLE.get(leaf, leaf)


def likeness(first: Segment, second: Segment) -> float:
    """How much two parts of names say the same in words: 1 for each word of both, half for a shortened one.

    Example:
        >>> likeness(segment("q_proj"), segment("query")), likeness(segment("left"), segment("right"))
        (0.5, 0.0)
    """
    total = 0.0
    for word in first.words:
        if word in second.words:
            total += 1
        elif any(other.startswith(word) or word.startswith(other) for other in second.words):
            total += 0.5
    return total


def crossed(first: str, second: str, first_target: str, second_target: str) -> str:
    """Why the names speak for exchanging the targets of two tensors; empty when they do not."""
    a, b = _where_they_part(first, second)
    c, d = _where_they_part(first_target, second_target)
    if a is None or b is None or c is None or d is None:
        return ""
    if a.words == b.words and c.words == d.words:
        if a.numbers != b.numbers and c.numbers != d.numbers and (a.numbers < b.numbers) != (c.numbers < d.numbers):
            return "the numbers in their names are in another order than the tensors"
    elif likeness(a, d) + likeness(b, c) > likeness(a, c) + likeness(b, d):
        return "the words in their names speak for exchanging them"
    return ""


def _where_they_part(first: str, second: str) -> tuple[Segment | None, Segment | None]:
    for one, other in zip_longest(first.split("."), second.split(".")):
        if one != other:
            return (None if one is None else segment(one)), (None if other is None else segment(other))
    return None, None
