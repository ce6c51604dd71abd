"""Schedulers, scalers and whatever else has a state: ``state_dict`` and ``load_state_dict``, and no code in between.

A state_dict may hold functions (``LambdaLR``, ``SWALR``), optimizers or further objects with states of their own (a warmup that
wraps another scheduler). No checkpoint stores code: a marker stands for it, and loading keeps what the live object has.
"""

from __future__ import annotations

import copy
import functools
import random
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from relume.errors import ConfigurationError, MismatchError, RelumeError
from relume.run.state.models import load_model_state, model_state
from relume.run.state.randomness import load_numpy_state, load_python_state, numpy_state, python_state
from relume.run.state.values import copied, counted, equal, grouped, shown

_CODE = "relume:code"
_OBJECT = "relume:object"
_DEEPEST = 90
_MISSING = object()
_CONTAINERS = (dict, OrderedDict, defaultdict, Counter, list, tuple, deque)
_CODE_TYPES = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, functools.partial, type,
    weakref.ref, torch.optim.Optimizer,
)  # fmt: skip
_MOVING = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial")
_OF_LR = ("base_lrs", "max_lrs")  # what override={"lr"} takes from the script too


def object_state(name: str, thing: Any, *, initial: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The state of a scheduler, a scaler or any object to track, with its live tensors.

    Args:
        name: what errors call it.
        thing: an ``nn.Module``, an object with ``state_dict`` and ``load_state_dict``, or a generator of torch, numpy or
            ``random``.
        initial: what `initial_options` gave when the script had made it.

    Raises:
        ConfigurationError: it has no such methods, or its ``state_dict`` fails.

    Cost: 0.1 ms for a scheduler.
    """
    state = {"class": type(thing).__name__, "state": _capture(name, thing, 0)}
    return state if initial is None else state | {"initial": dict(initial)}


def load_object_state(
    name: str,
    thing: Any,
    state: Mapping[str, Any],
    *,
    initial: Mapping[str, Any] | None = None,
    override: frozenset[str] = frozenset(),
) -> list[str]:
    """Give ``thing`` the state that `object_state` captured; functions stay those that it has.

    Args:
        initial: what `initial_options` gives for the live object before anything is loaded; None asks for it now.
        override: options of a scheduler for which the script's values are used where they differ (``"T_max"``).

    Returns:
        Notes: what differs, what was kept.

    Raises:
        MismatchError: it does not take the state.
    """
    notes: list[str] = []
    kind, saved = type(thing).__name__, state["state"]
    if isinstance(thing, LRScheduler):
        if state["class"] != kind:
            return [f"{name}: the checkpoint's is a {state['class']}, the script's a {kind}: it starts afresh"]
        options = initial_options(thing) if initial is None else initial
        saved = _chosen_options(name, saved, state.get("initial"), options or {}, override, notes)
        saved = _fitted_groups(name, thing, saved, notes)
    _restore(name, thing, saved, notes)
    return grouped(notes)


def initial_options(thing: Any) -> dict[str, Any] | None:
    """A copy of what the script gave a scheduler, to notice at the next start that it was changed; None for other objects.

    Call it when the script has made the scheduler, before anything is loaded.
    """
    if not isinstance(thing, LRScheduler):
        return None
    return {key: copied(value) for key, value in _capture("", thing, 0).items() if key not in _MOVING}


def storable(value: Any, name: str = "state", depth: int = 0) -> Any:
    """``value`` with markers in the place of functions, and the states of objects in the place of the objects."""
    if depth > _DEEPEST or isinstance(value, torch.Tensor):
        return value  # what is nested too deep is the codec's to refuse: it names the place
    if isinstance(value, _CODE_TYPES):
        return {_CODE: getattr(value, "__qualname__", type(value).__name__)}
    if type(value) in _CONTAINERS:
        return _rebuilt(value, lambda key, item: storable(item, f"{name}.{key}", depth + 1))
    if _has_state(value) or isinstance(value, tuple(_GENERATORS)):
        return {_OBJECT: _capture(name, value, depth + 1)}
    return value


def rejoined(saved: Any, live: Any, name: str, notes: list[str]) -> Any:
    """What `storable` took apart, with the functions and objects that stand at the same places of ``live``."""
    if type(saved) is dict and len(saved) == 1:
        if _CODE in saved:
            return _live_code(saved[_CODE], live, name, notes)
        if _OBJECT in saved:
            return _live_object(saved[_OBJECT], live, name, notes)
    if type(saved) not in _CONTAINERS:
        return saved
    return _rebuilt(saved, lambda key, item: rejoined(item, _item(live, key), f"{name}.{key}", notes))


def _rebuilt(value: Any, function: Callable[[Any, Any], Any]) -> Any:
    """A new container of the same kind; an entry of a dict for which ``function`` gives _MISSING is left out."""
    if isinstance(value, dict):
        made = copy.copy(value)  # which keeps a defaultdict's factory
        for key, item in value.items():
            made[key] = function(key, item)
            if made[key] is _MISSING:
                del made[key]
        return made
    items_ = [function(index, item) for index, item in enumerate(value)]
    items_ = [None if item is _MISSING else item for item in items_]
    return deque(items_, maxlen=value.maxlen) if isinstance(value, deque) else type(value)(items_)


def _item(live: Any, key: Any) -> Any:
    try:
        return live[key]
    except (KeyError, IndexError, TypeError):
        return _MISSING


def _live_code(saved: str, live: Any, name: str, notes: list[str]) -> Any:
    if not isinstance(live, _CODE_TYPES):
        notes.append(f"{name}: the checkpoint had the function {saved} there, which the script lacks")
        return live
    present = getattr(live, "__qualname__", type(live).__name__)
    if present != saved:
        notes.append(f"{name}: was {saved}, is {present} in the script: the script's is used")
    return live


def _live_object(saved: Any, live: Any, name: str, notes: list[str]) -> Any:
    if not (_has_state(live) or isinstance(live, tuple(_GENERATORS))):
        notes.append(f"{name}: the checkpoint had an object there, which the script lacks")
        return live
    _restore(name, live, saved, notes)
    return live


def _has_state(thing: Any) -> bool:
    return all(callable(getattr(thing, method, None)) for method in ("state_dict", "load_state_dict"))


def _capture(name: str, thing: Any, depth: int) -> Any:
    if isinstance(thing, nn.Module):
        return model_state(thing)
    for kind, (get, _) in _GENERATORS.items():
        if isinstance(thing, kind):
            return get(thing)
    return storable(_state_dict(name, thing), name, depth)


def _state_dict(name: str, thing: Any) -> Any:
    if isinstance(thing, type) or not _has_state(thing):
        raise ConfigurationError(
            f"{name} is a {type(thing).__module__}.{type(thing).__qualname__}, which has no state_dict() and "
            "load_state_dict(): no checkpoint can hold it. Give it both, or leave it out."
        )
    try:
        return thing.state_dict()
    except RelumeError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"{name}: {type(thing).__name__}.state_dict() failed with {type(error).__name__}: {error}."
        ) from error


def _restore(name: str, thing: Any, saved: Any, notes: list[str]) -> None:
    if isinstance(thing, nn.Module):
        notes += load_model_state(thing, saved, what=name, partly=True)
        return
    if not isinstance(thing, tuple(_GENERATORS)):
        live = _state_dict(name, thing)
        if isinstance(thing, torch.amp.GradScaler) and _is_switched(name, saved, live, notes):
            return
        saved = rejoined(saved, live, name, notes)
    try:
        _setter(thing)(saved)
    except RelumeError:
        raise
    except Exception as error:
        raise MismatchError(
            f"{name}: {type(thing).__name__} does not take the state of the checkpoint: {type(error).__name__}: {error}. "
            "Build it as it was when the checkpoint was written, or start a new run."
        ) from error


def _setter(thing: Any) -> Callable[[Any], Any]:
    for kind, (_, put) in _GENERATORS.items():
        if isinstance(thing, kind):
            return functools.partial(put, thing)
    return thing.load_state_dict  # type: ignore[no-any-return]


def _is_switched(name: str, saved: Any, live: Any, notes: list[str]) -> bool:
    """A GradScaler that is switched off has an empty state, and one that is on refuses to load it."""
    if saved == {} and live:
        notes.append(f"{name}: it was switched off in the checkpoint and starts afresh")
        return True
    if saved and live == {}:
        notes.append(f"{name}: it is switched off now, and the state of the checkpoint is not used")
        return True
    return False


def _chosen_options(
    name: str, saved: Any, written: Any, script: Any, override: frozenset[str], notes: list[str]
) -> Any:
    """The state, with the options that the script has changed and that ``override`` names."""
    chosen = dict(saved)
    for key, value in script.items() if written is not None else ():
        if key not in chosen or key not in written or equal(written[key], value) or _is_code(value):
            continue
        if key == "_schedulers":  # of a SequentialLR or ChainedScheduler
            parts = zip(chosen[key], written[key], value, strict=False)
            chosen[key] = [
                _chosen_options(f"{name}.{index}", *part, override, notes) for index, part in enumerate(parts)
            ]
            continue
        is_over = key in override or (key in _OF_LR and "lr" in override)
        use = (
            "the script's is used" if is_over else f"the checkpoint's is used (override={{{key!r}}} uses the script's)"
        )
        notes.append(f"{name}: {key} was {shown(written[key])} and is {shown(value)} in the script: {use}")
        if is_over:
            chosen[key] = copied(value)
    return chosen


def _is_code(value: Any) -> bool:
    return isinstance(value, dict) and _CODE in value


def _fitted_groups(name: str, thing: LRScheduler, saved: Any, notes: list[str]) -> Any:
    """The state for as many groups as the optimizer has now: those that were added keep the script's values."""
    if "_schedulers" in saved:
        parts = zip(getattr(thing, "_schedulers", ()), saved["_schedulers"], strict=False)
        saved = saved | {"_schedulers": [_fitted_groups(name, *part, notes) for part in parts]}
    live = thing.state_dict()
    count, before = len(live.get("_last_lr", ())), len(saved.get("_last_lr", ()))
    if count == before or not count or not before:
        return saved
    notes.append(f"{name}: it was saved for {counted(before, 'group')} and has {count}: the first ones go on")

    def fitted(key: str, value: Any) -> Any:
        present = live.get(key)
        if (
            not isinstance(value, list)
            or not isinstance(present, list)
            or (len(value), len(present)) != (before, count)
        ):
            return value
        return value[:count] + copied(present[before:])

    return {key: fitted(key, value) for key, value in saved.items()}


def _set_torch(generator: torch.Generator, state: torch.Tensor) -> None:
    generator.set_state(state.detach().cpu().clone())


def _set_bits(generator: np.random.Generator, state: Any) -> None:
    generator.bit_generator.state = state


_GENERATORS: dict[type, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    torch.Generator: (torch.Generator.get_state, _set_torch),
    np.random.Generator: (lambda generator: generator.bit_generator.state, _set_bits),
    np.random.RandomState: (numpy_state, load_numpy_state),
    random.Random: (python_state, load_python_state),
}
