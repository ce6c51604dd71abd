"""How far the passes over loaders are: each call of ``run.batches`` within an epoch is one, with a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relume.data import Stream


class Passes:
    """The passes of the present epoch, or of a run without epochs.

    Attributes:
        count: calls of ``run.batches`` so far.
        closed: of these, how many whose code behind the loop was run too.
        leader: the number of the pass whose batches are the run's; None outside of loops.
        progress: batches handed out, by the number of the pass.
    """

    def __init__(self) -> None:
        self.count = 0
        self.closed = 0
        self.leader: int | None = None
        self.progress: dict[int, int] = {}
        self._open: dict[int, Stream] = {}
        self._states: dict[int, Any] = {}
        self._lengths: dict[int, Any] = {}

    def begin(self) -> int:
        """The number of a new pass."""
        number, self.count = self.count, self.count + 1
        return number

    def enter(self, number: int, stream: Stream) -> None:
        self._open[number] = stream

    def leave(self, number: int, leads: bool) -> None:
        self._open.pop(number, None)
        if leads:
            self.leader = None

    def end_epoch(self) -> None:
        self.count = self.closed = 0
        self.progress.clear()

    def is_newest(self, number: int) -> bool:
        """Whether no pass behind this one has begun or, before a resume, had."""
        return number >= max(self.progress, default=0) and number >= self.closed

    @property
    def are_open(self) -> bool:
        return bool(self._open)

    def take_state(self, number: int) -> Any:
        """Where the stream of a pass stood when the checkpoint was made, once."""
        return self._states.pop(number, None)

    def take_length(self, number: int, length: Any) -> Any:
        """How long the stream of a pass was when its epoch began; its present ``length`` where the epoch begins now."""
        return self._lengths.pop(number, length) if self.progress.get(number, 0) else length

    def streams(self) -> dict[int, Any]:
        """The states of those that are being read, for a checkpoint."""
        return {number: stream.state_dict() for number, stream in self._open.items()}

    def lengths(self) -> dict[int, Any]:
        return {number: stream.length for number, stream in self._open.items()}

    def load(self, saved: Mapping[str, Any], streams: Mapping[int, Any]) -> None:
        self.progress.update(saved.get("progress", {}))
        self.closed = int(saved.get("closed", 0))
        self._lengths = dict(saved.get("lengths", {}))
        self._states = {number: state for number, state in streams.items() if state is not None}
