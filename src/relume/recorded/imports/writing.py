"""A finished run that was logged elsewhere, written as if relume had logged it."""

from __future__ import annotations

import json
import re
import shutil
import struct
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3

from relume.errors import RootError, RunError, StorageError, warn
from relume.monitor import Process, RunRecord, fold, jsonable, make_run_folder, runs_in
from relume.monitor.journal import encode, values_line
from relume.monitor.record import check_name, write_whole

_Item = TypeVar("_Item")
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_PIXELS = 65_535
_LARGEST_TEXT = 1_000_000
_DRAFT = ".importing-"
_LONGEST_PAUSE_SECONDS = 3600.0
"""An import that goes on writes its journal more often than that."""
_LAST_MOMENT = 253_402_300_799  # the year 9999 ends


@dataclass(frozen=True)
class Imported:
    """One run that was brought in, or was there already.

    Attributes:
        name, folder: of the run here.
        source: what it was read from.
        is_new: whether it was written now.
        values: how many numbers it has.
        media: how many histograms, images, texts, by kind.
        skipped: what was left out, and how often.
    """

    name: str
    folder: Path
    source: str
    is_new: bool = True
    values: int = 0
    media: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder)}


def imported_before(root: Path, kind: str) -> dict[str, Path]:
    """The runs that were brought in from one kind of logs, by the key of their source."""
    before: dict[str, Path] = {}
    for folder in runs_in(root):
        try:
            lineage = json.loads((folder / "run.json").read_text("utf-8")).get("lineage")
        except (OSError, ValueError, AttributeError):
            continue
        found = lineage.get("imported") if isinstance(lineage, dict) else None
        if isinstance(found, dict) and found.get("kind") == kind:
            before.setdefault(str(found.get("key")), folder)
    return before


def each_that_can_be_read(several: Iterable[_Item], read: Callable[[_Item], Imported | None]) -> list[Imported]:
    """Bring in many runs: one that cannot be read is said, and the others are brought in.

    Raises:
        RelumeError: of the first that cannot be read, where none can.
    """
    found: list[Imported] = []
    problems: list[RunError] = []
    for one in several:
        try:
            imported = read(one)
        except RunError as error:
            problems.append(error)
        else:
            found += [imported] if imported is not None else []
    if problems and not found:
        raise problems[0]
    for problem in problems:
        warn(f"Left out: {problem}")
    return found


def run_name(text: str) -> str:
    """Any text as the name of a run.

    Example:
        >>> run_name("lr=0.1/big model?"), run_name("..")
        ('lr=0.1-big model', 'imported')
    """
    name = re.sub(r"[^\w.+=@ -]+", "-", text).strip("-. ")
    name = re.sub(r"^[\W]+", "", name)[:80].rstrip("-. ")
    return name if name and name.lower() not in ("store", "con", "nul", "aux", "prn") else "imported"


class Importing:
    """Writes a run while it is read from elsewhere. As a context: an error in between leaves no half of a run behind."""

    def __init__(self, root: Path, name: str, source: str, kind: str, key: str) -> None:
        check_name(name)
        self._root, self._name, self._source, self._kind, self._key = root, name, source, kind, key
        self.config: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.created: float | None = None
        self.last: tuple[int, float] = (0, 0.0)
        self.values = 0
        self.status = "finished"
        self.names: set[str] = set()
        self.media: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.notes: list[str] = []
        self.seconds: float | None = None

    def __enter__(self) -> Importing:
        # Below the root under a name that is no run's, so that it can be moved into its place as a whole.
        self._draft = self._root / f"{_DRAFT}{uuid.uuid4().hex[:12]}"
        try:
            _sweep(self._root)
            (self._draft / "journal").mkdir(parents=True)
            self._journal = (self._draft / "journal" / "0001.jsonl").open("wb")
        except OSError as error:
            raise RootError(
                f"the runs cannot be stored in {self._root} ({error.strerror}). Choose another --root."
            ) from error
        self._journal.write(encode({"journal": 1, "run": self._name, "segment": 1, "resumed": None, "time": 0.0}))
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._journal.close()
        shutil.rmtree(self._draft, ignore_errors=True)

    def add_values(self, step: int, moment: float, values: dict[str, float]) -> None:
        """Numbers at a step."""
        moment = _dated(moment)
        self._journal.write(values_line(step, 0, moment, values))
        self.values += len(values)
        self.names.update(values)
        self._went(step, moment)

    def add_media(self, step: int, moment: float, name: str, content: dict[str, Any]) -> None:
        """Anything else at a step; ``content`` as the journal holds it."""
        moment = _dated(moment)
        self._journal.write(encode({"step": step, "epoch": 0, "time": round(moment, 4), "media": {name: content}}))
        self.media[content["kind"]] += 1
        self._went(step, moment)

    def add_text(self, step: int, moment: float, name: str, text: str) -> None:
        if len(text) > _LARGEST_TEXT:
            self.skipped["texts that are too long"] += 1
        else:
            self.add_media(step, moment, name, {"kind": "text", "text": text.encode("utf-8", "replace").decode()})

    def add_image(self, step: int, moment: float, name: str, data: bytes, caption: str | None = None) -> None:
        """A picture; what is no PNG is left out and counted."""
        size = _png_size(data)
        if size is None:
            self.skipped["images that are no PNG"] += 1
            return
        content = {"kind": "image", "file": self._stored(data, "png"), "width": size[0], "height": size[1]}
        self.add_media(step, moment, name, content | ({"caption": caption} if caption else {}))

    def finish(self) -> Imported:
        """Put the run into its place."""
        created = _dated(self.created) if self.created is not None else self.last[1]
        seconds = self.seconds if self.seconds is not None else max(0.0, self.last[1] - created)
        for note in self.notes:
            self._journal.write(encode({"event": "note", "text": note, "step": self.last[0], "time": self.last[1]}))
        end = {
            "event": "end",
            "status": self.status,
            "reason": f"imported from {self._source}",
            "seconds": round(seconds, 3),
        }
        self._journal.write(encode({**end, "step": self.last[0], "epoch": 0, "samples": 0, "time": self.last[1]}))
        self._journal.close()
        folder = make_run_folder(self._root, self._name)
        record = RunRecord(
            name=folder.name,
            id=uuid.uuid4().hex,
            created=created,
            seed=0,
            config=jsonable(self.config),
            asked_name=self._name,
            lineage={"imported": {"kind": self._kind, "key": self._key, "source": self._source}},
            process=Process.current(),
        )
        try:
            (self._draft / "journal" / "0001.jsonl").replace(folder / "journal" / "0001.jsonl")
            if (self._draft / "media").is_dir():
                (self._draft / "media").replace(folder / "media")
            written = json.loads(record.model_dump_json()) | jsonable(self.extra)
            write_whole(folder / "run.json", json.dumps(written, indent=1) + "\n")
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise StorageError(f"{folder} cannot be written: {error.strerror}.") from error
        fold(folder)
        return Imported(folder.name, folder, self._source, True, self.values, dict(self.media), dict(self.skipped))

    def _went(self, step: int, moment: float) -> None:
        self.last = (max(step, self.last[0]), max(moment, self.last[1]))
        if moment:
            self.created = moment if self.created is None else min(moment, self.created)

    def _stored(self, data: bytes, suffix: str) -> str:
        digest = blake3(data).hexdigest()
        name = f"media/{digest[:2]}/{digest}.{suffix}"
        path = self._draft / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return name


def _sweep(root: Path) -> None:
    """Remove what an import that was killed has left."""
    for draft in root.glob(f"{_DRAFT}*"):
        journal = draft / "journal" / "0001.jsonl"
        changed = (journal if journal.exists() else draft).stat().st_mtime
        if time.time() - changed > _LONGEST_PAUSE_SECONDS:
            shutil.rmtree(draft, ignore_errors=True)


def _dated(moment: float) -> float:
    """A Unix time; 0 for what a hostile or damaged file gives for one."""
    return moment if 0 <= moment <= _LAST_MOMENT else 0.0


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height out of a PNG's own header; None where it is none."""
    if len(data) < 33 or not data.startswith(_PNG) or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return (width, height) if 0 < width <= _LARGEST_PIXELS and 0 < height <= _LARGEST_PIXELS else None
