"""A layer in place of the operating system's file calls that fails, or ends the process, at the n-th of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from relume.checkpoint import files


class Faults:
    """Counts the calls that change files, and at the one numbered ``at`` does something else.

    It also remembers what no fsync has made safe, so that `power_cut` can take it back.
    """

    def __init__(
        self, at: int = -1, act: Callable[[Faults, str], None] | None = None, short_writes: bool = False
    ) -> None:
        self.count = 0
        self._at = at
        self._act = act
        self._short_writes = short_writes
        self._open: dict[int, Path] = {}
        self._unsafe_content: set[Path] = set()
        self._unsafe_names: list[tuple[str, Path, Path]] = []

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        creates = bool(flags & os.O_CREAT)
        if creates:
            self._boundary("create")
        fd = os.open(path, flags, mode)
        self._open[fd] = Path(path)
        if creates:
            self._unsafe_content.add(Path(path))
            self._unsafe_names.append(("create", Path(path), Path(path)))
        return fd

    def write(self, fd: int, data: files.Buffer) -> int:
        view = memoryview(data)
        if self.count == self._at and len(view) > 1:
            os.write(fd, view[: len(view) // 2])
        self._boundary("write")
        return os.write(fd, view[: max(1, len(view) // 3)] if self._short_writes else view)

    def fsync(self, fd: int) -> None:
        self._boundary("fsync")
        os.fsync(fd)
        path = self._open[fd]
        self._unsafe_content.discard(path)
        self._unsafe_names = [change for change in self._unsafe_names if change[2].parent != path]

    def close(self, fd: int) -> None:
        del self._open[fd]
        os.close(fd)

    def replace(self, source: Path, target: Path) -> None:
        self._boundary("rename")
        source.replace(target)
        if source in self._unsafe_content:
            self._unsafe_content.add(target)
        self._unsafe_names.append(("rename", source, target))

    def unlink(self, path: Path) -> None:
        self._boundary("unlink")
        path.unlink()

    def mkdir(self, path: Path) -> None:
        self._boundary("mkdir")
        path.mkdir()
        self._unsafe_names.append(("mkdir", path, path))

    def take_back_what_is_unsafe(self, keep_newest: bool) -> None:
        """What a power cut may do: names that no fsync of their folder made safe are gone, or all but the newest."""
        newest = {target.parent for _, _, target in self._unsafe_names[-1:]} if keep_newest else set()
        for kind, source, target in reversed(self._unsafe_names):
            if target.parent in newest:
                continue
            with contextlib.suppress(OSError):
                if kind == "rename":
                    target.replace(source)
                elif kind == "mkdir":
                    shutil.rmtree(target)  # with all that is in it
                else:
                    target.unlink()

    def empty_what_is_unsafe(self) -> None:
        """The other thing it may do: the name is there, and half of the content."""
        for path in self._unsafe_content:
            with contextlib.suppress(OSError):
                os.truncate(path, path.stat().st_size // 2)

    def _boundary(self, kind: str) -> None:
        self.count += 1
        if self.count - 1 == self._at and self._act is not None:
            self._act(self, kind)


Damage = Callable[[Faults], None]

ENDS: dict[str, Damage] = {
    "kill": lambda faults: None,
    "power cut, names lost": lambda faults: faults.take_back_what_is_unsafe(keep_newest=False),
    "power cut, older names lost": lambda faults: faults.take_back_what_is_unsafe(keep_newest=True),
    "power cut, content lost": lambda faults: faults.empty_what_is_unsafe(),
}
"""What the end of a process leaves on the disk."""


def failing(number: int) -> Callable[[Faults, str], None]:
    def fail(faults: Faults, kind: str) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@contextlib.contextmanager
def installed(faults: Faults) -> Iterator[Faults]:
    files.system = faults
    try:
        yield faults
    finally:
        files.system = os


def run_in_child(work: Callable[[], None], boundary: int, damage: Damage) -> bool:
    """Fork and do ``work`` in the child until the boundary, or to its end, and then the damage; whether it ended."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:

            def end(faults: Faults, kind: str) -> None:
                damage(faults)
                os.kill(os.getpid(), signal.SIGKILL)

            with installed(Faults(boundary, end)) as layer:
                work()
                damage(layer)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the child failed"
    return True
