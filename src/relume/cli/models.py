"""``relume inspect``, ``convert``, ``diff`` and ``summary``: model files and models, looked at."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relume.cli.output import Json, console, print_json, say

if TYPE_CHECKING:
    from torch import nn

    from relume.models.contents import ModelFile
    from relume.models.look import Diff, Inspection

DIFFERENT = 1
TROUBLE = 2  # as diff, cmp and grep have it

_All = Annotated[bool, typer.Option("--all", "-a", help="List every tensor.")]
_SOURCE = "FILE, DIR, RUN, RUN@NUMBER or RUN@best"
_IMAGES = {"mlp": (1, 28, 28), "cnn": (1, 28, 28), "torchvision": (3, 224, 224), "timm": (3, 224, 224)}
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def inspect(
    file: Annotated[str, typer.Argument(metavar=_SOURCE, help="A file of weights or of a model.", show_default=False)],
    stats: Annotated[
        bool, typer.Option("--stats", "-s", help="Read all values: minimum, mean, NaN, equal tensors.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Which of several models.", show_default=False)] = None,
    all_tensors: _All = False,
    as_json: Json = False,
) -> None:
    """Show what is in a file of weights, of a model or of a training, or in a bundle. Nothing in it is run.

    Of a bundle every byte is compared with what was packed first; its tensors are listed with --all or --stats.

    The exit status is 1 when something in it is suspicious: code that torch.load would run.
    """
    from relume.models.bundled import is_bundle

    if model is None and not stats and not all_tensors and is_bundle(file):
        _inspect_bundle(file, as_json)
        return
    from relume.models.look import inspect_file
    from relume.models.look.render import inspection_page
    from relume.page import print_page

    found = inspect_file(file, stats=stats, model=model)
    if as_json:
        print_json(_inspection_facts(found))
    else:
        print_page(inspection_page(found, all_tensors=all_tensors), console())
    if found.suspicious:
        raise typer.Exit(1)


def _inspect_bundle(file: str, as_json: bool) -> None:
    from relume.page import print_page
    from relume.share.bundle import Bundle
    from relume.share.looking import look

    found = look(Bundle.open(file))
    if as_json:
        print_json(found.as_json())
    else:
        print_page(found.page(), console())
    if found.has_named_weights is False:
        raise typer.Exit(1)


def convert(
    old: Annotated[str, typer.Argument(metavar="OLD", help=f"{_SOURCE}.", show_default=False)],
    new: Annotated[
        Path, typer.Argument(metavar="NEW", help="Its ending says what is written: .safetensors .pt .pth .pt2.")
    ],
    model: Annotated[
        str | None, typer.Option(help="Which of several models; it alone is written.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite NEW.")] = False,
    take_from_suspicious: Annotated[
        bool,
        typer.Option(
            "--take-from-suspicious", help="Take the tensors out of a file that would run code. It is not run."
        ),
    ] = False,
    shard: Annotated[
        str | None, typer.Option(help="Write files of at most this size: 5GB (.safetensors).", show_default=False)
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option("--input", help="Shape without the batch, for .pt2: 3x224x224.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the weights of a file in another format, and say what was found and what was left out.

    A .pt keeps epoch, loss and optimizer of a classic checkpoint. Nothing in the old file is run.
    """
    from relume.models.look.render import conversion_page
    from relume.page import print_page

    options: dict[str, Any] = {"model": model, "force": force, "refuse": not take_from_suspicious}
    options["max_shard_bytes"] = _bytes(shard, "--shard")
    options["example_inputs"] = _example(input_shape)
    done = _converted(old, new, options)
    if as_json:
        print_json(_plain(asdict(done)))
    else:
        print_page(conversion_page(done), console())


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help=f"{_SOURCE}.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="As A.", show_default=False)],
    tolerance: Annotated[
        float, typer.Option("--tolerance", "-t", help="Absolute differences up to this count as none.")
    ] = 0.0,
    model: Annotated[
        str | None, typer.Option(help="Which of several models in a file or a checkpoint.", show_default=False)
    ] = None,
    all_tensors: _All = False,
    as_json: Json = False,
) -> None:
    """Compare two files or checkpoints tensor by tensor. NaN is equal to NaN.

    The exit status is 0 when they are the same, 1 when they differ, and 2 when that cannot be told, as diff has it.
    """
    from relume.models.look import diff as compare
    from relume.models.look.render import diff_page
    from relume.page import print_page

    with _trouble_is(TROUBLE):
        found = compare(first, second, tolerance=tolerance, model=model)
    if as_json:
        print_json(_diff_facts(found))
    else:
        print_page(diff_page(found, all_tensors=all_tensors), console())
    if not found.is_same:
        raise typer.Exit(DIFFERENT)


def summary(
    model: Annotated[
        str,
        typer.Argument(help="torchvision/NAME, timm/NAME, mlp, cnn, a model file, or a bundle.", show_default=False),
    ],
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", help="Shape without the batch: 3x224x224. One for each input.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1)] = 1,
    dtype: Annotated[
        list[str] | None, typer.Option(help="Of the inputs: float32, long. One, or one for each.", show_default=False)
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="Count its state: adamw, adam, sgd, ...", show_default=False)
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(min=1, help="Outputs of a named model; 1000 for a library's, else 10.", show_default=False),
    ] = None,
    depth: Annotated[int, typer.Option("--depth", "-d", min=0, help="How far inside layers are shown.")] = 3,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code in a bundle to build its model.")] = False,
    as_json: Json = False,
) -> None:
    """Sum up a model: layers, parameters, operations, and the memory that training it takes. It needs no weights."""
    from relume.models.look import summary as sum_up
    from relume.models.look.render import summary_page
    from relume.page import print_page

    shapes = [shape_of(text) for text in input_shape or ()]
    network, shapes = _network(model, shapes, classes, trust)
    shape: Any = None if not shapes else shapes[0] if len(shapes) == 1 else shapes
    dtypes: Any = dtype[0] if dtype and len(dtype) == 1 else dtype
    found = sum_up(network, shape, batch_size=batch_size, dtypes=dtypes, optimizer=optimizer)
    if as_json:
        print_json(_plain(asdict(found)))
    else:
        print_page(summary_page(found, depth), console())


# ------------------------------------------------------------------------------------------------------------ converting


def _converted(old: str, new: Path, options: dict[str, Any]) -> Any:
    from relume.models.files import open_model_file
    from relume.models.look import convert as write
    from relume.models.look.convert import check_target

    if new.suffix.lower() not in (".pt", ".pth") or options["model"] is not None:
        return write(old, new, **options)
    check_target(old, new, force=options["force"])
    file = open_model_file(old, refuse=options["refuse"])
    return _exported(file, new, options["force"]) if file.format == "checkpoint" else write(old, new, **options)


def _exported(file: ModelFile, new: Path, force: bool) -> Any:
    """A checkpoint as a classic .pt: with its optimizer, which `relume.models` knows nothing of."""
    from relume.models.look import Conversion, state_table
    from relume.run.export import export
    from relume.saved import find_checkpoint

    written = export(*find_checkpoint(str(file.path)), new, force=force)
    table = state_table(file.state)
    return Conversion(
        source=file.path,
        source_format=file.format,
        target=written.path,
        size_bytes=written.size_bytes,
        tensors=len(table.entries),
        elements=table.parameters,
        states={"kept": ", ".join(written.contents)},
    )


def _example(text: str | None) -> Any:
    if text is None:
        return None
    import torch

    return torch.zeros(2, *shape_of(text))  # not 1: torch.export takes a batch of one for a constant


def _bytes(text: str | None, option: str) -> int | None:
    """``5GB`` as a number."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([kmg]?)b?\s*", text.lower())
    count = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if count < 1:
        raise typer.BadParameter(f"{text!r:.40} is no size such as 5GB or 500MB.", param_hint=option)
    return count


# ------------------------------------------------------------------------------------------------------------- comparing


@contextlib.contextmanager
def _trouble_is(status: int) -> Iterator[None]:
    """Errors end this command with another status than 1, which is its answer."""
    from relume.errors import RelumeError

    try:
        yield
    except RelumeError as error:
        say("Error", "bold red", str(error))
        raise typer.Exit(status) from None


# ------------------------------------------------------------------------------------------------------------- summing up


def _network(
    name: str, shapes: list[tuple[int, ...]], classes: int | None, trust: bool
) -> tuple[nn.Module, list[tuple[int, ...]]]:
    """The model, without weights where it is made by name, and the shapes of its inputs."""
    source = name.partition("/")[0]
    if source not in _IMAGES or (source == name and Path(name).exists()):
        if classes is not None:
            raise typer.BadParameter(f"it is for models by name; {name} is a file.", param_hint="--classes")
        from relume.errors import ModelFileError
        from relume.models.whole import load_model

        try:
            return load_model(name, trust=trust), shapes
        except ModelFileError as error:
            if Path(name).exists() or not re.fullmatch(r"\w+", name):
                raise
            raise ModelFileError(f"{error} A model by its name is torchvision/{name} or timm/{name}.") from None
    image = shapes[0] if shapes else _IMAGES[source]
    if len(shapes) > 1 or len(image) != 3:
        raise typer.BadParameter(f"{name} takes one image, such as 3x224x224.", param_hint="--input")
    outputs = classes or (1000 if "/" in name else 10)
    return _made(name, outputs, image), [image]


def _made(name: str, classes: int, image: tuple[int, ...]) -> nn.Module:
    from relume.checkpoint import without_values
    from relume.errors import ConfigurationError, UnknownNameError
    from relume.models import make_model

    try:
        with without_values():
            return make_model(name, classes, channels=image[0], size=image[1])
    except UnknownNameError:
        raise
    except (ConfigurationError, NotImplementedError, RuntimeError):  # some look at values while they are built
        return make_model(name, classes, channels=image[0], size=image[1])


def shape_of(text: str) -> tuple[int, ...]:
    """``3x224x224`` as numbers; commas do as well."""
    if not re.fullmatch(r"\d{1,9}([x×,]\d{1,9}){0,9}", text.strip().lower()):
        raise typer.BadParameter(f"{text!r:.60} is no shape such as 3x224x224.", param_hint="--input")
    return tuple(int(length) for length in re.split(r"[x×,]", text.strip().lower()))


# ------------------------------------------------------------------------------------------------------------------ JSON


def _inspection_facts(found: Inspection) -> dict[str, Any]:
    facts: dict[str, Any] = _plain(asdict(found))
    facts["elements"] = found.elements
    facts["dtypes"] = {name: {"elements": count, "bytes": total} for name, (count, total) in found.dtypes.items()}
    facts["duplicates"] = found.duplicates if found.stats is not None else None
    return facts


def _diff_facts(found: Diff) -> dict[str, Any]:
    return {"is_same": found.is_same, **_plain(asdict(found))}


def _plain(value: Any) -> Any:
    """What JSON can say, of paths and tuples too."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
