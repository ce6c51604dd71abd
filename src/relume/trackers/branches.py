"""Which lines of a journal a tracker has been given, and which of them count no more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relume.monitor.journal import branch, live_ranges, read_lines
from relume.trackers.state import State

_MOST_GIVEN = 2_000_000


@dataclass(frozen=True)
class Fork:
    """Where a delivery goes on.

    Attributes:
        segment, offset: the place of the first line to give.
        first: the smallest step of lines that were given and count no more, or that are in doubt.
        is_dead: whether a part of what was given counts no more.
    """

    segment: int
    offset: int
    first: int | None
    is_dead: bool


def fork(run_folder: Path, state: State) -> Fork:
    """Compare what was given with what counts now."""
    live = live_ranges(run_folder)
    ends = {int(path.stem): _end(path, end) for path, end in live}
    given = {int(path.stem): end or 0 for path, end in branch(run_folder, state.segment, state.offset)}
    first, is_dead = state.first, False
    for path, end in branch(run_folder, state.segment, max(state.offset, state.until or 0)):
        number, begin = int(path.stem), min(ends.get(int(path.stem), 0), given.get(int(path.stem), 0))
        is_dead |= ends.get(number, 0) < (end or 0)
        first = _least(first, _first_step(path, begin, end or 0))
    for path, _ in live:
        number = int(path.stem)
        if given.get(number, 0) < ends[number] or path == live[-1][0]:
            return Fork(number, min(given.get(number, 0), ends[number]), first, is_dead)
    return Fork(state.segment, state.offset, first, is_dead)


def dead_values(run_folder: Path, given: Mapping[str, int]) -> set[int]:
    """Marks (see :func:`mark`) of numbers and media that were given and count no more; at most two million."""
    ends = {int(path.stem): _end(path, end) for path, end in live_ranges(run_folder)}
    found: set[int] = set()
    for number, until in given.items():
        path, begin = run_folder / "journal" / f"{int(number):04d}.jsonl", ends.get(int(number), 0)
        if begin >= until or not path.exists():
            continue
        for _, line in _between(path, begin, until):
            for name, content in (contents(line) if line else {}).items():
                found.add(mark(line["step"], name, content))  # type: ignore[index]
            if len(found) > _MOST_GIVEN:
                return found
    return found


def mark(step: Any, name: str, content: Any) -> int:
    """A number that is the same for the same content of one name at one step."""
    return hash(
        (step, name, content if isinstance(content, (int, float, str)) else json.dumps(content, sort_keys=True))
    )


def contents(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a line says at its step: numbers or media by name; nothing for events."""
    for key in ("values", "media"):
        if isinstance(line.get(key), dict) and type(line.get("step")) is int:
            held: Mapping[str, Any] = line[key]
            return held
    return {}


def lines_before(run_folder: Path, segment: int, offset: int) -> Iterator[dict[str, Any]]:
    """The lines that count before a place on the live branch."""
    for path, end in live_ranges(run_folder):
        number = int(path.stem)
        for _, line in _between(path, 0, offset if number == segment else _end(path, end)):
            if line is not None:
                yield line
        if number == segment:
            return


def _between(path: Path, begin: int, end: int) -> Iterator[tuple[int, dict[str, Any] | None]]:
    for behind, line in read_lines(path, begin):
        if behind > end:
            return
        yield behind, line


def _first_step(path: Path, begin: int, end: int) -> int | None:
    first = None
    if begin < end:
        for _, line in _between(path, begin, end):
            if line and contents(line):
                first = _least(first, line["step"])
    return first


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def _end(path: Path, end: int | None) -> int:
    return path.stat().st_size if end is None else end
