"""A report: runs as one file that any browser opens, without a server and without a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relume.errors import ConfigurationError
from relume.ui.reporting import cell
from relume.ui.reporting.contents import contents
from relume.ui.reporting.page import page
from relume.ui.reporting.writing import check_target, write

__all__ = ["Report", "make", "save", "show"]

IMAGES, MAX_MB = 64, 20.0


@dataclass(frozen=True)
class Report:
    """A report that was made.

    Attributes:
        content: the file.
        title: what it is called.
        runs: whose it is.
        notes: what it holds of them and what it leaves out, in sentences.
    """

    content: bytes
    title: str
    runs: Sequence[str]
    notes: Sequence[str]


def make(
    folders: Sequence[Path],
    *,
    title: str = "",
    images: int = IMAGES,
    max_mb: float = MAX_MB,
    commands: bool = True,
) -> Report:
    """A report of runs, as they stand now.

    Args:
        folders: of the runs.
        title: by default their names.
        images: how many pictures at most, the newest of each name; 0 for none.
        max_mb: the largest that the file may be; what takes the most room is left out first, and that is said.
        commands: whether it offers the commands to go on with a run, which only help where the run is.

    The same runs give the same bytes. Nothing in it tells paths, host or user of this machine, but for what stands in a
    run's config, notes and names.

    Raises:
        ConfigurationError: there is no run, two have the same name, or a number makes no sense.

    Example:
        >>> import tempfile, relume
        >>> with relume.Run("line", root=tempfile.mkdtemp(), quiet=True) as run:
        ...     run.log({"train/loss": 0.5})
        >>> made = make([run.folder])
        >>> made.title, made.content[:15]
        ('line', b'<!doctype html>')
    """
    _check(folders, images, max_mb)
    title = title or _title([folder.name for folder in folders])
    held = contents(folders, title, images, int(max_mb * 1e6), commands=commands)
    return Report(page(title, held.parts(), held.plain), title, [folder.name for folder in folders], held.notes)


def save(
    folders: Sequence[Path],
    out: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    images: int = IMAGES,
    max_mb: float = MAX_MB,
    force: bool = False,
) -> tuple[Path, Report]:
    """Write a report to a file; by default ``NAME.html`` here. An earlier report in its place is replaced.

    Raises:
        ConfigurationError: see :func:`make`; or there is another file, and ``force`` was not given.
        StorageError: the file cannot be written; what was there stays.
    """
    _check(folders, images, max_mb)
    name = folders[0].name if len(folders) == 1 else "report"
    path = check_target(Path(f"{name}.html" if out is None else out), force=force)
    made = make(folders, title=title, images=images, max_mb=max_mb)
    write(made.content, path)
    return path, made


def show(
    folders: Sequence[Path], path: str | os.PathLike[str] | None = None, height: int = 800, **options: object
) -> Path | None:
    """A report in the cell of a notebook; as a file where ``path`` names one, or where there is no notebook."""
    if isinstance(height, bool) or not isinstance(height, int) or height < 1:
        raise ConfigurationError(f"height={height!r:.40}: a number of pixels, such as 800.")
    if path is None and cell.is_notebook():
        made = make(folders, **options)  # type: ignore[arg-type]
        cell.display(made.content, made.title, height)
        return None
    return save(folders, path, **options)[0]  # type: ignore[arg-type]


def _check(folders: Sequence[Path], images: int, max_mb: float) -> None:
    names = [folder.name for folder in folders]
    if not names:
        raise ConfigurationError("there is no run to report on: name one.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"two of these runs are called {twice!r}: a report tells runs apart by their names.")
    if isinstance(images, bool) or not isinstance(images, int) or images < 0:
        raise ConfigurationError(f"images={images!r:.40}: how many pictures at most, 0 for none.")
    if isinstance(max_mb, bool) or not isinstance(max_mb, (int, float)) or not 1 <= max_mb <= 1000:
        raise ConfigurationError(f"max_mb={max_mb!r:.40}: the largest size of the file in megabytes, from 1 to 1000.")


def _title(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
