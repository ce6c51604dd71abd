"""What a tracker is: it is told what a run logged, in order, away from the training.

A tracker never sees the training. Something else follows the run's journal (a process of its own, or a thread where the
tracker cannot be rebuilt in another process) and tells it of each line that counts, once. What a tracker does with it may
take long, fail or hang: the training does not notice, the journal has it all, and what is left is delivered later.
"""

# ruff: noqa: B027 - what a tracker cannot do, it need not override

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

EndStatus = Literal["finished", "interrupted", "failed", "killed"]

KINDS = frozenset(
    ("image", "histogram", "text", "mesh", "graph", "table", "figure", "pr_curve", "confusion_matrix", "hparams")
)
"""All kinds of media that a journal holds."""


@dataclass(frozen=True)
class RunFacts:
    """The run that is delivered, as it stands when the tracker is opened.

    Attributes:
        folder: the run's folder; the files of media are given relative to it.
        segment: the number of the execution (1 for the first, one more for each resume).
        lineage: the checkpoint of another run that it began from, or None.
        provenance: ``provenance.json`` of the run, where there is one.
        created: seconds since 1970.
        is_ended: whether the run's process is gone: what follows comes late.
        remembered: what this tracker's :meth:`Tracker.open` returned the last time; empty the first time.
    """

    folder: Path
    name: str
    id: str
    root: Path
    segment: int
    config: Mapping[str, Any]
    seed: int
    tags: tuple[str, ...] = ()
    notes: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    lineage: Mapping[str, Any] | None = None
    provenance: Path | None = None
    created: float = 0.0
    is_ended: bool = False
    remembered: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Resumed:
    """The run went back to a checkpoint, or the delivery was cut off in the middle of a line or two.

    Attributes:
        step: the step from which the run goes on: what this tracker was given beyond it counts no more.
        epoch: epochs done at that step.
        first: the smallest step among the lines that this tracker was given and that count no more, or that may or may
            not have arrived when its last process was killed; None where there are none. It may be ``step`` itself (a line
            logged at the checkpoint's step, but behind it) or below (steps may be logged in any order).
        is_new_segment: whether the run itself was started again; False: only the delivery was.
    """

    step: int
    epoch: int
    first: int | None = None
    is_new_segment: bool = True


@dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        reason: in a person's words; empty where the run was killed.
        seconds: what it took, all its executions together; 0 where that is not known.
        last, best: the newest and the best value of each metric (smaller or larger is better by its name).
    """

    status: EndStatus
    reason: str = ""
    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    last: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)


class Tracker(ABC):
    """Override what the tracker can do; only :meth:`open` and :meth:`values` are needed.

    A tracker that is a dataclass of a module (not of a script or a notebook) whose fields are plain values (texts,
    numbers, booleans, None, lists and mappings of such) is rebuilt in a process of its own. Any other lives in a thread of the
    training's process: then it shares the interpreter with it. Fields that look like secrets (``api_token="..."``) are not
    kept in the run's folder: for ``relume sync``, let such a field have a default, and read it from the environment.

    All calls come from one thread, one at a time, in the journal's order. Any of them may raise: an ``OSError`` (a full
    disk, no network) is tried again later, for as long as the run goes on, with the same line; any other error twice, then
    the line is left out and counted. A tracker whose process was killed is opened again, with what it ``remembered``.

    Attributes:
        name: names the tracker in messages and its state in the run's folder (``trackers/<name>.json``): letters, digits,
            ``-`` and ``_``. Two trackers of one run need different names.
        kinds: the kinds of media that it can show, of :data:`KINDS`. Others are skipped, and that is said once.
        forgets: True where :meth:`open` with ``resumed.first`` takes away everything at steps from there on: what of that
            still counts is given once more. False where nothing can be taken away: then numbers and media that the
            run logs once more, the same to the last bit, are not given a second time; those that differ are, at a
            step at which the tracker has another value already.
    """

    name: str = ""
    kinds: frozenset[str] = frozenset()
    forgets: ClassVar[bool] = False

    def check(self) -> None:
        """Called when the run is made, in its process: whether this can work at all. Must be quick and import little.

        Raises:
            MissingPackageError: a package is needed.
            ConfigurationError: a field makes no sense.
        """

    @abstractmethod
    def open(self, run: RunFacts, resumed: Resumed | None) -> Mapping[str, Any] | None:
        """Begin, or go on: the first time, after a resume, after the tracker's process was killed, at ``relume sync``.

        Returns what to remember (plain values), such as ``{"id": ..., "url": ...}``; ``url`` is shown to the user. Given back
        as ``run.remembered`` the next time.
        """

    @abstractmethod
    def values(self, step: int, epoch: int, time: float, values: Mapping[str, float]) -> None:
        """Numbers of one line. NaN and infinity are there as such; ``time`` is in seconds since 1970."""

    def media(self, step: int, epoch: int, time: float, name: str, content: Mapping[str, Any]) -> None:
        """One image, histogram, text, ...; ``content["kind"]`` is one of :attr:`kinds`; its files lie below ``run.folder``."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Anything else that the journal says: ``event["event"]`` is ``"note"``, ``"resume"``, ``"epoch_end"``, ...

        The last, ``"end"``, is not given here but to :meth:`close`.
        """

    def flush(self) -> None:
        """Make sure that what was given has arrived: from here on it will not be given again."""

    def close(self, end: End | None) -> None:
        """The run has ended; None: only this process ends, and the tracker is opened again later."""
