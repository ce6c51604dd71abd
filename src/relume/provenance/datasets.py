"""A fingerprint of a dataset that costs next to nothing: no sample is asked for, so that no random number is drawn."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from blake3 import blake3

from relume.provenance.record import DatasetFacts
from relume.text import counted, printable

_ROWS = 64
_ROW_BYTES = 4096
_DEEP = 4
_MOST_ATTRIBUTES = 60


def describe(dataset: Any, batch_size: int | None = None) -> DatasetFacts:
    """Type, length, and a hash of what a dataset holds: for its arrays, tensors and lists the lengths, the first and the
    last entries and some between; for its settings, their values.

    Two datasets of different fingerprints differ; equal ones may differ where ``covers`` says nothing of it. Folders are
    left out, so that the same data has the same fingerprint elsewhere.

    Example:
        >>> describe(range(10)).length
        10
    """
    reader = _Reader()
    try:
        length: int | None = len(dataset)
    except Exception:
        length = None
    reader.add("length", length)
    try:
        reader.read(dataset, "", 0)
    except Exception as error:  # the user's own class: what it does is not known
        reader.covered.append(f"not all of it ({type(error).__name__})")
    covers = ", ".join(["type", "length", *dict.fromkeys(reader.covered)])
    name = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
    return DatasetFacts(
        type=name,
        length=length,
        fingerprint=reader.hasher.hexdigest(16),
        covers=covers,
        batch_size=batch_size if isinstance(batch_size, int) else None,
    )


class _Reader:
    def __init__(self) -> None:
        self.hasher = blake3(max_threads=1)
        self.covered: list[str] = []
        self._seen: set[int] = set()

    def add(self, *parts: object) -> None:
        for part in parts:
            data = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
            self.hasher.update(len(data).to_bytes(8, "little") + data)

    def read(self, value: Any, name: str, depth: int) -> None:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            self._tensor(value, name)
        elif isinstance(value, np.ndarray):
            self._array(value, name)
        elif value is None or isinstance(value, (bool, int, float, complex)):
            self.add(name, repr(value))
        elif isinstance(value, (bytes, bytearray)):
            self.add(name, len(value), bytes(value[:_ROW_BYTES]), bytes(value[-_ROW_BYTES:]))
        elif isinstance(value, (str, PurePath)):
            self.add(name, _portable(value))
        elif id(value) in self._seen or depth > _DEEP:
            self.add(name, type(value).__qualname__)
        else:
            self._seen.add(id(value))
            self._large(value, name, depth)

    def _large(self, value: Any, name: str, depth: int) -> None:
        if isinstance(value, (list, tuple, range)):
            self._sequence(value, name, depth)
        elif isinstance(value, Mapping):
            self.add(name, "mapping", len(value))
            for key in list(value)[:_ROWS]:
                self.add(_portable(key))
                self.read(value[key], f"{name}[{printable(key, 20)}]", depth + 1)
        elif isinstance(value, (set, frozenset)):
            self.add(name, "set", len(value))
        elif hasattr(value, "iloc") and hasattr(value, "columns"):  # a table of pandas
            self.add(name, value.shape, [str(column) for column in value.columns])
            for row in _chosen(len(value)):
                self.add(repr(value.iloc[row].tolist())[:_ROW_BYTES])
            self.covered.append(_rows(name, len(value)))
        else:
            self._object(value, name, depth)

    def _object(self, value: Any, name: str, depth: int) -> None:
        self.add(name, type(value).__module__, type(value).__qualname__)
        attributes = getattr(value, "__dict__", None)
        if isinstance(value, type) or (callable(value) and not hasattr(value, "__getitem__")) or not attributes:
            text = repr(value)
            self.add("" if " at 0x" in text else text[:_ROW_BYTES])
            return
        for key in sorted(attributes)[:_MOST_ATTRIBUTES]:
            self.read(attributes[key], f"{name}.{key}" if name else key, depth + 1)

    def _sequence(self, value: Any, name: str, depth: int) -> None:
        self.add(name, type(value).__name__, len(value))
        for row in _chosen(len(value)):
            self.read(value[row], f"{name}[{row}]" if len(value) <= 8 else "", depth + 1)
        if len(value) > 8:
            self.covered.append(_rows(name, len(value)))

    def _array(self, value: np.ndarray, name: str) -> None:
        self.add(name, value.dtype, value.shape)
        rows = value.reshape(1) if value.ndim == 0 else value
        for row in _chosen(len(rows)):
            part = np.ascontiguousarray(rows[row]).reshape(-1)
            item = max(value.dtype.itemsize, 1)
            self.add(repr(part[:64].tolist()) if value.dtype.hasobject else part[: _ROW_BYTES // item].tobytes())
        self.covered.append(_rows(name, len(rows)))

    def _tensor(self, value: Any, name: str) -> None:
        torch = sys.modules["torch"]
        self.add(name, value.dtype, tuple(value.shape))
        if value.layout is not torch.strided or value.device.type != "cpu":
            self.covered.append(f"shape of {name} (on {value.device.type})")
            return
        rows = value.detach().as_subclass(torch.Tensor)
        rows = rows.reshape(1) if rows.dim() == 0 else rows
        for row in _chosen(len(rows)):
            part = rows[row].reshape(-1)[: _ROW_BYTES // value.element_size()]
            self.add(
                part.resolve_conj().resolve_neg().contiguous().view(torch.uint8).numpy().tobytes()
                if part.numel()
                else b""
            )
        self.covered.append(_rows(name, len(rows)))


def _chosen(count: int) -> Iterator[int]:
    """The first and the last, and some between."""
    if count <= _ROWS:
        yield from range(count)
        return
    edge = _ROWS // 4
    yield from range(edge)
    between = _ROWS - 2 * edge
    for number in range(between):
        yield edge + (count - 2 * edge) * number // between
    yield from range(count - edge, count)


def _rows(name: str, count: int) -> str:
    return f"{min(count, _ROWS)} of {counted(count, 'entry', 'entries')}{' of ' + name if name else ''}"


def _portable(value: object) -> str:
    """A text; of a file's path, its last two parts, of a folder's its name."""
    text = str(value)
    if len(text) < 4096 and ("/" in text or "\\" in text) and "\n" not in text:
        path = PurePath(text.replace("\\", "/"))
        return "/".join(path.parts[-2 if path.suffix else -1 :])
    return text[:_ROW_BYTES]
