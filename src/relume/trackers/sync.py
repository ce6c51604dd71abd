"""Deliver what is left of a run: from any later process, as often as one likes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from relume.errors import RelumeError, RunError
from relume.monitor.record import RunRecord, status_of
from relume.text import counted
from relume.trackers.follow import Follower
from relume.trackers.rebuilding import rebuild, spec_of, trackers_of
from relume.trackers.state import FOLDER, State, held, state_path, states_in


@dataclass(frozen=True)
class Synced:
    """What became of one tracker of one run.

    Attributes:
        is_complete: everything has arrived.
        delivered: lines that were given now.
        text: the same in words.
    """

    run: str
    tracker: str
    is_complete: bool
    delivered: int
    text: str


def sync(run_folder: Path, to: Iterable[str] = ()) -> list[Synced]:
    """Deliver what is left to each tracker that a run has had, and to those named by ``to``.

    Raises:
        RunError: this is no run.
        UnknownNameError: ``to`` names no tracker.
    """
    RunRecord.load(run_folder)
    specs = {name: State.load(path).spec for name, path in states_in(run_folder).items()}
    for tracker in trackers_of(list(to)):
        if specs.get(tracker.name) is None:
            specs[tracker.name] = spec_of(tracker)
    (run_folder / FOLDER).mkdir(exist_ok=True)
    return [_sync(run_folder, name, spec) for name, spec in specs.items()]


def _sync(folder: Path, name: str, spec: dict[str, object] | None) -> Synced:
    before = State.load(state_path(folder, name))
    if spec is None:
        text = "was an object of the training's own process, which alone can feed it: resume the run with it"
        is_complete = before.stage == "done"
        return Synced(folder.name, name, is_complete, 0, "has everything" if is_complete else text)
    with held(folder, name) as is_mine:
        if not is_mine:
            pid = (before.process or {}).get("pid", "?")
            return Synced(folder.name, name, False, 0, f"is being fed by process {pid} now")
        try:
            tracker = rebuild(spec)
            tracker.check()
            state = Follower(folder, tracker, spec, lambda seconds: _pause(folder, seconds)).run()
        except RelumeError as error:
            if not isinstance(error, (RunError, ImportError)):
                raise
            return Synced(folder.name, name, False, 0, f"fails: {error}")
    new = state.delivered - before.delivered
    if state.error and state.stage in ("failed", "left"):
        return Synced(
            folder.name, name, False, new, f"fails ({state.error}); {counted(new, 'line')} delivered before that"
        )
    what = f"{counted(new, 'line')} delivered" if new else "has everything"
    if state.stage != "done":
        what += "; the run goes on"
    if state.left_out:
        what += f"; {counted(state.left_out, 'line')} it could not take"
    return Synced(folder.name, name, True, new, what)


def _pause(folder: Path, seconds: float) -> bool:
    """A run that goes on is not followed further."""
    if status_of(folder)[0] == "running":
        return True
    time.sleep(seconds)
    return False
