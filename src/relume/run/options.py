"""What a run may be given besides the objects that it trains: one list for all who open a run for somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from relume.checkpoint import Keep
from relume.errors import closest
from relume.run.companions import Companion
from relume.run.delivering import Wanted
from relume.run.stopping import EarlyStopping
from relume.transfer.schedule import FreezeSchedule

ROOT = "runs"
"""Where runs are stored when nothing else is said."""


class RunOptions(TypedDict, total=False):
    """Arguments of :class:`relume.Run`, which describes them; what is left out has its default there."""

    root: str | Path
    config: Any
    track: Mapping[str, Any] | None
    every: str | Iterable[str] | bool | None
    keep: Keep | None
    stop: EarlyStopping | None
    mirror: str | Path | None
    resume: bool | str | int | Path | None
    from_checkpoint: str | Path | None
    override: str | Iterable[str]
    max_time: float | str | None
    freeze: FreezeSchedule | None
    tags: str | Iterable[str]
    notes: str | None
    trackers: Wanted
    watch: Iterable[Companion] | Companion | bool | None


NAMES = frozenset(RunOptions.__optional_keys__)


def check_names(options: Mapping[str, Any], function: str) -> None:
    """Raise TypeError for what is no option of a run, with the closest names."""
    for name in options:
        if name not in NAMES:
            raise TypeError(f"{function} has no argument {name!r}: {closest(name, NAMES)}")


def given(options: Mapping[str, Any]) -> list[str]:
    """The names of the options that say something else than their defaults."""
    return [name for name, value in options.items() if not _is_default(name, value)]


def _is_default(name: str, value: Any) -> bool:
    if name in ("override", "tags"):
        return not value
    return str(value) == ROOT if name == "root" else value is None
