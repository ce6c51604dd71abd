"""Where a run stands in its data: the seed, and how far it has come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relume.monitor import RunRecord, status_of
from relume.monitor.index import ask

_PLACE = ("epoch", "batch", "step", "samples")


def order(folder: Path, record: RunRecord | None, saved: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The seed, ``epoch`` (those done), ``step`` and ``samples`` as the journal has them, and ``checkpoint``.

    Which samples are in a batch depends on (seed, epoch, number of the batch) alone, so this says all of the order.

    Returns:
        ``batch`` is None while no checkpoint says it; ``checkpoint`` is where a resume begins, None where there is none.
    """
    line = status_of(folder)[1]
    good = [one for one in saved if not one["problem"] and one["step"] is not None]
    newest: dict[str, Any] | None = (
        {"name": good[-1]["name"], **{name: good[-1][name] for name in _PLACE}} if good else None
    )
    found = {"seed": None if record is None else record.seed, **_place(folder, line), "checkpoint": newest}
    if newest is not None and (newest["step"], newest["epoch"]) == (found["step"], found["epoch"]):
        found |= {name: newest[name] for name in ("batch", "samples")}
    return found


def _place(folder: Path, line: Mapping[str, Any]) -> dict[str, Any]:
    """Of the newest line; a line of values counts the epoch that goes on, events those that are done."""
    query = "SELECT content FROM event ORDER BY segment DESC, line DESC LIMIT 20"
    events = [json.loads(content) for (content,) in ask(folder, lambda one: one.execute(query).fetchall())]
    newest: dict[str, Any] = next((event for event in events if type(event.get("samples")) is int), {})
    step = max((one["step"] for one in (line, newest) if type(one.get("step")) is int), default=0)
    samples = newest.get("samples") if newest.get("step") == step else None
    return {"epoch": newest.get("epoch", 0), "batch": None, "step": step, "samples": samples}
