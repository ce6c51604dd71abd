"""Feature tables on disk: ``ROOT/store/features/KEY`` with files of rows and a manifest, which is written last.

What a killed writer leaves has no manifest and is never taken for whole; a flipped bit is found by the checksum when
the table is opened. Files are mapped into memory, so that a table may be larger than it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from relume import tree
from relume.checkpoint import files
from relume.checkpoint.hashing import digest, hash_bytes
from relume.checkpoint.lock import FileLock
from relume.errors import StoreLockedError
from relume.transfer.features.table import FeatureTable, with_features

FORMAT = 1
KEPT_DAYS = 30
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Shape:
    """What a table consists of, without its values: the features, the target, and how a batch holds them.

    Attributes:
        features: dtype and shape of a row, for each feature as it is stored.
        dtypes: what the features were computed in.
        target: dtype and shape of a row, of the target.
        count, views: samples, and how many times each is there.
        is_mapping: whether a batch is a dict.
    """

    features: tuple[tuple[torch.dtype, tuple[int, ...]], ...]
    dtypes: tuple[torch.dtype, ...]
    target: tuple[torch.dtype, tuple[int, ...]]
    count: int
    views: int
    is_mapping: bool

    @property
    def rows(self) -> int:
        return self.count * self.views

    @property
    def columns(self) -> list[tuple[torch.dtype, tuple[int, ...]]]:
        return [*self.features, self.target]

    @property
    def size_bytes(self) -> int:
        return sum(_column_bytes(self.rows, *column) for column in self.columns)

    def table(self, columns: list[torch.Tensor]) -> FeatureTable:
        rows = with_features(columns[:-1], columns[-1], self.is_mapping)
        return FeatureTable(rows, self.count, views=self.views, dtypes=self.dtypes)

    def as_dict(self) -> dict[str, Any]:
        columns = [{"dtype": _name(dtype), "shape": list(shape)} for dtype, shape in self.columns]
        return {
            "columns": columns,
            "dtypes": [_name(dtype) for dtype in self.dtypes],
            "count": self.count,
            "views": self.views,
            "is_mapping": self.is_mapping,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Shape:
        columns = [(_dtype(one["dtype"]), tuple(int(n) for n in one["shape"])) for one in values["columns"]]
        dtypes = tuple(_dtype(name) for name in values["dtypes"])
        if len(columns) != len(dtypes) + 1:
            raise ValueError("columns and dtypes do not belong together")
        return cls(
            tuple(columns[:-1]),
            dtypes,
            columns[-1],
            int(values["count"]),
            int(values["views"]),
            bool(values["is_mapping"]),
        )


class FeatureFolder:
    """The feature tables below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "store" / "features"

    def find(self, key: str) -> FeatureTable | None:
        """The table of a key, mapped into memory and checked; ``None`` where there is none that is whole."""
        folder = self.folder / key
        if not (folder / _MANIFEST).is_file():
            return None
        holds = contextlib.ExitStack()
        try:
            holds.enter_context(_lock(folder).shared())
        except (OSError, StoreLockedError):
            pass  # a file system without locks, or one that is read-only
        try:
            manifest = read_manifest(folder)
            shape = Shape.from_dict(manifest["shape"])
            columns = []
            for (dtype, row), entry in zip(shape.columns, manifest["files"], strict=True):
                path = folder / Path(entry["name"]).name
                column = map_column(path, dtype, (shape.rows, *row))
                if digest(_memory(column)) != entry["digest"]:
                    raise ValueError(f"{path} is not what was written")
                columns.append(column)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            holds.close()
            return None
        with contextlib.suppress(OSError):
            os.utime(folder / _MANIFEST)
        table = shape.table(columns)
        table.key, table.is_mapped = key, True
        weakref.finalize(table, holds.close)
        return table

    def write(
        self, key: str, shape: Shape, produce: Callable[[], Iterator[list[torch.Tensor]]], about: dict[str, Any]
    ) -> None:
        """Write a table chunk by chunk, then commit it; one that is there already is replaced.

        ``produce`` gives the chunks: a tensor a column.

        Raises:
            StoreWriteError: the disk is full, or cannot be written.
        """
        folder = self.folder / key
        with files.explained("writing features", self.root):
            files.make_folder(folder)
            token = secrets.token_hex(4)
            names = [f"{token}-{number}.rows" for number in range(len(shape.columns))]
            with contextlib.suppress(OSError, StoreLockedError), _lock(folder).shared():
                pass
            handles = [
                files.system.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                for name in names
            ]
            try:
                out = [files.NewFile(handle) for handle in handles]
                for chunk in produce():
                    for file, column in zip(out, chunk, strict=True):
                        file.write(_memory(column))
                for file, handle in zip(out, handles, strict=True):
                    file.flush()
                    files.system.fsync(handle)
            except BaseException:
                for name in names:
                    files.remove(folder / name)
                raise
            finally:
                for handle in handles:
                    files.system.close(handle)
            entries = []
            for name, (dtype, row) in zip(names, shape.columns, strict=True):
                column = map_column(folder / name, dtype, (shape.rows, *row))
                entries.append({"name": name, "digest": digest(_memory(column))})
            document = {"format": FORMAT, "key": key, "shape": shape.as_dict(), "files": entries, "about": about}
            text = json.dumps(document, indent=1)
            document["digest"] = hash_bytes(text.encode())
            staged = folder / f".{token}.tmp"
            files.write_new(staged, [json.dumps(document, indent=1).encode()])
            files.publish(staged, folder / _MANIFEST)
            for path in folder.glob("*.rows"):
                if path.name not in names and time.time() - path.stat().st_mtime > 86_400:
                    files.remove(path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a table.

    Raises:
        ValueError: it was changed or cut short, or is of another format.
    """
    document: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("key") != folder.name:
        raise ValueError(f"{folder / _MANIFEST} is not a manifest of features of this format")
    written = document.pop("digest", None)
    if written != hash_bytes(json.dumps(document, indent=1).encode()):
        raise ValueError(f"{folder / _MANIFEST} does not match its own digest")
    return document


def map_column(path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """A file as a tensor, copied when it is written to; the file never changes.

    Raises:
        ValueError: the file is too short or too long.
    """
    size_bytes = _column_bytes(shape[0], dtype, shape[1:])
    if path.stat().st_size != size_bytes:
        raise ValueError(f"{path} has {path.stat().st_size} bytes and should have {size_bytes}")
    if not size_bytes:
        return torch.empty(shape, dtype=dtype)
    raw = torch.from_file(str(path), shared=False, size=size_bytes, dtype=torch.uint8)
    return raw.view(dtype).view(shape)


# -------------------------------------------------------------------------------------------------------------- garbage


@dataclass(frozen=True)
class FeatureGarbage:
    """What `collect_features` freed, or in a dry run would free.

    Attributes:
        folders: tables that are damaged, half-written or were not used for long.
        freed_bytes: what these tables come to.
        leftovers, leftover_bytes: files beside whole tables that killed writers, or a second one of the same table, left.
        in_use: tables that would have gone and are open in some process.
        kept_bytes: what stays.
    """

    folders: list[Path] = field(default_factory=list)
    freed_bytes: int = 0
    leftovers: list[Path] = field(default_factory=list)
    leftover_bytes: int = 0
    in_use: list[Path] = field(default_factory=list)
    kept_bytes: int = 0


def collect_features(root: Path, *, dry_run: bool = True, days: float = KEPT_DAYS) -> FeatureGarbage:
    """Delete the features below a root that are damaged, half-written, or were not opened for ``days`` days.

    What a process has open stays. Features can be computed again: nothing is lost but time.
    """
    folder = FeatureFolder(root).folder
    gone, in_use, freed, left_bytes, kept = [], [], 0, 0, 0
    left: list[Path] = []
    for one in sorted(folder.iterdir()) if folder.is_dir() else []:
        size = sum(path.stat().st_size for path in one.rglob("*") if path.is_file())
        if not one.is_dir() or not _is_garbage(one, days):
            strays = _left_in(one) if one.is_dir() else []
            stray_bytes = sum(path.stat().st_size for path in strays)
            left, left_bytes, kept = left + strays, left_bytes + stray_bytes, kept + size - stray_bytes
            for path in strays if not dry_run else ():
                files.remove(path)
            continue
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_lock(one).exclusive(timeout_seconds=0))
            except (OSError, StoreLockedError):
                in_use.append(one)
                continue
            gone.append(one)
            freed += size
            if not dry_run:
                files.remove(one / _MANIFEST)  # first: what is half gone is not taken for whole
                shutil.rmtree(one, ignore_errors=True)
    return FeatureGarbage(gone, freed, left, left_bytes, in_use, kept)


def _left_in(folder: Path) -> list[Path]:
    """Files in the folder of a whole table that its manifest does not name, and that nobody writes to any more."""
    try:
        named = {entry["name"] for entry in read_manifest(folder)["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    found = [path for pattern in ("*.rows", ".*.tmp") for path in sorted(folder.glob(pattern))]
    return [path for path in found if path.name not in named and _is_abandoned(path.stat().st_mtime)]


def _is_abandoned(written: float) -> bool:
    return time.time() - written > 3600  # else perhaps being written


def _is_garbage(folder: Path, days: float) -> bool:
    path = folder / _MANIFEST
    try:
        if not path.exists():
            newest = max((one.stat().st_mtime for one in folder.iterdir()), default=folder.stat().st_mtime)
            return _is_abandoned(newest)
        if time.time() - path.stat().st_mtime > days * 86_400:
            return True
        manifest = read_manifest(folder)
        shape = Shape.from_dict(manifest["shape"])
        for (dtype, row), entry in zip(shape.columns, manifest["files"], strict=True):
            column = map_column(folder / Path(entry["name"]).name, dtype, (shape.rows, *row))
            if digest(_memory(column)) != entry["digest"]:
                return True
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return True
    return False


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / "lock", timeout_seconds=5.0)


def _memory(column: torch.Tensor) -> memoryview:
    flat = column.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _column_bytes(rows: int, dtype: torch.dtype, row: tuple[int, ...]) -> int:
    size = rows * torch.empty(0, dtype=dtype).element_size()
    for length in row:
        size *= length
    return size


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"no dtype {name!r}")
    return found


def columns_of(table: FeatureTable) -> list[torch.Tensor]:
    """The columns of a table: the features, then the target."""
    return list(tree.tensors(table.rows))
