"""Help for tests with real git repositories."""

from __future__ import annotations

import subprocess
from pathlib import Path

from relume.provenance.code import capture_repository
from relume.provenance.keeping import Keeper
from relume.provenance.record import Code, Provenance, Segment, SourceTree
from relume.provenance.secrets import Redactor


def in_git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, text: str = "first") -> str:
    in_git(folder, "add", "-A")
    in_git(folder, "commit", "-qm", text)
    return in_git(folder, "rev-parse", "HEAD")


def capture(folder: Path, run: Path, **limits: int) -> SourceTree:
    """Capture a repository as the first tree of a run's only segment."""
    run.mkdir(parents=True, exist_ok=True)
    tree = SourceTree(path=str(folder))
    capture_repository(tree, folder, Keeper(run, Redactor(), **limits), [], [run.parent], 0.0)
    segment = Segment(
        segment=1, started=0.0, argv=["train.py"], code=Code(script=str(folder / "train.py"), trees=[tree])
    )
    Provenance(run=run.name, id="x", segments=[segment]).save(run)
    return tree


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All files below a folder but git's own: their bytes and whether they are executable."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if ".git" in path.relative_to(folder).parts or (path.is_dir() and not path.is_symlink()):
            continue
        data = b"-> " + bytes(path.readlink()) if path.is_symlink() else path.read_bytes()
        found[str(path.relative_to(folder))] = (data, path.lstat().st_mode & 0o100)
    return found
