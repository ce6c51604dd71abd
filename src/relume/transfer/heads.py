"""The classifier of a model: where it is, and another in its place."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from relume.errors import ConfigurationError, NoMatchError, closest
from relume.models.recipe.building import note, noted, recipe_kept, with_classes
from relume.modes import is_held
from relume.names import canonical_in, unwrap
from relume.text import counted
from relume.transfer.freezing import settle
from relume.transfer.trace import CannotRunError, Trace, trace

_FACT = "head"


@dataclass(frozen=True)
class HeadReport:
    """What :func:`replace_head` put where.

    Attributes:
        model: the class of the model.
        name: of the module that was replaced; the first of several.
        old, new: it and what stands there now, in words.
        features: how many numbers of a sample go in; None where that cannot be told.
        classes: how many come out; None where that cannot be told.
        names: of all that were replaced: models that learn from a teacher have two, and some have auxiliary ones.
        parameters: how many numbers there are in the new parameters.
    """

    model: str
    name: str
    old: str
    new: str
    features: int | None
    classes: int | None
    names: tuple[str, ...] = ()
    parameters: int = 0

    def __str__(self) -> str:
        others = [name for name in self.names if name != self.name]
        also = f"; so are {', '.join(others)}" if others else ""
        return (
            f"{self.model}: {self.name or 'the model'} was {self.old} and is {self.new} now, "
            f"{counted(self.parameters, 'new parameter')}{also}"
        )

    def _repr_html_(self) -> str:
        return f"<div>{html.escape(str(self))}</div>"


@dataclass
class _Found:
    """Where the classifiers are.

    Attributes:
        paths: of the modules.
        features: shapes of what they are called with, the batch left out, by path.
        classes: how many numbers come out of the model; None where that is not known.
    """

    paths: list[str]
    features: dict[str, tuple[int, ...]] = field(default_factory=dict)
    classes: int | None = None


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
    inner = _checked(model)
    rename = canonical_in(inner)
    return tuple(rename(f"{path}.")[:-1] if path else "" for path in _find(inner, example).paths)


def replace_head(
    model: nn.Module, head: int | nn.Module | Mapping[str, nn.Module], *, example: Any = None
) -> HeadReport:
    """Put a new classifier into a model, in place; dropout, pooling and norms around the old one stay.

    Args:
        head: how many classes, for a new layer of the old one's kind, initialised as torch does it (``torch.manual_seed``
            decides); or a module in its place; or ``{name: module}`` where the classifier cannot be found.
        example: a batch that the model takes, where that cannot be told from its first layer.

    The new layer is on the device and in the dtype of the old one, and is trainable. Where a model has several classifiers
    (one for a teacher, auxiliary ones), all are replaced. Before anything changes, a copy of the model is run with it.
    An optimizer that was made before does not know the new parameters: see :func:`relume.preflight`.

    Raises:
        NoMatchError: there is no classifier, or several layers might be it; the message lists them.
        ConfigurationError: a number below one, or a module that does not take the features. The model is as it was.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> print(replace_head(model, 5))
        Sequential: 2 was Linear(8 to 3) and is Linear(8 to 5) now, 45 new parameters
    """
    inner = _checked(model)
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ConfigurationError(
            "the model is wrapped in DistributedDataParallel, which would not average the gradients of a new head: replace "
            "the head first, and wrap the model then."
        )
    _check_head(head)
    if isinstance(head, Mapping):
        found = _named(inner, head, example)
        given: list[int | nn.Module] = list(head.values())
    else:
        found = _find(inner, example)
        given = [head] * len(found.paths) if isinstance(head, int) else [head]
    if len(given) != len(found.paths):
        raise ConfigurationError(
            f"{type(inner).__name__} has {len(found.paths)} classifiers: {', '.join(found.paths)}. Give a number of classes "
            "for all of them, or replace_head(model, {name: module, ...})."
        )
    new = {path: _made(inner, path, one, found) for path, one in zip(found.paths, given, strict=True)}
    classes = _try(inner, new, found, example)
    return _put(inner, new, found, classes)


# ---------------------------------------------------------------------------------------------------------------- finding


def _find(model: nn.Module, example: Any) -> _Found:
    try:
        seen = trace(model, example, side=_side(model))
    except CannotRunError as error:
        paths = _remembered(model) or _timms(model)
        if not paths:
            raise NoMatchError(
                f"the classifier of {type(model).__name__} is not found: it could not be run ({error}). {_REMEDY}"
            ) from error
        return _Found(paths)
    if len(seen.outputs) != 1:
        raise NoMatchError(
            f"{type(model).__name__} has {len(seen.outputs)} outputs, which come from {_listed(model, seen.last)}. {_REMEDY}"
        )
    lifted = list(dict.fromkeys(_within(path, _remembered(model)) for path in seen.last))
    own = [path for path in lifted if path not in seen.last]
    widths = {path: width_of(model.get_submodule(path)) for path in seen.last}
    classes = next(iter(widths.values()), None)
    is_clear = seen.last and not seen.loose and len(set(widths.values())) == 1 and classes in seen.outputs[0][1:]
    if not is_clear and not own:
        empty = _timms(model)
        if empty and all(type(model.get_submodule(path)) is nn.Identity for path in empty):
            return _Found(empty, dict.fromkeys(empty, seen.outputs[0][1:]))
        raise NoMatchError(_unclear(model, seen, widths))
    others = [] if own else _auxiliary(model, example, classes, seen)
    paths = [*lifted, *others]
    return _Found(paths, {path: shape[1:] for path, shape in seen.taken.items()}, classes)


_REMEDY = "Name it: replace_head(model, {'name': module}), or set it yourself: model.name = module."


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
    said = [f"{path or 'the model'} ({_said(modules[path])})" if path in modules else path for path in paths[:shown]]
    return ", ".join(said) + (f" and {len(paths) - shown} more" if len(paths) > shown else "")


def _auxiliary(model: nn.Module, example: Any, classes: int | None, seen: Trace) -> list[str]:
    """Classifiers of the same number of classes that give outputs only in training."""
    try:
        training = trace(model, example, side=_side(model), training=True)
    except CannotRunError:
        return []
    others = [path for path in training.last if path not in seen.last]
    return [path for path in others if width_of(model.get_submodule(path)) == classes]


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
    names, there = noted(model).get(_FACT), {path for path, _ in model.named_modules()}
    return [name for name in names if name in there] if isinstance(names, list) else []


def _within(path: str, outer: Iterable[str]) -> str:
    return next((one for one in outer if path == one or path.startswith(f"{one}.")), path)


def _side(model: nn.Module) -> int | None:
    from relume.transfer.inputs import known_input

    spec = known_input(model)
    return max(spec.size) if spec is not None else None


def _named(model: nn.Module, head: Mapping[str, nn.Module], example: Any) -> _Found:
    rename = canonical_in(model)
    raw = {rename(f"{path}.")[:-1]: path for path, _ in model.named_modules() if path}
    for name in head:
        if name not in raw:
            raise NoMatchError(f"{type(model).__name__} has no module {name!r}: {closest(str(name), raw)}")
    paths = [raw[name] for name in head]
    try:
        seen = trace(model, example, side=_side(model))
    except CannotRunError:
        return _Found(paths)
    return _Found(paths, {path: shape[1:] for path, shape in seen.taken.items()})


# -------------------------------------------------------------------------------------------------------------- replacing


def _checked(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ConfigurationError(f"the model must be an nn.Module, not a {type(model).__name__}.")
    return unwrap(model)


def _check_head(head: Any) -> None:
    if isinstance(head, Mapping):
        wrong = [one for one in head.values() if not isinstance(one, nn.Module)]
        if wrong or not head:
            raise ConfigurationError(
                f"head={dict(head)!r:.80}: a dict gives a module for each name, such as {{'fc': nn.Linear(512, 10)}}."
            )
    elif isinstance(head, bool) or not isinstance(head, (int, nn.Module)):
        raise ConfigurationError(
            f"head={head!r:.80} is a {type(head).__name__}: give a whole number of classes, a module, or {{'name': module}}."
        )
    elif isinstance(head, int) and head < 1:
        raise ConfigurationError(f"classes={head}: it is at least 1.")


def _made(model: nn.Module, path: str, head: int | nn.Module, found: _Found) -> nn.Module:
    old = model.get_submodule(path)
    if not path:
        raise ConfigurationError(
            f"the model is its own classifier ({_said(old)}): make another in its place, or put one behind it by nn.Sequential."
        )
    new = head if isinstance(head, nn.Module) else _like(old, path, head, found)
    like = next((p for p in (old if any(True for _ in old.parameters()) else model).parameters()), None)
    if like is not None and not any(p.is_meta for p in new.parameters()):
        new = new.to(like.device, like.dtype if like.is_floating_point() else None)
    held = old.__dict__.get("train")
    return new.train(held.asked if is_held(old) and held is not None else old.training)


def _like(old: nn.Module, path: str, classes: int, found: _Found) -> nn.Module:
    """A new layer of the old one's kind."""
    if type(old) is nn.Identity and found.features.get(path):
        return nn.Linear(found.features[path][-1], classes)
    if parametrize.is_parametrized(old) or width_of(old) is None:
        raise ConfigurationError(
            f"{path} is {_said(old)}, which cannot be made anew for {classes} classes. Give what shall stand there: "
            f"replace_head(model, {{{path!r}: module}})."
        )
    try:
        if isinstance(old, nn.Linear):
            kind = nn.Linear if type(old).__module__.startswith("torch.") else type(old)
            return kind(old.in_features, classes, bias=old.bias is not None)
        assert isinstance(old, nn.modules.conv._ConvNd)
        groups = {"stride": old.stride, "padding": old.padding, "dilation": old.dilation, "groups": old.groups}
        options = {**groups, "padding_mode": old.padding_mode, "bias": old.bias is not None}
        return type(old)(old.in_channels, classes, old.kernel_size, **options)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"{path} is {_said(old)}, and another for {classes} classes cannot be made: {error!s:.150}. Give what shall stand "
            f"there: replace_head(model, {{{path!r}: module}})."
        ) from error


def _try(model: nn.Module, new: Mapping[str, nn.Module], found: _Found, example: Any) -> int | None:
    """Run a copy with the new modules; how many classes come out, where that can be told."""
    if not found.features:  # the model could not be run before, either
        return next((width for width in map(width_of, new.values()) if width), None)
    try:
        seen = trace(model, example, side=_side(model), replaced=new)
    except CannotRunError as error:
        path = next(iter(new))
        shape = found.features.get(path)
        features = f"features of shape {shape}, the batch left out" if shape else "its features"
        raise ConfigurationError(
            f"{_said(new[path])} does not fit in the place of {path} ({_said(model.get_submodule(path))}), which gets "
            f"{features}: {error}. The model is as it was."
        ) from error
    widths = {width for path in seen.last if (width := _width_in(model, new, path)) is not None}
    return widths.pop() if len(widths) == 1 else None


def _width_in(model: nn.Module, new: Mapping[str, nn.Module], path: str) -> int | None:
    for outer, module in new.items():
        if path == outer or path.startswith(f"{outer}."):
            return width_of(module.get_submodule(path[len(outer) + 1 :]))
    return width_of(model.get_submodule(path))


def _put(model: nn.Module, new: Mapping[str, nn.Module], found: _Found, classes: int | None) -> HeadReport:
    old = {path: model.get_submodule(path) for path in new}
    for path, module in new.items():
        places = [place for place, one in model.named_modules(remove_duplicate=False) if one is old[path]]
        for place in places:
            model.set_submodule(place, module)
        _tell(model, path, width_of(old[path]) or found.classes, classes)
    if any(width_of(module) is None for module in new.values()):
        note(model, **{_FACT: list(new)})
    settle(model)
    first = next(iter(new))
    rename = canonical_in(model)
    names = tuple(rename(f"{path}.")[:-1] for path in new)
    shape = found.features.get(first)
    counts = {id(p): p.numel() for module in new.values() for p in module.parameters() if not nn.parameter.is_lazy(p)}
    return HeadReport(
        model=type(model).__name__,
        name=names[0],
        old=_said(old[first]),
        new=_said(new[first]),
        features=_taken(old[first]) or (shape[-1] if shape else None),
        classes=classes,
        names=names,
        parameters=sum(counts.values()),
    )


def _tell(model: nn.Module, path: str, old: int | None, classes: int | None) -> None:
    """Let the modules around the head, and the recipe that builds them, know of another number of classes."""
    if classes is None:
        return
    parts = path.split(".")
    around = [model.get_submodule(".".join(parts[:depth])) for depth in range(len(parts))]
    owner = next((number for number in reversed(range(len(around))) if recipe_kept(around[number])), None)
    if owner is not None and not with_classes(around[owner], classes):
        return  # it builds them with the old number, which must stay true
    for module in around[owner or 0 :]:
        if vars(module).get("num_classes", None) == old and old is not None:
            setattr(module, "num_classes", classes)  # noqa: B010  for the type checker


def width_of(module: nn.Module) -> int | None:
    """How many numbers a layer gives that may be a classifier."""
    if isinstance(module, nn.Linear):
        return module.out_features
    is_pointwise = (
        isinstance(module, nn.modules.conv._ConvNd) and not module.transposed and set(module.kernel_size) == {1}
    )
    return module.out_channels if is_pointwise else None  # type: ignore[return-value]


def _taken(module: nn.Module) -> int | None:
    width = getattr(module, "in_features", None) or getattr(module, "in_channels", None)
    return width if isinstance(width, int) else None


def _said(module: nn.Module) -> str:
    kind = type(module).__name__
    if width_of(module) is not None and not parametrize.is_parametrized(module):
        size = "" if isinstance(module, nn.Linear) else ", " + "x".join(map(str, module.kernel_size))  # type: ignore[arg-type]
        return f"{kind}({_taken(module)} to {width_of(module)}{size})"
    if isinstance(module, nn.Sequential) and 0 < len(module) <= 4:
        return f"Sequential of {', '.join(_said(one) for one in module)}"
    numbers = sum(p.numel() for p in module.parameters() if not torch.nn.parameter.is_lazy(p))
    return f"{kind} of {counted(numbers, 'parameter')}" if numbers else kind
