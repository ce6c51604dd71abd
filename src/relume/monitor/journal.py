"""The journal: one JSON line for each thing that happened, appended inside the call. It is the truth of a run."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from relume.errors import warn

if TYPE_CHECKING:
    from relume.monitor.values import Arriving, Ready

    Written = tuple[int, int, Ready]

VERSION = 1
_PENDING_LIMIT = 100_000


def values_line(step: int, epoch: int, moment: float, values: Ready) -> bytes:
    """A line of metrics, as :func:`encode` would write it (hot path: 2 microseconds for ten metrics)."""
    line = {"step": step, "epoch": epoch, "time": round(moment, 4), "values": values}
    try:
        return to_json(line, inf_nan_mode="strings") + b"\n"
    except ValueError:  # half of a surrogate pair in a name
        return encode(line | {"values": {name.encode("utf-8", "replace").decode(): v for name, v in values.items()}})


def encode(line: dict[str, Any]) -> bytes:
    """One journal line. JSON has no NaN or infinity: they become strings."""
    try:
        text = json.dumps(line, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    except ValueError:
        text = json.dumps(_without_nan(line), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value


class Journal:
    """Appends lines to one segment's file. A SIGKILL loses nothing that was written (measured: 6 to 29 microseconds).

    When the disk is full or gone, training goes on: one warning, the lines wait in memory (up to 100,000 of them) and
    are written when there is room again. A half-written line is cut off, so the lines before it stay readable.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.lost_lines = 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o666)
        self._position = 0
        self._waiting: deque[bytes] = deque()
        self._arriving: deque[tuple[int, int, float, Ready, Arriving | _Arrived]] = deque()
        self._lock = threading.RLock()
        self._has_warned = False
        self.write({"journal": VERSION, **header, "time": time.time()})

    @property
    def position_bytes(self) -> int:
        """The length of what is safely in the file."""
        return self._position

    def values(self, step: int, epoch: int, ready: Ready, arriving: Arriving | None) -> Sequence[Written]:
        """Append a line of metrics; returns (step, epoch, values) of each line that was written by this call.

        A line whose values are still on a device waits for them, and later lines wait behind it, in order.
        """
        with self._lock:
            if arriving is None and not self._arriving:
                self._put(values_line(step, epoch, time.time(), ready))
                return ((step, epoch, ready),)
            self._arriving.append((step, epoch, time.time(), ready, arriving if arriving is not None else _Arrived()))
            return self._arrived()

    def _arrived(self, *, wait: bool = False) -> list[Written]:
        done: list[Written] = []
        while self._arriving and (wait or self._arriving[0][4].is_ready()):
            step, epoch, moment, ready, arriving = self._arriving.popleft()
            ready.update(arriving.read())
            self._put(values_line(step, epoch, moment, ready))
            done.append((step, epoch, ready))
        return done

    def settle(self) -> list[Written]:
        """Wait for all values that are still on a device, and write them."""
        with self._lock:
            return self._arrived(wait=True)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line at once, in this call."""
        with self._lock:
            self._put(encode(line))

    def _put(self, data: bytes) -> None:
        if self._waiting:
            self._waiting.append(data)
            self._retry()
        else:
            self._append(data)

    def _append(self, data: bytes) -> bool:
        try:
            written = os.write(self._descriptor, data)
            if written == len(data):
                self._position += written
                return True
            error: OSError = OSError(28, "the file took only a part of the line")
        except OSError as failure:
            error = failure
        self._cut()
        self._waiting.append(data)
        while len(self._waiting) > _PENDING_LIMIT:
            self._waiting.popleft()
            self.lost_lines += 1
        if not self._has_warned:
            self._has_warned = True
            warn(
                f"{self.path} cannot be written ({error.strerror}). Training goes on; what is logged waits in memory "
                "and is written when there is room again."
            )
        return False

    def _cut(self) -> None:
        """Take a half-written line away again."""
        try:
            os.ftruncate(self._descriptor, self._position)
        except OSError:
            pass

    def _retry(self) -> None:
        while self._waiting:
            data = self._waiting.popleft()
            if not self._append(data):
                self._waiting.appendleft(self._waiting.pop())  # _append put it at the end
                return
        self._has_warned = False

    def sync(self) -> None:
        """Make what was written safe on the disk."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)

    def flush_waiting(self) -> None:
        """Try again to write what waits for room on the disk."""
        with self._lock:
            if self._waiting and self._descriptor >= 0:
                self._retry()

    def close(self) -> None:
        """Write what is left, make the file safe, and close it. May be called twice."""
        with self._lock:
            if self._descriptor < 0:
                return
            self.settle()
            self.flush_waiting()
            self.lost_lines += len(self._waiting)
            try:
                os.fsync(self._descriptor)
            except OSError:
                pass
            os.close(self._descriptor)
            self._descriptor = -1
        if self.lost_lines:
            warn(f"{self.path}: {self.lost_lines} lines could not be written and are lost.")


class _Arrived:
    """Nothing to wait for, but in line behind something that is."""

    def is_ready(self) -> bool:
        return True

    def read(self) -> Ready:
        return {}


def segments(run_folder: Path) -> list[Path]:
    """The journal's files, oldest first; what is no file (a pipe, a device) would be read for ever."""
    found = (path for path in (run_folder / "journal").glob("*.jsonl") if path.stem.isdecimal())
    return sorted(path for path in found if path.is_file())


def next_segment(run_folder: Path) -> int:
    """The number of a new segment."""
    return max((int(path.stem) for path in segments(run_folder)), default=0) + 1


def live_ranges(run_folder: Path) -> list[tuple[Path, int | None]]:
    """The parts of the journal that count, oldest first: files, each with where its part ends (None: at its end).

    A segment that goes on from a checkpoint names the place in the journal at which that was made. What stands behind it
    was done again: a dead branch, kept and not counted.
    """
    for path in reversed(segments(run_folder)):
        if header_of(path) is not None:  # else it was killed before it said anything
            return branch(run_folder, int(path.stem))
    return []


def branch(run_folder: Path, segment: int, end: int | None = None) -> list[tuple[Path, int | None]]:
    """What led to byte ``end`` of a segment, in the form of :func:`live_ranges`."""
    by_number = {int(path.stem): path for path in segments(run_folder)}
    found: list[tuple[Path, int | None]] = []
    while segment in by_number:
        path = by_number.pop(segment)
        found.insert(0, (path, end))
        resumed = (header_of(path) or {}).get("resumed")
        if not isinstance(resumed, dict):
            break
        segment, end = resumed.get("segment", 0), resumed.get("position_bytes")
    return found


def header_of(path: Path) -> dict[str, Any] | None:
    """The first line of a segment: which run, and from where it goes on."""
    return next((line for _, line in read_lines(path)), None)


def live_lines(run_folder: Path) -> Iterator[dict[str, Any]]:
    """The journal's lines that count, in order; damaged ones are left out."""
    for path, end in live_ranges(run_folder):
        for behind, line in read_lines(path):
            if end is not None and behind > end:
                break
            if line is not None:
                yield line


def read_lines(path: Path, offset_bytes: int = 0) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Complete lines from ``offset_bytes`` on, each with the offset behind it; ``None`` for a line that is damaged."""
    with path.open("rb") as file:
        file.seek(offset_bytes)
        for data in file:
            if not data.endswith(b"\n"):
                return  # still being written, or cut off by a kill
            offset_bytes += len(data)
            yield offset_bytes, _parsed(data)


def _parsed(data: bytes) -> dict[str, Any] | None:
    # Hot path: 0.6 microseconds for one metric, where json takes 3.5. Half of a surrogate pair is read by json alone.
    try:
        line = from_json(data)
    except ValueError:
        try:
            line = json.loads(data)
        except (ValueError, RecursionError):
            return None
    return line if isinstance(line, dict) else None


def last_line(path: Path) -> dict[str, Any] | None:
    """The last complete line of a journal file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 65536))
        parts = file.read().split(b"\n")
    for data in reversed(parts[:-1]):
        try:
            line = json.loads(data)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            return line
    return None


def when(line: Mapping[str, Any]) -> tuple[int, int, float]:
    """Step, epoch and Unix time of a line: -1 for a step or epoch that is no number, 0.0 for such a time."""
    return _whole(line.get("step")), _whole(line.get("epoch")), number(line.get("time")) or 0.0


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a line; NaN for what is no number. Names are such as UTF-8 can say."""
    return {storable(name): _float(value) for name, value in line["values"].items()}


def storable(name: str) -> str:
    return name if name.isascii() else name.encode("utf-8", "replace").decode()


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    found = number(value)
    return float("nan") if found is None else found


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and abs(value) < 2**63 else -1


def number(value: Any) -> float | None:
    """A value as the journal stores it, as a float."""
    try:
        return float(value)  # "NaN" and "Infinity" included
    except (TypeError, ValueError, OverflowError):
        return None
