"""``relume export``: a model as one file that needs no relume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from relume.cli.output import Monitor, Root, console, counted, size


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="RUN (its newest), RUN@NUMBER, RUN@best, or the path or name of a checkpoint. For .onnx and .pt2 also a "
            "bundle, or a model file.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="FILE.pt or .pth: a dictionary for torch.load. FILE.safetensors: the weights alone. FILE.onnx or .pt2: "
            "what the model computes, for other runtimes.",
            show_default=False,
        ),
    ],
    root: Root = Path("runs"),
    model: Annotated[
        str | None, typer.Option(help="Which of several models (not for .pt).", show_default=False)
    ] = None,
    monitor: Monitor = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input",
            "--input-shape",
            "-i",
            help="Shape of one input without the batch, for .onnx and .pt2: 3x224x224. By default what the run or the bundle "
            "says.",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest difference from the model that is allowed (.onnx, .pt2).")
    ] = 1e-4,
    opset: Annotated[
        int | None, typer.Option(help="Version of ONNX's operators.", show_default="torch's choice")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code of a bundle to have its model.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the file.")] = False,
) -> None:
    """Write a model as one file that needs no relume.

    An .onnx or .pt2 is run on examples and compared with the model before it is there, for batches of 1, 2 and 5.

    Example: [bold]relume export fashion@best fashion.onnx[/bold]
    """
    if out.suffix.lower() in (".onnx", ".pt2"):
        options = {"input_shape": _shape(input_shape), "tolerance": tolerance, "opset": opset, "trust": trust}
        _export_graph(source, out, model=model, root=root, monitor=monitor, force=force, **options)
    else:
        given = {"--input": input_shape, "--opset": opset, "--trust": trust or None}
        if named := [name for name, value in given.items() if value is not None]:
            raise typer.BadParameter(f"{named[0]} is for .onnx and .pt2.", param_hint=named[0])
        _export_state(source, out, root, model, monitor, force)


def _export_graph(source: str, out: Path, **options: Any) -> None:
    from relume.share.export import export as write

    console().print(str(write(source, out, **options)), markup=False, highlight=False, soft_wrap=True)


def _export_state(source: str, out: Path, root: Path, model: str | None, monitor: str | None, force: bool) -> None:
    from relume.errors import ConfigurationError
    from relume.models.bundled import is_bundle
    from relume.run.export import check_target
    from relume.run.export import export as write
    from relume.saved import find_checkpoint

    check_target(out, force=force)
    if is_bundle(source):
        raise ConfigurationError(
            f"{source} is a bundle, and has no checkpoint to write as {out.suffix}. Its weights: relume convert {source} "
            f"{out.with_suffix('.safetensors').name}; what it computes: relume export {source} {out.with_suffix('.onnx').name}."
        )
    store, found = find_checkpoint(source, root, monitor=monitor)
    written = write(store, found, out, model=model, force=force)
    lines = console()
    lines.print(
        f"{written.path}  {size(written.size_bytes)}, from {found.folder}/{found}", markup=False, highlight=False
    )
    if out.suffix.lower() == ".safetensors":
        lines.print(f"  {counted(len(written.contents), 'tensor')}", highlight=False)
    else:
        lines.print(f"  {', '.join(written.contents)}", markup=False, highlight=False)


def _shape(text: str | None) -> tuple[int, ...] | None:
    from relume.cli.models import shape_of

    return None if text is None else shape_of(text)
