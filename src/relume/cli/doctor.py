"""``relume doctor``: what stands in the way of reproducing, in this environment and in a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relume.cli.output import Json, Root, console, print_json


def doctor(
    script: Annotated[
        str | None, typer.Argument(help="The script that trains, or with -m a module.", show_default=False)
    ] = None,
    is_module: Annotated[bool, typer.Option("--module", "-m", help="SCRIPT names a module, as in python -m.")] = False,
    root: Root = Path("runs"),
    as_json: Json = False,
) -> None:
    """Find what in this environment or script stands in the way of reproducing.

    Looks at versions, threads, settings, packages, git, the disk and, as text, at the script and what it imports: nothing
    is run. Each finding says why, and what to do. To try it instead: relume rehearse, relume reproduce.

    Exit status: 0 nothing is known to stop it, 1 something does.

    Example: [bold]relume doctor train.py[/bold]
    """
    from relume.checkup import doctor as examine
    from relume.errors import ConfigurationError
    from relume.page import print_page

    if is_module and script is None:
        raise ConfigurationError("-m needs the name of a module: relume doctor -m package.train")
    report = examine(script, root=root, is_module=is_module)
    if as_json:
        print_json(report.to_dict())
    else:
        out = console()
        print_page(report.page(min(out.width, 100)), out)
    raise typer.Exit(1 if report.stops else 0)
