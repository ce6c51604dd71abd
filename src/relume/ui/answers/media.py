"""What a run has kept besides its numbers: lists of it, each thing as JSON, and the bytes of its pictures."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relume.errors import RunError, UnknownNameError
from relume.monitor.classes import FILE as CLASSES
from relume.monitor.classes import ClassReport
from relume.monitor.index import ask
from relume.monitor.journal import read_lines, when
from relume.text import printable
from relume.ui.answers import pictures
from relume.ui.answers.contents import confusion, content_of
from relume.ui.answers.plain import plain

ITEMS = 100
_MOST_LISTED = 1000
_MANY = ("histogram", "image", "figure", "text", "hparams")  # kinds that are small enough to be given by the hundred
_SHORT = 4000
_ID = re.compile(r"(\d{1,9})-(\d{1,15})-(\d{1,6})", re.ASCII)
_LARGEST_LINE = 64_000_000


@dataclass(frozen=True)
class Place:
    """Where something stands in the journal."""

    segment: int
    offset: int
    number: int
    step: int = -1
    epoch: int = -1
    time: float = 0.0

    def __str__(self) -> str:
        return f"{self.segment}-{self.offset}-{self.number}"

    def listed(self) -> dict[str, Any]:
        return {"id": str(self), "step": self.step, "epoch": self.epoch, "time": self.time}


# --------------------------------------------------------------------------------------------------------------- lists


def names(folder: Path) -> dict[str, Any]:
    """Each name and kind that was logged, with its items by step: at most 1,000, evenly chosen, of ``total``.

    The classes of the newest evaluation of a Trainer's run are among them, as the item ``"classes"``.
    """
    found = _classes_listed(folder)
    for (name, kind), places in _places(folder).items():
        items = [place.listed() for place in evenly(places, _MOST_LISTED)]
        found.append({"name": name, "kind": kind, "items": items, "total": len(places)})
    answer: dict[str, Any] = plain({"names": found})
    return answer


def items(folder: Path, name: str, kind: str | None = None, most: int = ITEMS) -> dict[str, Any]:
    """At most ``most`` things of one name, evenly chosen, the newest always; of ``total``.

    Those of small kinds have their content, as `item` gives it, texts cut to 4,000 letters; others only their places.

    Args:
        kind: which one, where a name has several; by default the one that was logged last.

    Raises:
        UnknownNameError: nothing has this name.
    """
    known = {one: places for (called, one), places in _places(folder).items() if called == name}
    if kind is None and known:
        kind = max(known, key=lambda one: (known[one][-1].time, one))
    if kind not in known:
        raise UnknownNameError(f"{folder.name} has logged nothing called {printable(name)!r}.")
    chosen = evenly(known[kind], max(1, min(most, ITEMS)))
    shown = [{**place.listed(), **(_item(folder, place, _SHORT) if kind in _MANY else {})} for place in chosen]
    answer: dict[str, Any] = {"kind": kind, "name": name, "items": shown, "total": len(known[kind])}
    return answer


def evenly(values: list[Any], most: int) -> list[Any]:
    """At most ``most`` of them, evenly chosen, the first and the last always.

    Example:
        >>> evenly(list(range(10)), 4), evenly([1, 2], 4), evenly([1, 2], 1)
        ([0, 3, 6, 9], [1, 2], [2])
    """
    if len(values) <= most:
        return values
    places = np.linspace(0, len(values) - 1, most).round().astype(int) if most > 1 else [len(values) - 1]
    return [values[place] for place in places]


def _places(folder: Path) -> dict[tuple[str, str], list[Place]]:
    query = (
        "SELECT name, kind, segment, offset, place, step, epoch, time FROM media ORDER BY step, segment, line, place"
    )

    def question(connection: sqlite3.Connection) -> dict[tuple[str, str], list[Place]]:
        found: dict[tuple[str, str], list[Place]] = {}
        for name, kind, *place in connection.execute(query):
            found.setdefault((name, kind), []).append(Place(*place))
        return found

    return ask(folder, question)


# ----------------------------------------------------------------------------------------------------------- one thing


def item(folder: Path, id: str) -> dict[str, Any]:
    """One thing by its ``id``, with ``name``, ``kind``, ``step``, ``epoch``, ``time`` and its content.

    What is large is thinned, and says so: ``shown`` of ``total``. One that is damaged has a ``problem`` instead.

    Raises:
        UnknownNameError: the id is none, or nothing is there.
    """
    if id == "classes":
        return _classes(folder)
    return _item(folder, _place_of(folder, id))


def file(folder: Path, id: str, name: str) -> tuple[bytes, str]:
    """The bytes of a picture of an item, and their type; nothing but PNG is given.

    Args:
        name: as the item names it: ``0.png``, ``plain.png``, ``mask-0.png``, ``figure.png``, ``sample-0.png``.

    Raises:
        UnknownNameError: the item has no such picture.
        RunError: it is gone, damaged, too large, or no PNG.
    """
    _, _, content, _ = _line_at(folder, _place_of(folder, id))
    return pictures.bytes_of(folder, content, name), "image/png"


def _place_of(folder: Path, id: str) -> Place:
    match = _ID.fullmatch(id)
    if match is None:
        raise UnknownNameError(f"{printable(id)!r} names nothing that {folder.name} has logged.")
    return Place(*map(int, match.groups()))


def _item(folder: Path, place: Place, longest: int | None = None) -> dict[str, Any]:
    name, kind, content, line = _line_at(folder, place)
    step, epoch, time = when(line)
    about = {"id": str(place), "name": name, "kind": kind, "step": step, "epoch": epoch, "time": time}
    try:
        return {**plain(about), **content_of(folder, content, longest)}
    except Exception as error:  # decoders of files raise whatever comes to their mind
        return plain({**about, "problem": printable(error, 500)})  # type: ignore[no-any-return]


def _line_at(folder: Path, place: Place) -> tuple[str, str, dict[str, Any], Mapping[str, Any]]:
    """Name, kind and content of what stands at a place of the journal, and its line.

    Raises:
        UnknownNameError: nothing does.
    """
    path = folder / "journal" / f"{place.segment:04d}.jsonl"
    try:
        if path.is_symlink() or not path.is_file() or not _begins_a_line(path, place.offset):
            raise ValueError
        line = next((line for _, line in read_lines(path, place.offset)), None) or {}
        media = line.get("media")
        name, content = list(media.items())[place.number] if isinstance(media, dict) else ("", None)
        if not isinstance(content, dict):
            raise ValueError
    except (OSError, ValueError, IndexError):
        raise UnknownNameError(f"{folder.name} has logged nothing at {place}: its journal may have changed.") from None
    return name, str(content.get("kind")), content, line


def _begins_a_line(path: Path, offset: int) -> bool:
    """Whether a line of bearable length begins there."""
    with path.open("rb") as file:
        if offset:
            file.seek(offset - 1)
            if file.read(1) != b"\n":
                return False
        return len(file.readline(_LARGEST_LINE)) < _LARGEST_LINE


# ------------------------------------------------------------------------------------------------------------- classes


def _classes_listed(folder: Path) -> list[dict[str, Any]]:
    path = folder / CLASSES
    if not path.is_file():
        return []
    try:
        report = ClassReport.load(folder)
    except RunError:
        report = None
    place = {"id": "classes", "step": -1, "epoch": -1 if report is None else report.epoch, "time": path.stat().st_mtime}
    return [{"name": "classes", "kind": "confusion_matrix", "items": [place], "total": 1}]


def _classes(folder: Path) -> dict[str, Any]:
    about = {"id": "classes", "name": "classes", "kind": "confusion_matrix", "step": -1}
    try:
        report = ClassReport.load(folder)
    except RunError as error:
        return {**about, "problem": str(error)}
    if report is None:
        raise UnknownNameError(f"{folder.name} has no report on its classes.")
    answer: dict[str, Any] = {**about, "epoch": report.epoch, **confusion(report)}
    return answer
