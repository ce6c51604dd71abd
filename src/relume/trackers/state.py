"""What is known of one tracker of one run: how far it was delivered, and how it is. ``RUN/trackers/<name>.json``."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import portalocker

from relume.monitor.record import Process

FOLDER = "trackers"
Stage = Literal["new", "opening", "delivering", "waiting", "failed", "left", "done"]


@dataclass
class State:
    """The place of a tracker in the journal, and what a person would want to know of it.

    Attributes:
        spec: how to rebuild the tracker in another process; None where that cannot be done.
        segment, offset: all before it in the journal was given, and has arrived.
        until: where the lines end that are being given: a process that is killed leaves it in doubt which of them arrived.
        first: the smallest step that must be given once more (of trackers that forget), until that is done.
        given: for each segment, how far it was ever given, whatever became of it.
        remembered: what the tracker's ``open`` returned.
        delivered, left_out: lines.
        busy_since: when the call began that the tracker has not come back from; None between calls.
        ended: the status with which the tracker was closed; None while there may be more.
    """

    spec: dict[str, Any] | None = None
    stage: Stage = "new"
    segment: int = 0
    offset: int = 0
    until: int | None = None
    first: int | None = None
    given: dict[str, int] = field(default_factory=dict)
    remembered: dict[str, Any] = field(default_factory=dict)
    delivered: int = 0
    left_out: int = 0
    skipped_kinds: list[str] = field(default_factory=list)
    error: str | None = None
    busy_since: float | None = None
    ended: str | None = None
    process: dict[str, Any] | None = None
    format: int = 1

    def save(self, path: Path) -> None:
        """Replace the file whole. It is not forced to the disk: that would cost the training's disk more than it is worth."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(asdict(self), ensure_ascii=True), "utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> State:
        """What the file says; a missing or damaged one says that nothing was delivered."""
        try:
            held = json.loads(path.read_text("utf-8"))
            state = cls(**{f.name: held[f.name] for f in fields(cls) if f.name in held})
            if not (type(state.segment) is type(state.offset) is int and isinstance(state.given, dict)):
                raise ValueError("its place is no number")
        except (OSError, ValueError, TypeError):
            return cls()
        return state

    def is_alive(self) -> bool:
        """Whether the process that delivers is there still."""
        try:
            process = Process.model_validate(self.process)
        except ValueError:
            return False
        return process.is_here() and process.is_alive()

    def stuck_seconds(self) -> float:
        """How long the tracker has not come back from a call."""
        return 0.0 if self.busy_since is None else max(0.0, time.time() - self.busy_since)


def state_path(run_folder: Path, name: str) -> Path:
    return run_folder / FOLDER / f"{name}.json"


def states_in(run_folder: Path) -> dict[str, Path]:
    """The trackers that a run has had, by name."""
    return {path.stem: path for path in sorted((run_folder / FOLDER).glob("[!.]*.json"))}


@contextlib.contextmanager
def held(run_folder: Path, name: str) -> Iterator[bool]:
    """Hold the right to deliver to a tracker; yields False where another process, or thread, has it.

    Where the file system has no locks, the process that the state names tells.
    """
    with (run_folder / FOLDER / f"{name}.lock").open("a") as file:
        try:
            portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.AlreadyLocked:
            yield False
            return
        except portalocker.LockException:
            yield not State.load(state_path(run_folder, name)).is_alive()
            return
        try:
            yield True
        finally:
            portalocker.unlock(file)  # a forked child has a copy of the open file
