"""Pretrained models: of torchvision and timm, from a file, or the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from relume.errors import ConfigurationError, MismatchError, ModelFileError, UnknownNameError, warn
from relume.models import library
from relume.models.load import load_weights
from relume.models.make import names_the_images
from relume.models.recipe.building import remember
from relume.models.report import LoadReport
from relume.models.whole import load_model
from relume.names import canonical_in, unwrap
from relume.transfer import inputs
from relume.transfer.classifiers import heads_of, width_of
from relume.transfer.heads import replace_head

Weights = str | os.PathLike[str] | Mapping[str, Any] | None

_IMAGE_CHANNELS = 3
_reports: WeakKeyDictionary[nn.Module, LoadReport] = WeakKeyDictionary()


def backbone(
    source: str | os.PathLike[str] | nn.Module,
    weights: Weights = "DEFAULT",
    *,
    classes: int | None = None,
    channels: int | None = None,
    size: int | None = None,
) -> nn.Module:
    """A model to build on, with pretrained weights.

    Args:
        source: ``"torchvision/NAME"`` or ``"timm/NAME"`` with a name of that library's classification models, a file or a
            checkpoint that `relume.load_model` reads, or a model of yours.
        weights: ``"DEFAULT"``: the library's best, which it downloads once, or what the file or the model holds. A name that
            the library has for weights (``"IMAGENET1K_V1"``, ``"a1_in1k"``). None: new ones. A file or tensors by name as
            `relume.load_weights` takes them: names are inferred where they differ, everything but the classifier must fit,
            and one for another number of classes is left out, see `loaded`.
        classes: how many there are; the classifier is new if the weights are for another number. None leaves it alone.
        channels: of the images, for models of a library. The first convolution's weights are summed for grey images, or
            repeated.
        size: side of the images in pixels, for models of a library of which it is a part (vision transformers).

    Returns:
        The library's own module in training mode, which `relume.save_model` and checkpoints take. What it expects is told
        by `relume.input_of`, and where its classifier is by `relume.head_of`.

    Raises:
        UnknownNameError: there is no such model, or no such weights; the message lists the closest names.
        MissingPackageError: the library is not installed.
        DownloadError: weights did not arrive; the message says which file to put where.
        MismatchError: the weights do not fit; the message is the report.
        ConfigurationError: arguments that make no sense.

    Example:
        >>> import relume
        >>> model = backbone("torchvision/mobilenet_v3_small", weights=None, classes=7)
        >>> type(model).__name__, relume.head_of(model), relume.input_of(model).size
        ('MobileNetV3', 'classifier.3', (224, 224))
    """
    _check_numbers(classes=classes, channels=channels, size=size)
    if isinstance(source, nn.Module):
        _refuse_numbers(source, channels, size)
        return _filled(source, weights, classes, "the model")
    name = _text(source)
    package, _, inner = name.partition("/")
    if package in library.MAKERS and inner and not (isinstance(source, os.PathLike) or Path(name).is_file()):
        return _of_library(package, inner, weights, classes, channels or _IMAGE_CHANNELS, size)
    _refuse_numbers(source, channels, size)
    if weights is None:
        raise ConfigurationError(f"weights=None: {name} is a file, and holds weights. Leave weights= out to have them.")
    return _filled(_loaded_model(name), weights, classes, name)


def loaded(model: nn.Module) -> LoadReport | None:
    """What :func:`backbone` loaded from a file into this model: all, or all but the classifier; None if it did not.

    Example:
        >>> loaded(nn.Linear(2, 1)) is None
        True
    """
    return _reports.get(unwrap(model))


def _of_library(
    package: str, name: str, weights: Weights, classes: int | None, channels: int, size: int | None
) -> nn.Module:
    known, file = _library_weights(package, name, weights)
    with names_the_images(f"{package}/{name}", channels, size):
        model, recipe = library.backbone_model(package, name, classes, channels, size, known)
    remember(model, recipe)
    spec = _input_of_library(package, name, model, known, file)
    if spec is not None:
        spec = spec if channels == spec.channels else inputs.for_channels(spec, channels)
        spec = spec if size is None else inputs.for_size(spec, size)
        inputs.expect_input(model, spec)
    if file is not None:
        _load(model, file, classes)
    return model


def _library_weights(package: str, name: str, weights: Weights) -> tuple[str | None, Weights]:
    """The name of weights in the library, and the file, of which at most one is there."""
    if weights is None:
        return None, None
    entry = getattr(weights, "name", None)
    if isinstance(entry, str) and hasattr(weights, "url"):  # of torchvision's enumerations
        weights = entry
    if not isinstance(weights, (str, os.PathLike, Mapping)):
        raise ConfigurationError(
            f"weights={weights!r:.60} is a {type(weights).__name__}: give 'DEFAULT', a name that the library has, None for new "
            "ones, a file, or tensors by name."
        )
    if not isinstance(weights, str):
        return None, weights
    if weights.upper() == "DEFAULT":
        return "default", None
    is_file = any(mark in weights for mark in (os.sep, "@", ".")) or Path(weights).exists()
    if is_file and weights not in library.weights_of(package, name):
        return None, weights
    return weights, None


def _input_of_library(
    package: str, name: str, model: nn.Module, known: str | None, file: Weights
) -> inputs.InputSpec | None:
    if package == "timm":
        return inputs.known_input(model)
    if isinstance(file, (str, os.PathLike)):
        known = library.torchvision_weights_in(name, Path(file).name)
    return inputs.of_torchvision(name, None if known == "default" else known)


def _filled(model: nn.Module, weights: Weights, classes: int | None, what: str) -> nn.Module:
    """A model that is there already."""
    if isinstance(weights, str) and weights.upper() == "DEFAULT":
        weights = None
    if classes is not None and weights is None and _classes_of(model) != classes:
        replace_head(model, classes)
    elif weights is not None:
        if classes is not None and _classes_of(model) != classes:
            replace_head(model, classes)
        _load(model, weights, classes)
    return model


def _classes_of(model: nn.Module) -> int | None:
    inner = unwrap(model)
    rename = canonical_in(inner)
    places = {rename(f"{path}.")[:-1]: part for path, part in inner.named_modules() if path}
    widths = {width_of(places[name]) for name in heads_of(model) if name in places}
    return widths.pop() if len(widths) == 1 else None


def _load(model: nn.Module, weights: Weights, classes: int | None) -> None:
    """Everything, or everything but the classifier where only that does not fit."""
    try:
        report = load_weights(model, weights, rename="auto")  # type: ignore[arg-type]
    except MismatchError as error:
        report = _load_without_head(model, weights, error)
        names = ", ".join(report.left_out)
        if classes is None:
            warn(
                f"the classifier of {report.source} is for another number of classes and was left out: {names} are new. Give "
                "classes= to say that this is meant, or replace_head(model, classes)."
            )
    _reports[unwrap(model)] = report


def _load_without_head(model: nn.Module, weights: Weights, problem: MismatchError) -> LoadReport:
    try:
        heads = heads_of(model)
    except ConfigurationError:
        raise problem from None
    state = unwrap(model).state_dict()
    rename = canonical_in(unwrap(model))
    names = [rename(name) for name in state]
    kept = [name for name in names if not any(name.startswith(f"{head}.") for head in heads)]
    if len(kept) == len(names) or not kept:
        raise problem
    try:
        return load_weights(model, weights, rename="auto", only=[_literal(name) for name in kept])  # type: ignore[arg-type]
    except (MismatchError, ConfigurationError):
        raise problem from None


def _literal(name: str) -> str:
    return name.replace("[", "[[]")


def _loaded_model(name: str) -> nn.Module:
    try:
        return load_model(name)
    except ModelFileError as error:
        if Path(name).exists() or Path(name).suffix or os.sep in name or not str(error).startswith(name):
            raise
        raise UnknownNameError(
            f"there is no model {name!r}: {error} Models of a library are named 'torchvision/NAME' and 'timm/NAME', such as "
            "'torchvision/resnet18'."
        ) from error


def _text(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)) and str(name := os.fspath(source)).strip():
        return str(name)
    raise ConfigurationError(
        f"source={source!r:.80} is a {type(source).__name__}: give 'torchvision/NAME', 'timm/NAME', a file, or a model."
    )


def _check_numbers(**numbers: Any) -> None:
    for what, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigurationError(f"{what}={value!r:.40} is a {type(value).__name__}: it is a whole number.")
        if value is not None and value < 1:
            raise ConfigurationError(f"{what}={value}: it is at least 1.")


def _refuse_numbers(source: Any, channels: int | None, size: int | None) -> None:
    said = f"a {type(source).__name__}" if isinstance(source, nn.Module) else source
    for what, value in {"channels": channels, "size": size}.items():
        if value is not None:
            raise ConfigurationError(f"{what}={value} is for models of torchvision and timm; {said} is built already.")
