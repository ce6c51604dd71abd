"""``relume predict``: what images show, by a run's model."""

from __future__ import annotations

import csv
import io
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relume.cli.output import Monitor, Root, console, counted, say

if TYPE_CHECKING:
    from relume.train.images import Prediction


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN@WHICH",
            help="RUN@best, RUN@last, RUN@12, RUN (its newest checkpoint), a bundle (.relume), or a .safetensors file with "
            "class names.",
            show_default=False,
        ),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES", help="Files, folders, or patterns such as 'photos/*.jpg'."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to give for each image.")] = 5,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="By default a table, or what --output's ending says.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it to this file.", show_default=False)
    ] = None,
    monitor: Monitor = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, … or auto.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images computed at once.")] = 32,
    root: Root = Path("runs"),
    trust: Annotated[bool, typer.Option("--trust", help="Run the code in a bundle to build its model.")] = False,
) -> None:
    """Tell what images show, with the model of a run that relume train made, or of a bundle.

    An image that cannot be read is named, the others are predicted, and the exit status is 1.

    Example: [bold]relume predict pets@best photos/ --output pets.csv[/bold]
    """
    from relume.errors import ConfigurationError
    from relume.monitor.record import write_whole
    from relume.train.images import ImageClassifier, find_images

    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        what = "is a folder" if output.is_dir() else f"cannot be written: there is no folder {output.parent}"
        raise ConfigurationError(f"--output {output} {what}. Give the name of a file.")
    chosen = form or _format_of(output)
    paths = find_images(images or ())
    classifier = ImageClassifier.load(model, root, monitor=monitor, device=device, trust=trust)
    found = list(classifier.predict(paths, batch_size=batch_size, top=top))
    if output is not None:
        write_whole(output, _text(found, chosen))
        console().print(
            f"{counted(len(found), 'image')} by {classifier.source}: {output}", markup=False, soft_wrap=True
        )
    elif chosen is Format.table:
        _print_table(found, classifier.source)
    else:
        typer.echo(_text(found, chosen), nl=False)
    problems = [one.problem for one in found if one.problem]
    for problem in problems:
        say("Not predicted", "bold red", problem)
    if problems:
        raise typer.Exit(1)


def _format_of(output: Path | None) -> Format:
    ending = "" if output is None else output.suffix.lower().removeprefix(".")
    return Format(ending) if ending in ("csv", "json") else Format.table


def _text(found: list[Prediction], form: Format) -> str:
    """As a file holds it."""
    out = io.StringIO()
    if form is Format.json:
        return json.dumps([one.as_json() for one in found], indent=1, ensure_ascii=False) + "\n"
    if form is Format.csv:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("image", "rank", "class", "probability"))
        for one in found:
            for rank, (name, probability) in enumerate(one.classes, 1):
                writer.writerow((one.image, rank, name, f"{probability:.6f}"))
        return out.getvalue()
    from rich.console import Console

    Console(file=out, width=120).print(_table(found))
    return out.getvalue()


def _print_table(found: list[Prediction], source: str) -> None:
    from rich.text import Text

    from relume.text import printable

    if not any(one.classes for one in found):
        return
    table = _table(found)
    table.caption = Text(printable(source, 200), style="dim")
    table.caption_justify = "left"
    console().print(table)


def _table(found: list[Prediction]) -> Any:
    """A row for each image; for a single one, a row for each class."""
    from rich.text import Text

    from relume.cli.output import table_of
    from relume.text import printable

    predicted = [one for one in found if one.classes]
    if len(predicted) == 1:
        table = table_of("image", "class", "probability")
        for rank, (name, probability) in enumerate(predicted[0].classes):
            image = predicted[0].image if rank == 0 else ""
            table.add_row(Text(printable(image, 200)), Text(printable(name)), _percent(probability))
        return table
    table = table_of("image", "class", "probability", "others")
    for one in predicted:
        (name, probability), *rest = one.classes
        others = ", ".join(f"{printable(other, 40)} {_percent(p)}" for other, p in rest if p >= 0.001)
        table.add_row(Text(printable(one.image, 200)), Text(printable(name)), _percent(probability), Text(others))
    return table


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f}%"
