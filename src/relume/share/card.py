"""The model card: README.md with its pictures, and CITATION.cff."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from relume.errors import MissingPackageError
from relume.share import documents as files
from relume.share import sections
from relume.share.citation import citation_file
from relume.share.described import Documents
from relume.share.hubheader import header
from relume.share.pictures import drawn

__all__ = ["Documents", "card_files"]

_SECTIONS: tuple[Callable[[Documents, sections.Beside], str], ...] = (
    sections.opening,
    sections.use,
    sections.results,
    sections.examples,
    sections.training,
    sections.data,
    sections.reproducing,
    sections.environment,
    sections.lineage,
    sections.author_says,
    sections.unsaid,
    sections.citing,
    sections.contents,
)


def card_files(documents: Documents, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """A card that people like to read, with curves, confusion matrix and examples as pictures.

    Every word of it comes from the documents, and the same documents give the same bytes. Where matplotlib or Pillow is not
    installed the card has no pictures, and says how to get them.

    Args:
        sizes: bytes of the other files of the bundle, by their paths.

    Returns:
        The files to put into the bundle, by their paths: README.md; ``pictures/*.png``; CITATION.cff where an author is
        named.

    Example:
        >>> made = card_files(Documents("tiny"), {"model.safetensors": 1200})
        >>> made["README.md"].decode().splitlines()[0]
        '---'
    """
    made: dict[str, bytes] = {}
    problem = ""
    try:
        pictures = drawn(documents)
    except MissingPackageError as error:
        pictures, problem = {}, str(error)
    for picture in pictures.values():
        made[picture.path] = picture.png
    if (citation := citation_file(documents)) is not None:
        made[files.CITATION] = citation
    known = {**sizes, **{path: len(content) for path, content in made.items()}}
    beside = sections.Beside(known, pictures, problem)
    parts = [section(documents, beside) for section in _SECTIONS]
    made[files.CARD] = (header(documents) + "\n" + "\n\n".join(filter(None, parts)) + "\n").encode()
    return dict(sorted(made.items()))
