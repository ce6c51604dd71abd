"""What modules' own loading code assigns, instead of copying it into tensors: found, undone, and done later.

Metrics, memory banks and counters do so. Only planning may run that code, and planning changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import is_
from typing import Any

import torch
from torch import nn

from relume.names import is_uninitialized

_GONE: Any = object()
_COPIED = (dict, OrderedDict, defaultdict, list, set, deque)

Remembered = list[tuple[nn.Module, Any, Any]]


@dataclass
class Assignment:
    """One attribute that becomes another object, or one entry of a container that is an attribute.

    Attributes:
        owner: the module.
        place: its ``__dict__``, or the container.
        key: where in a dict; None for all of a list or set.
        old, new: what was there, and what comes there.
        names: of the tensors of the state_dict that this loads; none if it is bookkeeping.
        modules: all names of the owner.
        is_given: whether ``new`` shares its memory with a tensor of the source.
    """

    owner: nn.Module
    place: Any
    key: Any
    old: Any
    new: Any
    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    is_given: bool = False


def remember(module: nn.Module) -> Remembered:
    """All modules' attributes, and what is in those that are containers. With `undo` 0.4 ms for a VGG-19."""
    return [
        (owner, place, place.copy() if place else type(place)())
        for owner in module.modules()
        for place in (vars(owner), *vars(owner).values())
        if type(place) in _COPIED
    ]


def undo(before: Remembered) -> list[Assignment]:
    """Put everything back, and say what had been changed."""
    found = []
    for owner, place, old in before:
        if not place and not old:
            continue
        if isinstance(place, dict):
            if place.keys() == old.keys() and all(map(is_, place.values(), old.values())):
                continue
            for key in {**old, **place}:
                was, now = old.get(key, _GONE), place.get(key, _GONE)
                if was is not now:
                    found.append(Assignment(owner, place, key, was, now))
        elif len(place) == len(old) and all(map(is_, place, old)):
            continue
        else:
            found.append(Assignment(owner, place, None, old, place.copy()))
        _refill(place, old)
    return found


def _refill(place: Any, content: Any) -> None:
    place.clear()
    if isinstance(place, (dict, set)):
        place.update(content)
    else:
        place.extend(content)


def name_assignments(
    module: nn.Module, found: Iterable[Assignment], own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]
) -> None:
    """Find out which tensors of the state_dict are loaded by assignments.

    Args:
        own: what the module's state_dict holds.
        given: the tensors of the source, by the names that the module uses.
    """
    modules = defaultdict(list)
    for name, owner in module.named_modules(remove_duplicate=False):
        modules[id(owner)].append(name)
    storages = {storage_of(value) for value in given.values()} - {None}
    for one in found:
        one.modules = tuple(modules[id(one.owner)])
        one.is_given = isinstance(one.new, torch.Tensor) and storage_of(one.new) in storages
        if not any(one.place is table for table in (vars(one.owner), one.owner._parameters, one.owner._buffers)):
            continue
        if one.new is not _GONE:
            names = [f"{prefix}.{one.key}" if prefix else str(one.key) for prefix in one.modules]
            one.names = tuple(name for name in names if name in own and (name in given or one.is_given))


def assign(found: Iterable[Assignment], *, is_owned: bool) -> None:
    """Do what was undone. Tensors of the source come in as copies, on the device and in the dtype of what they replace."""
    made: dict[tuple[Any, ...], torch.Tensor] = {}
    for one in found:
        if one.key is None:
            _refill(one.place, one.new)
        elif one.new is _GONE:
            one.place.pop(one.key, None)
        elif one.is_given:
            like = one.old if isinstance(one.old, torch.Tensor) and not is_uninitialized(one.old) else one.new
            key = (id(one.new), like.device, like.dtype)
            if key not in made:
                made[key] = _like(one.new, like, is_owned)
            one.place[one.key] = made[key]
        else:
            one.place[one.key] = one.new


def _like(value: torch.Tensor, like: torch.Tensor, is_owned: bool) -> torch.Tensor:
    device = value.device if like.is_meta else like.device
    new = value.detach().to(device, like.dtype, copy=not is_owned)
    return nn.Parameter(new, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else new


def storage_of(tensor: torch.Tensor) -> int | None:
    """Where a tensor's memory begins; None if it has none."""
    try:
        return None if is_uninitialized(tensor) else tensor.untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError):
        return None
