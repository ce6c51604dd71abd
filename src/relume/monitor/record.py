"""run.json, the heartbeat and the status: what a run's folder says of itself, honestly."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from relume.errors import RootError, RunError, RunNameError, UnknownNameError, closest
from relume.monitor.edits import FILE as EDITS
from relume.monitor.edits import edits_of
from relume.monitor.journal import last_line, segments

Status = Literal["running", "finished", "interrupted", "failed", "killed"]
_HEARTBEAT_SECONDS = 60.0


class Process(BaseModel):
    """The process that writes, or last wrote, to a run."""

    model_config = ConfigDict(extra="ignore")

    pid: int
    started: float
    host: str
    boot: str

    @classmethod
    def current(cls) -> Process:
        return cls(pid=os.getpid(), started=psutil.Process().create_time(), host=platform.node(), boot=_boot_id())

    def is_here(self) -> bool:
        """Whether it ran on this machine since it was last switched on."""
        return self.host == platform.node() and self.boot == _boot_id()

    def is_alive(self) -> bool:
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1.0
        except psutil.Error:
            return False


class RunRecord(BaseModel):
    """run.json: what is known when a run starts. How it ended stands in the journal."""

    model_config = ConfigDict(extra="ignore")

    format: Literal[1] = 1
    name: str
    id: str
    created: float
    seed: int
    config: dict[str, Any] = Field(default_factory=dict)
    asked_name: str = ""
    argv: list[str] = Field(default_factory=list)
    command: list[str] = Field(default_factory=list)
    directory: str = ""
    executable: str = ""
    lineage: dict[str, Any] | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)
    notes: str = ""
    process: Process

    def _repr_html_(self) -> str:
        from relume.monitor.stored import record_page
        from relume.page import html_of

        return html_of(record_page(self))

    def save(self, folder: Path) -> None:
        write_whole(folder / "run.json", self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> RunRecord:
        """Read a run's record, with the notes and tags that a person has given the run since.

        Raises:
            RunError: there is none, or it is damaged.
        """
        path = folder / "run.json"
        if path.exists() and not path.is_file():
            raise RunError(f"{path} is no file.")
        try:
            record = cls.model_validate_json(path.read_text("utf-8"))
        except FileNotFoundError:
            raise RunError(f"{folder} is no run: it has no run.json.") from None
        except (ValidationError, UnicodeDecodeError) as error:
            raise RunError(f"{path} is damaged or of a newer version: {error}") from None
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}.") from error
        return record.model_copy(update=edits_of(folder).model_dump(exclude_none=True, exclude={"archived"}))


def write_whole(path: Path, text: str) -> None:
    """Replace a small file so that a reader, or a crash, sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(round(psutil.boot_time()))


# ------------------------------------------------------------------------------------------------------ names, folders


def check_name(name: str) -> str:
    """The name, if it can be the name of a run.

    Raises:
        RunNameError: names the value and what is allowed.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[^\W.-][\w.+=@ -]{0,99}", name) or name.rstrip(". ") != name:
        raise RunNameError(
            f"{name!r} cannot be the name of a run. Use letters, digits and . _ - + = @, beginning with a letter, a digit "
            "or _, at most 100 characters, and no path separators (root= says which folder the runs are in)."
        )
    if name.lower() in ("store", "con", "nul", "aux", "prn"):
        raise RunNameError(f"{name!r} cannot be the name of a run: the name is reserved.")
    if len(name.encode()) > 200:
        raise RunNameError(f"{name!r} cannot be the name of a run: it is longer than 200 bytes.")
    return name


_OWN_FILES = (
    "journal",
    "checkpoints",
    "lock",
    "heartbeat",
    "metrics.db",
    "code",
    "tensorboard",
    "trackers",
    "console.log",
    "classes.json",
    "provenance.json",
    "media",
    "wandb",
    EDITS,
)


def make_run_folder(root: Path, name: str, is_free: Callable[[str], bool] = lambda name: True) -> Path:
    """A new folder for a run: ``root/name``, or ``root/name-2`` and so on when that is taken, or not ``is_free`` elsewhere.

    Raises:
        RootError: the folder cannot be made.
    """
    check_name(name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1_000_000):
            folder = root / (name if number == 1 else f"{name}-{number}")
            if not is_free(folder.name):
                continue
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            (folder / "journal").mkdir()
            return folder
    except OSError as error:
        raise RootError(
            f"the runs cannot be stored in {root} ({error.strerror}). Choose another folder with root=, or change its rights."
        ) from error
    raise RootError(f"no free name for {name!r} in {root}.")


def is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file()


def was_begun(folder: Path) -> bool:
    """Whether a run's folder has lost its ``run.json``, or was killed before it had one: all in it is a run's."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return False
    return not is_run(folder) and all(name in _OWN_FILES or name.startswith(".run.json.") for name in names)


def find_run(run: str | Path, root: str | Path = "runs") -> Path:
    """The folder of a run given by its name below ``root``, or by its path.

    Raises:
        UnknownNameError: there is no such run; lists the closest names.
    """
    root = Path(root)
    for folder in (root / run, Path(run)):
        if str(run) and is_run(folder):
            return folder
    names = [folder.name for folder in runs_in(root)]
    raise UnknownNameError(f"there is no run {str(run)!r} in {root}: {closest(str(run), names)}")


def runs_in(root: str | Path) -> list[Path]:
    """The folders of all runs below ``root``, oldest first."""
    root = Path(root)
    if not root.is_dir():
        return []
    found = [folder for folder in root.iterdir() if is_run(folder)]
    return sorted(
        found,
        key=lambda folder: ((folder / "journal").stat().st_ctime if (folder / "journal").exists() else 0, folder.name),
    )


# -------------------------------------------------------------------------------------------------------------- status


def beat(folder: Path) -> None:
    """Show that the run's process is alive, for those who look from another machine."""
    try:
        (folder / "heartbeat").touch()
    except OSError:
        pass


def status_of(folder: Path) -> tuple[Status, dict[str, Any]]:
    """The status of a run and its last journal line.

    A run that wrote no ending is running only while its process lives (on this machine), or while its heartbeat is
    younger than a minute (on another one).
    """
    files = segments(folder)
    line = (last_line(files[-1]) if files else None) or {}
    if line.get("event") == "end":
        status = line.get("status")
        return (status if status in ("finished", "interrupted", "failed") else "failed"), line
    return ("running" if goes_on(folder, RunRecord.load(folder).process) else "killed"), line


def goes_on(folder: Path, process: Process) -> bool:
    """Whether the process of a run that wrote no ending lives, or, on another machine, its heartbeat is younger than a minute."""
    if process.is_here():
        return process.is_alive()
    try:
        return time.time() - (folder / "heartbeat").stat().st_mtime < _HEARTBEAT_SECONDS
    except OSError:
        return False


def jsonable(value: Any) -> Any:
    """``value`` as JSON can hold it; what it cannot becomes its text."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [jsonable(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if json.dumps(value) not in ("NaN", "Infinity", "-Infinity") else str(value)
    if hasattr(value, "model_dump"):
        return jsonable(value.model_dump())
    if hasattr(value, "__dataclass_fields__"):
        return {name: jsonable(getattr(value, name)) for name in value.__dataclass_fields__}
    if type(value).__name__ == "Namespace":
        return jsonable(vars(value))
    return str(value)
