"""A few examples with the outputs that the author got, so that another machine can tell whether it computes the same."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import default_collate

from relume import tree
from relume.data.calls import call_model, inputs_and_target
from relume.datasets import ToTensor
from relume.datasets.transform import pillow
from relume.errors import BundleError, DataError
from relume.generators import isolated
from relume.models.tensorfile import tensorfile_parts
from relume.share.archive import Parts
from relume.share.bundle import Bundle
from relume.share.documents import EXAMPLE_TENSORS, EXAMPLES, INPUT, Example, Examples, Preprocessing
from relume.share.measuring import environment
from relume.share.rows import label, length, raw_image
from relume.train.evaluation import evaluation_mode

_LOOKED_AT = 500
_MAX_DEPTH = 20
_MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Chosen:
    """Examples before a model has seen them.

    Attributes:
        examples: what is said of each.
        raw: pictures by their paths in the bundle, PNG.
        batch: all of them, collated as the model takes them, the target left out.
    """

    examples: list[Example]
    raw: dict[str, bytes]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


# ------------------------------------------------------------------------------------------------------------- choosing


def chosen(
    dataset: Any,
    count: int,
    collate: Callable[[list[Any]], Any] = default_collate,
    prepare: ToTensor | None = None,
    folder: str = "examples/",
) -> Chosen:
    """The first samples of different classes, and the first others when there are not as many.

    Args:
        prepare: makes the inputs of raw images; where it gives other bits than the data set does, no raw image is kept.
    """
    places = _places(dataset, min(count, length(dataset)))
    with isolated(0):
        samples = [dataset[place] for place in places]
    args, kwargs, target = inputs_and_target(collate(samples))
    labels = [label(dataset, place) for place in places]
    if None in labels:
        labels = _labels(target, len(places))
    raw = _pictures(dataset, places, args, prepare, folder)
    names = list(raw) or [""] * len(places)
    examples = [
        Example(raw=name, label=one, index=place) for name, one, place in zip(names, labels, places, strict=True)
    ]
    return Chosen(examples, raw, args, kwargs)


def made_up(preprocessing: Preprocessing, count: int) -> Chosen | None:
    """Noise, where there is no data: other machines can compute with it as well. None where inputs are no images of a size."""
    if preprocessing.kind != "image":
        return None
    prepare = ToTensor.of_config(preprocessing.settings)
    if prepare.size is None or prepare.channels is None:
        return None
    shape = (prepare.size, prepare.size, 3) if prepare.channels == 3 else (prepare.size, prepare.size)
    draws = np.random.Generator(np.random.PCG64(0))
    raw = {
        f"examples/{n:03}.png": png(pillow().fromarray(draws.integers(0, 256, shape, np.uint8))) for n in range(count)
    }
    inputs = torch.stack([prepare(opened(content)) for content in raw.values()])
    return Chosen([Example(raw=name) for name in raw], raw, (inputs,), {})


def _places(dataset: Any, count: int) -> list[int]:
    found: dict[Any, int] = {}
    for place in range(min(length(dataset), _LOOKED_AT)):
        known = label(dataset, place)
        if known is None or len(found) >= count:
            break
        found.setdefault(known, place)
    places = sorted(found.values())[:count]
    others = (place for place in range(length(dataset)) if place not in set(places))
    return sorted([*places, *(next(others) for _ in range(count - len(places)))])


def _labels(target: Any, count: int) -> list[Any]:
    is_classes = isinstance(target, torch.Tensor) and target.shape == (count,) and not target.is_floating_point()
    return target.tolist() if is_classes else [None] * count


def _pictures(
    dataset: Any, places: list[int], args: tuple[Any, ...], prepare: ToTensor | None, folder: str
) -> dict[str, bytes]:
    if prepare is None or len(args) != 1 or not isinstance(args[0], torch.Tensor):
        return {}
    images = [raw_image(dataset, place) for place in places]
    if any(image is None for image in images):
        return {}
    raw = {f"{folder}{number:03}.png": png(image) for number, image in enumerate(images)}
    again = [prepare(opened(content)) for content in raw.values()]
    is_same = len({one.shape for one in again}) == 1 and torch.equal(torch.stack(again), args[0])
    return raw if is_same else {}


def png(image: Any) -> bytes:
    """A PIL image without loss."""
    content = io.BytesIO()
    plain = image if image.mode in ("L", "RGB") else image.convert("RGB")
    plain.save(content, format="PNG")
    return content.getvalue()


def opened(content: bytes) -> Any:
    """The PIL image in a PNG file, and in no other kind of file.

    Raises:
        DataError: it is none, or is too large to be an example.
    """
    library = pillow()
    try:
        image = library.open(io.BytesIO(content), formats=["PNG"])
        if image.width * image.height > _MAX_PIXELS:
            raise DataError(f"an example of {image.width} x {image.height} pixels is too large.")
        image.load()
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever comes to their mind
        raise DataError(f"an example is no PNG that can be read: {error!s:.100}") from error
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


# -------------------------------------------------------------------------------------------------------------- writing


def written(chosen: Chosen, model: nn.Module) -> tuple[Examples, dict[str, Parts], list[list[float]]]:
    """The files of examples with the outputs of ``model`` on the CPU; and the outputs again where they are scores."""
    tensors: dict[str, torch.Tensor] = {}
    names = (
        ["input"] if len(chosen.args) == 1 and not chosen.kwargs else [f"input.{n}" for n in range(len(chosen.args))]
    )
    call = {
        "args": [_noted(one, name, tensors) for name, one in zip(names, chosen.args, strict=True)],
        "kwargs": {key: _noted(one, f"input.{key}", tensors) for key, one in chosen.kwargs.items()},
    }
    found = _output(model, chosen.args, chosen.kwargs)
    is_scores = isinstance(found, torch.Tensor) and found.dim() == 2 and found.is_floating_point()
    output = _noted(found, "output", tensors)
    document = Examples(
        call=call,
        output=output,
        examples=chosen.examples,
        batch_size=len(chosen.examples),
        environment=environment(),
    )
    held = list(tensorfile_parts(tensors))
    files: dict[str, Parts] = {EXAMPLE_TENSORS: lambda: held}
    files |= {path: _held(content) for path, content in chosen.raw.items()}
    return document, files, found.tolist() if is_scores else []


def _held(content: bytes) -> Parts:
    return lambda: [content]


def _output(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One batch, evaluation mode, no gradients, nothing drawn from the process's random numbers."""
    with evaluation_mode(model), torch.no_grad(), isolated(0):
        found = call_model(model, args, kwargs, args)
    return tree.map_tensors(lambda tensor: tensor.detach().cpu(), found)


def _noted(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """A nested value with its tensors put aside."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {str(key): _noted(one, f"{name}.{key}", tensors) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_noted(one, f"{name}.{place}", tensors) for place, one in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise DataError(
        f"{name} of the examples is a {type(value).__name__}: a bundle holds tensors, numbers, texts, lists and dicts of them."
    )


# -------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Stored:
    """Examples as a bundle holds them."""

    document: Examples
    args: list[Any]
    kwargs: dict[str, Any]
    output: Any


def stored(bundle: Bundle) -> Stored:
    """The examples of a bundle.

    Raises:
        BundleError: there are none, or they are not understood.
    """
    document = bundle.document(EXAMPLES, Examples)
    tensors = bundle.tensors(EXAMPLE_TENSORS).state
    args, kwargs = document.call.get("args", []), document.call.get("kwargs", {})
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise BundleError(f"{bundle.path}: {EXAMPLES} does not say how the model is called.")
    return Stored(
        document,
        [_taken(one, tensors, bundle) for one in args],
        {str(key): _taken(one, tensors, bundle) for key, one in kwargs.items()},
        _taken(document.output, tensors, bundle),
    )


def _taken(node: Any, tensors: Mapping[str, Any], bundle: Bundle, depth: int = 0) -> Any:
    if depth <= _MAX_DEPTH:
        match node:
            case {"tensor": str(name)} if len(node) == 1 and name in tensors:
                return tensors[name].clone()  # mapped pages may lie otherwise than memory that was made for a tensor
            case {"value": None | bool() | int() | float() | str() as value} if len(node) == 1:
                return value
            case dict():
                return {str(key): _taken(one, tensors, bundle, depth + 1) for key, one in node.items()}
            case list():
                return [_taken(one, tensors, bundle, depth + 1) for one in node]
    raise BundleError(f"{bundle.path}: {EXAMPLES} has {node!r:.80}, which is not understood.")


def run_examples(model: nn.Module, bundle: Bundle) -> tuple[Any, Any]:
    """The outputs of a model for a bundle's examples, as they were computed when it was packed, and those that were got then.

    Returns:
        Both nested alike: a tensor, or lists and dicts of such.

    Raises:
        BundleError: there are no examples in it.
    """
    held = stored(bundle)
    found: dict[str, torch.Tensor] = {}
    form = _noted(_output(model, tuple(held.args), held.kwargs), "output", found)
    return _taken(form, found, bundle), held.output


def prepared(bundle: Bundle) -> torch.Tensor | None:
    """The raw examples of a bundle as inputs, made here; None where it holds inputs alone.

    To be compared with ``stored(bundle).args[0]``.

    Raises:
        BundleError: there are no examples. DataError: one is no picture. ConfigurationError: the preprocessing is damaged.
    """
    document = bundle.document(EXAMPLES, Examples)
    preprocessing = bundle.document(INPUT, Preprocessing)
    if preprocessing.kind != "image" or not document.examples or not all(one.raw for one in document.examples):
        return None
    prepare = ToTensor.of_config(preprocessing.settings)
    made = [prepare(opened(bundle.read(one.raw))) for one in document.examples]
    if len({one.shape for one in made}) != 1:
        raise DataError(f"{bundle.path}: its examples become inputs of different sizes.")
    return torch.stack(made)
