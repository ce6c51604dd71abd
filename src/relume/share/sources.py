"""The source tree of a run, as provenance versioned it, as files of a bundle."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from relume.errors import RelumeError, UnsafeFileError
from relume.provenance import restore_code
from relume.provenance.record import Code, Segment
from relume.share.documents import CODE_FOLDER, CodeFacts, SourceEntry
from relume.share.gather import Source, is_relume_command
from relume.share.manifest import check_paths
from relume.text import counted, size

MAX_FILE_BYTES = 5_000_000
MAX_BYTES = 20_000_000
_MAX_FILES = 5_000
_NAMED = 20


@dataclass(frozen=True)
class Sources:
    """The code of a run.

    Attributes:
        facts: code.json; None where the run kept no code.
        files: contents by their paths in the bundle.
        problem: why there is none, or not all of it.
    """

    facts: CodeFacts | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    problem: str = ""


def sources(source: Source) -> Sources:
    """The tree that the run had when the checkpoint's segment was started, secrets taken out as provenance did it.

    Files of more than 5 MB are left out, and so are the largest where all come to more than 20 MB; which ones is said.
    """
    segment = source.segment
    if source.folder is None or segment is None:
        return Sources(problem="the run kept no provenance (RELUME_PROVENANCE=off, or an older relume)")
    with tempfile.TemporaryDirectory(prefix="relume-code-") as scratch:
        target = Path(scratch) / "tree"
        try:
            restored = restore_code(source.folder, target, segment.segment)
        except RelumeError as error:
            return Sources(problem=source.portable.text(str(error)))
        clean = source.portable.text
        files, left_out = _read(target)
        left_out += [clean(one) for one in (*restored.missing, *restored.differences)]
    assert segment.code is not None
    facts = _facts(segment, segment.code, files, left_out, source)
    contents = {f"{CODE_FOLDER}{path}": content for path, (content, _) in files.items()}
    if not contents:
        why = "no file of it is the author's own" if facts.is_relume_command else "there are no files in it"
        return Sources(facts, {}, "" if facts.is_relume_command else f"the run kept no code: {why}")
    return Sources(facts, contents)


def _read(target: Path) -> tuple[dict[str, tuple[bytes, bool]], list[str]]:
    """The files below a folder, within the limits, and what is left out, in words."""
    sizes: dict[str, int] = {}
    left_out: list[str] = []
    for path in _walked(target):
        name = path.relative_to(target).as_posix()
        if path.is_symlink():
            left_out.append(f"{name} is a link to {path.readlink().name}")
        elif (problem := _unfit(name)) is not None:
            left_out.append(problem)
        elif (count := path.stat().st_size) > MAX_FILE_BYTES:
            left_out.append(f"{name} has {size(count)}; {size(MAX_FILE_BYTES)} a file are the most")
        else:
            sizes[name] = count
    kept: list[str] = []
    total = 0
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        total += sizes[name]
        if total > MAX_BYTES or len(kept) >= _MAX_FILES:
            left_out.append(f"{name} ({size(sizes[name])}): with it the code comes to more than {size(MAX_BYTES)}")
        else:
            kept.append(name)
    files = {name: ((target / name).read_bytes(), os.access(target / name, os.X_OK)) for name in sorted(kept)}
    if len(left_out) > 10 * _NAMED:
        left_out = [*left_out[: 10 * _NAMED], counted(len(left_out) - 10 * _NAMED, "more file")]
    return files, left_out


def _walked(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if Path(place, name).is_symlink()]
        yield from (Path(place, name) for name in sorted([*names, *links]))


def _unfit(name: str) -> str | None:
    try:
        check_paths([f"{CODE_FOLDER}{name}"])
    except UnsafeFileError:
        return f"{name!r}: no bundle can have a file of this name"
    return None


def _facts(
    segment: Segment,
    code: Code,
    files: Mapping[str, tuple[bytes, bool]],
    left_out: list[str],
    source: Source,
) -> CodeFacts:
    first = code.trees[0] if code.trees else None
    top = PurePath(first.path) if first is not None else None
    redacted = {file.path: file.redacted for tree in code.trees[:1] for file in tree.files}
    is_command = is_relume_command(segment.argv)
    notebook = "executed_cells.ipynb" if code.notebook is not None and "executed_cells.ipynb" in files else ""
    script = "" if is_command else _below(code.script, top)
    return CodeFacts(
        script=script if script in files else "executed_cells.py" if notebook else "",
        arguments=source.portable.arguments(segment.argv[1:]),
        is_relume_command=is_command,
        directory=_below(segment.directory, top),
        commit=first.commit if first is not None else "",
        branch=first.branch if first is not None else "",
        remote=first.remote if first is not None else "",
        is_dirty=first.is_dirty if first is not None else False,
        files=[
            SourceEntry(path=name, size_bytes=len(content), is_executable=is_executable, redacted=redacted.get(name, 0))
            for name, (content, is_executable) in files.items()
        ],
        left_out=left_out,
        notebook=notebook,
    )


def _below(path: str, top: PurePath | None) -> str:
    if top is None or not path or not PurePath(path).is_relative_to(top):
        return ""
    found = PurePath(path).relative_to(top).as_posix()
    return "" if found == "." else found
