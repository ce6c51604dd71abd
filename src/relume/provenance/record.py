"""provenance.json: which code, settings, data and machine made a run; one entry for each of its starts."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from relume.errors import RunError

FILE = "provenance.json"
FORMAT = 1


class _Part(BaseModel):
    """Fields of a newer version are kept, and named by :meth:`Provenance.unknown`."""

    model_config = ConfigDict(extra="allow")


class SourceFile(_Part):
    """A file whose content git does not have in the commit; kept in the run's folder."""

    path: str
    """Below the tree, with slashes; bytes that are no UTF-8 are escaped here and stand in ``raw_path``."""
    raw_path: str = ""
    """In hexadecimal, where ``path`` cannot say it."""
    kind: str
    """``modified``, ``added``, ``untracked``, ``ignored``, ``script``, ``module`` or ``argument``."""
    mode: int
    """As in git: 0o100644, 0o100755 or, for a link whose target is the content, 0o120000."""
    size_bytes: int
    hash: str
    """blake3 of the content as it is kept."""
    stored: str
    """Where it is kept, below the run's folder."""
    redacted: int = 0
    """How many secrets were taken out of it: then this is not exactly the file that ran."""
    changed_after_start: bool = False
    """It was written after the process began: what was imported may be older."""

    def name(self) -> bytes:
        """The path as the file system has it."""
        return bytes.fromhex(self.raw_path) if self.raw_path else self.path.encode()


class LeftOut(_Part):
    """A file that was not kept, and why."""

    path: str
    size_bytes: int | None = None
    kind: str = "untracked"
    why: str


class Patch(_Part):
    """The difference from the commit to the working tree, for reading, and for ``git apply`` where nothing is redacted."""

    stored: str
    hash: str
    size_bytes: int
    redacted: int = 0


class SourceTree(_Part):
    """A folder with source code: a git repository, or, where ``commit`` is empty and ``is_git`` false, just files."""

    path: str
    is_git: bool = False
    commit: str = ""
    branch: str = ""
    upstream: str = ""
    ahead: int | None = None
    remote: str = ""
    files: list[SourceFile] = Field(default_factory=list)
    deleted: list[str] = Field(default_factory=list)
    """Files of the commit that were not there; as ``raw:`` and hexadecimal where they are no UTF-8."""
    crlf: list[str] = Field(default_factory=list)
    """Files of the commit whose lines ended with CR LF where git has LF; named as in ``deleted``."""
    patch: Patch | None = None
    left_out: list[LeftOut] = Field(default_factory=list)
    more_left_out: int = 0
    problem: str = ""
    """Why the state is not known, or not wholly."""

    @property
    def is_dirty(self) -> bool:
        return bool(self.files or self.deleted or self.changed_but_left_out())

    def changed_but_left_out(self) -> list[LeftOut]:
        return [entry for entry in self.left_out if entry.kind in ("modified", "added")]

    @property
    def redacted(self) -> int:
        return sum(file.redacted for file in self.files)


class Notebook(_Part):
    """The cells as they were executed, in order."""

    cells: int
    stored: str
    hash: str
    path: str = ""
    redacted: int = 0


class Code(_Part):
    script: str = ""
    trees: list[SourceTree] = Field(default_factory=list)
    """The first is that of the script, or of the directory."""
    notebook: Notebook | None = None
    problem: str = ""


class DatasetFacts(_Part):
    """What is known of a dataset without asking it for a sample."""

    type: str
    length: int | None = None
    fingerprint: str = ""
    covers: str
    """What the fingerprint stands for, in words."""
    batch_size: int | None = None


class Machine(_Part):
    host: str = ""
    system: str = ""
    python: str = ""
    interpreter: str = ""
    cpu: str = ""
    cores: int | None = None
    memory_bytes: int | None = None
    gpus: list[dict[str, Any]] = Field(default_factory=list)
    driver: str = ""
    cuda: str = ""
    cudnn: str = ""
    threads: int | None = None


class Segment(_Part):
    """One start of the run."""

    segment: int
    started: float
    resumed_from: str = ""
    argv: list[str] = Field(default_factory=list)
    command: list[str] = Field(default_factory=list)
    directory: str = ""
    seed: int | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    numerics: dict[str, Any] = Field(default_factory=dict)
    """Deterministic algorithms and precisions, see `relume.determinism.numerics`."""
    machine: Machine | None = None
    packages: dict[str, str] = Field(default_factory=dict)
    code: Code | None = None
    datasets: list[DatasetFacts] = Field(default_factory=list)
    missing: list[str] = Field(default_factory=list)
    """What was not captured: the run ended before, or it failed."""
    capture_seconds: float | None = None
    status: str = ""
    reason: str = ""
    ended: float | None = None
    seconds: float | None = None


class Provenance(_Part):
    """The file. Read it with :meth:`load`."""

    format: Literal[1] = 1
    run: str
    id: str
    segments: list[Segment] = Field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Replace the file so that a reader, or a kill, sees the old one or the new one."""
        path = folder / FILE
        temporary = path.with_name(f".{FILE}.{os.getpid()}")
        temporary.write_text(json.dumps(self.model_dump(exclude_defaults=False), indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, folder: Path) -> Provenance:
        """Read a run's provenance.

        Raises:
            RunError: it has none, it is damaged, or of a newer format.
        """
        path = folder / FILE
        try:
            data = json.loads(path.read_text("utf-8"))
            if isinstance(data, dict) and isinstance(data.get("format"), int) and data["format"] > FORMAT:
                raise RunError(
                    f"{path} has the format {data['format']}, and this relume knows {FORMAT}: a newer one wrote it. "
                    "Update relume to read it."
                )
            return cls.model_validate(data)
        except FileNotFoundError:
            raise RunError(
                f"run {folder.name!r} has no {FILE}: it was made by an older relume, and which code it used is not known."
            ) from None
        except (ValidationError, ValueError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"{path} is damaged ({reason}): which code the run used is not known.") from None
        except RunError:
            raise
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}.") from None

    def unknown(self) -> list[str]:
        """The fields that this version does not know, such as ``segments.0.container``: a newer relume wrote them."""
        return list(_unknown(self, ""))

    def find(self, segment: int | None = None) -> Segment:
        """The entry of one start, by default of the last.

        Raises:
            RunError: there is none of this number; lists those there are.
        """
        for entry in reversed(self.segments):
            if segment is None or entry.segment == segment:
                return entry
        there = ", ".join(str(entry.segment) for entry in self.segments) or "none"
        raise RunError(f"run {self.run!r} has no segment {segment}: there is {there}.")


def _unknown(part: BaseModel, path: str) -> Iterator[str]:
    for name in part.model_extra or ():
        yield f"{path}{name}"
    for name in type(part).model_fields:
        value = getattr(part, name)
        for number, inner in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(inner, BaseModel):
                yield from _unknown(inner, f"{path}{name}.{number}." if isinstance(value, list) else f"{path}{name}.")


def keep_aside(folder: Path) -> str:
    """Move a file that cannot be read out of the way, so that a new one can be begun; returns its new name."""
    name = f"provenance-unread-{time.time_ns()}.json"
    (folder / FILE).rename(folder / name)
    return name
