"""``relume pack``: a run as one file that another person can open, check and reproduce."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relume.cli.output import Json, Root, console, counted, print_json, size

if TYPE_CHECKING:
    from relume.share.pack import Packed

_WHAT, _CARD = "What goes in", "Model card"


def pack(
    run: Annotated[
        str,
        typer.Argument(
            help="RUN (its newest checkpoint), RUN@best, RUN@12, or a checkpoint's path.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; by default RUN.relume here.", show_default=False)
    ] = None,
    root: Root = Path("runs"),
    data: Annotated[
        str | None,
        typer.Option(
            help="What the numbers are measured on: fashion-mnist, a folder of images, a file of tensors; by default the run's.",
            rich_help_panel=_WHAT,
            show_default=False,
        ),
    ] = None,
    evaluate: Annotated[
        bool | None,
        typer.Option(
            "--evaluate/--no-evaluate",
            help="Insist on, or forbid, measuring the numbers anew; by default it is done where the data is here.",
            rich_help_panel=_WHAT,
            show_default=False,
        ),
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Examples with their outputs.", rich_help_panel=_WHAT)] = 4,
    sample: Annotated[
        int, typer.Option(min=0, help="So many samples of the data, with numbers of their own.", rich_help_panel=_WHAT)
    ] = 0,
    graph: Annotated[
        bool, typer.Option(help="The model as a graph, which opens without its class.", rich_help_panel=_WHAT)
    ] = True,
    code: Annotated[bool, typer.Option(help="The code that the run kept.", rich_help_panel=_WHAT)] = True,
    report: Annotated[
        bool, typer.Option(help="The run as a page that any browser opens.", rich_help_panel=_WHAT)
    ] = True,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Also the whole checkpoint, to train on.", rich_help_panel=_WHAT)
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Which of several models.", rich_help_panel=_WHAT, show_default=False)
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run the definition of the model's class out of the code that the run kept, where it is not installed.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    title: Annotated[str, typer.Option(help="What it is called.", rich_help_panel=_CARD, show_default=False)] = "",
    author: Annotated[
        list[str] | None,
        typer.Option(help="Whose work it is; several times for several.", rich_help_panel=_CARD, show_default=False),
    ] = None,
    licence: Annotated[
        str,
        typer.Option("--licence", "--license", help="As SPDX has it: MIT.", rich_help_panel=_CARD, show_default=False),
    ] = "",
    citation: Annotated[str, typer.Option(help="How to cite it.", rich_help_panel=_CARD, show_default=False)] = "",
    intended_use: Annotated[
        str, typer.Option(help="What it was made for, and what not.", rich_help_panel=_CARD, show_default=False)
    ] = "",
    limitations: Annotated[
        str, typer.Option(help="Where it is known to fail.", rich_help_panel=_CARD, show_default=False)
    ] = "",
    ethics: Annotated[
        str, typer.Option(help="Whom it may harm, and what was done.", rich_help_panel=_CARD, show_default=False)
    ] = "",
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    as_json: Json = False,
) -> None:
    """Pack a run into one file: weights, architecture, numbers and how they were measured, examples, code, a model card.

    Another person opens it with relume.load_model, and checks it with relume reproduce. Packing twice gives the same bytes.

    [bold]relume pack fashion@best -o fashion.relume --author "Ann Lee" --licence MIT[/bold]
    """
    from relume.share.pack import pack as write

    packed = write(
        run,
        out,
        root=root,
        data=data,
        evaluate=evaluate,
        examples=examples,
        graph=graph,
        code=code,
        report=report,
        checkpoint=checkpoint,
        sample=sample,
        title=title,
        authors=author or (),
        licence=licence,
        citation=citation,
        intended_use=intended_use,
        limitations=limitations,
        ethics=ethics,
        model=model,
        force=force,
        trust=trust,
        progress=None if quiet or as_json else _progress(),
    )
    if as_json:
        print_json(_facts(packed))
    elif not quiet:
        _print(packed)


def _progress() -> Callable[[int, int], None] | None:
    """A line on a terminal that says how far the measuring is."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        end = "\r\x1b[K" if done == total else ""
        sys.stderr.write(f"\rmeasuring: {done:,} of {total:,} samples{end}")
        sys.stderr.flush()

    return show


_GROUPS = (
    ("weights", "model.safetensors"),
    ("graph", "graph/"),
    ("examples", "examples/"),
    ("sample of the data", "sample/"),
    ("code", "code/"),
    ("report", "report.html"),
    ("whole checkpoint", "checkpoint/"),
    ("model card", ("README.md", "pictures/", "CITATION.cff")),
)


def _print(packed: Packed) -> None:
    out = console()

    def line(text: str, style: str = "") -> None:
        out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    line(f"{packed.path}  {size(packed.size_bytes)}, {counted(len(packed.files) + 1, 'file')}", "bold")
    rest = dict(packed.files)
    for name, begins in _GROUPS:
        found = {path: rest.pop(path) for path in list(rest) if path.startswith(begins)}
        if found:
            number = f", {counted(len(found), 'file')}" if len(found) > 1 else ""
            line(f"  {name:<20}{size(sum(found.values())):>9}{number}")
    line(f"  {'facts':<20}{size(sum(rest.values())):>9}, {counted(len(rest), 'file')}")
    for name, values in _claims(packed).items():
        line(f"  {name:<20}{values}")
    for text in packed.notes:
        line(f"Note: {text}.")
    for text in packed.missing:
        line(f"Not in it: {text}.", "yellow")
    if unsaid := _unsaid(packed):
        line(f"Not said: {', '.join(unsaid)}.", "yellow")
    line(f"Check it as another person would: relume reproduce {packed.path}")


def _claims(packed: Packed) -> dict[str, str]:
    """Each number once: as measured here where that was done."""
    found: dict[str, str] = {}
    for claim in packed.claims.claims:
        where = packed.claims.evaluations[claim.evaluation].where
        how = "measured here" if where == "packing" else "as the run recorded it"
        found[claim.name] = f"{claim.value:>9.6g}, {how}"
    return found


def _unsaid(packed: Packed) -> list[str]:
    """What a card should say and only its author knows."""
    given = packed.run
    wanted = {"--author": given.authors, "--licence": given.licence, "--title": given.title}
    return [option for option, value in wanted.items() if not value]


def _facts(packed: Packed) -> dict[str, Any]:
    return {
        "path": str(packed.path),
        "name": packed.name,
        "digest": packed.digest,
        "size_bytes": packed.size_bytes,
        "files": dict(packed.files),
        "claims": [claim.model_dump() for claim in packed.claims.claims],
        "has_graph": packed.model.has_graph,
        "missing": list(packed.missing),
        "notes": list(packed.notes),
    }
