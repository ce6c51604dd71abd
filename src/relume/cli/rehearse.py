"""``relume rehearse``: whether a script resumes exactly, tried on the script itself."""

from __future__ import annotations

from typing import Annotated

import typer

from relume.cli.output import Json, console, print_json

PASSES_ARGUMENTS = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def rehearse(
    script: Annotated[str, typer.Argument(help="The script, or with -m a module.", show_default=False)],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Arguments for the script.", show_default=False)
    ] = None,
    is_module: Annotated[bool, typer.Option("--module", "-m", help="SCRIPT names a module, as in python -m.")] = False,
    kills: Annotated[int, typer.Option(min=1, help="How often to kill it.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the moments at which it is killed.")] = 0,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.0, help="Seconds that one start of the script may take.", show_default=False),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(
            help='How often to save, such as "7 steps"; by default some times for each kill.', show_default=False
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the runs that are made, and say where they are.")] = False,
    cause: Annotated[
        bool, typer.Option(help="Run the script some times more to find the cause of a difference.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Prove on your own script that it resumes exactly.

    Runs it undisturbed, then again with kills at random moments, starting it again after each; then compares weights,
    optimizers, all other state and every logged value bit for bit. Your runs are not touched: it works in a temporary
    folder (TMPDIR says where). Give the script few epochs: it runs more than twice.

    Exit status: 0 resumes exactly, 1 does not, 2 nothing to prove it on, 3 the script fails by itself.

    Example: [bold]relume rehearse train.py --epochs 2[/bold]
    """
    from rich.console import Console

    from relume.rehearse import EXIT_STATUS, Plan, render, to_dict, workspace
    from relume.rehearse import rehearse as start

    said = Console(stderr=True)
    plan = Plan(script, arguments or (), is_module, kills, seed, timeout, every, cause)
    with workspace(keep) as folder:
        rehearsal = start(
            plan, folder, lambda text: said.print(f"{text} …", style="dim", highlight=False, soft_wrap=True)
        )
    if as_json:
        print_json(to_dict(rehearsal))
    else:
        console().print(render(rehearsal), soft_wrap=True)
    if keep:
        said.print(f"kept in {folder}", highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_STATUS[rehearsal.verdict])
