"""How to cite a model: its authors, CITATION.cff and BibTeX.

Format: Citation File Format 1.2.0 (https://citation-file-format.github.io).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from relume.share.described import Documents
from relume.share.escaping import bibtex, yaml
from relume.share.licences import spdx
from relume.text import printable

_ORCID = re.compile(r"(?:https?://orcid\.org/)?\b(\d{4}-\d{4}-\d{4}-\d{3}[\dX])\b")
_EMAIL = re.compile(r"<?\b([\w.+-]+@[\w-]+(?:\.[\w-]+)+)\b>?", re.ASCII)
_MOST_AUTHORS = 200


@dataclass(frozen=True)
class Author:
    """Somebody who made it. ``family`` is empty for what has one name only, such as a group."""

    name: str
    given: str = ""
    family: str = ""
    orcid: str = ""
    email: str = ""

    @classmethod
    def of(cls, text: str) -> Author:
        """Read a name as people write it.

        Example:
            >>> author = Author.of("Ada Lovelace <ada@example.org> (0000-0002-1825-0097)")
            >>> author.given, author.family, author.email, author.orcid
            ('Ada', 'Lovelace', 'ada@example.org', '0000-0002-1825-0097')
            >>> Author.of("Lovelace, Ada").given, Author.of("OpenScience").family
            ('Ada', '')
        """
        line = printable(text, 300)
        orcid, email = _ORCID.search(line), _EMAIL.search(line)
        for found in filter(None, (orcid, email)):
            line = line.replace(found[0], " ")
        line = " ".join(re.sub(r"\(\s*\)|<\s*>", " ", line).split()).strip(" ,;")
        family, comma, given = line.partition(",")
        if not comma:
            given, _, family = line.rpartition(" ")
        given, family = given.strip(), family.strip()
        whole = f"{given} {family}".strip()
        is_person = bool(given and family)
        return cls(
            name=whole or (email[1] if email else orcid[1] if orcid else ""),
            given=given if is_person else "",
            family=family if is_person else "",
            orcid=orcid[1] if orcid else "",
            email=email[1] if email else "",
        )


def authors_of(documents: Documents) -> list[Author]:
    """Those that are named, each once."""
    found = (Author.of(text) for text in documents.run.authors[:_MOST_AUTHORS])
    return list(dict.fromkeys(author for author in found if author.name))


def citation_file(documents: Documents) -> bytes | None:
    """CITATION.cff; None where no author is named, whom the format requires."""
    authors = authors_of(documents)
    if not authors:
        return None
    run = documents.run
    message = "If you use this model, please cite it as below."
    known: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": f"If you use this model, please cite: {run.citation}" if run.citation.strip() else message,
        "title": documents.title.strip() or "model",
        "type": "software",
        "authors": [_cff_author(author) for author in authors],
    }
    if documents.day:
        known["date-released"] = documents.day
    if licence := spdx(run.licence):
        known["license"] = licence
    if digest := documents.model.weights_digest:
        known["identifiers"] = [{"type": "other", "value": f"blake3:{digest}", "description": "the weights"}]
    if keywords := list(dict.fromkeys(["relume", "PyTorch", *(tag for tag in run.tags if tag.strip())][:20])):
        known["keywords"] = keywords
    return yaml(known, 2000).encode()


def bibtex_entry(documents: Documents) -> str:
    """An entry of BibTeX; its author is the bundle's name where none is named."""
    authors = authors_of(documents)
    names = [f"{bibtex(author.family)}, {bibtex(author.given)}" if author.family else f"{{{bibtex(author.name)}}}"
             for author in authors]  # fmt: skip
    first = authors[0].family or authors[0].name if authors else documents.name
    key = re.sub(r"[^a-z0-9]", "", first.lower(), flags=re.ASCII)[:30] or "model"
    year = documents.day[:4]
    fields = {
        "title": f"{{{bibtex(documents.title)}}}",
        "author": " and ".join(names),
        "year": year,
        "howpublished": "relume bundle",
        "note": f"blake3:{documents.model.weights_digest[:64]}" if documents.model.weights_digest else "",
    }
    lines = [f"  {name} = {{{bibtex(value) if name == 'note' else value}}}" for name, value in fields.items() if value]
    return f"@misc{{{key}{year},\n" + ",\n".join(lines) + "\n}"


def _cff_author(author: Author) -> dict[str, str]:
    known = {"family-names": author.family, "given-names": author.given} if author.family else {"name": author.name}
    if author.orcid:
        known["orcid"] = f"https://orcid.org/{author.orcid}"
    if author.email:
        known["email"] = author.email
    return known
