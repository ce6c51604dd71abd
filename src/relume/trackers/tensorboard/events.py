"""Event files: written record by record, cut where a write failed, and cleared of what a run has gone back behind."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_NAME = "events.out.tfevents"
_FRAME = struct.Struct("<QI")  # length, and its checksum
_LARGEST_BYTES = 1 << 31
_MOST_WAITING = 8_000_000
_TEMPORARY = ".clearing"  # TensorBoard would read what has "tfevents" in its name


class EventFile:
    """One event file, appended to. Nothing is in it before :meth:`flush`, and nothing half."""

    def __init__(self, path: Path, began: float) -> None:
        from tensorboard.compat.proto import event_pb2

        self.path = path
        self._records = bytearray()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o666)
        self._size = 0
        self.add(event_pb2.Event(wall_time=began, file_version="brain.Event:2"))

    def add(self, event: Any) -> None:
        """Take an ``Event``; it is in the file after :meth:`flush`. What waits is bounded.

        Raises:
            OSError: what waited could not be written; the event was not taken.
        """
        if len(self._records) > _MOST_WAITING:
            self.flush()
        self._records += record(event.SerializeToString())

    def flush(self) -> None:
        """Write what waits. Where that fails, the file is as before, and all of it still waits."""
        if not self._records:
            return
        try:
            view = memoryview(bytes(self._records))
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(self._records)
        self._records.clear()

    def close(self) -> None:
        """Flush, and close the file."""
        self.flush()
        os.close(self._descriptor)


def record(data: bytes) -> bytes:
    """A record of an event file: length, data, and the masked CRC-32C of both (TFRecord format)."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    header = struct.pack("<Q", len(data))
    return b"".join((header, struct.pack("<I", masked_crc32c(header)), data, struct.pack("<I", masked_crc32c(data))))


def records(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """The records of an event file, up to where it was cut off: what they hold, and as they stand in the file."""
    with path.open("rb") as file:
        while len(frame := file.read(_FRAME.size)) == _FRAME.size:
            length, _ = _FRAME.unpack(frame)
            rest = file.read(length + 4) if length < _LARGEST_BYTES else b""
            if len(rest) != length + 4:
                return
            yield rest[:-4], frame + rest


def event_files(folder: Path) -> list[Path]:
    """The event files of a folder, in the order in which TensorBoard reads them."""
    return sorted(path for path in folder.glob(f"{_NAME}.*") if path.is_file())


def next_file(folder: Path, created: float) -> Path:
    """The path of a new event file, behind all others in TensorBoard's order."""
    numbers = [int(part) for path in event_files(folder) if (part := path.name.rsplit(".", 2)[1]).isdecimal()]
    return folder / f"{_NAME}.{int(created):010d}.{max(numbers, default=0) + 1:06d}.relume"


def clear(path: Path, stays: Callable[[Any], bool]) -> bool:
    """Write an event file anew with those of its events that stay; says whether any did not.

    A TensorBoard that has it open keeps reading the old one.
    """
    from tensorboard.compat.proto import event_pb2

    temporary, is_changed, read_bytes = path.with_name(f"{_TEMPORARY}.{os.getpid()}"), False, 0
    with temporary.open("wb") as file:
        for data, whole in records(path):
            read_bytes += len(whole)
            if stays(event_pb2.Event.FromString(data)):
                file.write(whole)
            else:
                is_changed = True
        file.flush()
        os.fsync(file.fileno())
    if is_changed or read_bytes != path.stat().st_size:
        temporary.replace(path)
    else:
        temporary.unlink()
    return is_changed
