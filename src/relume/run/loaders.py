"""The loaders that a run reads: each has one exact, seekable stream, and perhaps another that is read in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from relume.data import Stream, stream_of


class Loaders:
    """The streams of one run's loaders, in the order in which they were met.

    Args:
        in_memory: see :class:`relume.Run`.
    """

    def __init__(self, in_memory: bool | None) -> None:
        self._in_memory = in_memory
        self._streams: dict[int, tuple[Any, Stream]] = {}
        self._instead: dict[int, Stream] = {}  # features in the place of samples, by the loader's id
        self._states: list[Any] = []
        self._said: set[str] = set()

    def stream(self, loader: Any, seed: int) -> Stream:
        """The stream of a loader; made once, and brought to where its checkpoint says."""
        known = self._streams.get(id(loader))
        if known is None:
            known = self._streams[id(loader)] = (loader, stream_of(loader, seed, self._in_memory))
            there = self._states.pop(0) if self._states else None
            if there is not None:
                known[1].load_state_dict(there)
        return known[1]

    def read(self, loader: Any, seed: int) -> Stream:
        """What is read for a loader: its stream, or what :meth:`put_instead` has put in its place."""
        stream = self.stream(loader, seed)
        return self._instead.get(id(loader), stream)

    def put_instead(self, loader: Any, stream: Stream | None) -> None:
        if stream is None:
            self._instead.pop(id(loader), None)
        else:
            self._instead[id(loader)] = stream

    def decisions(self, stream: Stream) -> Iterator[str]:
        """What there is to say of a stream, each text once."""
        for text in (stream.decision, *stream.notes):
            if text is not None and text not in self._said:
                self._said.add(text)
                yield f"data: {text}" if text is stream.decision else text

    @property
    def met(self) -> list[Any]:
        """The loaders as they were given."""
        return [loader for loader, _ in list(self._streams.values())]

    def state(self) -> list[Any]:
        """What of it is part of a checkpoint."""
        return [stream.state_dict() for _, stream in self._streams.values()]

    def load(self, states: list[Any]) -> None:
        """States for the loaders that will be met, in their order."""
        self._states = list(states)

    def close(self) -> None:
        for _, stream in self._streams.values():
            stream.close()
