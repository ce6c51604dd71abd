"""The code of a start: the repositories it lies in, what git does not have of them, and files outside of any."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from relume.provenance import git, sources
from relume.provenance.git import GitError
from relume.provenance.keeping import MOST_NAMED, Keeper, is_program, named, readable
from relume.provenance.record import Code, LeftOut, Notebook, Patch, SourceTree
from relume.provenance.secrets import is_secret_file, without_credentials
from relume.text import counted

_MOST_TREES = 12
_MOST_UNTRACKED = 20_000
_MOST_EXCLUDED = 500
_PATCH_BYTES = 5_000_000


def capture_code(keeper: Keeper, arguments: Sequence[str], directory: Path, since: float) -> Code:
    """Keep what is needed to build the source tree again.

    Args:
        arguments: of the script; files that they name are kept.
        directory: where the process works.
        since: when it began.
    """
    script = sources.script()
    modules = sources.local_modules()
    named = sources.argument_files(arguments, directory) if not sources.in_notebook() else []  # a kernel's are its own
    main = _root(script.parent if script is not None else directory)
    found = Code(script=str(script or ""))
    wanted: dict[Path, list[tuple[Path, str]]] = {}
    problems: dict[Path, str] = {}
    bases = {module.path: module.base for module in modules}
    order = [(script, "script")] if script is not None else []
    order += [(path, "argument") for path in named] + [(module.path, "module") for module in modules]
    home = script.parent if script is not None else directory
    roots: dict[Path, Path] = {}
    for path, kind in order:
        top = roots.get(path.parent)
        if top is None:
            top = _git_root(path.parent, problems) or _folder_of(path, home, bases.get(path, path.parent))
            roots[path.parent] = top
        wanted.setdefault(top, []).append((path, kind))
    first = _git_root(home, problems) or home
    if script is not None or main is not None:
        wanted.setdefault(first, [])
    for top in list(wanted):
        if (top / ".git").exists() and top not in problems:
            for inner in git.submodules(top):
                wanted.setdefault(inner, [])
    tops = sorted(wanted, key=lambda top: (top != first, str(top)))
    for top in tops[:_MOST_TREES]:
        tree = SourceTree(path=str(top), problem=problems.get(top, ""))
        found.trees.append(tree)
        is_git = (top / ".git").exists() and top not in problems
        others = [other for other in wanted if other != top and other.is_relative_to(top)]
        if is_git:
            capture_repository(
                tree,
                top,
                keeper,
                wanted[top],
                [keeper.folder.resolve().parent, *others],
                since,
                with_untracked=top.is_relative_to(first) and top != Path.home(),
            )
        else:
            capture_files(tree, top, keeper, wanted[top], since)
    if len(tops) > _MOST_TREES:
        found.problem = f"code was imported from {len(tops)} folders: {_MOST_TREES} of them are kept"
    found.notebook = capture_notebook(keeper)
    return found


def _root(folder: Path) -> Path | None:
    """The folder at or above this one that has a ``.git``."""
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


def _git_root(folder: Path, problems: dict[Path, str]) -> Path | None:
    top = _root(folder)
    if top is None or top in problems:
        return top
    try:
        return git.root_of(folder)
    except GitError as error:  # a folder like any other, from here on
        problems[top] = f"git: {error}"
        return top


def _folder_of(path: Path, home: Path, base: Path) -> Path:
    """The tree of a file outside of any repository: the script's folder where it lies in it, else where it was found."""
    return home if path.is_relative_to(home) else base


def capture_files(tree: SourceTree, top: Path, keeper: Keeper, files: Iterable[tuple[Path, str]], since: float) -> None:
    for path, kind in dict(reversed(list(files))).items():
        keeper.keep(tree, top, os.fsencode(path.relative_to(top)), kind, since, whatever=True)


def capture_repository(
    tree: SourceTree,
    top: Path,
    keeper: Keeper,
    files: Sequence[tuple[Path, str]],
    leave_out: Sequence[Path],
    since: float,
    *,
    with_untracked: bool = True,
) -> None:
    """``with_untracked``: it is the script's own repository; of others, such as libraries, what was imported is enough."""
    state = git.state_of(top, leave_out)
    tree.is_git, tree.commit = True, state.commit
    tree.branch, tree.upstream = keeper.redactor.text(state.branch), keeper.redactor.text(state.upstream)
    tree.ahead, tree.remote, tree.problem = (
        state.ahead,
        keeper.redactor.text(without_credentials(state.remote)),
        state.problem,
    )
    imported = {os.fsencode(path.relative_to(top)): kind for path, kind in files}
    if state.problem:  # what is known to have run is kept in any case
        capture_files(tree, top, keeper, files, since)
        return
    changes = sorted(
        state.changes, key=lambda c: (c.kind == "untracked", c.path not in imported, not c.path.endswith(b".py"))
    )
    untracked = 0
    told = {change.path for change in changes if change.kind != "deleted"}
    without: list[bytes] = []
    for change in changes:
        name = readable(change.path)[0]
        if change.kind == "deleted" and change.path not in told and _is_there(top, change.path):
            keeper.keep(tree, top, change.path, "ignored", since, whatever=True)  # git rm --cached, and ignored since
            told.add(change.path)
        elif change.kind == "deleted" and keeper.redactor.text(name) != name:
            keeper.leave_out(tree, LeftOut(path=name, kind="deleted", why="its name holds what looks like a secret"))
        elif change.kind == "deleted":
            tree.deleted.append(named(change.path))
        elif change.kind == "submodule":
            if not any(other == top / os.fsdecode(change.path) for other in leave_out):
                keeper.leave_out(tree, LeftOut(path=name, kind="modified", why="it is a submodule that has changed"))
        elif change.kind == "untracked" and not with_untracked and change.path not in imported:
            continue
        elif change.kind == "untracked":
            untracked += 1
            is_file_of_data = change.path not in imported and not sources.is_source(name)
            # data beside the code: thousands of files are not looked at, when enough are named
            if untracked > _MOST_UNTRACKED or (is_file_of_data and len(tree.left_out) >= MOST_NAMED):
                tree.more_left_out += 1
            else:
                keeper.keep(tree, top, change.path, "untracked", since, whatever=change.path in imported)
        elif not keeper.keep(tree, top, change.path, change.kind, since):
            without.append(change.path)
    try:
        for inner in git.not_tracked(top, imported):
            if inner not in told:
                keeper.keep(tree, top, inner, "ignored", since, whatever=True)
        for inner in git.unwatched(top):
            if inner not in told and not keeper.keep(tree, top, inner, "modified", since):
                without.append(inner)
        converted, mixed = git.with_other_line_ends(top)
        tree.crlf = [named(path) for path in converted if path not in told]
        for inner in mixed:
            if inner not in told:
                keeper.keep(tree, top, inner, "modified", since)
    except GitError as error:
        tree.problem = str(error)
    if state.commit and any(change.kind in ("modified", "added", "deleted") for change in changes):
        without += [c.path for c in changes if c.kind == "deleted" and is_secret_file(readable(c.path)[0])]
        _keep_patch(tree, top, keeper, without)


def _is_there(top: Path, path: bytes) -> bool:
    """Whether a file lies at its own place, and not behind a link that has taken the place of its folder."""
    place = top / os.fsdecode(path)
    try:
        return place.parent.resolve() == top.resolve() / place.parent.relative_to(top) and (
            place.is_symlink() or place.is_file()
        )
    except OSError:
        return False


def _keep_patch(tree: SourceTree, top: Path, keeper: Keeper, without: Sequence[bytes]) -> None:
    """The patch shows changes of files that are kept; that a file of secrets was changed is all that is said of it."""
    try:
        if len(without) > _MOST_EXCLUDED:
            raise GitError(f"{counted(len(without), 'changed file')} were left out")
        data = git.difference(top, tree.commit, without, min(_PATCH_BYTES, max(keeper.left_bytes, 0)))
        cleaned = [keeper.clean(part, is_settings=not _is_of_program(part)) for part in _files_of_patch(data)]
        whole = [part for part in cleaned if part is not None]
        if len(whole) < len(cleaned):
            raise GitError("it is binary and holds what looks like a secret")
    except GitError as error:
        tree.problem = f"no patch was made: {error}"
        return
    content, redacted = b"".join(part for part, _ in whole), sum(count for _, count in whole)
    if content:
        digest, stored = keeper.store(content)
        tree.patch = Patch(stored=stored, hash=digest, size_bytes=len(content), redacted=redacted)


def _files_of_patch(patch: bytes) -> list[bytes]:
    """A patch in parts of a file each; within one, no line begins with these words."""
    return re.split(rb"(?m)^(?=diff --git )", patch)


def _is_of_program(part: bytes) -> bool:
    first = part.partition(b"\n")[0].decode(errors="replace")
    return is_program(first.rstrip().rstrip('"'))


def capture_notebook(keeper: Keeper) -> Notebook | None:
    """The cells as executed so far, secrets taken out; ``None`` outside of IPython."""
    import json

    cells = sources.executed_cells()
    if cells is None:
        return None
    before = keeper.redactor.count
    clean = [(number, keeper.redactor.text(text)) for number, text in cells.cells]
    digest, stored = keeper.store(json.dumps([{"number": n, "text": text} for n, text in clean], indent=1).encode())
    redacted = keeper.redactor.count - before
    return Notebook(cells=len(clean), stored=stored, hash=digest, path=cells.path, redacted=redacted)
