"""When which block of a model was trained, and at which rate."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from relume.monitor import points
from relume.monitor.index import ask
from relume.monitor.journal import number, when

_MOST_PHASES = 2000


def freezing(folder: Path) -> dict[str, Any] | None:
    """The phases of a run, one behind the other; None where nothing of it was ever frozen.

    Returns:
        ``blocks``, the model's in its order, and ``phases``: each with ``number`` (0: frozen before the run began),
        ``first_step`` and ``first_epoch`` (updates, and epochs, done when it began), ``last_step`` and ``last_epoch`` (None
        while it goes on), ``text``, the places of its ``trained`` and ``partly`` trained blocks, and ``lr`` by block. Of
        turns in great number the newest are there, and ``left_out`` counts the others.
    """
    said, turns, rates, end = ask(folder, _read)
    blocks = list(dict.fromkeys(block for event in said for block in _texts(event.get("blocks"))))
    starts = [*_static(said), *_turns(said, turns, rates)]
    if not starts:
        return None
    phases = [_phase(*start, blocks) for start in sorted(starts, key=lambda start: start[0])]
    phases = [one for place, one in enumerate(phases) if not place or not _is_same(one, phases[place - 1])]
    for one, following in itertools.pairwise(phases):
        one["last_step"], one["last_epoch"] = following["first_step"], following["first_epoch"]
    if end is not None:
        phases[-1] |= {"last_step": end[0], "last_epoch": end[1]}
    return {"blocks": blocks, "phases": phases[-_MOST_PHASES:], "left_out": max(0, len(phases) - _MOST_PHASES)}


_Event = Mapping[str, Any]
_Start = tuple[tuple[int, int], _Event, float | None]  # (step, epoch), what is known of the phase, its largest rate


def _read(
    connection: sqlite3.Connection,
) -> tuple[list[_Event], points.Points | None, dict[int, float], tuple[int, int] | None]:
    """What was said of phases, when each began and at which largest rate, and where the run ended."""
    query = "SELECT content FROM event WHERE kind IN ('freeze', 'end') ORDER BY segment, line"
    events = [json.loads(content) for (content,) in connection.execute(query)]
    known = points.metrics(connection)
    turns = points.read(connection, known["freeze/phase"]) if "freeze/phase" in known else None
    rates = points.read(connection, known["freeze/lr"]) if "freeze/lr" in known else None
    by_step = {} if rates is None else dict(zip(rates["step"].tolist(), rates["value"].tolist(), strict=True))
    end = when(events[-1])[:2] if events and events[-1]["event"] == "end" else None
    return [event for event in events if event["event"] == "freeze"], turns, by_step, end


def _static(said: list[_Event]) -> Iterator[_Start]:
    for event in said:
        if event.get("phase") == 0:
            yield when(event)[:2], event, None


def _turns(said: list[_Event], turns: points.Points | None, rates: Mapping[int, float]) -> Iterator[_Start]:
    """Each change of the phase, with what was said of it: at that step, or else of its number before."""
    at = {(when(event)[0], event.get("phase")): event for event in said}
    newest: dict[int, _Event] = {}
    for turn in turns if turns is not None else ():
        step, phase = int(turn["step"]), int(np.nan_to_num(turn["value"]))
        newest[phase] = at.get((step, phase), newest.get(phase, {"phase": phase}))
        yield (step, max(0, int(turn["epoch"]) - 1)), newest[phase], rates.get(step)


def _phase(place: tuple[int, int], event: _Event, rate: float | None, blocks: list[str]) -> dict[str, Any]:
    found = {"number": event.get("phase", 0), "first_step": place[0], "last_step": None}
    found |= {"first_epoch": place[1], "last_epoch": None, "text": str(event.get("text", ""))}
    places = {block: number for number, block in enumerate(blocks)}
    for name in ("trained", "partly"):
        found[name] = [places[block] for block in _texts(event.get(name)) if block in places]
    rates = event.get("lr")
    known = {name: number(value) for name, value in rates.items()} if isinstance(rates, Mapping) else {}
    found["lr"] = {name: value for name, value in known.items() if value is not None and name in places}
    return found | {"largest_lr": max(found["lr"].values(), default=rate)}


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """A run that is started again says once more what is frozen."""
    return all(one[name] == other[name] for name in ("number", "trained", "partly", "lr"))


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
