"""Other people's text stays text."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml as reader
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from relume.share import escaping

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](https://evil.example)",
    "![x](https://evil.example/p.png)",
    "<https://evil.example>",
    "https://evil.example www.evil.example a@evil.example",
    "[a]: https://evil.example",
    "a | b | c",
    "a\n| - | - |\n# heading",
    "# heading",
    "- list",
    "1. list",
    "> quote",
    "===",
    "---",
    "```\nout\n```",
    "`a``b```c",
    "`|`",
    "$x$ $$y$$ \\(z\\)",
    "&lt;b&gt; &#60;",
    "\u202egnp.exe",
    "\x1b[31m\x00",
    "\\",
    "\\|",
    "*a* _b_ ~~c~~",
    "a\u2028b\u0085c",
    "\ud800",
    "'; {x: y} # no\n- z: &a !!python/object:os.system",
    "--- \n---\n",
    " ",
    "",
    "x" * 10_000,
    "| www.evil.example `](http://evil.example)",
]
_BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")


def rendered(markdown: str) -> list[Any]:
    """All tokens; raw HTML would be let through."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
    return [inner for token in tokens for inner in (token, *(token.children or ()))]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("write", [escaping.prose, escaping.code, escaping.words])
def test_text_in_a_paragraph_and_in_a_table_is_nothing_but_text(write: Any, text: str) -> None:
    cell = write(text)
    assert "\n" not in cell and len(cell) < 1000 and not _BIDI & set(cell)
    assert {token.type for token in rendered(cell)} <= {
        "paragraph_open",
        "paragraph_close",
        "inline",
        "text",
        "code_inline",
    }
    tokens = rendered(escaping.table(("one", "two"), [(cell, "last")]))
    assert [token.type for token in tokens].count("td_open") == 2
    assert {token.type for token in tokens if token.type.startswith(("html", "link", "image", "em_", "s_"))} == set()


@given(st.text(max_size=60))
def test_any_text_in_a_paragraph_is_nothing_but_text(text: str) -> None:
    for write in (escaping.prose, escaping.code, escaping.words):
        found = {token.type for token in rendered(f"{write(text)}")}
        assert found <= {"paragraph_open", "paragraph_close", "inline", "text", "code_inline"}


@given(st.text(alphabet="ab`\\|<&*_[]()~$#-+=1. \n", max_size=40))
def test_what_is_shown_is_what_was_written(text: str) -> None:
    line = escaping.printable(text, 200).strip()
    for write in (escaping.prose, escaping.code, escaping.words):
        shown = [t.content for t in rendered(f"x {write(text)} x") if t.type in ("text", "code_inline", "text_special")]
        assert "".join(shown).split() == ["x", *line.split(), "x"] or not line


@pytest.mark.parametrize("text", HOSTILE)
def test_a_block_of_code_ends_where_it_should(text: str) -> None:
    tokens = rendered(f"{escaping.block(text, 'bash')}\n\nafter")
    assert [token.type for token in tokens if token.type != "inline"][:1] == ["fence"]
    assert [token.content for token in tokens if token.type == "text"] == ["after"]
    assert not _BIDI & set(tokens[0].content)


@pytest.mark.parametrize("text", HOSTILE)
def test_yaml_gives_back_one_value_whatever_the_text_is(text: str) -> None:
    written = escaping.yaml({"a": text, text[:300]: [text], "z": {"b": [{"c": text, "d": 1}]}})
    held = reader.safe_load(written)
    shown = escaping.printable(text, 400)
    assert (
        held["a"] == shown
        and held["z"] == {"b": [{"c": shown, "d": 1}]}
        and held[text[:300] and escaping.printable(text[:300], 400)] == [shown]
    )
    assert not any(line.startswith(("---", "...")) for line in written.splitlines())


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-10**6, 10**6) | st.floats(allow_nan=False) | st.text("ab: #'\"\\{}[]-&*!?|>%@`é", max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc-1: ", min_size=1, max_size=5), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_yaml_reads_back_as_what_was_written(value: Any) -> None:
    assert reader.safe_load(escaping.yaml({"value": value})) == {"value": value}


def test_numbers_that_are_none_can_be_read_back() -> None:
    held = reader.safe_load(escaping.yaml({"a": math.nan, "b": -math.inf, "c": 1e-300}))
    assert math.isnan(held["a"]) and held["b"] == -math.inf and held["c"] == 1e-300


@pytest.mark.parametrize(
    "url",
    ["http://a.org", "javascript:alert(1)", "https://a.org/x y", "https://a.org/)[x](y", "https://a", "https://a.org/<b>",
     "https://user@evil.org", "https://a.org/" + "x" * 400],
)  # fmt: skip
def test_only_plain_addresses_become_links(url: str) -> None:
    assert not any(token.type == "link_open" for token in rendered(escaping.address(url)))
    assert [
        token.attrs for token in rendered(escaping.address("https://a.org/b?c=d")) if token.type == "link_open"
    ] == [{"href": "https://a.org/b?c=d"}]


@given(st.text(max_size=60))
def test_braces_of_bibtex_are_balanced(text: str) -> None:
    depth, escaped = 0, False
    for letter in escaping.bibtex(text):
        if not escaped:
            depth += (letter == "{") - (letter == "}")
        escaped = letter == "\\" and not escaped
        assert depth >= 0
    assert depth == 0 and not escaped
