"""``relume compare``, ``plot``, ``history`` and ``import``: runs side by side, as pictures, taken out and brought in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from relume.cli.output import Json, Root, console, counted, print_json, say

Runs = Annotated[list[str], typer.Argument(help="Runs by name below the root, or by path.", show_default=False)]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", "-m", help="A metric or a pattern such as 'val/*'; may be repeated.", show_default=False),
]

import_app = typer.Typer(no_args_is_help=True, help="Bring what other tools have logged into the local record.")


def compare(
    runs: Runs,
    root: Root = Path("runs"),
    metric: Metrics = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what is the same.")] = False,
    curves: Annotated[bool, typer.Option(help="Draw the curves.")] = True,
    as_json: Json = False,
) -> None:
    """Compare runs: settings, code, environment, metrics and curves."""
    from relume.page import print_page
    from relume.recorded.comparing import charts, find_runs
    from relume.recorded.comparing import compare as put_side_by_side

    found = put_side_by_side(*runs, root=root)
    if as_json:
        print_json(found.as_json(everything=everything))
        return
    out = console()
    print_page(found.page(everything=everything), out)
    for line in charts(find_runs(runs, root), metric, min(out.width, 110)) if curves else ():
        out.print(line, no_wrap=True, crop=True)


def plot(
    runs: Runs,
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture: .png, .svg or .pdf.")] = Path("curves.png"),
    root: Root = Path("runs"),
    metric: Metrics = None,
    x: Annotated[str, typer.Option(help="step, epoch or time.")] = "step",
    smooth: Annotated[float, typer.Option(help="Weight of an exponential mean, from 0 to below 1.")] = 0.0,
    log: Annotated[bool, typer.Option("--log", help="A logarithmic axis of values.")] = False,
    branches: Annotated[bool, typer.Option("--branches", help="Also what was done again after a resume.")] = False,
) -> None:
    """Draw the curves of runs as a picture."""
    from relume.recorded.plotting import plot as draw

    draw(*runs, metrics=metric, x=x, smooth=smooth, log=log, branches=branches, out=out, root=root)  # type: ignore[arg-type]
    say("Written", "bold green", str(out))


def history(
    run: Annotated[str, typer.Argument(help="The run's name below the root, or its path.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="A file: .csv, .parquet or .json. By default CSV is printed.", show_default=False
        ),
    ] = None,
    root: Root = Path("runs"),
    metric: Metrics = None,
    branches: Annotated[bool, typer.Option("--branches", help="Also what was done again after a resume.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV, whatever the file is called.")] = False,
    as_parquet: Annotated[bool, typer.Option("--parquet", help="Parquet, whatever the file is called.")] = False,
    as_json: Json = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the file.")] = False,
) -> None:
    """Take the numbers of a run out: one row a step, a column for each metric."""
    from relume.errors import ConfigurationError
    from relume.recorded.reading import history as read
    from relume.recorded.tables import as_csv as csv_of
    from relume.recorded.tables import as_json as json_of
    from relume.recorded.tables import format_of, write_table

    asked = [name for name, is_asked in (("csv", as_csv), ("parquet", as_parquet), ("json", as_json)) if is_asked]
    if len(asked) > 1:
        raise ConfigurationError(f"choose one of {' and '.join(f'--{name}' for name in asked)}.")
    if out is None and as_parquet:
        raise ConfigurationError("Parquet is no text to be printed: say where it goes with --out FILE.parquet.")
    form = asked[0] if asked else "csv" if out is None else format_of(out)
    if out is not None and out.exists() and not force:
        raise ConfigurationError(f"{out} is there already: choose another file, or overwrite it with --force.")
    columns = read(run, root, metric, branches=branches)
    if out is None:
        sys.stdout.write(csv_of(columns) if form == "csv" else json_of(columns) + "\n")
        return
    write_table(columns, out, form)
    say("Written", "bold green", f"{out} ({counted(len(columns['step']), 'row')}, {counted(len(columns), 'column')})")


@import_app.command("tensorboard")
def import_tensorboard(
    folder: Annotated[Path, typer.Argument(help="A folder with event files; folders below it are runs too.")],
    name: Annotated[str | None, typer.Option(help="What the run is called here.", show_default=False)] = None,
    root: Root = Path("runs"),
    as_json: Json = False,
) -> None:
    """Import TensorBoard's event files: scalars, histograms, images, texts and hyperparameters."""
    from relume.recorded.imports import import_tensorboard as bring_in

    _tell(bring_in(folder, root, name), as_json)


@import_app.command("wandb")
def import_wandb(
    folder: Annotated[Path, typer.Argument(help="A folder wandb/offline-run-… or run-…, or its .wandb file.")],
    name: Annotated[str | None, typer.Option(help="What the run is called here.", show_default=False)] = None,
    root: Root = Path("runs"),
    as_json: Json = False,
) -> None:
    """Import a run of Weights & Biases from its local files: config, history, images and summary."""
    from relume.recorded.imports import import_wandb as bring_in

    _tell(bring_in(folder, root, name), as_json)


def _tell(found: list[Any], as_json: bool) -> None:
    if as_json:
        print_json([entry.as_json() for entry in found])
        return
    for entry in found:
        if not entry.is_new:
            say(
                "Already there",
                "bold yellow",
                f"{entry.source} was imported as the run {entry.name!r} ({entry.folder})",
            )
            continue
        brought = [counted(entry.values, "value"), *(counted(count, kind) for kind, count in entry.media.items())]
        say("Imported", "bold green", f"{entry.source} as the run {entry.name!r}: {', '.join(brought)}")
        if entry.skipped:
            left = ", ".join(f"{count:,} of {kind}" for kind, count in entry.skipped.items())
            say("Left out", "bold yellow", f"what relume does not keep, or was damaged: {left}")
