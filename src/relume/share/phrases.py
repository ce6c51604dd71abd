"""What several sections of a model card say in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from relume.share.described import Documents
from relume.share.documents import DataSet
from relume.share.escaping import prose, words
from relume.share.licences import spdx, spdx_address
from relume.share.pictures import Drawn
from relume.text import printable

_LONGEST_TEXT = 4000


@dataclass(frozen=True)
class Beside:
    """What lies beside README.md in the bundle.

    Attributes:
        sizes: bytes of all files, by their paths.
        pictures: those that were drawn, by what they show.
        problem: why none could be drawn, and what to do.
    """

    sizes: Mapping[str, int]
    pictures: Mapping[str, Drawn] = field(default_factory=dict)
    problem: str = ""

    def shown(self, what: str) -> str:
        """A picture with its text for those who do not see it; empty where there is none."""
        picture = self.pictures.get(what)
        return f"![{words(picture.text, 600)}]({picture.path})" if picture else ""


def licence_in_words(licence: str) -> str:
    """A licence, with a link to its text where it is a common one."""
    known = spdx(licence)
    return f"[{prose(known)}]({spdx_address(licence)})" if known else prose(licence, 100)


def data_name(data: DataSet) -> str:
    """Which data, in few words; empty where nothing is known of it."""
    split = f" ({prose(data.split, 60)})" if data.split else ""
    name = prose(data.name, 80) or ("" if data.kind == "other" else prose(data.kind, 20))
    return f"{name}{split}" if name else (f"{prose(data.role, 40)} data{split}" if data.role else "")


def kind_of(documents: Documents, limit: int = 80) -> str:
    """The name of the model's class, as text that is not yet escaped."""
    return printable(next(iter(documents.model.architectures), ""), limit)


def file_name(documents: Documents) -> str:
    """What the bundle's file is called, as text that is not yet escaped."""
    return f"{printable(documents.name, 100)}.relume"


def paragraph(text: str) -> list[str]:
    """The lines of a text that are not empty, of its first thousands of letters."""
    return [line for line in text[:_LONGEST_TEXT].splitlines() if line.strip()]
