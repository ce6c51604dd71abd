"""``relume reproduce``: whether a bundle's claims hold here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from relume.cli.output import Json, console, say

_STYLES = {"EXACT": "green", "WITHIN TOLERANCE": "yellow", "DIFFERENT": "bold red", "CANNOT CHECK": "dim"}
_NAME, _VERDICT = 14, 16
_WIDE = 110


def reproduce(
    bundle: Annotated[
        Path, typer.Argument(help="A .relume file, or the folder it was unpacked to.", show_default=False)
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Where the data are: a folder, or a file of tensors.", show_default=False),
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train again from code and seed, and compare weights and metrics.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let code of the bundle run. Read it first: relume unpack.")
    ] = False,
    fresh_environment: Annotated[
        bool,
        typer.Option(
            "--fresh-environment",
            help="Train in a new virtual environment with the author's exact versions. Needs --retrain and --trust.",
        ),
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that the training may take.", show_default=False)
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the report: .md, .html or .json; several times for several.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check what a bundle claims, stage by stage, and name the first that differs.

    Digests, environment, weights, preprocessing, outputs on the examples, data, metrics; with --retrain the training.
    Nothing of the bundle is executed without --trust, and your runs are not touched.

    Exit status: 0 nothing differs, and outputs or metrics were checked; 1 something differs; 2 wrong use; 3 neither outputs
    nor metrics could be checked.

    Example: [bold]relume reproduce fashion.relume -o report.html[/bold]
    """
    from relume.cli.startup import without_compiler
    from relume.errors import BundleError, ConfigurationError, StoreWriteError
    from relume.share.reproduce import reproduce as check
    from relume.share.reproduce.verdicts import WRONG_USE, checked_ending

    without_compiler()
    try:
        for path in output or ():
            checked_ending(path)
        found = check(
            bundle,
            data,
            retrain=retrain,
            trust=trust,
            fresh_environment=fresh_environment,
            timeout_seconds=timeout,
            progress=_progress(retrain),
        )
    except (BundleError, ConfigurationError) as error:
        say("Error", "bold red", str(error))
        raise typer.Exit(WRONG_USE) from None
    if as_json:
        typer.echo(found.to_json(), nl=False)
    else:
        _print(found)
    for path in output or ():
        try:
            found.save(path)
        except StoreWriteError as error:
            say("Error", "bold red", str(error))
            raise typer.Exit(WRONG_USE) from None
        say("Report", "bold", str(path))
    raise typer.Exit(found.exit_status)


def _progress(retrain: bool) -> Any:
    """Says a line a stage, when it is done."""
    from rich.console import Console
    from rich.text import Text

    from relume.text import printable

    said = Console(stderr=True)

    def progress(stage: Any, seconds: float) -> None:
        room = max(said.width - _NAME - _VERDICT - 10, 20)
        style = _STYLES[stage.verdict] if stage.is_claim or stage.verdict == "EXACT" else "yellow"
        said.print(
            Text.assemble(
                (f"{stage.name:<{_NAME}}", "bold"),
                (f"{stage.verdict:<{_VERDICT}}", style),
                (f"{seconds:6.1f} s  ", "dim"),
                printable(stage.summary, room),
            ),
            no_wrap=True,
            overflow="ellipsis",
        )
        if retrain and stage.name == "metrics":
            said.print("training again … (Ctrl-C ends it)", style="dim", highlight=False)

    return progress


def _print(found: Any) -> None:
    """The table of claims, and what follows from it."""
    from rich.text import Text

    from relume.share.reproduce.report import claimed_and_found, shown_rows
    from relume.text import printable, table_of

    out = console()
    table = table_of("stage", "claim", "claimed", "found", "verdict")
    for column, width in zip(table.columns, (13, 17, 16, 16, None), strict=True):
        column.justify, column.overflow = "left", "fold"
        column.width = width if out.width < _WIDE else None
    for stage in found.stages:
        name = stage.name
        for row in shown_rows(stage):
            style = _STYLES[row.verdict] if stage.is_claim or row.verdict != "DIFFERENT" else "yellow"
            texts = (printable(text, 40) for text in (row.claim, *map(_rounded, claimed_and_found(row))))
            table.add_row(Text(name, "bold"), *map(Text, texts), Text(str(row.verdict), style))
            name = ""
    out.print(table)
    for stage in found.stages:
        for row in stage.rows:
            if row.why and row.verdict != "EXACT" and stage.is_claim:
                place = f"{stage.name}, {printable(row.claim, 60)}: "
                out.print(Text.assemble((place, "dim"), printable(row.why, 600)))
    _print_end(found, out)


def _rounded(text: str) -> str:
    """A long number at ten digits: the report has all of them."""
    try:
        return f"{float(text):.10g}" if len(text) > 12 else text
    except ValueError:
        return text


def _print_end(found: Any, out: Any) -> None:
    from rich.text import Text

    from relume.text import printable

    style = {0: "bold green", 1: "bold red"}.get(found.exit_status, "bold yellow")
    out.print()
    out.print(Text(printable(found.conclusion, 600), style))
    for heading, texts in (("most probable reasons", found.reasons), ("what to try", found.advice)):
        if texts:
            out.print(Text(f"{heading}:", "bold"))
        for text in texts:
            out.print(Text(f"  - {printable(text, 600)}"))
