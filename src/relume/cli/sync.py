"""``relume sync``: deliver to the trackers what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relume.cli.output import Json, Root, console, print_json, table_of


def sync(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Runs by name or path; all below the root.", show_default=False),
    ] = None,
    root: Root = Path("runs"),
    to: Annotated[
        list[str] | None,
        typer.Option(help="A tracker that the run was not given: tensorboard, wandb, mlflow. May be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Deliver to TensorBoard, W&B, MLflow what they have not been given yet.

    Nothing is given twice; it may be called at any time, also while a run goes on. The exit status is 1 where something is
    still left.
    """
    from rich.text import Text

    from relume.errors import RootError
    from relume.monitor import find_run, runs_in
    from relume.trackers.rebuilding import trackers_of
    from relume.trackers.sync import sync as deliver

    trackers_of(to)  # a wrong name is an error also where there is no run
    if not names and not root.is_dir():
        raise RootError(f"there is no folder {root}: --root is the folder that holds the runs.")
    folders = [find_run(name, root) for name in names] if names else runs_in(root)
    done = [synced for folder in folders for synced in deliver(folder, to or ())]
    if as_json:
        print_json([vars(synced) for synced in done])
    elif not done:
        console().print(f"No run in {root} has a tracker. Give one: relume sync RUN --to tensorboard", highlight=False)
    else:
        table = table_of("run", "what", "status")
        for synced in done:
            text = Text(synced.text, style="" if synced.is_complete else "red")
            table.add_row(Text(synced.run), Text(synced.tracker), text)
        console().print(table)
    if not all(synced.is_complete for synced in done):
        raise typer.Exit(1)
