"""A model for other runtimes: ONNX and ``.pt2``, compared with the model before the file is there."""

from __future__ import annotations

import inspect
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.checkpoint import files
from relume.errors import ConfigurationError, ModelFileError
from relume.models.contents import CLASSES, INPUT, RECIPE
from relume.names import unwrap
from relume.run.export import check_target
from relume.share import onnxfile
from relume.share.staging import abandoned, staged_name
from relume.text import size

ENDINGS = (".onnx", ".pt2")
_SAID = ".onnx for ONNX Runtime and others; .pt2 for torch.export.load, also from C++."
BATCHES = (1, 2, 5)
TOLERANCE = 1e-4
_KEPT = (CLASSES, INPUT, "run", "checkpoint", "epoch", "step")


@dataclass(frozen=True)
class Exported:
    """What was written, and how near it is to the model.

    Attributes:
        path: the file. ``data`` is the file of weights beside it, which must stay there; None where there is none.
        inputs, outputs: names and shapes, as text: ``{"x": "batch x 1 x 28 x 28 float32"}``.
        batches: the numbers of examples that were compared.
        difference: the largest between the model and the file, divided by the largest number of the output, if that is
            above 1. 0.0 where they are equal to the last bit.
        tolerance: which difference would have been an error.
    """

    path: Path
    data: Path | None
    size_bytes: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    batches: tuple[int, ...]
    difference: float
    tolerance: float
    source: str

    def __str__(self) -> str:
        checked = f"compared with the model for batches of {', '.join(map(str, self.batches))}"
        found = (
            "equal to the last bit"
            if self.difference == 0
            else f"the largest difference is {self.difference:.2g} ({self.tolerance:.2g} are allowed)"
        )
        lines = [
            f"{self.path}  {size(self.size_bytes)}, from {self.source}",
            *(f"  input   {name}: {shape}" for name, shape in self.inputs.items()),
            *(f"  output  {name}: {shape}" for name, shape in self.outputs.items()),
            f"  {checked}: {found}",
        ]
        if self.data is not None:
            lines.append(f"  its weights are in {self.data.name}, which must stay beside it")
        return "\n".join(lines)


def export(
    source: nn.Module | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    example_inputs: Any = None,
    input_shape: Sequence[int] | None = None,
    model: str | None = None,
    root: str | os.PathLike[str] = "runs",
    monitor: str | None = None,
    tolerance: float = TOLERANCE,
    opset: int | None = None,
    weights_apart: bool | None = None,
    trust: bool = False,
    force: bool = False,
) -> Exported:
    """Write a model for another runtime, for any batch size, whole or not at all.

    What is written is run on examples (by onnxruntime, or as the graph that `relume.load_model` gives) and compared with the
    model for batches of 1, 2 and 5; a difference above ``tolerance`` is an error, and no file is there. It has no paths,
    no stack traces and no examples in it, and the same model gives the same bytes.

    Args:
        source: a model; a bundle; a file of `relume.save_model`; or a checkpoint of a run (``"fashion@best"``).
        out: ends in ``.onnx`` or ``.pt2``. An ONNX file has names of classes and how images are prepared in its metadata
            (``relume.classes``, ``relume.input``), where they are known.
        example_inputs: what the model is called with: a tensor, a tuple of positional or a dict of keyword arguments. By
            default the examples of a bundle, or random images of the size that the run was trained with.
        input_shape: of one input, without the batch: random numbers of this shape are the examples.
        model: which of several models in a checkpoint.
        root: the folder of the runs; ``monitor``: the metric that tells ``@best``.
        tolerance: the largest difference, for outputs of up to 1; for larger ones relative to the largest of them.
        opset: the version of ONNX's operators; by default what torch recommends.
        weights_apart: write ONNX's weights to a file beside it, ``<out>.data``. By default if they are more than 2 GB, which
            one file of ONNX cannot hold.
        trust: run the code in a bundle to have the author's own class.
        force: overwrite ``out``.

    Raises:
        ConfigurationError: ``out`` has another ending, exists, or lies in no folder; or there is no example to run.
        ModelFileError: the model cannot be exported, or what was written gives something else; says how much.
        MissingPackageError: for ONNX, ``pip install "relume[onnx]"``.
        StoreWriteError: the disk is full, read-only or fails; ``out`` is as it was.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
        >>> done = export(model, tmp_path / "small.pt2", input_shape=(4,))
        >>> done.difference, dict(done.outputs)
        (0.0, {'output': 'batch x 3 float32'})
    """
    path = check_target(out, force=force, endings=ENDINGS, said=_SAID)
    _check_numbers(tolerance, opset, weights_apart, path)
    if path.suffix.lower() == ".onnx":
        onnxfile.check_packages()
    found = _found(source, root, model, monitor, trust)
    inputs = _examples(found, example_inputs, input_shape)
    with _still(found.model) as still, files.explained("Exporting", path.absolute().parent), _staging(path) as folder:
        batches = {size: _rows(inputs, size) for size in BATCHES}
        expected = {size: _leaves(_called(still, given)) for size, given in batches.items()}
        names = _names_of_inputs(still, inputs), _names_of_outputs(_called(still, inputs))
        if path.suffix.lower() == ".onnx":
            written, run = _write_onnx(found, still, inputs, names, folder / path.name, opset, weights_apart)
        else:
            written, run = _write_pt2(still, inputs, folder / path.name)
        difference = max(_difference(expected[size], run(given), size, tolerance) for size, given in batches.items())
        size_bytes = sum(one.stat().st_size for one in written)
        for one in written:
            _sync(one)
            files.publish(one, path.with_name(one.name))
    data = path.with_name(written[0].name) if len(written) > 1 else None
    shapes = (
        _shapes(names[0], *(_leaves(batches[size]) for size in BATCHES[1:])),
        _shapes(names[1], *(expected[size] for size in BATCHES[1:])),
    )
    return Exported(path, data, size_bytes, *shapes, BATCHES, difference, tolerance, found.name)


def _check_numbers(tolerance: Any, opset: Any, weights_apart: Any, path: Path) -> None:
    is_number = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if not is_number or not math.isfinite(tolerance) or tolerance < 0:
        raise ConfigurationError(f"tolerance={tolerance!r:.40}: a number from 0 (equal to the last bit) on.")
    if opset is not None and (type(opset) is not int or not 18 <= opset <= 99):
        raise ConfigurationError(f"opset={opset!r:.40}: a version of ONNX's operators, from 18 on.")
    if path.suffix.lower() != ".onnx" and (opset is not None or weights_apart is not None):
        raise ConfigurationError(f"opset and weights_apart are for .onnx; {path.name} has neither.")


# -------------------------------------------------------------------------------------------------------------- the source


@dataclass(frozen=True)
class _Found:
    model: nn.Module
    name: str
    metadata: Mapping[str, str]
    examples: Any = None


def _found(source: Any, root: Any, model: str | None, monitor: str | None, trust: bool) -> _Found:
    if isinstance(source, nn.Module):
        inner = unwrap(source)
        return _Found(inner, type(inner).__name__, {})
    if not isinstance(source, (str, os.PathLike)):
        raise ConfigurationError(f"source is {source!r:.60}: a model, a bundle, a file, or a checkpoint of a run.")
    from relume.models.files import open_model_file
    from relume.models.whole import load_model

    name = os.fspath(source)
    place = name if Path(name).exists() else _checkpoint(name, root, monitor)
    file = open_model_file(place, model=model)
    if file.format == "bundle":
        from relume.share.opening import open_model

        bundle: Any = file.bundle
        return _Found(open_model(bundle, trust=trust), name, file.metadata, _stored(bundle))
    if file.format != "pt2" and RECIPE not in file.metadata:
        raise ConfigurationError(
            f"{name} does not say how its model is built. Build it, and give that: "
            f"relume.load_weights(model, {name!r}); relume.export(model, ...)."
        )
    return _Found(load_model(place, model=model), name, file.metadata)


def _checkpoint(name: str, root: Any, monitor: str | None) -> str:
    from relume.saved import find_checkpoint

    run, at, which = name.rpartition("@")
    return str(find_checkpoint(run if at and run and which == "last" else name, root, monitor=monitor)[1].path)


def _stored(bundle: Any) -> Any:
    """The examples of a bundle, as the model is called; None where it has none."""
    from relume.share.documents import EXAMPLES
    from relume.share.examples import stored

    if EXAMPLES not in bundle:
        return None
    found = stored(bundle)
    return dict(found.kwargs) if found.kwargs and not found.args else tuple(found.args) if not found.kwargs else None


def _examples(found: _Found, example_inputs: Any, input_shape: Any) -> Any:
    if example_inputs is not None and input_shape is not None:
        raise ConfigurationError("give example_inputs or input_shape, not both.")
    if example_inputs is not None:
        return example_inputs if isinstance(example_inputs, Mapping) else _tupled(example_inputs)
    shape = input_shape if input_shape is not None else _known_shape(found.metadata) or _shape_of_graph(found.model)
    if found.examples is not None and input_shape is None:
        return found.examples
    if shape is None:
        raise ConfigurationError(
            f"{found.name} does not say what its model is called with. Give the shape of one input without the batch, "
            "input_shape=(3, 224, 224) (--input 3x224x224), or example_inputs=."
        )
    is_shape = isinstance(shape, (tuple, list)) and all(type(one) is int and one > 0 for one in shape)
    if not is_shape:
        raise ConfigurationError(f"input_shape={shape!r:.60}: lengths without the batch, such as (3, 224, 224).")
    generator = torch.Generator().manual_seed(0)
    dtype = next((p.dtype for p in found.model.parameters() if p.is_floating_point()), torch.float32)
    return (torch.randn(max(BATCHES), *shape, generator=generator).to(dtype),)


def _tupled(value: Any) -> Any:
    return (value,) if isinstance(value, torch.Tensor) else value


def _known_shape(metadata: Mapping[str, str]) -> tuple[int, ...] | None:
    """Of an image, where it is known how one is prepared."""
    try:
        fields = json.loads(metadata.get(INPUT, "null"))
        size, channels = fields["size"], fields["channels"]
        return (channels, size, size) if type(size) is int and type(channels) is int else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _shape_of_graph(model: nn.Module) -> tuple[int, ...] | None:
    """Of the one input that a graph was made for, where only the batch is open."""
    program = getattr(model, "_relume_program", None)
    sizes = program.inputs[0].sizes if program is not None and len(program.inputs) == 1 else None
    return tuple(sizes[1:]) if sizes and all(type(one) is int for one in sizes[1:]) else None


# ------------------------------------------------------------------------------------------------------------- the examples


def _leaves(value: Any) -> list[Any]:
    return list(torch.utils._pytree.tree_leaves(value))


def _called(model: nn.Module, inputs: Any) -> Any:
    """What the model gives; its buffers, such as a count of calls, are as before."""
    kept = [(value, value.clone()) for value in model.buffers()]
    try:
        with torch.no_grad():
            return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    except ConfigurationError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        shapes = ", ".join(_shape_of(one) for one in _leaves(inputs))
        raise ConfigurationError(
            f"the model cannot be called with the examples ({shapes:.200}): {' '.join(str(error).split()):.300}"
        ) from error
    finally:
        for value, before in kept:
            if not torch.equal(value, before):
                value.detach().copy_(before)


def _rows(inputs: Any, size: int) -> Any:
    """As many examples as asked for, over and over."""
    tree = torch.utils._pytree
    batch = next((one.shape[0] for one in _leaves(inputs) if isinstance(one, torch.Tensor) and one.ndim), 0)
    if not batch:
        raise ConfigurationError("the examples have no tensor with a first dimension, which is the batch.")

    def rows(leaf: Any) -> Any:
        has_batch = isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and leaf.shape[0] == batch
        return leaf[torch.arange(size) % batch].detach().cpu() if has_batch else leaf

    return tree.tree_map(rows, inputs)


@contextmanager
def _still(model: nn.Module) -> Iterator[nn.Module]:
    """The model on the CPU in evaluation mode; the user's own is as it was afterwards."""
    from relume.models.exported.saving import evaluating

    with evaluating(model) as still:
        yield still


def _names_of_inputs(model: nn.Module, inputs: Any) -> list[str]:
    """Those of ``forward``; parts of a structure have the structure's before theirs."""
    program = getattr(model, "_relume_program", None)
    names = program.order if program is not None else _parameters_of(model.forward)
    if isinstance(inputs, Mapping):
        parts = list(inputs.items())
    else:
        parts = [(names[i] if names and i < len(names) else f"input_{i}", one) for i, one in enumerate(inputs)]
    return [name for part in parts for name in _named(*part)]


def _parameters_of(forward: Callable[..., Any]) -> list[str]:
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in inspect.signature(forward).parameters.values() if one.kind in plain]


def _names_of_outputs(output: Any) -> list[str]:
    if isinstance(output, Mapping):
        return [name for key, one in output.items() for name in _named(str(key), one)]
    return _named("output", output)


def _named(name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [inner for key, one in value.items() for inner in _named(f"{name}_{key}", one)]
    if isinstance(value, (list, tuple)):
        return [inner for index, one in enumerate(value) for inner in _named(f"{name}_{index}", one)]
    return [name]


def _shapes(names: Sequence[str], two: Sequence[Any], five: Sequence[Any]) -> dict[str, str]:
    """What is as long as the batch, in batches of 2 and of 5, is the batch."""
    return {name: _shape_of(a, b) for name, a, b in zip(names, two, five, strict=False)}


def _shape_of(value: Any, other: Any = None) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)[:40]
    others = list(other.shape) if isinstance(other, torch.Tensor) else list(value.shape)
    sizes = [_length(*pair) for pair in zip(value.shape, others, strict=False)]
    return f"{' x '.join(sizes) or 'one'} {str(value.dtype).removeprefix('torch.')}"


def _length(one: int, other: int) -> str:
    if one == other:
        return str(one)
    return "batch" if (one, other) == BATCHES[1:] else "any"


# ---------------------------------------------------------------------------------------------------------------- the files


def _write_onnx(
    found: _Found, model: nn.Module, inputs: Any, names: tuple[list[str], list[str]], path: Path, opset: int | None,
    weights_apart: bool | None,
) -> tuple[list[Path], Callable[[Any], list[Any]]]:  # fmt: skip
    from relume.models.exported.saving import exported_program

    names_in, names_out = _unique(*names)
    if strange := [name for name, one in zip(names_in, _leaves(inputs), strict=True) if not _is_tensor(one)]:
        raise ConfigurationError(f"{strange[0]} is no tensor: ONNX takes tensors alone. Leave it out of the examples.")
    program = exported_program(model, inputs)
    metadata = {key: value for key, value in found.metadata.items() if key in _KEPT}
    made = onnxfile.onnx_model(program, names_in, names_out, metadata, opset)
    size_bytes = sum(len(one.raw_data) for one in made.graph.initializer)
    if weights_apart is False and size_bytes > onnxfile.MAX_BYTES:
        raise ConfigurationError(
            f"{path.name} would have {size_bytes:,} bytes of weights, and one file of ONNX holds {onnxfile.MAX_BYTES:,}: leave "
            "weights_apart=False out, and they are written beside it."
        )
    is_apart = weights_apart or size_bytes > onnxfile.MAX_BYTES
    written = onnxfile.write_onnx(made, path, is_apart=bool(is_apart))
    call = onnxfile.run_onnx(path)

    def run(given: Any) -> list[Any]:
        values = zip(names_in, _leaves(given), strict=True)
        return [torch.from_numpy(one) for one in call({name: one.numpy() for name, one in values})]

    return written, run


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _unique(names_in: Sequence[str], names_out: Sequence[str]) -> tuple[list[str], list[str]]:
    seen: set[str] = set()

    def one(name: str) -> str:
        while name in seen:
            name = f"{name}_"
        seen.add(name)
        return name

    return [one(name) for name in names_in], [one(name) for name in names_out]


def _write_pt2(model: nn.Module, inputs: Any, path: Path) -> tuple[list[Path], Callable[[Any], list[Any]]]:
    from relume.models.exported import load_exported, save_exported

    save_exported(model, path, inputs)
    loaded = load_exported(path)
    return [path], lambda given: _leaves(_called(loaded, given))


def _difference(expected: Sequence[Any], found: Sequence[Any], batch: int, tolerance: float) -> float:
    """The largest, relative to the largest number of an output where that is above 1.

    Raises:
        ModelFileError: it is above the tolerance, or the outputs are of other shapes.
    """
    ours = [one for one in expected if one is not None]
    theirs = [one for one in found if one is not None]
    if len(ours) != len(theirs):
        raise ModelFileError(f"nothing was written: the model gives {len(ours)} outputs, and the file {len(theirs)}.")
    largest = 0.0
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        if a.shape != b.shape:
            raise ModelFileError(
                f"nothing was written: for a batch of {batch}, output {index} of the model is {_shape_of(a)}, and that of "
                f"the file {_shape_of(b)}."
            )
        largest = max(largest, _apart(a, b))
    if largest > tolerance:
        raise ModelFileError(
            f"nothing was written: for a batch of {batch}, what the file gives differs from the model by {largest:.3g}, and "
            f"{tolerance:.3g} are allowed (tolerance=, --tolerance)."
        )
    return largest


def _apart(a: torch.Tensor, b: torch.Tensor) -> float:
    kind = torch.complex128 if a.is_complex() else torch.float64
    a, b = a.to(kind), b.to(kind)
    is_same = (a == b) | (a.isnan() & b.isnan())
    if bool(is_same.all()):
        return 0.0
    finite = a[a.isfinite()].abs()
    scale = max(1.0, float(finite.max()) if finite.numel() else 1.0)
    apart = float(((a - b).abs()[~is_same]).max())
    return apart / scale if math.isfinite(apart) else math.inf


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` that is gone afterwards; so are those of exports to it that were killed."""
    name, beside = path.name[:40], path.absolute().parent
    for left, _ in abandoned(beside, name, "exporting"):
        shutil.rmtree(left, ignore_errors=True)
    folder = beside / staged_name(name, "exporting")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
