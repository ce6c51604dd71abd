"""Another classifier in the place of a model's own."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from relume.errors import ConfigurationError
from relume.models.recipe.building import note, recipe_kept, with_classes
from relume.modes import is_held
from relume.names import canonical_in
from relume.text import counted
from relume.transfer.classifiers import (
    HEAD_FACT,
    Found,
    checked,
    described,
    find,
    named,
    width_of,
    width_taken,
)
from relume.transfer.freezing import settle
from relume.transfer.trace import CannotRunError, trace


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
    inner = checked(model)
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ConfigurationError(
            "the model is wrapped in DistributedDataParallel, which would not average the gradients of a new head: replace "
            "the head first, and wrap the model then."
        )
    _check_head(head)
    if isinstance(head, Mapping):
        found = named(inner, head, example)
        given: list[int | nn.Module] = list(head.values())
    else:
        found = find(inner, example)
        given = [head] * len(found.paths) if isinstance(head, int) else [head]
    if len(given) != len(found.paths):
        raise ConfigurationError(
            f"{type(inner).__name__} has {len(found.paths)} classifiers: {', '.join(found.paths)}. Give a number of classes "
            "for all of them, or replace_head(model, {name: module, ...})."
        )
    new = {path: _made(inner, path, one, found) for path, one in zip(found.paths, given, strict=True)}
    classes = _try(inner, new, found)
    return _put(inner, new, found, classes)


def put_classes(model: nn.Module, classes: int, found: Found) -> HeadReport:
    """As `replace_head`, where the classifier of a model of the same architecture was found before.

    A layer of the old one's kind takes what that took: nothing is run.
    """
    inner = checked(model)
    return _put(inner, {path: _made(inner, path, classes, found) for path in found.paths}, found, classes)


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


def _made(model: nn.Module, path: str, head: int | nn.Module, found: Found) -> nn.Module:
    old = model.get_submodule(path)
    if not path:
        raise ConfigurationError(
            f"the model is its own classifier ({described(old)}): make another in its place, or put one behind it."
        )
    new = head if isinstance(head, nn.Module) else _like(old, path, head, found)
    like = next((p for p in (old if any(True for _ in old.parameters()) else model).parameters()), None)
    if like is not None and not any(p.is_meta for p in new.parameters()):
        new = new.to(like.device, like.dtype if like.is_floating_point() else None)
    held = old.__dict__.get("train")
    return new.train(held.asked if is_held(old) and held is not None else old.training)


def _like(old: nn.Module, path: str, classes: int, found: Found) -> nn.Module:
    """A new layer of the old one's kind."""
    if type(old) is nn.Identity and found.features.get(path):
        return nn.Linear(found.features[path][-1], classes)
    if parametrize.is_parametrized(old) or width_of(old) is None:
        raise ConfigurationError(
            f"{path} is {described(old)}, which cannot be made anew for {classes} classes. Give what shall stand there: "
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
            f"{path} is {described(old)}, and another for {classes} classes cannot be made: {error!s:.150}. Give what shall "
            f"stand there: replace_head(model, {{{path!r}: module}})."
        ) from error


def _try(model: nn.Module, new: Mapping[str, nn.Module], found: Found) -> int | None:
    """Run a copy with the new modules; how many classes come out, where that can be told."""
    if not found.features:  # the model could not be run before, either
        return next((width for width in map(width_of, new.values()) if width), None)
    try:
        seen = trace(model, found.example, replaced=new)
        if any(path not in seen.taken for path in new) and _runs_in_training(model, found.example):
            trace(model, found.example, replaced=new, training=True)  # auxiliary ones
    except CannotRunError as error:
        path = next(iter(new))
        shape = found.features.get(path)
        features = f"features of shape {shape}, the batch left out" if shape else "its features"
        raise ConfigurationError(
            f"{described(new[path])} does not fit in the place of {path} ({described(model.get_submodule(path))}), which gets "
            f"{features}: {error}. The model is as it was."
        ) from error
    widths = {width for path in seen.last if (width := _width_in(model, new, path)) is not None}
    return widths.pop() if len(widths) == 1 else None


def _runs_in_training(model: nn.Module, example: Any) -> bool:
    try:
        trace(model, example, training=True)
    except CannotRunError:
        return False
    return True


def _width_in(model: nn.Module, new: Mapping[str, nn.Module], path: str) -> int | None:
    for outer, module in new.items():
        if path == outer or path.startswith(f"{outer}."):
            return width_of(module.get_submodule(path[len(outer) + 1 :]))
    return width_of(model.get_submodule(path))


def _put(model: nn.Module, new: Mapping[str, nn.Module], found: Found, classes: int | None) -> HeadReport:
    old = {path: model.get_submodule(path) for path in new}
    for path, module in new.items():
        places = [place for place, one in model.named_modules(remove_duplicate=False) if one is old[path]]
        for place in places:
            model.set_submodule(place, module)
        _tell(model, path, found.classes if width_of(old[path]) is None else width_of(old[path]), classes)
    if any(width_of(module) is None for module in new.values()):
        note(model, **{HEAD_FACT: list(new)})
    settle(model)
    first = next(iter(new))
    rename = canonical_in(model)
    names = tuple(rename(f"{path}.")[:-1] for path in new)
    shape = found.features.get(first)
    counts = {id(p): p.numel() for module in new.values() for p in module.parameters() if not nn.parameter.is_lazy(p)}
    return HeadReport(
        model=type(model).__name__,
        name=names[0],
        old=described(old[first]),
        new=described(new[first]),
        features=width_taken(old[first]) or (shape[-1] if shape else None),
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
