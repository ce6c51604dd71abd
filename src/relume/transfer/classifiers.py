"""Where the classifier of a model is: told by what its output comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from relume.errors import ConfigurationError, NoMatchError, closest
from relume.models.recipe.building import noted
from relume.names import canonical_in, unwrap
from relume.text import counted
from relume.transfer.trace import CannotRunError, Trace, trace

HEAD_FACT = "head"


@dataclass
class Found:
    """Where the classifiers are.

    Attributes:
        paths: of the modules.
        features: shapes of what they are called with, the batch left out, by path.
        classes: how many numbers come out of the model; None where that is not known.
        example: a batch that the model took.
    """

    paths: list[str]
    features: dict[str, tuple[int, ...]] = field(default_factory=dict)
    classes: int | None = None
    example: Any = None


def head_of(model: nn.Module, example: Any = None) -> str:
    """The name of the module that classifies: the last layer with parameters before the output.

    It is found by following the gradient of a run without values on a copy; nothing of the model changes.

    Args:
        example: a batch that the model takes, where that cannot be told from its first layer.

    Raises:
        NoMatchError: there is none, or not one alone; the message lists what there is.

    Example:
        >>> head_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        '2'
    """
    names = heads_of(model, example)
    if len(names) > 1:
        raise NoMatchError(
            f"{type(unwrap(model)).__name__} has {len(names)} classifiers: {', '.join(names)}. "
            "relume.transfer.heads_of(model) gives all of them."
        )
    return names[0]


def heads_of(model: nn.Module, example: Any = None) -> tuple[str, ...]:
    """The names of all classifiers of a model, auxiliary ones included, as ``freeze(model, trainable=...)`` takes them.

    Raises:
        NoMatchError: there is none, or they cannot be told from other layers; the message lists what there is.

    Example:
        >>> heads_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        ('2',)
    """
    inner = checked(model)
    rename = canonical_in(inner)
    return tuple(rename(f"{path}.")[:-1] if path else "" for path in find(inner, example).paths)


def find(model: nn.Module, example: Any) -> Found:
    try:
        seen = trace(model, example, side=side_of(model))
    except CannotRunError as error:
        paths = _remembered(model) or _timms(model)
        if not paths:
            raise NoMatchError(
                f"the classifier of {type(model).__name__} is not found: it could not be run ({error}). {_REMEDY}"
            ) from error
        return Found(paths)
    if len(seen.outputs) != 1:
        raise NoMatchError(
            f"{type(model).__name__} has {len(seen.outputs)} outputs, which come from {_listed(model, seen.last)}. {_REMEDY}"
        )
    if seen.empty and seen.empty in _timms(model):
        return _taken_off(seen)
    lifted = list(dict.fromkeys(_within(path, _remembered(model)) for path in seen.last))
    own = [path for path in lifted if path not in seen.last]
    widths = {path: width_of(model.get_submodule(path)) for path in seen.last}
    classes = next(iter(widths.values()), None)
    is_clear = (
        seen.last
        and not _has_matrix(model, seen.loose)
        and len(set(widths.values())) == 1
        and classes in seen.outputs[0][1:]
    )
    if not is_clear and not own:
        if seen.empty:  # a head that was taken off
            return _taken_off(seen)
        raise NoMatchError(_unclear(model, seen, widths))
    others = [] if own else _auxiliary(model, classes, seen)
    paths = [*lifted, *others]
    return Found(paths, {path: shape[1:] for path, shape in seen.taken.items()}, classes, seen.example)


_REMEDY = "Name it: replace_head(model, {'name': module}), or set it yourself: model.name = module."


def _taken_off(seen: Trace) -> Found:
    return Found([seen.empty], {seen.empty: seen.outputs[0][1:]}, 0, seen.example)


def _has_matrix(model: nn.Module, names: Iterable[str]) -> bool:
    """Whether one of these parameters may be a classifier itself, rather than a scale or a weight of several."""
    parameters = dict(model.named_parameters())
    return any(name not in parameters or parameters[name].ndim > 1 for name in names)


def _unclear(model: nn.Module, seen: Trace, widths: Mapping[str, int | None]) -> str:
    kind = type(model).__name__
    shape = " x ".join(map(str, seen.outputs[0][1:])) or "one number"
    if not seen.last and not seen.loose:
        return f"the output of {kind} comes from no layer with parameters. {_REMEDY}"
    if seen.loose:
        return f"the output of {kind} comes last from {_listed(model, [*seen.last, *seen.loose])}. {_REMEDY}"
    if all(width is None for width in widths.values()):
        return (
            f"{kind} has no classifier: its output ({shape}) comes from {_listed(model, seen.last)}. Put a layer behind it: "
            f"nn.Sequential(model, nn.Linear({seen.outputs[0][-1]}, classes)); or name the place: replace_head(model, "
            "{'name': module})."
        )
    return (
        f"several layers of {kind} might be its classifier: the output ({shape}) comes from {_listed(model, seen.last)}. "
        f"{_REMEDY}"
    )


def _listed(model: nn.Module, paths: Iterable[str], shown: int = 6) -> str:
    paths = list(paths)
    modules = dict(model.named_modules())
    said = [
        f"{path or 'the model'} ({described(modules[path])})" if path in modules else path for path in paths[:shown]
    ]
    return ", ".join(said) + (f" and {len(paths) - shown} more" if len(paths) > shown else "")


def _auxiliary(model: nn.Module, classes: int | None, seen: Trace) -> list[str]:
    """Classifiers of the same number of classes that give outputs only in training."""
    alike = [path for path, part in model.named_modules() if path not in seen.last and width_of(part) == classes]
    if not alike:
        return []
    try:
        training = trace(model, seen.example, training=True)
    except CannotRunError:
        return []
    return [path for path in training.last if path in alike]


def _timms(model: nn.Module) -> list[str]:
    """Where a model of timm says that its classifiers are, if they are single layers."""
    get = getattr(model, "get_classifier", None)
    if not callable(get):
        return []
    try:
        said = get()
    except Exception:  # a method of that name may be anything
        return []
    wanted = {id(one) for one in (said if isinstance(said, (list, tuple)) else [said])}
    paths = [path for path, part in model.named_modules() if id(part) in wanted and path]
    kinds = [model.get_submodule(path) for path in paths]
    return paths if all(width_of(kind) is not None or type(kind) is nn.Identity for kind in kinds) else []


def _remembered(model: nn.Module) -> list[str]:
    """Modules that were put in as heads and are still there."""
    names, there = noted(model).get(HEAD_FACT), {path for path, _ in model.named_modules()}
    return [name for name in names if name in there] if isinstance(names, list) else []


def _within(path: str, outer: Iterable[str]) -> str:
    return next((one for one in outer if path == one or path.startswith(f"{one}.")), path)


def side_of(model: nn.Module) -> int | None:
    from relume.transfer.inputs import known_input

    spec = known_input(model)
    return max(spec.size) if spec is not None else None


def named(model: nn.Module, head: Mapping[str, nn.Module], example: Any) -> Found:
    rename = canonical_in(model)
    raw = {rename(f"{path}.")[:-1]: path for path, _ in model.named_modules() if path}
    for name in head:
        if name not in raw:
            raise NoMatchError(f"{type(model).__name__} has no module {name!r}: {closest(str(name), raw)}")
    paths = [raw[name] for name in head]
    try:
        seen = trace(model, example, side=side_of(model))
    except CannotRunError:
        return Found(paths)
    return Found(paths, {path: shape[1:] for path, shape in seen.taken.items()}, example=seen.example)


def checked(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ConfigurationError(f"the model must be an nn.Module, not a {type(model).__name__}.")
    return unwrap(model)


def width_of(module: nn.Module) -> int | None:
    """How many numbers a layer gives that may be a classifier."""
    if isinstance(module, nn.Linear):
        return module.out_features
    is_pointwise = (
        isinstance(module, nn.modules.conv._ConvNd) and not module.transposed and set(module.kernel_size) == {1}
    )
    return module.out_channels if is_pointwise else None  # type: ignore[return-value]


def width_taken(module: nn.Module) -> int | None:
    width = getattr(module, "in_features", None) or getattr(module, "in_channels", None)
    return width if isinstance(width, int) else None


def described(module: nn.Module) -> str:
    kind = type(module).__name__
    if width_of(module) is not None and not parametrize.is_parametrized(module):
        size = "" if isinstance(module, nn.Linear) else ", " + "x".join(map(str, module.kernel_size))  # type: ignore[arg-type]
        return f"{kind}({width_taken(module)} to {width_of(module)}{size})"
    if isinstance(module, nn.Sequential) and 0 < len(module) <= 4:
        return f"Sequential of {', '.join(described(one) for one in module)}"
    numbers = sum(p.numel() for p in module.parameters() if not torch.nn.parameter.is_lazy(p))
    return f"{kind} of {counted(numbers, 'parameter')}" if numbers else kind
