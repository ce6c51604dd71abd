"""``relume resume``: the command that made a run, once more."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from relume.cli.output import Root


def resume(
    run: Annotated[str, typer.Argument(help="The run's name below the root, or its path.", show_default=False)],
    extra: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGS]...", help="Further arguments for its script.", show_default=False),
    ] = None,
    root: Root = Path("runs"),
) -> None:
    """Start again what made a run, in the same directory: the run carries on where it stands.

    Example: [bold]relume resume fashion -- --epochs 10[/bold]
    """
    from relume.monitor import find_run, launch_again

    folder = find_run(run, root)
    launch = launch_again(folder, extra or ())
    if launch is None:
        typer.echo(
            f"{folder.name} is finished. To extend it, give its script more epochs, such as: "
            f"relume resume {shlex.quote(run)} -- --epochs 20"
        )
        return
    changed = "".join(f"{name}={shlex.quote(value)} " for name, value in launch.environment.items())
    typer.echo(f"cd {shlex.quote(str(launch.directory))} && {changed}{shlex.join(launch.command)}")
    launch.replace_this_process()
