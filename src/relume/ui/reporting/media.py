"""What runs have kept besides numbers, as a report holds it: the newest of what is large, the course of what is small."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relume.errors import RelumeError
from relume.text import counted, printable, size
from relume.ui.answers import media as answers

Json = dict[str, Any]
Encode = Callable[[Any], bytes]

_OF_ALL_STEPS, _STEPS, _MOST_STEPS = "histogram", 1500, 100
_TEXTS = 20
_NAMED = 5


@dataclass
class Thing:
    """What was logged by one name, as far as a report may hold it.

    Attributes:
        listed: its entry in the list of media, with the steps that are in the report.
        items: content of each, by what the page asks for; ``course`` of all steps at once.
        files: pictures as ``data:`` addresses.
        size_bytes: what all of it takes in the file.
        left_out: pictures that are not in it.
    """

    run: str
    listed: Json
    items: dict[str, Json] = field(default_factory=dict)
    course: Json | None = None
    files: dict[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class Media:
    """The media of a report: answers by what is asked, pictures, and what is to be said of them."""

    answers: dict[str, dict[str, Json]]
    files: dict[str, str]
    notes: Sequence[str]


def media(folders: Sequence[Path], images: int, room_bytes: int, clean: Callable[[Any], Any], encode: Encode) -> Media:
    """The media of runs, in at most about ``room_bytes``.

    Args:
        images: pictures at most.
        clean: takes the machine out of texts.
    """
    things = list(_things(folders, images, clean))
    for thing in things:
        held = gzip.compress(encode([thing.listed, thing.items, thing.course]), 6, mtime=0)
        thing.size_bytes = len(held) * 4 // 3 + sum(map(len, thing.files.values()))
    kept, dropped = _fitting(things, room_bytes)
    found: dict[str, dict[str, Json]] = {
        "media": {folder.name: {"names": []} for folder in folders},
        "item": {},
        "items": {},
    }
    files: dict[str, str] = {}
    for thing in kept:
        found["media"][thing.run]["names"].append(thing.listed)
        found["item"] |= {f"{thing.run}/{id}": one for id, one in thing.items.items()}
        if thing.course is not None:
            found["items"][f"{thing.run}/{thing.listed['name']}"] = thing.course
        files |= thing.files
    return Media(found, files, _notes(kept, dropped, len(files)))


def _things(folders: Sequence[Path], images: int, clean: Callable[[Any], Any]) -> Iterator[Thing]:
    listed = [(folder, entry) for folder in folders for entry in _listed(folder) if entry["items"]]
    shares = _shares([_wanted(folder, entry) for folder, entry in listed], images)
    courses = sum(entry["kind"] == _OF_ALL_STEPS for _, entry in listed)
    for (folder, entry), share in zip(listed, shares, strict=True):
        try:
            if entry["kind"] == _OF_ALL_STEPS:
                steps = max(10, min(_MOST_STEPS, _STEPS // courses))
                yield _course(folder, entry, steps)
            elif entry["kind"] in ("image", "figure"):
                yield _pictures(folder, entry, share, clean)
            else:
                yield _newest(folder, entry, _TEXTS if entry["kind"] == "text" else 1, clean)
        except (RelumeError, OSError, ValueError):  # one thing that is gone hides no other
            continue


def _wanted(folder: Path, entry: Json) -> int:
    """How many pictures the newest step of a name has."""
    if entry["kind"] not in ("image", "figure"):
        return 0
    try:
        return sum(len(_files(picture)) for picture in _shown(answers.item(folder, entry["items"][-1]["id"])))
    except (RelumeError, OSError, ValueError):
        return 0


def _shares(wanted: Sequence[int], most: int) -> list[int]:
    """What each gets of ``most``: those that want little first get all, and leave more to the others.

    Example:
        >>> _shares([24, 1, 1], 64), _shares([24, 1, 30], 21)
        ([24, 1, 1], [10, 1, 10])
    """
    shares = [0] * len(wanted)
    waiting = sorted((count, place) for place, count in enumerate(wanted) if count)
    for number, (count, place) in enumerate(waiting):
        shares[place] = min(count, most // (len(waiting) - number))
        most -= shares[place]
    return shares


def _shown(item: Mapping[str, Any]) -> list[Json]:
    """The pictures of an item."""
    return list(item.get("images", [item] if "file" in item else []))


def _files(picture: Mapping[str, Any]) -> list[str]:
    """A picture's file, and those that belong to it."""
    plain = [picture["plain"]] if "plain" in picture else []
    return [picture["file"], *plain, *(mask["file"] for mask in picture.get("masks", []))]


def _listed(folder: Path) -> list[Json]:
    try:
        found: list[Json] = answers.names(folder)["names"]
    except (RelumeError, OSError, ValueError, ArithmeticError):
        return []
    for entry in found:
        for one in entry["items"]:
            if one["id"] == "classes":
                one["time"] = None  # a file's, which a copy does not have
    return found


def _course(folder: Path, entry: Json, steps: int) -> Thing:
    """Something small at many steps."""
    found = answers.items(folder, entry["name"], entry["kind"], steps)
    places = [{name: one[name] for name in ("id", "step", "epoch", "time")} for one in found["items"]]
    return Thing(folder.name, {**entry, "items": places}, course=found)


def _newest(folder: Path, entry: Json, most: int, clean: Callable[[Any], Any]) -> Thing:
    """The newest of something."""
    places = entry["items"][-most:]
    items = {place["id"]: clean(answers.item(folder, place["id"])) for place in places}
    return Thing(folder.name, {**entry, "items": places}, items)


def _pictures(folder: Path, entry: Json, most: int, clean: Callable[[Any], Any]) -> Thing:
    """The newest pictures of one name, the worst predictions first; what has no room is counted."""
    place = entry["items"][-1]
    item = clean(answers.item(folder, place["id"]))
    thing = Thing(folder.name, {**entry, "items": [place]}, {place["id"]: item})
    item.pop("sheet", None)  # the same pictures again
    shown, kept = _shown(item), []
    for picture in shown:
        names = _files(picture)
        if len(thing.files) + len(names) > most:
            thing.left_out += 1
            continue
        kept.append(picture)
        for name in names:
            content, kind = answers.file(folder, place["id"], name)
            thing.files[f"{folder.name}/{place['id']}/{name}"] = (
                f"data:{kind};base64,{base64.b64encode(content).decode()}"
            )
    if "images" in item:
        item["images"] = kept
    if len(kept) < len(shown):
        item |= {"shown": len(kept), "total": len(shown)}
    if not kept:
        thing.listed["items"], thing.items = [], {}
    return thing


def _fitting(things: Iterable[Thing], room_bytes: int) -> tuple[list[Thing], list[Thing]]:
    """What there is room for; what takes the most goes first."""
    kept = [thing for thing in things if thing.listed["items"] or thing.left_out]
    dropped = []
    for thing in sorted(kept, key=lambda one: -one.size_bytes):
        if sum(one.size_bytes for one in kept) <= room_bytes:
            break
        kept.remove(thing)
        dropped.append(thing)
    return kept, dropped


def _notes(kept: Sequence[Thing], dropped: Sequence[Thing], files: int) -> list[str]:
    notes = []
    missing = sum(thing.left_out for thing in kept)
    if files or missing:
        which = f", {missing:,} more are in the run" if missing else ""
        notes.append(f"{counted(files, 'picture')} of the newest step of each name{which}.")
    thinned = [
        one for one in kept if one.listed["kind"] != "hparams" and len(one.listed["items"]) < one.listed["total"]
    ]
    if thinned:
        notes.append(
            "Of what was logged at many steps the report holds the newest; of histograms, steps evenly chosen."
        )
    if dropped:
        names = ", ".join(f"{printable(one.listed['name'], 60)} ({size(one.size_bytes)})" for one in dropped[:_NAMED])
        more = f" and {len(dropped) - _NAMED} more" if len(dropped) > _NAMED else ""
        notes.append(f"Left out, because the report would be too large: {names}{more}. A larger --max-mb keeps them.")
    return notes


_WORDS = ("text", "problem", "caption", "title", "values", "rows")


def words_cleaned(clean: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``clean`` for the words in an item; its name, its pictures' files and the names of settings stay what they are."""

    def cleaned(item: Mapping[str, Any]) -> Json:
        return {name: _cleaned(value, clean) if name in _WORDS else value for name, value in item.items()}

    return cleaned


def _cleaned(value: Any, clean: Callable[[Any], Any]) -> Any:
    return {name: clean(one) for name, one in value.items()} if isinstance(value, dict) else clean(value)
