"""The files that a run keeps: each by its hash in ``RUN/code/files``, without secrets, up to a size; the others by name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from relume.provenance.record import FILE, LeftOut, SourceFile, SourceTree
from relume.provenance.secrets import Redactor, is_secret_file
from relume.provenance.sources import is_source

FILE_BYTES = 1_000_000
RUN_BYTES = 20_000_000
_CLOCK_SECONDS = 1.0  # the start of a process is known no better
_CHUNK = 4096
MOST_NAMED = 200
_SIBLINGS = 20
_PROGRAMS = (
    ".py",
    ".pyi",
    ".pyx",
    ".ipynb",
    ".c",
    ".cc",
    ".cpp",
    ".h",
    ".hpp",
    ".cu",
    ".rs",
    ".go",
    ".js",
    ".ts",
    ".patch",
)


class Keeper:
    """Keeps the files of one run.

    Args:
        folder: the run's.
        redactor: takes the secrets out.
        file_bytes, run_bytes: how much one file and all of a start may have.
    """

    def __init__(
        self, folder: Path, redactor: Redactor, file_bytes: int = FILE_BYTES, run_bytes: int = RUN_BYTES
    ) -> None:
        self.folder = folder
        self.redactor = redactor
        self.file_bytes, self.left_bytes = file_bytes, run_bytes
        self._siblings: list[Path] | None = None

    def keep(
        self, tree: SourceTree, root: Path, path: bytes, kind: str, since: float, *, whatever: bool = False
    ) -> bool:
        """Keep the file ``path`` of ``root`` in ``tree``, or say there why not; returns whether it is kept.

        Args:
            since: when the process began.
            whatever: it was imported or named, so that its suffix does not matter.
        """
        name, raw = readable(path)
        if not name or path.startswith(b"/") or b".." in path.split(b"/"):
            return False
        try:
            place = root / os.fsdecode(path)
            status = place.lstat()
            size = status.st_size
            why = self._why_not(name, status, kind, whatever)
            if why:
                self.leave_out(tree, LeftOut(path=name, size_bytes=size, kind=kind, why=why))
                return False
            if stat.S_ISLNK(status.st_mode):
                data, mode = os.fsencode(place.readlink()), 0o120000
            else:
                with place.open("rb") as file:
                    data = file.read(self.file_bytes + 1)
                mode = 0o100755 if status.st_mode & stat.S_IXUSR else 0o100644
        except OSError as error:
            self.leave_out(tree, LeftOut(path=name, kind=kind, why=f"it cannot be read: {error.strerror}"))
            return False
        cleaned = self.clean(data, is_settings=not is_program(name))
        if cleaned is None:
            why = "it is binary and holds what looks like a secret"
            self.leave_out(tree, LeftOut(path=name, size_bytes=size, kind=kind, why=why))
            return False
        content, redacted = cleaned
        digest, stored = self.store(content)
        tree.files.append(
            SourceFile(
                path=name,
                raw_path=raw,
                kind=kind,
                mode=mode,
                size_bytes=len(content),
                hash=digest,
                stored=stored,
                redacted=redacted,
                changed_after_start=status.st_mtime > since + _CLOCK_SECONDS,
            )
        )
        return True

    def _why_not(self, name: str, status: os.stat_result, kind: str, whatever: bool) -> str:
        if is_secret_file(name):
            return "its name says that it holds secrets"
        if stat.S_ISLNK(status.st_mode):
            return "" if self.redactor.text(name) == name else "its name holds what looks like a secret"
        if not stat.S_ISREG(status.st_mode):
            return (
                "it is no plain file"
                if not stat.S_ISDIR(status.st_mode)
                else "it is a folder with a repository of its own"
            )
        if kind == "untracked" and not whatever and not is_source(name):
            return "it is no source file"
        if self.redactor.text(name) != name:
            return "its name holds what looks like a secret"
        if status.st_size > self.file_bytes:
            return f"it is larger than {self.file_bytes / 1e6:g} MB"
        if status.st_size > self.left_bytes:
            return "the files of this start are larger than the limit together"
        return ""

    def leave_out(self, tree: SourceTree, entry: LeftOut) -> None:
        if len(tree.left_out) < MOST_NAMED or entry.kind != "untracked":
            entry.path = self.redactor.text(entry.path)
            tree.left_out.append(entry)
        else:
            tree.more_left_out += 1

    def clean(self, data: bytes, *, is_settings: bool = False) -> tuple[bytes, int] | None:
        """``data`` without its secrets, and their number; ``None`` for a binary file that has one.

        It is gone through in short pieces, so that the training's thread need not wait for the interpreter.
        """
        before = self.redactor.count
        encoding = "utf-8"
        try:
            text = data.decode()
        except UnicodeDecodeError:
            encoding, text = "latin-1", data.decode("latin-1")
        if "PRIVATE KEY" in text:
            text = self.redactor.text(text, is_settings=is_settings)
        parts = [self.redactor.text(part, is_settings=is_settings) for part in _pieces(text)]
        count = self.redactor.count - before
        if not count:
            return data, 0
        return None if b"\0" in data else ("".join(parts).encode(encoding), count)

    def store(self, data: bytes) -> tuple[str, str]:
        """Write ``data`` unless it is there; returns its hash, and its place below the run's folder.

        Runs of one root share equal files as hard links.
        """
        digest = blake3(data, max_threads=1).hexdigest()
        place = f"code/files/{digest[:2]}/{digest}"
        path = self.folder / place
        if path.is_file() and path.stat().st_size == len(data):
            return digest, place
        self.left_bytes -= len(data)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{digest}.{os.getpid()}")
        if not self._link(place, temporary, data):
            temporary.write_bytes(data)
        temporary.replace(path)
        return digest, place

    def _link(self, place: str, target: Path, data: bytes) -> bool:
        for sibling in self._runs_beside():
            try:
                if (sibling / place).read_bytes() == data:
                    os.link(sibling / place, target)
                    return True
            except OSError:
                continue
        return False

    def _runs_beside(self) -> list[Path]:
        """The newest runs of the same root that keep files."""
        if self._siblings is None:
            found = []
            for path in self.folder.parent.iterdir():
                try:
                    if path != self.folder:
                        found.append(((path / "code" / "files").stat().st_mtime, path))
                except OSError:
                    continue
            self._siblings = [path for _, path in sorted(found, reverse=True)[:_SIBLINGS]]
        return self._siblings


def kept_files(run: Path) -> list[Path]:
    """All files of a run's provenance, those of its code included."""
    files = [run / FILE, *(path for path in (run / "code").glob("files/*/*") if not path.name.startswith("."))]
    return [path for path in files if path.is_file()]


def is_program(name: str) -> bool:
    """Whether a file holds a program, in which ``password: str`` names a type."""
    return name.endswith(_PROGRAMS)


def _pieces(text: str) -> Iterator[str]:
    """``text`` in pieces of whole lines, some kilobytes each."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _CHUNK)
        end = len(text) if end < 0 else end + 1
        yield text[start:end]
        start = end


def named(path: bytes) -> str:
    """A path as one text: ``raw:`` and hexadecimal where it is no UTF-8. `unnamed` reads it."""
    name, raw = readable(path)
    return f"raw:{raw}" if raw else name


def unnamed(name: str) -> bytes:
    return bytes.fromhex(name[4:]) if name.startswith("raw:") else name.encode()


def readable(path: bytes) -> tuple[str, str]:
    """A path as JSON can hold it; and its bytes in hexadecimal where that loses something."""
    try:
        return path.decode(), ""
    except UnicodeDecodeError:
        return path.decode(errors="backslashreplace"), path.hex()
