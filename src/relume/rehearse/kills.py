"""When to kill: moments spread over the undisturbed run, told by its journals."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

from relume.monitor import runs_in
from relume.monitor.journal import segments
from relume.rehearse.journals import live_lines, newest_step

Moment = Literal["step", "save", "resume"]
_MOMENTS: tuple[Moment, ...] = ("step", "save", "step", "resume", "step")
_RESUME_DELAY_SECONDS = 0.3


@dataclass(frozen=True)
class Kill:
    """One kill that is planned.

    Attributes:
        run, step: it waits until that run has come to that step,
        delay_seconds: and so long again: into an evaluation, say;
        moment: then kills at once (``"step"``), in the next save (``"save"``); ``"resume"`` waits for no step, but for
            the process to take the run up again.
        patience_seconds: how long it waits for a save that may never come.
    """

    run: str
    step: int
    delay_seconds: float
    moment: Moment
    patience_seconds: float


def plan(root: Path, count: int, seed: int) -> list[Kill]:
    """``count`` moments, in order, one in each of as many equal stretches of the time that the runs took.

    Random moments of time, and not random steps, so that evaluations, saves and what else takes time get their share.
    """
    timeline = sorted(
        (line.time, folder.name, line.step) for folder in runs_in(root) for line in live_lines(folder) if line.time
    )
    if not timeline:
        return []
    rng = random.Random(seed)
    times = [time for time, _, _ in timeline]
    stretch = (times[-1] - times[0]) / max(count, 1)
    kills = []
    for number, moment in enumerate(islice(cycle(_MOMENTS), count)):
        time = times[0] + (number + rng.random()) * stretch
        start, run, step = timeline[max(bisect_right(times, time) - 1, 0)]
        delay = rng.random() * _RESUME_DELAY_SECONDS if moment == "resume" else max(time - start, 0.0)
        kills.append(Kill(run, step, delay, moment, patience_seconds=stretch))
    return kills


class Trigger:
    """Watches the journals below ``root`` and says when a kill is due. Poll it every few milliseconds."""

    def __init__(self, kill: Kill, root: Path) -> None:
        self.kill = kill
        self._root = root
        self._segments = self._count_segments()
        self._reached: float | None = None
        self._saved: frozenset[Path] | None = None

    def is_due(self, now: float) -> bool:
        """Whether to kill; ``now`` is a time in seconds that only grows."""
        if self._reached is None and self._is_reached():
            self._reached = now
        if self._reached is None or now < self._reached + self.kill.delay_seconds:
            return False
        return self.kill.moment != "save" or self._is_saving() or now > self._patience_ends()

    def _is_reached(self) -> bool:
        if self.kill.moment == "resume":
            return self._count_segments() > self._segments
        return newest_step(self._root / self.kill.run) >= self.kill.step

    def _is_saving(self) -> bool:
        """Whether a save has begun, or (one of a small model is over in a millisecond) has just ended."""
        saved = frozenset(self._root.glob("*/checkpoints/*.json"))
        before, self._saved = self._saved, saved
        if before is not None and saved > before:
            return True
        staging = self._root / "store" / "staging"
        return any(staging.glob("*")) or any(self._root.glob("*/checkpoints/.*.json.tmp"))

    def _patience_ends(self) -> float:
        return (self._reached or 0.0) + self.kill.delay_seconds + self.kill.patience_seconds

    def _count_segments(self) -> int:
        return sum(len(segments(folder)) for folder in runs_in(self._root))


def steps_reached(root: Path) -> dict[str, int]:
    """How far each run below ``root`` has come."""
    return {folder.name: newest_step(folder) for folder in runs_in(root)}


def largest_step(root: Path) -> int:
    """The largest step that any run below ``root`` counted."""
    return max((line.step for folder in runs_in(root) for line in live_lines(folder)), default=0)


def spacing(steps: int, kills: int, checkpoint_bytes: int, free_bytes: int) -> int:
    """After how many steps to save, so that kills fall between checkpoints, in the middle of epochs too.

    About four checkpoints for each kill, and fewer where they would take more than half of the disk's free room.

    Example:
        >>> spacing(steps=200, kills=5, checkpoint_bytes=10**6, free_bytes=10**9)
        10
        >>> spacing(steps=200, kills=5, checkpoint_bytes=10**8, free_bytes=10**9)
        40
    """
    wanted = 4 * max(kills, 1)
    room = max(free_bytes // 2 // max(checkpoint_bytes, 1), 1)
    return max(-(-steps // min(wanted, room)), 1)


def describe(kill: Kill, steps: Sequence[tuple[str, int]]) -> str:
    """Where a kill fell, for people."""
    where = ", ".join(f"{run} at step {step}" if step >= 0 else f"{run} at its start" for run, step in steps)
    what = {"step": "", "save": " (in or right after a save)", "resume": " (while it carried on)"}[kill.moment]
    return f"{where or 'before any run'}{what}"
