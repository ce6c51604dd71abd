"""What a run has kept besides its numbers: a list, and each thing read when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relume.errors import RunError
from relume.monitor.index import ask
from relume.monitor.journal import read_lines
from relume.monitor.kinds import read
from relume.monitor.record import find_run


@dataclass(frozen=True)
class Kept:
    """One thing that was logged.

    Attributes:
        name, kind: of it.
        step, epoch, time: when it was logged; time in seconds since 1970.
        folder: of the run.
    """

    name: str
    kind: str
    step: int
    epoch: int
    time: float
    folder: Path = field(repr=False)
    _segment: int = field(repr=False)
    _offset_bytes: int = field(repr=False)

    @property
    def content(self) -> dict[str, Any]:
        """What the journal says of it.

        Raises:
            RunError: the journal has changed since.
        """
        path = self.folder / "journal" / f"{self._segment:04d}.jsonl"
        try:
            line = next((line for _, line in read_lines(path, self._offset_bytes)), None) or {}
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}.") from error
        for name, content in (line.get("media") or {}).items():
            if name.encode("utf-8", "replace").decode() == self.name and isinstance(content, dict):
                return content
        raise RunError(f"{path} holds no {self.name!r} where it was: it has changed. List what the run has again.")

    def read(self) -> Any:
        """It, as :func:`relume.monitor.kinds.read` gives it back: an image of Pillow, arrays, text, ...

        Raises:
            RunError: it is gone or damaged.
        """
        return read(self.folder, self.content)


def media(
    run: str | Path, root: str | Path = "runs", *, name: str | None = None, kind: str | None = None
) -> list[Kept]:
    """What a run has kept besides its numbers, in the order of its steps; dead branches left out. Files are not read.

    Args:
        run: its name below ``root``, or its folder.
        name, kind: only what has this name, or is of this kind.

    Raises:
        UnknownNameError: there is no such run.

    Example:
        >>> import tempfile, relume
        >>> with relume.Run("a", root=tempfile.mkdtemp(), quiet=True) as run:
        ...     run.log({"said": "three cats"}, step=7)
        >>> [(one.name, one.kind, one.step, one.read()) for one in media(run.folder)]
        [('said', 'text', 7, 'three cats')]
    """
    folder = find_run(run, root)
    query = "SELECT name, kind, step, epoch, time, segment, offset FROM media"
    wanted = {column: value for column, value in (("name", name), ("kind", kind)) if value is not None}
    if wanted:
        query += " WHERE " + " AND ".join(f"{column}=?" for column in wanted)
    query += " ORDER BY step, segment, line, place"
    rows = ask(folder, lambda connection: connection.execute(query, list(wanted.values())).fetchall())
    return [
        Kept(called, sort, step, epoch, time, folder, segment, offset)
        for called, sort, step, epoch, time, segment, offset in rows
    ]
