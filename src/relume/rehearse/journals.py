"""What the journals below a root say: how far its runs have come, and which of their lines count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relume.monitor.journal import last_line, live_ranges, read_lines, segments


@dataclass(frozen=True)
class Segment:
    """A stretch of a run between two starts, as far as it counts.

    Attributes:
        number: of its file.
        end_bytes: where the next one carried on; what stands behind is a dead branch. None for the last.
        is_resumed: whether it carried on from a checkpoint.
    """

    path: Path
    number: int
    end_bytes: int | None
    is_resumed: bool


@dataclass(frozen=True)
class Line:
    """A line that counts, and the segment that it stands in."""

    content: dict[str, Any]
    segment: Segment

    @property
    def step(self) -> int:
        return int(self.content.get("step", 0))

    @property
    def epoch(self) -> int:
        return int(self.content.get("epoch", 0))

    @property
    def time(self) -> float:
        return float(self.content.get("time", 0.0))


def live_segments(run_folder: Path) -> list[Segment]:
    """The segments that led to the run's present state, oldest first; all but the first carried on from a checkpoint."""
    parts = enumerate(live_ranges(run_folder))
    return [Segment(path, int(path.stem), end_bytes, is_resumed=place > 0) for place, (path, end_bytes) in parts]


def live_lines(run_folder: Path) -> Iterator[Line]:
    """The lines that count, in order, each once; headers are not among them."""
    for segment in live_segments(run_folder):
        for behind_bytes, content in read_lines(segment.path):
            if segment.end_bytes is not None and behind_bytes > segment.end_bytes:
                break
            if content is not None and "journal" not in content:
                yield Line(content, segment)


def newest_step(run_folder: Path) -> int:
    """The step of the newest line of the newest segment; -1 where there is none yet."""
    files = segments(run_folder)
    line = last_line(files[-1]) if files else None
    return int((line or {}).get("step", -1))
