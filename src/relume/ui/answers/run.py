"""One run: how it stands, what it was made of, what it has saved, and how to go on with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from relume.errors import RelumeError, RunError
from relume.monitor import RunRecord
from relume.monitor.index import SYSTEM
from relume.monitor.journal import live_ranges, segments
from relume.provenance.record import Machine, Provenance, Segment
from relume.provenance.words import code_line, code_lines, data_lines
from relume.recorded.reading import dead_branches, resumes
from relume.ui.answers.checkpoints import checkpoints
from relume.ui.answers.commands import commands
from relume.ui.answers.freezing import freezing
from relume.ui.answers.order import order
from relume.ui.answers.plain import plain
from relume.ui.answers.runs import row_of

_DAMAGE = (RelumeError, OSError, ValueError, TypeError, KeyError, ArithmeticError)  # what a damaged folder may lead to
_MOST_LINES = 2000


def run(
    folder: Path, root: Path, directory: Path | None = None, row: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All that the page of one run shows, but for its curves, its console and its media.

    Args:
        root: the folder that holds the runs.
        directory: from which its commands are to be right; by default where this process is.
        row: its row among all runs, where that is known (see `runs.Listing`); it alone knows its ``place`` among them.

    What cannot be read is empty, and ``"problems"`` says why.
    """
    problems: list[str] = []

    def part(question: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return question()
        except _DAMAGE as error:
            problems.append(str(error))
            return otherwise

    row = row_of(folder) if row is None else row
    record = part(lambda: RunRecord.load(folder), None)
    saved = part(lambda: checkpoints(folder), {"rows": [], "disk_bytes": 0, "apart_bytes": 0, "metric": None})
    provenance = part(lambda: _provenance(folder), {})
    answer = {
        **row,
        "folder": str(folder),
        "versions": record.versions if record else {},
        "argv": record.argv if record else [],
        "lineage": record.lineage if record else None,
        "started_in": record.directory if record else "",
        "code": {"line": "", "lines": []},
        "environment": {},
        "packages": {},
        "data": [],
        **provenance,
        "checkpoints": saved,
        "commands": part(lambda: commands(folder, root, row, saved["rows"], directory), []),
        "order": part(lambda: order(folder, record, saved["rows"]), {}),
        "freeze": part(lambda: freezing(folder), None),
        "resumes": part(lambda: _resumes(folder), []),
        "branches": part(lambda: _branches(folder), []),
        "system": [name for name in row["metrics"] if name.startswith(SYSTEM)],
        "problems": problems,
    }
    found: dict[str, Any] = plain(answer)
    return found


def _resumes(folder: Path) -> list[dict[str, Any]]:
    return [{"step": step, "epoch": epoch, "time": time} for step, epoch, time in resumes(folder)]


def _branches(folder: Path) -> list[dict[str, Any]]:
    """What was logged and then done again, in the numbers of `series`."""
    live = dict(live_ranges(folder))
    parts = [(path, live.get(path, 0)) for path in segments(folder)]
    dead = tuple((path.name, begin, path.stat().st_size) for path, begin in parts if begin is not None)
    return _branches_of(folder, dead) if dead else []


@lru_cache(maxsize=32)
def _branches_of(folder: Path, dead: tuple[tuple[str, int, int], ...]) -> list[dict[str, Any]]:
    """Read once: parts of a journal that are dead do not change, and may be long."""
    found = []
    for number, branch in enumerate(dead_branches(folder), 1):
        first = min(int(points["step"].min()) for points in branch.values())
        last = max(int(points["step"].max()) for points in branch.values())
        points = sum(len(one) for one in branch.values())
        found.append({"number": number, "first_step": first, "last_step": last, "points": points})
    return found


# ---------------------------------------------------------------------------------------------------------- provenance


def _provenance(folder: Path) -> dict[str, Any]:
    """What the newest start of the run was made of."""
    try:
        segment = Provenance.load(folder).find()
    except RunError as error:
        return {"code": {"line": str(error), "lines": []}}
    lines = code_lines(segment.code) if segment.code is not None else []
    return {
        "code": {"line": code_line(segment), "lines": _at_most(lines)},
        "environment": _environment(segment),
        "packages": segment.packages,
        "data": _at_most(data_lines(segment)),
    }


def _at_most(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_LINES
    return lines if more <= 0 else [*lines[:_MOST_LINES], f"and {more:,} more lines"]


def _environment(segment: Segment) -> dict[str, Any]:
    """The machine, the numerics and the variables of the environment that matter, by name."""
    numerics = {name.replace("_", " "): value for name, value in segment.numerics.items()}
    known = {**_machine(segment.machine), **numerics, "directory": segment.directory}
    return {name: value for name, value in known.items() if value not in (None, "")} | segment.environment


def _machine(machine: Machine | None) -> dict[str, Any]:
    if machine is None:
        return {}
    gpus = [str(gpu.get("name", "GPU")) for gpu in machine.gpus]
    return {
        "host": machine.host,
        "system": machine.system,
        "python": machine.python,
        "interpreter": machine.interpreter,
        "processor": machine.cpu,
        "cores": machine.cores,
        "threads": machine.threads,
        "memory bytes": machine.memory_bytes,
        "GPU": ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)),
        "driver": machine.driver,
        "CUDA": machine.cuda,
        "cuDNN": machine.cudnn,
    }
