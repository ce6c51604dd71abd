"""``relume unpack``: the files of a bundle in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relume.cli.output import console, counted, size


def unpack(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .relume file.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The new folder; by default the bundle's name.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace a folder that a bundle was unpacked to.")
    ] = False,
) -> None:
    """Write the files of a bundle to a folder, whole or not at all. Nothing in it is run.

    Every byte is compared with what was packed first. The folder is as good as the bundle: load, predict and inspect take it.

    Example: [bold]relume unpack fashion.relume[/bold]
    """
    from rich.text import Text

    from relume.share.bundle import Bundle
    from relume.share.unpacking import unpack as write
    from relume.text import printable

    folder = write(bundle, output, force=force)
    members = Bundle(folder).manifest.members
    total = sum(member.size_bytes for member in members)
    shown = printable(output or folder.name, 400)
    console().print(
        Text(f"{shown}: {counted(len(members), 'file')}, {size(total)}, each as it was packed."), soft_wrap=True
    )
