"""A run of Weights & Biases, from the file in which its client logs."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

from relume.errors import MissingPackageError, RunError, warn
from relume.recorded.imports.writing import Imported, Importing, each_that_can_be_read, imported_before, run_name
from relume.text import counted

_BLOCK = 32768
_FILE_HEADER = struct.Struct("<4sHB")
_PART_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_LARGEST_RECORD = 256 * 1024 * 1024
_LARGEST_IMAGE = 64 * 1024 * 1024
_DEEPEST = 20


def import_wandb(folder: str | Path, root: str | Path = "runs", name: str | None = None) -> list[Imported]:
    """Bring a run of Weights & Biases into the local record: config, history, summary, histograms and images.

    A run that was brought in before is not read again.

    Args:
        folder: ``wandb/offline-run-…``, ``wandb/run-…`` (an online run keeps the same file), its ``run-….wandb``, or the
            folder ``wandb`` with all of its runs.
        name: what the run is called here; by default as in W&B.

    Raises:
        MissingPackageError: the wandb package, which knows the records, is not installed.
        RunError: there is no such file, or nothing in it can be read. One run of several that cannot be read is left out with
            a warning.
    """
    _require_wandb()
    folder, root = Path(folder), Path(root)
    files = _files(folder)
    if not files:
        raise RunError(f"there is no run of Weights & Biases in {folder}: no file run-….wandb.")
    known = imported_before(root, "wandb")
    only = name if len(files) == 1 else None
    return each_that_can_be_read(files, lambda file: _import(file, root, only, known))


def _import(file: Path, root: Path, name: str | None, known: dict[str, Path]) -> Imported:
    about = _about(file)
    key = f"{about.entity}/{about.project}/{about.run_id}"
    if (before := known.get(key)) is not None:
        return Imported(before.name, before, str(file.parent), is_new=False)
    wanted = name or run_name(about.display_name or about.run_id or file.stem)
    with Importing(root, wanted, str(file.parent), "wandb", key) as run:
        run.created = about.start_time.seconds + about.start_time.nanos / 1e9 if about.HasField("start_time") else None
        run.extra = {"tags": list(about.tags), "notes": about.notes}
        _Reading(file, run).read()
        made = run.finish()
    known[key] = made.folder
    return made


def _require_wandb() -> None:
    try:
        from wandb.proto import wandb_internal_pb2  # noqa: F401
    except ImportError:
        raise MissingPackageError('wandb is not installed: pip install "relume[wandb]"') from None


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    return sorted(folder.glob("run-*.wandb")) or sorted(
        p for p in folder.glob("*run-*/run-*.wandb") if not p.parent.is_symlink()
    )


# ----------------------------------------------------------------------------------------------------------------- records


class _CutError(Exception):
    """The file ends within a record, or is damaged."""


def _records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format behind a header of seven bytes, with zlib's CRC.

    Source: wandb, core/pkg/leveldb; https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    with path.open("rb") as file:
        head = file.read(_FILE_HEADER.size)
        if len(head) < _FILE_HEADER.size or _FILE_HEADER.unpack(head)[:2] != (b":W&B", 0xBEE1):
            raise RunError(f"{path} is no file of Weights & Biases: it does not begin as one.")
        parts: list[bytes] = []
        while True:
            room = _BLOCK - file.tell() % _BLOCK
            if room < _PART_HEADER.size:
                file.read(room)
            header = file.read(_PART_HEADER.size)
            if not header:
                break
            if len(header) < _PART_HEADER.size:
                raise _CutError("it ends within a record")
            crc, length, kind = _PART_HEADER.unpack(header)
            if (crc, length, kind) == (0, 0, 0):
                break  # room that was made and not used
            data = file.read(length)
            if len(data) < length:
                raise _CutError("it ends within a record")
            if zlib.crc32(data, zlib.crc32(bytes([kind]))) != crc or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
                raise _CutError("a record is damaged")
            if (kind in (_FULL, _FIRST)) == bool(parts):
                raise _CutError("a record is damaged")
            parts.append(data)
            if sum(map(len, parts)) > _LARGEST_RECORD:
                raise _CutError("a record is too large")
            if kind in (_FULL, _LAST):
                yield b"".join(parts)
                parts = []
        if parts:
            raise _CutError("it ends within a record")


def _decoded(path: Path) -> Iterator[Any]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
    from wandb.proto import wandb_internal_pb2

    record_type: Any = wandb_internal_pb2

    for data in _records(path):
        try:
            yield record_type.Record.FromString(data)
        except DecodeError:
            raise _CutError("a record is not understood") from None


def _about(path: Path) -> Any:
    """The record that says what the run is."""
    reason = "it names no run"
    try:
        for record in _decoded(path):
            if record.WhichOneof("record_type") == "run":
                return record.run
    except _CutError as cut:
        reason = str(cut)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, RunError):
            raise
    raise RunError(f"{path} cannot be imported: {reason}.")


class _Reading:
    """One .wandb file on its way into a run."""

    def __init__(self, file: Path, run: Importing) -> None:
        self.file, self.run = file, run
        self.files = file.parent / "files"
        self.step = 0
        self.summary: dict[str, float] = {}

    def read(self) -> None:
        run = self.run
        run.status = "interrupted"  # until it says how it ended
        count = 0
        try:
            for record in _decoded(self.file):
                self._take(record)
                count += 1
        except _CutError as cut:
            text = f"{self.file.name}: {cut}; what stands before it was imported ({counted(count, 'record')})"
            run.notes.append(text)
            warn(text)
        own = ("_step", "_timestamp", "_runtime")
        left = {
            name: value for name, value in self.summary.items() if name not in run.names and not name.startswith(own)
        }
        if left:  # said once, such as the result of a test
            run.add_values(self.step, run.last[1] or run.created or 0.0, left)

    def _take(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self._configure(record.run.config.update)
        elif kind == "config":
            self._configure(record.config.update)
        elif kind == "history":
            self._history(record.history)
        elif kind == "summary":
            self.summary.update(_numbers(_items(record.summary.update)))
        elif kind == "exit":
            self.run.status = "finished" if record.exit.exit_code == 0 else "failed"
            self.run.seconds = float(record.exit.runtime) or None

    def _configure(self, updates: Iterable[Any]) -> None:
        for key, value in _items(updates).items():
            if key != "_wandb":
                self.run.config[key] = value

    def _history(self, history: Any) -> None:
        values = _items(history.item)
        step, moment = values.get("_step", history.step.num), values.get("_timestamp")
        self.step = int(step) if _is_finite(step) and abs(step) < 2**63 else history.step.num
        when = float(moment) if _is_finite(moment) else self.run.last[1]
        shown = {key: value for key, value in values.items() if key not in ("_step", "_timestamp", "_runtime")}
        numbers = dict(_numbers(shown))
        if numbers:
            self.run.add_values(self.step, when, numbers)
        for name, value in _media(shown):
            self._take_media(name, value, when)

    def _take_media(self, name: str, value: dict[str, Any], when: float) -> None:
        kind = value.get("_type")
        if kind == "histogram":
            content = _histogram(value)
            if content is None:
                self.run.skipped["damaged histograms"] += 1
            else:
                self.run.add_media(self.step, when, name, content)
        elif kind == "image-file":
            self._take_image(name, value.get("path"), value.get("caption"), when)
        elif kind == "images/separated" and isinstance(value.get("filenames"), list):
            captions = value.get("captions")
            for i, path in enumerate(value["filenames"]):
                caption = captions[i] if isinstance(captions, list) and i < len(captions) else None
                self._take_image(f"{name}/{i}", path, caption, when)
        else:
            self.run.skipped[str(kind)] += 1

    def _take_image(self, name: str, path: Any, caption: Any, when: float) -> None:
        """A picture out of the run's own folder and from nowhere else."""
        try:
            file = (self.files / str(path)).resolve(strict=True)
            is_own = file.is_relative_to(self.files.resolve()) and file.is_file()
            data = file.read_bytes() if is_own and file.stat().st_size <= _LARGEST_IMAGE else b""
        except (OSError, ValueError):
            data = b""
        if data:
            self.run.add_image(self.step, when, name, data, caption if isinstance(caption, str) else None)
        else:
            self.run.skipped["images whose file is missing"] += 1


# ------------------------------------------------------------------------------------------------------------------ values


def _items(updates: Iterable[Any]) -> dict[str, Any]:
    """Keys with their values; what was taken apart along its keys is put together again."""
    found: dict[str, Any] = {}
    for item in updates:
        try:
            value = json.loads(item.value_json)
        except (ValueError, RecursionError):
            continue
        *path, last = item.nested_key or [item.key]
        place = found
        for key in path[:_DEEPEST]:
            inner = place.get(key)
            if not isinstance(inner, dict):
                inner = place[key] = {}
            place = inner
        place[last] = value
    return found


def _numbers(values: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, (bool, int, float)):
            if abs(value) < 2**63 or isinstance(value, float):
                yield f"{prefix}{key}", int(value) if isinstance(value, bool) else value
        elif isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
            yield f"{prefix}{key}", float(value)
        elif isinstance(value, dict) and "_type" not in value and depth < _DEEPEST:
            yield from _numbers(value, f"{prefix}{key}/", depth + 1)


def _media(values: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in values.items():
        if isinstance(value, dict) and "_type" in value:
            yield f"{prefix}{key}", value
        elif isinstance(value, dict) and depth < _DEEPEST:
            yield from _media(value, f"{prefix}{key}/", depth + 1)


def _is_finite(value: Any) -> TypeGuard[float]:
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _histogram(value: dict[str, Any]) -> dict[str, Any] | None:
    """A histogram: counts with one edge more, or (packed) the smallest edge, the width and how many."""
    counts, edges = value.get("values"), value.get("bins")
    packed = value.get("packedBins")
    if isinstance(packed, dict) and edges is None and isinstance(counts, list):
        try:
            low, width = float(packed["min"]), float(packed["size"])
            edges = [low + width * i for i in range(len(counts) + 1)]
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
    if not isinstance(counts, list) or not isinstance(edges, list) or len(edges) != len(counts) + 1 or not counts:
        return None
    if not all(_is_finite(n) for n in [*counts, *edges]):
        return None
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    return {
        "kind": "histogram",
        "edges": edges,
        "counts": counts,
        "count": int(sum(counts)),
        "min": edges[0],
        "max": edges[-1],
        "sum": sum(c * m for c, m in zip(counts, middles, strict=True)),
        "sum_squares": sum(c * m * m for c, m in zip(counts, middles, strict=True)),
        "nan": 0,
        "infinite": 0,
    }
