"""What the commands share: their common options, tables, sizes and JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from relume.text import counted, printable, size, table_of

__all__ = ["Json", "Monitor", "Root", "console", "counted", "print_json", "say", "size", "table_of"]

Root = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
Monitor = Annotated[
    str | None,
    typer.Option(help="The metric that RUN@best looks at; by default the loss of the validation.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_LINE = 20_000


def console() -> Any:
    from rich.console import Console

    return Console()


def say(kind: str, style: str, text: str) -> None:
    """One message on stderr: nothing in it, such as a name out of a file, is markup or an order to the terminal."""
    from rich.console import Console
    from rich.text import Text

    safe = "\n".join(printable(line, _LINE) for line in text.splitlines())
    Console(stderr=True, soft_wrap=True).print(Text.assemble((f"{kind}: ", style), safe))


def print_json(value: Any) -> None:
    typer.echo(json.dumps(_finite(value), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    """JSON has no NaN: it is null there."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
