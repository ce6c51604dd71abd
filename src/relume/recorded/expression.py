"""Conditions on runs, such as ``lr < 1e-2 and val/accuracy > 0.9``: a small language that computes nothing else.

    condition  = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation   = "not" negation | "(" condition ")" | comparison
    comparison = operand { ("<" | "<=" | ">" | ">=" | "==" | "=" | "!=" | "~" | "in" | "not in") operand }
    operand    = number | "text" | 'text' | true | false | none | nan | name | `any name`

A name may have dots, slashes and hyphens in it. A comparison with something that a run does not have, or that is NaN, is
false, and ``!=`` is true; ``x == none`` asks whether there is no x, and ``x == nan`` whether it is NaN. Numbers and texts are
never smaller or larger than each other. ``name ~ "fash*"`` compares with a pattern (a list: any of its elements), ``"a" in
tags`` looks into a list or a text. A name alone holds where it is there and neither false, 0 nor empty.
"""

from __future__ import annotations

import fnmatch
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relume.errors import ExpressionError

Lookup = Callable[[str], Any]
"""The value of a name: a number, text, bool, list, datetime, or None where there is none."""

_LONGEST = 10_000
_DEEPEST = 50
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w./@]))
    | (?P<operator><=|>=|==|!=|&&|\|\||[<>=~!()])
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<quoted>`[^`]+`)
    | (?P<name>[^\W\d]\w*(?::[^\W]|[\w./@%+-])*)
    )""",
    re.VERBOSE,
)
_WORDS = {"and": "and", "&&": "and", "or": "or", "||": "or", "not": "not", "!": "not", "in": "in"}
_CONSTANTS = {"true": True, "false": False, "none": None, "null": None, "nan": math.nan, "inf": math.inf}
_ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_COMPARISONS = (*_ORDERS, "==", "=", "!=", "~", "in", "not in")
_Test = Callable[[Lookup], bool]
_Value = Callable[[Lookup], Any]


@dataclass(frozen=True)
class Expression:
    """A condition that was understood.

    Attributes:
        text: as it was written.
        names: what it asks of a run, in their order, without repetition.
    """

    text: str
    names: tuple[str, ...]
    _test: _Test

    def holds(self, lookup: Lookup) -> bool:
        """Whether the condition holds where names have these values."""
        return self._test(lookup)


def parse(text: str) -> Expression:
    """Understand a condition.

    Raises:
        ExpressionError: it cannot be read; points at the place.

    Example:
        >>> condition = parse("lr < 1e-2 and not (model == 'small')")
        >>> condition.names, condition.holds({"lr": 0.001, "model": "large"}.get)
        (('lr', 'model'), True)
    """
    if not isinstance(text, str):
        raise ExpressionError(f"a condition is text, not {text!r:.80}.")
    if len(text) > _LONGEST:
        raise ExpressionError(f"a condition of {len(text):,} characters is too long: at most {_LONGEST:,}.")
    parser = _Parser(text)
    test = parser.whole()
    return Expression(text, tuple(dict.fromkeys(parser.names)), test)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    place: int


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.names: list[str] = []
        self.tokens = list(self._tokens())
        self.at = 0
        self.depth = 0

    def _tokens(self) -> Any:
        place = 0
        while self.text[place:].strip():
            found = _TOKEN.match(self.text, place)
            if found is None:
                place += len(self.text[place:]) - len(self.text[place:].lstrip())
                quote = self.text[place]
                if quote in "\"'`":
                    raise self.error(f"a text that begins with {quote} does not end", place)
                raise self.error(f"{quote!r} means nothing here", place)
            kind = str(found.lastgroup)
            token = _Token(kind, found.group(kind), found.start(kind))
            word = (
                _WORDS.get(token.text.lower() if kind == "name" else token.text)
                if kind in ("name", "operator")
                else None
            )
            yield _Token("operator", word, token.place) if word else token
            place = found.end()

    # ------------------------------------------------------------------------------------------------------- grammar

    def whole(self) -> _Test:
        if not self.tokens:
            raise self.error("there is nothing in it", 0)
        test = self.condition()
        if self.at < len(self.tokens):
            token = self.tokens[self.at]
            raise self.error(f'{token.text!r} is one too many; "and" or "or" joins two conditions', token.place)
        return test

    def condition(self) -> _Test:
        tests = [self.conjunction()]
        while self.takes("or"):
            tests.append(self.conjunction())
        return tests[0] if len(tests) == 1 else lambda lookup: any(test(lookup) for test in tests)

    def conjunction(self) -> _Test:
        tests = [self.negation()]
        while self.takes("and"):
            tests.append(self.negation())
        return tests[0] if len(tests) == 1 else lambda lookup: all(test(lookup) for test in tests)

    def negation(self) -> _Test:
        begin = self.place()
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.error(f"more than {_DEEPEST} parentheses and negations are in each other", begin)
        try:
            if self.takes("not"):
                inner = self.negation()
                return lambda lookup: not inner(lookup)
            if self.takes("("):
                inner = self.condition()
                if not self.takes(")"):
                    raise self.error("the parenthesis is not closed", begin)
                return inner
            return self.comparison()
        finally:
            self.depth -= 1

    def comparison(self) -> _Test:
        left = self.operand()
        tests: list[_Test] = []
        value = left
        while (sign := self.comparison_sign()) is not None:
            right = self.operand()
            tests.append(_comparison(sign, value, right))
            value = right
        if not tests:
            return lambda lookup: _holds_alone(left(lookup))
        return tests[0] if len(tests) == 1 else lambda lookup: all(test(lookup) for test in tests)

    def comparison_sign(self) -> str | None:
        if self.takes("not"):
            if not self.takes("in"):
                raise self.error('"in" is missing behind "not"', self.place())
            return "not in"
        return next((sign for sign in _COMPARISONS if self.takes(sign)), None)

    def operand(self) -> _Value:
        if self.at >= len(self.tokens):
            what = f"a value is missing behind {self.tokens[-1].text!r}" if self.tokens else "a value is missing"
            raise self.error(what, len(self.text))
        token = self.tokens[self.at]
        self.at += 1
        if token.kind == "operator":
            raise self.error(f"a name or a value is expected, not {token.text!r}", token.place)
        if token.kind == "number":
            return _constant(float(token.text))
        if token.kind == "text":
            return _constant(re.sub(r"\\(.)", r"\1", token.text[1:-1]))
        if token.kind == "name" and token.text.lower() in _CONSTANTS:
            return _constant(_CONSTANTS[token.text.lower()])
        name = token.text.strip("`")
        self.names.append(name)
        return lambda lookup: lookup(name)

    # --------------------------------------------------------------------------------------------------------- helpers

    def takes(self, sign: str) -> bool:
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        if token is None or token.kind != "operator" or token.text != sign:
            return False
        self.at += 1
        return True

    def place(self) -> int:
        return self.tokens[self.at].place if self.at < len(self.tokens) else len(self.text)

    def error(self, what: str, place: int) -> ExpressionError:
        begin = max(0, place - 60)
        line = "".join(c if c.isprintable() else "?" for c in self.text[begin : place + 40])
        return ExpressionError(
            f"the condition cannot be read at character {place + 1}: {what}.\n    {line}\n    {' ' * (place - begin)}^"
        )


def _constant(value: Any) -> _Value:
    return lambda lookup: value


def _comparison(sign: str, left: _Value, right: _Value) -> _Test:
    if sign in _ORDERS:
        order = _ORDERS[sign]
        return lambda lookup: _is_ordered(order, left(lookup), right(lookup))
    if sign in ("==", "="):
        return lambda lookup: _is_equal(left(lookup), right(lookup))
    if sign == "!=":
        return lambda lookup: not _is_equal(left(lookup), right(lookup))
    if sign == "~":
        return lambda lookup: _is_like(left(lookup), right(lookup))
    if sign == "in":
        return lambda lookup: _is_in(left(lookup), right(lookup))
    return lambda lookup: not _is_in(left(lookup), right(lookup))


def _holds_alone(value: Any) -> bool:
    return bool(value) and value == value


def _is_ordered(order: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    left, right = _alike(left, right)
    if _is_number(left) and _is_number(right):
        return order(left, right)
    for kind in (str, datetime):
        if isinstance(left, kind) and isinstance(right, kind):
            return order(left, right)
    return False


def _is_equal(left: Any, right: Any) -> bool:
    left, right = _alike(left, right)
    if _is_number(left) and _is_number(right):
        return bool(left == right) or (left != left and right != right)
    return type(left) is type(right) and bool(left == right)


def _is_like(value: Any, pattern: Any) -> bool:
    if isinstance(value, list):
        return any(_is_like(item, pattern) for item in value)
    return isinstance(value, str) and isinstance(pattern, str) and fnmatch.fnmatchcase(value, pattern)


def _is_in(value: Any, container: Any) -> bool:
    if isinstance(container, list):
        return any(_is_equal(value, item) for item in container)
    return isinstance(container, str) and isinstance(value, str) and value in container


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """A date that is compared with text: the text as a date."""
    if isinstance(left, datetime) and isinstance(right, str):
        return left, _date(right)
    if isinstance(right, datetime) and isinstance(left, str):
        return _date(left), right
    return left, right


def _date(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        return None
