"""The source tree of a run, built again: the commit's files as git has them, and over them what the run kept."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from blake3 import blake3

from relume.errors import ConfigurationError, RootError, RunError
from relume.provenance import git
from relume.provenance.git import GitError
from relume.provenance.keeping import unnamed
from relume.provenance.record import Provenance, Segment, SourceFile, SourceTree
from relume.provenance.sources import as_notebook, as_script
from relume.text import counted, size

OUTSIDE = "_outside"
"""Below the new folder: trees that do not lie in the first one."""
PATCH = "relume-changes.patch"
_LINK = 0o120000
_SUBMODULE = 0o160000
_LFS = b"version https://git-lfs.github.com/spec/"
_STORED = re.compile(r"code/files/[0-9a-f]{2}/([0-9a-f]{64})")


@dataclass
class Restored:
    """What was built.

    Attributes:
        files: how many files were written, each verified by its hash.
        missing: why it is not the whole tree: a repository or a submodule that is not here.
        differences: how it is not exactly what ran: secrets that were taken out, files that were not kept.
        start: the command that started the run, from the new folder; empty where that is not known.
    """

    folder: Path
    files: int = 0
    missing: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    start: str = ""

    @property
    def is_exact(self) -> bool:
        return not self.missing and not self.differences


def restore_code(
    run: Path,
    folder: str | os.PathLike[str],
    segment: int | None = None,
    repository: str | os.PathLike[str] | None = None,
) -> Restored:
    """Build the source tree that a run had when it was started, in a new folder.

    Args:
        run: the run's folder.
        folder: new or empty.
        segment: which start; by default the last.
        repository: a clone to take the commit from, where the run's own repository is not here any more.

    Each file is verified: those of the commit by git's hash, the others by that taken when the run started. Files of the
    commit have the bytes that git has, with the line ends that they had then: filters such as git-lfs are not run.

    Raises:
        ConfigurationError: the folder holds something; the repository is none.
        RunError: the run kept no code; a file that it kept is damaged, or has a path that leads elsewhere.
    """
    entry = Provenance.load(run).find(segment)
    if entry.code is None:
        why = next((part for part in entry.missing if part.startswith("code")), "code")
        reason = why.removeprefix("code").removeprefix(": ") or "it ended before that was done"
        raise RunError(f"run {run.name!r} kept no code when it started (segment {entry.segment}): {reason}.")
    target = Path(folder)
    _check_empty(target)
    if repository is not None and not _has_git(Path(repository)):
        raise ConfigurationError(f"{repository} is no git repository: repository= is a clone to take the commit from.")
    found = Restored(target)
    work = _Work(run, found, target)
    places = _places(entry, target)
    for number, (tree, place) in enumerate(zip(entry.code.trees, places, strict=True)):
        source = Path(repository) if repository is not None and number == 0 else Path(tree.path)
        work.add_tree(
            tree, place, source, {p.relative_to(place) for p in places if p != place and p.is_relative_to(place)}
        )
    if entry.code.notebook is not None:
        work.add_notebook(entry.code.notebook.stored, entry.code.notebook.redacted)
    work.finish()
    if entry.code.problem:
        found.missing.append(entry.code.problem)
    found.start = _command(entry)
    return found


def _check_empty(folder: Path) -> None:
    try:
        if folder.is_dir():
            if any(folder.iterdir()):
                raise ConfigurationError(f"{folder} is not empty: name a new folder, or an empty one, for the code.")
        elif folder.exists() or folder.is_symlink():
            raise ConfigurationError(f"{folder} is a file: name a new folder for the code.")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if isinstance(error, RunError):
            raise
        raise RootError(f"{folder} cannot be made: {error.strerror}.") from None


def _has_git(folder: Path) -> bool:
    try:
        git.git(folder, "rev-parse", "--git-dir")
    except (GitError, OSError):
        return False
    return True


def _places(entry: Segment, target: Path) -> list[Path]:
    """Where each tree goes: the first is the folder itself, one inside of it lies where it lay, others stand beside."""
    assert entry.code is not None
    first = PurePath(entry.code.trees[0].path) if entry.code.trees else PurePath()
    places: list[Path] = []
    for number, tree in enumerate(entry.code.trees):
        path = PurePath(tree.path)
        if number == 0:
            places.append(target)
        elif path.is_relative_to(first):
            places.append(target / os.fsdecode(_safe(os.fsencode(path.relative_to(first)))))
        else:
            name = re.sub(r"[^\w.-]", "_", path.name).strip(".") or "folder"
            place = target / OUTSIDE / name
            places.append(place if place not in places else target / OUTSIDE / f"{name}-{number}")
    return places


class _Work:
    """Writes files first and links last, so that no path leads out of the folder, and then reads all of them again."""

    def __init__(self, run: Path, found: Restored, target: Path) -> None:
        self.run, self.found, self.target = run, found, target
        self._files: dict[Path, tuple[bytes, str]] = {}  # content's algorithm and digest, as they must be read again
        self._links: dict[Path, bytes] = {}

    def add_tree(self, tree: SourceTree, place: Path, source: Path, inner: set[Path]) -> None:
        if tree.is_git and tree.commit:
            kept = {file.name() for file in tree.files}
            gone, crlf = {unnamed(name) for name in tree.deleted}, {unnamed(name) for name in tree.crlf}
            try:
                self._add_commit(source, tree.commit, place, kept | gone, inner, crlf)
            except GitError as error:
                self._say_missing(tree, place, str(error))
        for file in tree.files:
            self._add(place, file.name(), file.mode, self._content(file), "blake3")
        self._say_differences(tree)

    def _add_commit(
        self, source: Path, commit: str, place: Path, without: set[bytes], inner: set[Path], crlf: set[bytes]
    ) -> None:
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
            raise GitError(f"{commit!r:.100} is no commit")
        if not source.is_dir():
            raise GitError(f"{source} is not there")
        blobs = git.files_of(source, commit)
        for blob in blobs:
            if blob.mode == _SUBMODULE and Path(os.fsdecode(blob.path)) not in inner:
                self.found.missing.append(f"{os.fsdecode(blob.path)} is a submodule, at its commit {blob.hash}")
        pointers = 0
        wanted = [blob for blob in blobs if blob.mode != _SUBMODULE and blob.path not in without]
        for blob, data in git.contents(source, wanted):
            pointers += data.startswith(_LFS)
            if blob.path in crlf:
                self._add(place, blob.path, blob.mode, data.replace(b"\n", b"\r\n"), "blake3")
            else:
                self._add(place, blob.path, blob.mode, data, "git", blob.hash)
        if pointers:
            what = counted(pointers, "file is the pointer", "files are the pointers")
            self.found.differences.append(
                f"{what} that git-lfs keeps in the repository: git lfs pull fetches what they stand for"
            )

    def _say_missing(self, tree: SourceTree, place: Path, why: str) -> None:
        where = f"git clone {shlex.quote(tree.remote)}" if tree.remote else "find its repository (it had no remote)"
        self.found.missing.append(
            f"the commit {tree.commit} of {tree.path} is not here ({why}). To have the whole tree, {where}, and name the "
            "clone: relume restore-code RUN DIR --repository CLONE. What the run kept itself is written."
        )
        if tree.patch is not None:
            self._add(place, PATCH.encode(), 0o100644, self._stored(tree.patch.stored, tree.patch.hash), "blake3")

    def _say_differences(self, tree: SourceTree) -> None:
        say = self.found.differences.append
        for file in tree.files:
            if file.redacted:
                say(f"{file.path}: {counted(file.redacted, 'secret')} taken out")
        for entry in tree.left_out:
            how_large = "" if entry.size_bytes is None else f", {size(entry.size_bytes)}"
            instead = "; in its place is that of the commit" if entry.kind == "modified" and tree.commit else ""
            say(f"{entry.path} ({entry.kind}{how_large}) was not kept: {entry.why}{instead}")
        if tree.more_left_out:
            say(f"{counted(tree.more_left_out, 'more file')} of {tree.path} that git does not track, not kept")
        if tree.problem and not tree.problem.startswith("no patch"):
            say(f"{tree.path}: {tree.problem}")

    def add_notebook(self, stored: str, redacted: int) -> None:
        match = _STORED.fullmatch(stored)
        cells = json.loads(self._stored(stored, match[1] if match else ""))
        pairs = [(int(cell["number"]), str(cell["text"])) for cell in cells]
        document = json.dumps(as_notebook(pairs), indent=1) + "\n"
        self._add(self.target, b"executed_cells.ipynb", 0o100644, document.encode(), "blake3")
        self._add(self.target, b"executed_cells.py", 0o100644, as_script(pairs).encode(), "blake3")
        if redacted:
            self.found.differences.append(f"the cells: {counted(redacted, 'secret')} taken out")

    def _content(self, file: SourceFile) -> bytes:
        return self._stored(file.stored, file.hash)

    def _stored(self, stored: str, digest: str) -> bytes:
        match = _STORED.fullmatch(stored)
        if match is None or match[1] != digest:
            raise RunError(
                f"{self.run / 'provenance.json'} names {stored!r:.200} as a file of the code, which it cannot be."
            )
        path = self.run / stored
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RunError(
                f"{path} cannot be read ({error.strerror}): the code of this run is not complete any more."
            ) from None
        if blake3(data).hexdigest() != digest:
            raise RunError(f"{path} is not what the run kept: it was changed or damaged since.")
        return data

    def _add(self, place: Path, path: bytes, mode: int, data: bytes, kind: str, digest: str = "") -> None:
        inner = place / os.fsdecode(_safe(path))
        if mode == _LINK:
            self._links[inner] = data
            return
        try:
            inner.parent.mkdir(parents=True, exist_ok=True)
            inner.write_bytes(data)
            inner.chmod(0o755 if mode & 0o100 else 0o644)
        except OSError as error:
            raise RootError(f"{inner} cannot be written: {error.strerror}.") from None
        self._files[inner] = (kind.encode(), digest or blake3(data).hexdigest())

    def finish(self) -> None:
        for path, (kind, digest) in self._files.items():
            data = path.read_bytes()
            now = git.name_of(data, len(digest)) if kind == b"git" else blake3(data).hexdigest()
            if now != digest:
                raise RootError(
                    f"{path} reads otherwise than it was written: the disk, or two names that are one here."
                )
        for path, link in self._links.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(os.fsdecode(link))
            except OSError as error:
                raise RootError(f"{path} cannot be made a link: {error.strerror}.") from None
        self.found.files = len(self._files) + len(self._links)


def _safe(path: bytes) -> bytes:
    """The path, if it stays below its tree.

    Raises:
        RunError: it is absolute, leads upwards, or into a repository's own files.
    """
    parts = path.replace(b"\\", b"/").split(b"/") if os.name == "nt" else path.split(b"/")
    if not all(part and part not in (b".", b"..") and part.lower() != b".git" and b"\0" not in part for part in parts):
        raise RunError(f"the run names {os.fsdecode(path)!r:.200} as a file of its code: such a path is not written.")
    return path


def _command(entry: Segment) -> str:
    """How the run was started, where its script lies in the first tree."""
    assert entry.code is not None
    script, trees = entry.code.script, entry.code.trees
    if not script or not trees or not PurePath(script).is_relative_to(trees[0].path):
        return ""
    top, directory = PurePath(trees[0].path), PurePath(entry.directory)
    is_inside = directory.is_relative_to(top) and directory != top
    place = os.path.relpath(script, directory if is_inside else top)
    begin = entry.command[: len(entry.command) - len(_rest(entry.argv))]  # an -m behind the script is its own
    words = ["-m", begin[-1]] if begin[-2:-1] == ["-m"] else [place]
    into = f"cd {shlex.quote(str(directory.relative_to(top)))} && " if is_inside else ""
    return into + shlex.join(["python", *words, *_rest(entry.argv)])


def _rest(arguments: Iterable[str]) -> list[str]:
    return list(arguments)[1:]
