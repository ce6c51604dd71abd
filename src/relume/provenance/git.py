"""What git knows of a folder: asked through the git program, which may be missing, slow or find the repository broken.

Nothing here changes a repository or runs what it configures: no hooks, no fsmonitor, no external diff, no pager, no
prompts, no network; each question has a time limit.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 20.0
"""The time limit of one question."""

_MOST_BYTES = 64 << 20
_SAFE = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.pager=cat", "core.quotePath=false", "core.sshCommand=false",
    "core.askPass=true", "credential.helper=", "diff.external=", "diff.noprefix=false", "diff.mnemonicPrefix=false",
    "diff.relative=false", "diff.orderFile=/dev/null", "color.ui=false", "status.renames=false", "protocol.allow=never",
    "submodule.recurse=false", "status.relativePaths=true", "gc.auto=0",
    "maintenance.auto=false", "log.showSignature=false", "advice.detachedHead=false",
)  # fmt: skip
_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES", "GIT_EXEC_PATH")


class GitError(Exception):
    """git could not answer: why, in words. It is noted with the run and never ends it."""


def git(folder: str | os.PathLike[str], *arguments: str, limit: int = _MOST_BYTES, seconds: float = SECONDS) -> bytes:
    """What ``git ARGUMENTS`` writes when asked in ``folder``.

    Raises:
        GitError: there is no git, it failed, took too long or wrote more than ``limit`` bytes.
    """
    settings = [part for setting in _SAFE for part in ("-c", setting)]
    command = ["git", "--no-pager", "--no-optional-locks", "--literal-pathspecs", *settings, *arguments]
    if any(argument.startswith(":(") for argument in arguments):
        command.remove("--literal-pathspecs")
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the training
            )
        except FileNotFoundError:
            raise GitError("there is no git program" if Path(folder).is_dir() else f"{folder} is gone") from None
        except OSError as error:
            raise GitError(f"git could not be started: {error.strerror}") from None
        status = _wait(process, out.fileno(), limit, seconds, arguments[0])
        out.seek(0)
        errors.seek(0)
        if status:
            lines = errors.read(4000).decode(errors="replace").strip().splitlines() or [f"exit status {status}"]
            raise GitError(lines[0].removeprefix("fatal: ").removeprefix("error: "))
        return out.read()


def environment() -> dict[str, str]:
    """This process's environment, without what would lead git elsewhere or let it ask, write or run something."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    return kept | {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_PAGER": "cat",
        "GIT_ASKPASS": "true",
        "GIT_NO_REPLACE_OBJECTS": "1",
    }


def _wait(process: subprocess.Popen[bytes], out: int, limit: int, seconds: float, what: str) -> int:
    waited, step = 0.0, 0.25
    while True:
        try:
            status = process.wait(step)
            break
        except subprocess.TimeoutExpired:
            waited += step
        if waited >= seconds or os.fstat(out).st_size > limit:
            process.kill()
            process.wait()
            if waited >= seconds:
                raise GitError(f"git {what} took longer than {seconds:g} s")
    if os.fstat(out).st_size > limit:
        raise GitError(f"git {what} wrote more than {limit >> 20} MB")
    return status


@dataclass
class Change:
    """A file that is not as the commit has it."""

    path: bytes
    kind: str
    """``"modified"``, ``"added"``, ``"deleted"``, ``"untracked"`` or ``"submodule"``."""
    mode: int = 0


@dataclass
class State:
    """How a repository stands. ``commit`` is empty where there is none yet, ``branch`` where HEAD is detached."""

    root: Path
    commit: str = ""
    branch: str = ""
    upstream: str = ""
    ahead: int | None = None
    remote: str = ""
    """The address as it is configured, credentials included: it must be redacted before it is written."""
    changes: list[Change] = field(default_factory=list)
    problem: str = ""
    """Why the state of the working tree is not known; empty where it is."""


def root_of(folder: Path) -> Path | None:
    """The top of the working tree that ``folder`` lies in; ``None`` outside of any, and in a bare repository.

    Raises:
        GitError: there is one, and git refuses it or cannot read it.
    """
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return None
    found = (
        git(folder, "rev-parse", "--is-inside-work-tree", "--show-cdup").decode(errors="surrogateescape").split("\n")
    )
    return (folder / found[1]).resolve() if found[0] == "true" else None


def state_of(root: Path, leave_out: Sequence[Path] = ()) -> State:
    """How the repository at ``root`` stands, by one ``git status``; ``leave_out`` are folders whose files do not count."""
    found = State(root)
    inner = [os.path.relpath(path, root) for path in leave_out if path != root and path.is_relative_to(root)]
    paths = ["--", ":(top)", *(f":(top,exclude,literal){path}" for path in inner)] if inner else []
    shown = "no" if _setting(root, "status.showUntrackedFiles") == "no" else "all"
    try:
        out = git(
            root,
            "status",
            f"--untracked-files={shown}",
            "--porcelain=v2",
            "--branch",
            "-z",
            "--no-renames",
            "--ignore-submodules=none",
            *paths,
        )
        _read_status(out, found)
    except GitError as error:
        found.problem = str(error)
        try:
            found.commit = git(root, "rev-parse", "--verify", "-q", "HEAD^{commit}").decode().strip()
        except GitError:
            pass
    found.remote = _remote(root, found.upstream)
    return found


def _setting(root: Path, name: str) -> str:
    try:
        return git(root, "config", "--get", name).decode(errors="replace").strip()
    except GitError:
        return ""


def _read_status(out: bytes, found: State) -> None:
    """The format of ``git status --porcelain=v2 -z``: see git-status(1)."""
    for line in out.split(b"\0"):
        kind = line[:1]
        if kind == b"#":
            _, name, value = line.decode(errors="replace").split(" ", 2)
            if name == "branch.oid":
                found.commit = "" if value == "(initial)" else value
            elif name == "branch.head":
                found.branch = "" if value == "(detached)" else value
            elif name == "branch.upstream":
                found.upstream = value
            elif name == "branch.ab":
                found.ahead = int(value.split(" ")[0])
        elif kind == b"1":
            _, states, submodule, head, _, mode, _, _, path = line.split(b" ", 8)
            found.changes.append(Change(path, _kind(states, submodule, head, mode), int(mode, 8)))
        elif kind == b"u":
            mode = line.split(b" ", 7)[6]
            found.changes.append(Change(line.split(b" ", 10)[10], "modified", int(mode, 8)))
        elif kind == b"?":
            found.changes.append(Change(line[2:], "untracked"))


def _kind(states: bytes, submodule: bytes, head: bytes, mode: bytes) -> str:
    if submodule.startswith(b"S"):
        return "submodule"
    if int(mode, 8) == 0:
        return "deleted"
    return "added" if int(head, 8) == 0 else "modified"


def _remote(root: Path, upstream: str) -> str:
    """The address of the upstream's remote, else of ``origin``, else of the first there is."""
    try:
        out = git(root, "config", "-z", "--get-regexp", r"^remote\..*\.url$")
    except GitError:
        return ""
    urls: dict[str, str] = {}
    for entry in out.decode(errors="replace").split("\0"):
        name, _, url = entry.partition("\n")
        if url:
            urls.setdefault(name.removeprefix("remote.").removesuffix(".url"), url)
    return urls.get(upstream.partition("/")[0]) or urls.get("origin") or next(iter(urls.values()), "")


def submodules(root: Path) -> Iterator[Path]:
    """The working trees of a repository's submodules, those that are there."""
    if not (root / ".gitmodules").is_file():
        return
    try:
        out = git(root, "config", "-z", "-f", ".gitmodules", "--get-regexp", r"^submodule\..*\.path$")
    except GitError:
        return
    for entry in out.split(b"\0"):
        place = root / os.fsdecode(entry.partition(b"\n")[2])
        if entry and (place / ".git").exists() and place.resolve().is_relative_to(root):
            yield place.resolve()


def not_tracked(root: Path, paths: Iterable[bytes]) -> list[bytes]:
    """Those of ``paths`` that the repository does not have."""
    names = [os.fsdecode(path) for path in paths]
    known: set[bytes] = set()
    for start in range(0, len(names), 500):
        known.update(git(root, "ls-files", "-z", "--cached", "--", *names[start : start + 500]).split(b"\0"))
    return [path for path in map(os.fsencode, names) if path not in known]


def unwatched(root: Path) -> list[bytes]:
    """Files that differ from the index although git was told not to look at them.

    That is ``git update-index --assume-unchanged`` and ``--skip-worktree``: ``git status`` does not name them. Files that
    are not there, as in a sparse checkout, do not count.
    """
    found = []
    for line in git(root, "ls-files", "-z", "-v", "--stage").split(b"\0"):
        facts, _, path = line.partition(b"\t")
        tag = facts[:1]
        if not (tag == b"S" or tag.islower()):
            continue
        _, _, name, _ = facts.split(b" ")
        place = root / os.fsdecode(path)
        try:
            if place.is_symlink():
                data = os.fsencode(place.readlink())
            elif place.is_file():
                data = place.read_bytes()
            else:
                continue
        except OSError:
            continue
        if name_of(data, len(name)) != name.decode():
            found.append(path)
    return found


def with_other_line_ends(root: Path) -> tuple[list[bytes], list[bytes]]:
    """Files whose lines end with CR LF here and with LF in git (``core.autocrlf``, ``eol=crlf``); and those with both here."""
    if not _converts_line_ends(root):
        return [], []
    found: tuple[list[bytes], list[bytes]] = [], []
    for line in git(root, "ls-files", "-z", "--eol").split(b"\0"):
        facts, _, path = line.partition(b"\t")
        if facts.startswith(b"i/lf ") and b" w/crlf " in facts:
            found[0].append(path)
        elif facts.startswith(b"i/lf ") and b" w/mixed " in facts:
            found[1].append(path)
    return found


def _converts_line_ends(root: Path) -> bool:
    if _setting(root, "core.autocrlf").lower() in ("true", "yes", "on", "1") or _setting(root, "core.eol") == "crlf":
        return True
    places = [root / ".git" / "info" / "attributes"]
    names = git(root, "ls-files", "-z", "--", ":(top,glob)**/.gitattributes").split(b"\0")
    for place in [*places, *(root / os.fsdecode(name) for name in names if name)]:
        try:
            if b"crlf" in place.read_bytes():
                return True
        except OSError:
            continue
    return False


def difference(root: Path, commit: str, without: Sequence[bytes], limit: int) -> bytes:
    """What ``git apply`` makes of ``commit`` the working tree, but for the files ``without`` and those git does not track.

    Raises:
        GitError: git failed, took too long, or there are more than ``limit`` bytes.
    """
    excluded = [os.fsdecode(b":(top,exclude,literal)" + path) for path in without]
    return git(
        root,
        *("diff", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color"),
        *("--ignore-submodules=all", "--src-prefix=a/", "--dst-prefix=b/", commit, "--", ":(top)", *excluded),
        limit=limit,
    )


@dataclass(frozen=True)
class Blob:
    """A file of a commit."""

    path: bytes
    mode: int
    hash: str


def files_of(repository: Path, commit: str) -> list[Blob]:
    """All files of a commit; submodules have the mode 0o160000.

    Raises:
        GitError: the repository does not have it.
    """
    found = []
    for line in git(repository, "ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0"):
        if line:
            facts, _, path = line.partition(b"\t")
            mode, _, name = facts.split(b" ", 2)
            found.append(Blob(path, int(mode, 8), name.decode()))
    return found


def name_of(data: bytes, digits: int) -> str:
    """The name that git gives to a file's content: SHA-1, or SHA-256 where names have 64 digits."""
    header = b"blob %d\0" % len(data)
    return (hashlib.sha1(header + data) if digits == 40 else hashlib.sha256(header + data)).hexdigest()


def contents(repository: Path, blobs: Sequence[Blob]) -> Iterator[tuple[Blob, bytes]]:
    """The bytes of files of a commit as git has them: no filter, no conversion of line ends. Each is checked against its hash.

    Raises:
        GitError: one is missing or damaged.
    """
    command = ["git", "--no-pager", "cat-file", "--batch"]
    with tempfile.TemporaryFile() as names:
        names.write(b"".join(blob.hash.encode() + b"\n" for blob in blobs))
        names.seek(0)
        with subprocess.Popen(
            command, cwd=repository, env=environment(), stdin=names, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            try:
                for blob in blobs:
                    header = process.stdout.readline().split()
                    if len(header) != 3 or header[1] != b"blob":
                        raise GitError(f"the object {blob.hash} ({os.fsdecode(blob.path)}) is missing or damaged")
                    data = process.stdout.read(int(header[2]))
                    if process.stdout.read(1) != b"\n" or len(data) != int(header[2]):
                        raise GitError(f"git ended in the middle of {os.fsdecode(blob.path)}")
                    if name_of(data, len(blob.hash)) != blob.hash:
                        raise GitError(f"the object {blob.hash} ({os.fsdecode(blob.path)}) is damaged")
                    yield blob, data
            finally:
                process.kill()
