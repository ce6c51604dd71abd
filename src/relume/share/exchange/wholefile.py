"""A ``.relume`` file that somebody put somewhere, fetched in one piece and gone on with where it stopped."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from blake3 import blake3

from relume.checkpoint import files
from relume.errors import BundleError, ExchangeError, UnsafeFileError
from relume.share.bundle import Bundle
from relume.share.exchange.progress import Meter
from relume.share.exchange.remote import Opened, PassingError, Remote, retried
from relume.share.exchange.staging import check_room

_MAGIC = b"PK\x03\x04"


def bring_file(remote: Remote, path: str, folder: Path, meter: Meter) -> Path:
    """Fetch a bundle to the staging folder and compare every byte of it; returns where it is.

    What an earlier call left is gone on with, if the server still has the same file (by its ETag, or by the time of its
    last change) and can. Parts of two files that were put together all the same are found by their digests, and all is
    fetched anew.

    Raises:
        ExchangeError: the place fails. BundleError, UnsafeFileError: what is there is no bundle, or a damaged one.
    """
    part = folder / "file.relume"
    _forget_others(folder, part, blake3(f"{remote.name}\0{path}".encode()).hexdigest())
    meter.there(_size(part))
    was_continued = _size(part) > 0
    retried(lambda: _continue(remote, path, part, meter))
    if was_continued and not _is_good(part):
        files.remove(part)
        meter.there_bytes = 0
        retried(lambda: _continue(remote, path, part, meter))
    try:
        Bundle.open(part)
    except (BundleError, UnsafeFileError):
        files.remove(part)
        raise
    return part


def _is_good(part: Path) -> bool:
    try:
        return bool(Bundle.open(part))
    except (BundleError, UnsafeFileError):
        return False


def _continue(remote: Remote, path: str, part: Path, meter: Meter) -> None:
    where = f"{remote.name}/{path}"
    note = part.with_suffix(".note")
    begin, known = _size(part), _noted(note)
    if begin and begin == known.get("total"):
        begin -= 1  # the last byte again tells whether it is still the same file
    opened = remote.open(path, begin, str(known.get("tag", "")))
    if opened is None:
        raise ExchangeError(
            f"there is neither {path} nor an index of it at {remote.name} (404). Check the address; a web server cannot be "
            "asked what it has, so give the name of the bundle."
        )
    with closing(opened):
        if opened.total is None:
            raise ExchangeError(
                f"{where}: the server does not say how long the file is; an endless one is not fetched."
            )
        if opened.start and (known.get("total") != opened.total or known.get("tag", "") != opened.tag):
            files.remove(part)  # it is another file by now
            raise PassingError(f"{where} was changed while it was fetched.")
        if not opened.start:
            files.remove(part)
            meter.there_bytes = 0
            check_room(part.parent, opened.total, where)
            _note(note, {**known, "tag": opened.tag, "total": opened.total})
        meter.total_bytes = opened.total
        _receive(opened, part, where, meter)


def _receive(opened: Opened, part: Path, where: str, meter: Meter) -> None:
    position = opened.start
    with part.open("r+b" if position else "wb", buffering=0) as file:
        file.seek(position)
        for piece in opened.pieces:
            if position < 4 and not piece.startswith(_MAGIC[: len(piece)]) and not position:
                raise BundleError(
                    f"{where} is no bundle: it begins with {piece[:16]!r}. Is it a page that leads to the file?"
                )
            position += len(piece)
            meter.moved(len(piece))
            if position > (opened.total or 0):
                raise ExchangeError(
                    f"{where} goes on after the {opened.total:,} bytes that the server spoke of. Nothing of it was used."
                )
            file.write(piece)
    if position != opened.total:
        raise PassingError(f"{where} ended after {position:,} of {opened.total:,} bytes.")


def _forget_others(folder: Path, part: Path, source: str) -> None:
    """What was arriving from somewhere else is no beginning of this."""
    note = part.with_suffix(".note")
    if _noted(note).get("source") != source:
        files.remove(part)
        _note(note, {"source": source})


def _noted(note: Path) -> dict[str, object]:
    try:
        found = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note(note: Path, content: dict[str, object]) -> None:
    beside = note.with_suffix(".new")
    beside.write_text(json.dumps(content))
    beside.replace(note)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
