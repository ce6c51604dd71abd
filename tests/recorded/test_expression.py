"""Conditions on runs mean what they say, and one that cannot be read points at the place."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relume.errors import ExpressionError
from relume.recorded.expression import parse

RUN = {
    "lr": 1e-3, "val/accuracy": 0.92, "train/loss_epoch": 0.5, "optimizer.name": "adam", "weight-decay": 0.1, "layers": 4,
    "status": "finished", "tags": ["baseline", "paper"], "amp": True, "bad": math.nan, "odd name (x)": 3, "top:k": 5,
    "created": datetime(2026, 11, 21, 12, tzinfo=UTC), "größe": 7, "empty": "", "big": math.inf, "note": 'say "hi"',
}  # fmt: skip


def holds(text: str) -> bool:
    return parse(text).holds(RUN.get)


@pytest.mark.parametrize(
    "text",
    [
        "lr<1e-2",
        "lr < 1e-2 and val/accuracy > 0.9",
        "lr=.001",
        "lr == 1E-3",
        "1e-4 < lr <= 0.001",
        "train/loss_epoch >= 0.5",
        "optimizer.name == 'adam'",
        "weight-decay<0.2&&!(lr>1)",
        "not lr > 1 and not (layers == 5 or layers == 6)",
        "layers == 5 or layers == 4 and lr < 1",
        'status = "finished"',
        "status != 'failed'",
        "'baseline' in tags",
        "'slow' not in tags",
        'tags ~ "pap*"',
        'status ~ "fin*"',
        '"ish" in status',
        "amp",
        "amp == true",
        "not empty",
        "missing == none",
        "lr != none",
        "missing != 3",
        "not missing < 3",
        "bad == nan",
        "bad != 1",
        "`odd name (x)` == 3",
        "top:k > -1",
        'created > "2026-11-01"',
        "created < '2027-01-01 10:00'",
        "größe == 7",
        "big == inf and big > 1e300",
        "NOT lr > 1 AND amp",
        r'note == "say \"hi\""',
    ],
)
def test_what_holds(text: str) -> None:
    assert holds(text)
    assert not holds(f"not ({text})")


@pytest.mark.parametrize(
    "text",
    [
        "missing < 3", "missing >= 3", "missing == 3", "bad < 1", "bad >= 1", "bad == 1", "status < 3", "status == 3", "lr == 'x'",
        "missing", "bad", "empty", "missing ~ '*'", "1 in missing", "created > 'no date'", "lr < missing",
    ],
)  # fmt: skip
def test_what_does_not_hold(text: str) -> None:
    assert not holds(text)


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("lr < ", "a value is missing behind '<'", 5),
        ("", "there is nothing in it", 0),
        ("lr < 1 lr", "'lr' is one too many", 7),
        ("(lr < 1", "the parenthesis is not closed", 0),
        ("lr < 1)", r"'\)' is one too many", 6),
        ("lr < 'abc", "a text that begins with ' does not end", 5),
        ("lr $ 1", r"'\$' means nothing here", 3),
        ("and lr", "a name or a value is expected, not 'and'", 0),
        ("lr < 1 and", "a value is missing behind 'and'", 10),
        ("lr not 3", '"in" is missing behind "not"', 7),
        ("__import__('os')", r"'\(' is one too many", 10),
        ("lr < 1abc", "'1' means nothing here", 5),
        ("(" * 60 + "lr" + ")" * 60, "more than 50 parentheses", 50),
    ],
)
def test_an_error_points_at_its_place(text: str, message: str, place: int) -> None:
    with pytest.raises(ExpressionError, match=message) as caught:
        parse(text)
    _, shown, arrow = str(caught.value).split("\n")
    if place < 50:
        assert f"character {place + 1}:" in str(caught.value) and arrow.index("^") == 4 + place and shown[4:] == text[:40] + text[40:place + 40]  # fmt: skip


def test_what_is_no_text_or_too_long_is_refused() -> None:
    with pytest.raises(ExpressionError, match="is too long"):
        parse("lr < 1 or " * 2000 + "lr")
    with pytest.raises(ExpressionError, match="a condition is text, not 3"):
        parse(3)  # type: ignore[arg-type]


def test_an_error_shows_no_escape_of_the_terminal() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("lr < \x1b[31m")
    assert "\x1b" not in str(caught.value)


@given(st.text(max_size=60) | st.text("ab<>=!~()'\"` .1e-&|notradi", max_size=40))
def test_any_text_is_a_condition_or_an_error_of_relume(text: str) -> None:
    try:
        condition = parse(text)
    except ExpressionError:
        return
    assert condition.holds(RUN.get) in (True, False)


def test_the_names_are_known_without_repetition() -> None:
    assert parse("lr < 1 and (val/accuracy > last:lr or lr > 0)").names == ("lr", "val/accuracy", "last:lr")
