"""What the parts of a tensor's name say: words, numbers, and the role of its last part."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest

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


def marks(siblings: Sequence[Segment]) -> list[tuple[str, ...]]:
    """What tells each of several siblings from the others: its own words, whole and without the letters that all share.

    Example:
        >>> marks([segment("W_K"), segment("W_Q")]), marks([segment("wk"), segment("wq")])
        ([('k',), ('q',)], [('wk', 'k'), ('wq', 'q')])
    """
    common = set.intersection(*(set(one.words) for one in siblings))
    own = [tuple(word for word in one.words if word not in common) for one in siblings]
    if len({frozenset(words) for words in own}) < len(own):  # B2A and A2B: only the order of their words differs
        own = [("".join(one.words),) for one in siblings]
    joined = ["".join(words) for words in own]
    start = _common_letters(joined)
    end = _common_letters([text[start:][::-1] for text in joined])
    bare = [text[start : len(text) - end] for text in joined]
    return [
        tuple(dict.fromkeys(word for word in (*words, text, short) if word))
        for words, text, short in zip(own, joined, bare, strict=True)
    ]


def _common_letters(words: Sequence[str]) -> int:
    """With how many letters all of them begin."""
    return sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*words, strict=False)))


def evidence(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    """How much two `marks` say the same: 1 for a word, less for its beginning, its consonants, or only its first letter.

    Example:
        >>> evidence(("key",), ("k",)), evidence(("text",), ("txt",)), evidence(("value",), ("vf",))
        (0.75, 0.5, 0.25)
    """
    return max((_same_word(one, other) for one in first for other in second), default=0.0)


def _same_word(one: str, other: str) -> float:
    short, long = sorted((one, other), key=len)
    if short == long:
        return 1
    if long.startswith(short):
        return 0.75
    if short[0] != long[0]:
        return 0
    letters = iter(long)
    return 0.5 if all(letter in letters for letter in short) else 0.25


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


def preference(first: str, second: str, first_target: str, second_target: str) -> float | None:
    """What the names of two siblings say for their targets: above 0 for them, below for exchanging them, 0 for neither.

    None where one side parts by having more segments than the other.

    Example:
        >>> preference("W_K", "W_Q", "wq", "wk") < 0, preference("critic", "actor", "pi", "vf")
        (True, 0)
    """
    a, b = _where_they_part(first, second)
    c, d = _where_they_part(first_target, second_target)
    if a is None or b is None or c is None or d is None:
        return None
    if all(part.numbers for part in (a, b, c, d)) and a.numbers != b.numbers and c.numbers != d.numbers:
        by_number = 1.0 if (a.numbers < b.numbers) == (c.numbers < d.numbers) else -1.0
        if a.words == b.words or c.words == d.words:
            return by_number
    theirs, ours = marks([a, b]), marks([c, d])
    straight = evidence(theirs[0], ours[0]) + evidence(theirs[1], ours[1]) + (a.text == c.text) + (b.text == d.text)
    across = evidence(theirs[0], ours[1]) + evidence(theirs[1], ours[0]) + (a.text == d.text) + (b.text == c.text)
    return straight - across


def _where_they_part(first: str, second: str) -> tuple[Segment | None, Segment | None]:
    for one, other in zip_longest(first.split("."), second.split(".")):
        if one != other:
            return (None if one is None else segment(one)), (None if other is None else segment(other))
    return None, None
