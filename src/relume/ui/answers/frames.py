"""Numbers on their way to the page: one header of JSON and float64 columns, which JavaScript reads without parsing.

A frame is the eight bytes ``RELUMEF1``, the header's length as a little-endian uint64, the header (UTF-8 JSON, padded with
spaces to a multiple of 8), and then the columns, little-endian float64, one after the other. The header is
``{"series": [{…, "length": n, "columns": ["step", …], "offset": first number of the first column}, …]}``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAGIC = b"RELUMEF1"

Column = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Series:
    """Columns of equal length, and what is said of them."""

    columns: Mapping[str, Column]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def encode(series: Sequence[Series], about: Mapping[str, Any] | None = None) -> bytes:
    """A frame.

    Example:
        >>> frame = encode([Series({"step": np.arange(2), "value": np.array([0.5, 0.25])}, {"run": "a"})])
        >>> [(one.about["run"], one.columns["value"].tolist()) for one in decode(frame)]
        [('a', [0.5, 0.25])]
    """
    entries, columns, offset = [], [], 0
    for one in series:
        entries.append({**one.about, "length": len(one), "columns": list(one.columns), "offset": offset})
        offset += len(one) * len(one.columns)
        columns += [np.ascontiguousarray(column, "<f8") for column in one.columns.values()]
    header = json.dumps({**(about or {}), "series": entries}, allow_nan=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return b"".join([MAGIC, struct.pack("<Q", len(header)), header, *(column.tobytes() for column in columns)])


def decode(frame: bytes) -> list[Series]:
    """The series of a frame.

    Raises:
        ValueError: it is none.
    """
    if frame[:8] != MAGIC:
        raise ValueError("this is no frame of numbers")
    (length,) = struct.unpack_from("<Q", frame, 8)
    header = json.loads(frame[16 : 16 + length])
    numbers = np.frombuffer(frame, "<f8", offset=16 + length)
    found = []
    for entry in header["series"]:
        size, offset = entry["length"], entry["offset"]
        columns = {
            name: numbers[offset + place * size : offset + (place + 1) * size]
            for place, name in enumerate(entry["columns"])
        }
        about = {key: value for key, value in entry.items() if key not in ("length", "columns", "offset")}
        found.append(Series(columns, about))
    return found
