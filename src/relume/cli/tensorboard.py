"""``relume tensorboard``: TensorBoard's own server, on runs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from relume.cli.output import Root, console


def tensorboard(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Runs by name or path; all below the root.", show_default=False),
    ] = None,
    root: Root = Path("runs"),
    port: Annotated[
        int | None, typer.Option(help="The port; 6006 or the next free one by default.", min=0, max=65535)
    ] = None,
    host: Annotated[str, typer.Option(help="Which address to listen on; this machine only by default.")] = "127.0.0.1",
) -> None:
    """Start TensorBoard on runs, until Ctrl-C.

    Example: [bold]relume tensorboard fashion fashion-2[/bold]
    """
    from relume.errors import RootError
    from relume.monitor import find_run
    from relume.trackers.tensorboard.server import command, folder_of

    if not names and not root.is_dir():
        raise RootError(f"{root} is no folder: --root is the folder that holds the runs.")
    runs = [find_run(name, root) for name in names or ()]
    if not runs and next(root.glob("**/*tfevents*"), None) is None:
        console().print(
            f"Nothing below {root} is for TensorBoard yet; what comes is shown. Runs that were made without that tracker: "
            "relume sync --to tensorboard",
            highlight=False,
            markup=False,
        )
    with folder_of(runs, root) as folder:
        process = subprocess.Popen(command(folder, port, host))
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            status = process.wait() and 0
    raise typer.Exit(status)
