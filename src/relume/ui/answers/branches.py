"""Dead branches that stay read between questions: each chart of a run asks for them, at each zoom."""

from __future__ import annotations

import threading
from pathlib import Path

from relume.monitor.journal import live_ranges, segments
from relume.recorded.reading import Series, dead_branches

_MOST_POINTS = 4_000_000
"""Of all runs together: 32 bytes each."""

_Key = tuple[tuple[str, int, int, int], ...]

_known: dict[Path, tuple[_Key, list[Series]]] = {}
_lock = threading.Lock()


def branches_of(folder: Path) -> list[Series]:
    """As `relume.recorded.reading.dead_branches`; what is dead does not change, and is read once."""
    key = _key_of(folder)
    if not key:
        return []
    with _lock:
        known = _known.pop(folder, None)
        if known is None or known[0] != key:
            known = (key, dead_branches(folder))
        _known[folder] = known  # behind the others: what was asked for last is kept longest
        while len(_known) > 1 and sum(_points(found) for _, found in _known.values()) > _MOST_POINTS:
            del _known[next(iter(_known))]
    return known[1]


def _key_of(folder: Path) -> _Key:
    """Where the dead parts of the journal stand; empty where there are none."""
    live = dict(live_ranges(folder))
    dead = [(path, begin) for path in segments(folder) if (begin := live.get(path, 0)) is not None]
    states = [(path.name, begin, path.stat()) for path, begin in dead]
    return tuple((name, begin, state.st_size, state.st_mtime_ns) for name, begin, state in states)


def _points(branches: list[Series]) -> int:
    return sum(len(points) for branch in branches for points in branch.values())
