"""What a bundle tells people and other programs, beside what it claims: the card's numbers, and the names of classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from relume.errors import RelumeError
from relume.share import documents
from relume.share.documents import Claims
from relume.share.reproduce.subject import Subject
from relume.share.reproduce.verdicts import Row, Verdict

_HEADER = re.compile(r"^ +value: (\S+)$", re.MULTILINE)
_ROW = re.compile(r"^\| *`[^`\n]+` *\| *([-+.\de]+) *\|", re.MULTILINE)
_HEADLINE = re.compile(r"^\*\*[^*\n]* ([.\d]+)%\*\*", re.MULTILINE)
_MAX_CARD_BYTES = 4 << 20


def card_numbers(subject: Subject, claims: Claims) -> list[Row]:
    """A number of the model card that is not a claimed one: in its header, its table or its headline."""
    if documents.CARD not in subject.bundle:
        return []
    text = subject.bundle.read(documents.CARD)[:_MAX_CARD_BYTES].decode("utf-8", "replace")
    header = text[3:].partition("\n---")[0] if text.startswith("---") else ""
    exact = {repr(claim.value) for claim in claims.claims}
    rounded = {f"{claim.value:.2%}".rstrip("%") for claim in claims.claims}
    told = [*_HEADER.findall(header), *_ROW.findall(text)]
    other = [number for number in told if _plain(number) not in exact]
    other += [f"{number}%" for number in _HEADLINE.findall(text) if number not in rounded]
    if not other:
        return []  # the author's own words prove nothing
    why = f"{documents.CARD} tells {other[0]:.40}, which {documents.CLAIMS} does not claim"
    return [Row(claim="numbers of the card", found=f"{other[0]:.40}", verdict=Verdict.DIFFERENT, why=why)]


def _plain(number: str) -> str:
    try:
        return repr(float(number))
    except ValueError:
        return number


def exchanged(names: Sequence[str], others: Sequence[str]) -> str:
    """The first class that has another's name in two lists of the same names; empty where none has.

    Example:
        >>> exchanged(["cat", "dog"], ["dog", "cat"]), exchanged(["cat", "dog"], ["Katze", "Hund"])
        ("class 0 is 'cat' in one and 'dog' in the other", '')
    """
    if sorted(names) != sorted(others):
        return ""
    unlike = [number for number, (a, b) in enumerate(zip(names, others, strict=True)) if a != b]
    return (
        f"class {unlike[0]} is {names[unlike[0]]!r:.60} in one and {others[unlike[0]]!r:.60} in the other"
        if unlike
        else ""
    )


def class_names(subject: Subject, known: Sequence[str], where: str) -> Iterator[Row]:
    """Names of classes that are those of ``preprocessor_config.json``, but for other classes."""
    try:
        own = subject.preprocessing().classes
    except RelumeError:
        return
    if why := exchanged(own, known):
        text = f"{documents.INPUT} and {where} have the same names for other classes: {why}"
        yield Row(claim="names of classes", verdict=Verdict.DIFFERENT, why=text)


def names_in_config(subject: Subject) -> list[str]:
    """The names that ``config.json`` has for other programs, in their order."""
    try:
        names: dict[str, Any] = subject.config().id2label or {}
        return [names[str(number)] for number in range(len(names))]
    except (RelumeError, KeyError):
        return []
