"""What a script imports, and from where: nothing of it is imported here."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import relume
from relume.checkup.findings import Finding, Place
from relume.checkup.project import Project, place_of
from relume.provenance.git import GitError, root_of
from relume.provenance.sources import is_own
from relume.rehearse.scan import Source
from relume.text import counted


def imported(project: Project) -> Iterator[Finding]:
    """Modules that are not there, and those of the user's own that lie outside of the script's project."""
    missing: dict[str, Place] = {}
    outside: dict[str, Place] = {}
    if not project.sources:
        return
    top = _top(project.sources[0].path.parent)
    for source in project.sources:
        for name, node in _needed(source):
            if name in sys.stdlib_module_names or name in missing or name in outside:
                continue
            start = source.path.parent
            above = [folder for folder in start.parents if folder.is_relative_to(top)]  # a package may start further up
            place = _found(name, [start, project.sources[0].path.parent, Path.cwd(), Path.cwd() / "src", *above])
            if place is None:
                missing[name] = place_of(source, node)
            elif not place.is_relative_to(top) and is_own(place) and not place.is_relative_to(_RELUME):
                outside[name] = place_of(source, node)
    if missing:
        yield Finding(
            "stops",
            "script",
            f"{counted(len(missing), 'module')} cannot be imported here: {', '.join(missing)}",
            "The script does not start in this environment.",
            f"pip install {' '.join(missing)} (the package's name may be another), or start it where they are",
            tuple(missing.values()),
        )
    if outside:
        yield Finding(
            "may",
            "script",
            f"code from outside of the project: {', '.join(outside)}",
            "A run keeps these files, but their version is not that of the project, and others do not have them.",
            "Move it into the project, or install it from an index or a commit.",
            tuple(outside.values()),
        )


_RELUME = Path(relume.__file__).resolve().parent


def _top(folder: Path) -> Path:
    """The folder of the project: that of the git repository, else that of the script."""
    try:
        return (root_of(folder.resolve()) or folder).resolve()
    except GitError:
        return folder.resolve()


def _needed(source: Source) -> Iterator[tuple[str, ast.AST]]:
    """Top names of the modules that must be there when the file is imported: those in no try, if or function."""
    for node in source.tree.body:
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node


def _found(name: str, folders: list[Path]) -> Path | None:
    """The file or folder of a module; finders of editable installs are asked too. No module is imported."""
    spec = importlib.machinery.PathFinder.find_spec(name, [os.fspath(folder) for folder in folders])
    if spec is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return Path(sys.executable).resolve() if name in sys.modules else None
    if spec is None:
        return None
    place = spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or ()), None)
    return Path(place).resolve() if place else Path(os.__file__).resolve()
