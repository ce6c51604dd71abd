"""Where datasets lie, and how that is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

Root = str | os.PathLike[str] | None


def say(line: str, quiet: bool) -> None:
    """One line for the user, on standard error so that a command's own output stays clean."""
    if not quiet:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def say_source(name: str, dataset: Any, train: bool, quiet: bool, hint: str = "") -> None:
    """Say how much there is of a dataset and where it came from."""
    part = "training" if train else "test"
    say(f"{name}: {len(dataset):,} {part} images from {dataset.source}{hint}", quiet)


def folders(root: Root) -> list[Path]:
    """Where to look for datasets, first to last: ``root``, ``./data`` (as in PyTorch's tutorials), the user's."""
    given = [] if root is None else [Path(root).expanduser()]
    return [*given, Path("data"), user_folder()]


def user_folder() -> Path:
    """``$RELUME_DATA``, or ``relume/data`` in the user's cache folder (``$XDG_CACHE_HOME``, else ``~/.cache``)."""
    if chosen := os.environ.get("RELUME_DATA"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "relume" / "data"


def system_folders() -> list[Path]:
    """Where packages of the operating system put data (the XDG base directory specification)."""
    listed = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [Path(folder) for folder in listed.split(":") if folder]


def download_folder(root: Root) -> Path:
    """Where a download goes: ``root``, or the user's folder."""
    return user_folder() if root is None else Path(root).expanduser()
