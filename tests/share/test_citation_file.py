"""CITATION.cff and BibTeX."""

from __future__ import annotations

import re

import pytest
import yaml
from described_bundles import filled_with, full

from relume.share.card import Documents
from relume.share.citation import Author, authors_of, bibtex_entry, citation_file
from relume.share.documents import RunFacts

KEYS = {"cff-version", "message", "title", "type", "authors", "date-released", "license", "identifiers", "keywords"}


def test_a_citation_file_has_what_the_format_asks_for() -> None:
    written = citation_file(full())
    assert written is not None
    held = yaml.safe_load(written)
    assert held["authors"] == [
        {"family-names": "Lovelace", "given-names": "Ada", "orcid": "https://orcid.org/0000-0002-1825-0097"},
        {"family-names": "Group", "given-names": "Clothing"},
    ]
    assert (held["cff-version"], held["title"], held["license"]) == ("1.2.0", "Clothes told apart", "MIT")
    assert held["date-released"] == "2023-11-14" and held["type"] == "software" and set(held) <= KEYS
    assert held["identifiers"] == [{"type": "other", "value": f"blake3:{'ab' * 32}", "description": "the weights"}]


def test_there_is_none_without_authors_whom_the_format_requires() -> None:
    assert citation_file(Documents("x")) is None
    assert citation_file(Documents("x", run=RunFacts(authors=["", "  ", "()"]))) is None


def test_an_unknown_licence_is_left_out_of_it() -> None:
    held = yaml.safe_load(citation_file(Documents("x", run=RunFacts(authors=["A B"], licence="ask me"))) or b"")
    assert "license" not in held and "date-released" not in held


@pytest.mark.parametrize(
    ("text", "given", "family", "name"),
    [
        ("Ada Lovelace", "Ada", "Lovelace", "Ada Lovelace"),
        ("Lovelace, Ada King", "Ada King", "Lovelace", "Ada King Lovelace"),
        ("Plato", "", "", "Plato"),
        ("ada@example.org", "", "", "ada@example.org"),
        ("毛泽东", "", "", "毛泽东"),
        (",", "", "", ""),
    ],
)
def test_names_are_read_as_people_write_them(text: str, given: str, family: str, name: str) -> None:
    author = Author.of(text)
    assert (author.given, author.family, author.name) == (given, family, name)


def test_an_author_counts_once() -> None:
    run = RunFacts(authors=["Ada Lovelace", "Lovelace, Ada", "Ada Lovelace"])
    assert [author.name for author in authors_of(Documents("x", run=run))] == ["Ada Lovelace"]


def test_bibtex_names_authors_and_year() -> None:
    entry = bibtex_entry(full())
    assert entry.startswith("@misc{lovelace2023,\n  title = {{Clothes told apart}},\n")
    assert "author = {Lovelace, Ada and Group, Clothing}" in entry and "year = {2023}" in entry


@pytest.mark.parametrize("text", ["}, author = {Eve", "\\input{/etc/passwd}", "a" * 9999, "\u202e\n@misc{x}", ""])
def test_other_people_s_text_cannot_break_out(text: str) -> None:
    entry = bibtex_entry(filled_with(text))
    plain = re.sub(r"\\[\\{}#$%&_]|\\text\w+\{\}", "", entry)
    assert plain.count("{") == plain.count("}") and len(entry) < 2000
    assert [line for line in entry.splitlines() if line.startswith("@")] == entry.splitlines()[:1]
    written = citation_file(filled_with(text))
    assert written is None or set(yaml.safe_load(written)) <= KEYS
