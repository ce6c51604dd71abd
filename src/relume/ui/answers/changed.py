"""Whether a run's files have changed, from what the file system says of them: 20 microseconds a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from relume.monitor.edits import FILE as EDITS
from relume.monitor.record import was_begun

Key = tuple[tuple[str, int, int, int], ...]
"""Name, size, time of change and number of each file that counts."""

_RECORD = "run.json"


def keys_below(root: Path) -> dict[str, Key]:
    """The key of each run below the root, by its folder's name; what cannot be looked at is not there."""
    try:
        with os.scandir(root) as entries:
            folders = [entry for entry in entries if entry.is_dir()]
    except OSError:
        return {}
    return {entry.name: key for entry in folders if (key := key_of(entry.path)) is not None}


def key_of(folder: str | Path) -> Key | None:
    """What changes when a run's record, edits or journal do; None for what is no run.

    A folder that has lost its ``run.json`` is one as long as all in it is a run's.
    """
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry for entry in entries}
    except OSError:
        return None
    journal = sorted(_states(found["journal"])) if "journal" in found else []
    if _RECORD not in found and not (journal and was_begun(Path(folder))):
        return None
    small = [found[name] for name in (_RECORD, EDITS) if name in found]
    return (*(_state(entry) for entry in small), *journal)


def _states(folder: os.DirEntry[str]) -> Iterator[tuple[str, int, int, int]]:
    try:
        with os.scandir(folder.path) as entries:
            yield from map(_state, entries)
    except OSError:
        return


def _state(entry: os.DirEntry[str]) -> tuple[str, int, int, int]:
    try:
        found = entry.stat()
    except OSError:
        return entry.name, -1, 0, 0
    return entry.name, found.st_size, found.st_mtime_ns, found.st_ino
