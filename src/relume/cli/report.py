"""``relume report``: runs as one file that opens anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relume.cli.output import Root, counted, say, size


def report(
    runs: Annotated[
        list[str], typer.Argument(help="Names of runs below the root, or their paths.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The file; by default RUN.html here, report.html of several.", show_default=False
        ),
    ] = None,
    root: Root = Path("runs"),
    title: Annotated[
        str, typer.Option(help="What stands above it; by default the runs' names.", show_default=False)
    ] = "",
    images: Annotated[int, typer.Option(min=0, help="Pictures at most, the newest of each name; 0 for none.")] = 64,
    max_mb: Annotated[
        float, typer.Option("--max-mb", min=1, max=1000, help="The largest the file may be, in MB.")
    ] = 20,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite a file that is no report.")] = False,
) -> None:
    """Write runs into one HTML file: the page of relume ui with all that it shows, offline and without a server.

    An earlier report in its place is replaced. A run that goes on is shown as it stands now.
    """
    from relume.monitor import find_run
    from relume.ui.report import save

    folders = [find_run(name, root) for name in dict.fromkeys(runs)]
    path, made = save(folders, out, title=title, images=images, max_mb=max_mb, force=force)
    say("Written", "bold green", f"{path} ({counted(len(made.runs), 'run')}, {size(len(made.content))})")
    for note in made.notes:
        say("Note", "bold cyan", note)
    if open_it and typer.launch(path.absolute().as_uri()) != 0:
        say("Warning", "bold yellow", f"no browser opened; open {path} yourself.")
