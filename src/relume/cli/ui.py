"""``relume ui``: the runs in a browser, while they train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from relume.cli.output import Root, console, counted


def ui(
    shown: Annotated[
        str | None,
        typer.Argument(metavar="[RUN_OR_ROOT]", help="A run to open, or the folder of all runs.", show_default=False),
    ] = None,
    root: Root = Path("runs"),
    host: Annotated[
        str, typer.Option(help="Which address to listen on. This machine only by default; others need a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="The port; 6060 or the next free one by default.", min=0, max=65535)
    ] = None,
    with_token: Annotated[
        bool, typer.Option("--token", help="Ask for a token on this machine, too. RELUME_UI_TOKEN can say which.")
    ] = False,
    is_opened: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = False,
) -> None:
    """Show runs in a browser while they train, until Ctrl-C.

    Nothing can be changed there but notes, tags, and which runs are archived.

    Example: [bold]relume ui[/bold]
    """
    from relume.ui.server import new_token, serve

    folder, run = _asked(shown, root)
    place = "" if run is None else f"#/run/{quote(run, safe='')}"

    def ready(address: Any) -> None:
        _say(folder, f"{address.url}{place}")
        if is_opened:
            import webbrowser

            webbrowser.open(f"{address.url}{place}")

    serve(folder, host, port, token=new_token() if with_token or _is_token_set() else None, ready=ready)


def _is_token_set() -> bool:
    import os

    return bool(os.environ.get("RELUME_UI_TOKEN"))


def _asked(shown: str | None, root: Path) -> tuple[Path, str | None]:
    """The root, and the run that is to be opened first."""
    from relume.monitor import find_run
    from relume.monitor.record import is_run

    if shown is None:
        return root, None
    place = Path(shown)
    if place.exists() and not is_run(place) and not is_run(root / shown):
        return place, None  # what is no folder is told by the server
    run = find_run(shown, root).absolute()
    return run.parent, run.name


def _say(root: Path, url: str) -> None:
    from relume.monitor import runs_in

    there = f"{counted(len(runs_in(root)), 'run')} in {root}" if root.is_dir() else f"{root} (not there yet)"
    out = console()
    out.print(f"{there}: {url}", highlight=False, markup=False, soft_wrap=True)
    out.print("Read-only but for notes, tags and archiving. Ctrl-C ends it.", style="dim", highlight=False)
