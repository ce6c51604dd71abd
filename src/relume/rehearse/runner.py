"""Starting the script, killing it, and starting it again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relume.processes import child, kill_group
from relume.rehearse.kills import Kill, Trigger, steps_reached

_POLL_SECONDS = 0.002
_TAIL_LINES = 30

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Command:
    """What is started: the interpreter with the script and its arguments, in the present directory."""

    arguments: Sequence[str]
    timeout_seconds: float | None = None


@dataclass(frozen=True)
class Start:
    """One start of the script, and how it ended.

    Attributes:
        status: its exit status; negative for a signal.
        kill: the kill that ended it, if one did.
        tail: the last lines that it printed.
        steps: how far the runs had come by then.
        has_timed_out: whether it was ended because it took too long.
    """

    status: int
    seconds: float
    tail: str
    kill: Kill | None = None
    steps: Mapping[str, int] = field(default_factory=dict)
    has_timed_out: bool = False


@dataclass(frozen=True)
class Execution:
    """The script from its first start until it ended by itself, and where its runs are."""

    root: Path
    starts: Sequence[Start]

    @property
    def kills(self) -> list[Start]:
        return [start for start in self.starts if start.kill is not None]

    @property
    def seconds(self) -> float:
        return sum(start.seconds for start in self.starts)

    @property
    def has_failed(self) -> bool:
        return self.starts[-1].status != 0


def execute(
    command: Command,
    root: Path,
    *,
    kills: Sequence[Kill] = (),
    every: str | None = None,
    environment: Mapping[str, str] | None = None,
    notice: Notice = lambda text: None,
) -> Execution:
    """Run the script with its runs below ``root``; kill it at each of ``kills`` and start it again each time.

    Ends when the script ends by itself, well or badly, or takes longer than the command's timeout. What it started is
    killed when this is interrupted.
    """
    root.mkdir(parents=True, exist_ok=True)
    changed = {"RELUME_ROOT": str(root), "RELUME_REHEARSAL": "1", "WANDB_MODE": "disabled", **(environment or {})}
    if every is not None:
        changed["RELUME_EVERY"] = every
    starts: list[Start] = []
    waiting = list(kills)
    while True:
        kill = waiting.pop(0) if waiting else None
        output = root.parent / f"{root.name}-{len(starts) + 1}.txt"
        start = _start(command, {**os.environ, **changed}, root, kill, output)
        starts.append(start)
        if start.kill is None:
            return Execution(root, starts)
        notice(f"kill {len(starts)} of {len(kills)}")


def _start(command: Command, environment: Mapping[str, str], root: Path, kill: Kill | None, output: Path) -> Start:
    trigger = Trigger(kill, root) if kill is not None else None
    began = time.monotonic()
    with output.open("wb") as file, child(command.arguments, environment, file.fileno()) as process:
        is_killed = has_timed_out = False
        while process.poll() is None:
            now = time.monotonic()
            is_killed = trigger is not None and trigger.is_due(now)
            has_timed_out = command.timeout_seconds is not None and now - began > command.timeout_seconds
            if is_killed or has_timed_out:
                kill_group(process)
                break
            time.sleep(_POLL_SECONDS if trigger is not None else 10 * _POLL_SECONDS)
        status = process.wait()
    is_killed = is_killed and status < 0  # and did not end by itself in the very moment
    return Start(
        status=status,
        seconds=time.monotonic() - began,
        tail=_tail(output),
        kill=kill if is_killed else None,
        steps=steps_reached(root) if is_killed else {},
        has_timed_out=has_timed_out,
    )


def _tail(output: Path) -> str:
    return "\n".join(output.read_text("utf-8", "replace").splitlines()[-_TAIL_LINES:])
