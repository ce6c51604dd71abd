"""Where a report goes: a file of its own, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from relume.errors import ConfigurationError, StorageError
from relume.ui.reporting.page import MARK

_HEAD_BYTES = 2000


def check_target(out: Path, *, force: bool = False) -> Path:
    """Where a report can be written to. An earlier report is replaced; another file only with ``force``.

    Raises:
        ConfigurationError: the folder is not there, or something else is in its place.
    """
    if not out.parent.is_dir():
        raise ConfigurationError(f"there is no folder {out.parent} to write {out.name} to: make it first.")
    if out.is_dir():
        raise ConfigurationError(f"{out} is a folder: name a file in it, such as {out / 'report.html'}.")
    if out.exists() and not force and not is_report(out):
        raise ConfigurationError(
            f"{out} is there already and is no report of relume. Choose another name, or overwrite it with --force (force=True)."
        )
    return out


def is_report(path: Path) -> bool:
    """Whether a file is a report that relume made."""
    try:
        with path.open("rb") as file:
            return MARK.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


def write(content: bytes, out: Path) -> None:
    """Put a report in its place; until it is whole, what was there stays.

    Raises:
        StorageError: the disk is full, read-only or fails.
    """
    temporary = out.with_name(f".{out.name[:80]}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
    except OSError as error:
        raise StorageError(
            f"{out} cannot be written ({error.strerror or error}). Choose another place with -o FILE."
        ) from error
    finally:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass
