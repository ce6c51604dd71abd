"""``relume restore-code``, and what ``relume show`` says of a run's code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from relume.cli.output import Json, Root, console, counted, print_json, say

_MOST_SAID = 20


def restore_code(
    run: Annotated[str, typer.Argument(help="The run's name below the root, or its path.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)],
    segment: Annotated[
        int | None, typer.Option(help="Which start of the run; by default the last.", show_default=False)
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="A clone to take the commit from, if the run's own is gone.", show_default=False)
    ] = None,
    root: Root = Path("runs"),
    as_json: Json = False,
) -> None:
    """Build the source tree that a run had when it started, each file verified by its hash.

    Example: [bold]relume restore-code fashion /tmp/fashion-code[/bold]
    """
    from relume.monitor import find_run
    from relume.provenance import restore_code

    done = restore_code(find_run(run, root), folder, segment, repository)
    if as_json:
        facts = {"folder": str(done.folder), "files": done.files, "is_exact": done.is_exact, "start": done.start}
        print_json(facts | {"missing": done.missing, "differences": done.differences})
    else:
        exact = "exactly as the run had them" if done.is_exact else "but not exactly what ran"
        typer.echo(f"{counted(done.files, 'file')} in {done.folder}, each verified by its hash: {exact}.")
        for text in (*done.missing, *done.differences)[:_MOST_SAID]:
            say("Note", "bold yellow", text)
        if (more := len(done.missing) + len(done.differences) - _MOST_SAID) > 0:
            say("Note", "bold yellow", f"and {more} more: --json names all of them.")
        if done.start:
            typer.echo(f"It was started with: {done.start}")
    if done.missing:
        raise typer.Exit(1)


def code_of(folder: Path, segment: int | None = None) -> dict[str, Any]:
    """The code of a start as JSON, the patches' text included."""
    entry, patches = _entry_and_patches(folder, segment)
    code = None if entry.code is None else entry.code.model_dump()
    return {"segment": entry.segment, "missing": entry.missing, "code": code, "patches": patches}


def print_code(folder: Path, segment: int | None = None) -> None:
    """What code a start used: commits, files, what was left out, and the patches."""
    from relume.provenance import Provenance
    from relume.provenance.words import code_line, code_lines
    from relume.text import printable

    entry, patches = _entry_and_patches(folder, segment)
    unknown = Provenance.load(folder).unknown()
    if unknown:
        say(
            "Warning",
            "bold yellow",
            f"a newer relume wrote fields that this one does not know: {', '.join(unknown[:20])}",
        )
    out = console()
    lines = [code_line(entry)] if entry.code is None else code_lines(entry.code)
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    for path, text in patches.items():
        out.print(f"\nchanges in {printable(path, 300)}:", markup=False, highlight=False, soft_wrap=True)
        for line in text.splitlines():
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            out.print(printable(line.expandtabs(4), 20_000), style=style, markup=False, highlight=False, soft_wrap=True)


def _entry_and_patches(folder: Path, segment: int | None) -> tuple[Any, dict[str, str]]:
    from relume.provenance import Provenance

    entry = Provenance.load(folder).find(segment)
    patches: dict[str, str] = {}
    for tree in entry.code.trees if entry.code is not None else ():
        if tree.patch is None or not tree.patch.stored.startswith("code/files/") or ".." in tree.patch.stored:
            continue
        try:
            patches[tree.path] = (folder / tree.patch.stored).read_bytes().decode(errors="replace")
        except OSError as error:
            say("Warning", "bold yellow", f"the patch of {tree.path} cannot be read: {error.strerror}")
    return entry, patches


def main_facts(folder: Path) -> list[tuple[str, str]]:
    """Code, data and machine of the last start, for a table; empty for a run of an older relume."""
    from relume.errors import RunError
    from relume.provenance import Provenance
    from relume.provenance.record import FILE
    from relume.provenance.words import code_line, data_lines, machine_line

    if not (folder / FILE).exists():
        return []
    try:
        entry = Provenance.load(folder).find()
    except RunError as error:
        say("Warning", "bold yellow", str(error))
        return []
    rows = [("code", code_line(entry)), *(("data", line) for line in data_lines(entry))]
    return [(name, text) for name, text in (*rows, ("machine", machine_line(entry.machine))) if text]
