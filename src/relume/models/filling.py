"""Filling a module with tensors: first planned by torch's own rules without changing anything, then done.

A module decides itself what it takes from a state_dict: old versions are converted, hooks rename, lazy parameters get their
shape. So the plan is what the modules' own ``_load_from_state_dict`` would copy, noted down instead of copied.
"""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import _IncompatibleKeys
from torch.overrides import TorchFunctionMode

from relume.errors import MismatchError
from relume.models.assigned import Assignment, assign, name_assignments, remember, storage_of, undo
from relume.models.state import is_extra
from relume.names import is_uninitialized

_WRONG_SIZE = re.compile(r"size mismatch for (.*): copying a param with shape", re.DOTALL)


class Copy(NamedTuple):
    """One tensor of a module and what comes into it."""

    target: torch.Tensor
    value: torch.Tensor


@dataclass
class Plan:
    """What filling a module will do.

    Attributes:
        module: the module, without wrappers.
        copies: tensor of the module by the first of its names, and what comes into it.
        assigned: what the modules assign by themselves. Those of ``copies`` that are loaded so are not copied.
        extras: modules with a ``set_extra_state``, by their name, and what it gets.
        missing, unexpected: names, as ``load_state_dict`` means them.
        wrong_shape: names whose shapes differ.
        problems: other complaints of the modules, in their words.
    """

    module: nn.Module
    copies: dict[str, Copy] = field(default_factory=dict)
    assigned: list[Assignment] = field(default_factory=list)
    extras: dict[str, tuple[nn.Module, Any]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_shape: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The live tensors of a module's state_dict: its parameters and buffers themselves, without extra state."""
    state = module.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor) and not is_extra(name)}


def names_of(own: Mapping[str, torch.Tensor]) -> dict[int, list[str]]:
    """``id(tensor)`` to all its names."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, value in own.items():
        names[id(value)].append(name)
    return names


def plan(
    module: nn.Module, own: Mapping[str, torch.Tensor], state: Mapping[str, Any], versions: Mapping[str, Any] | None
) -> Plan:
    """What ``module.load_state_dict(state)`` would do; nothing is changed.

    Args:
        own: see `own_tensors`.
        state: tensors, and whatever ``_extra_state`` entries hold, by the names that the module uses.
        versions: the ``_metadata`` that torch keeps with a state_dict. Without it a state is taken for an old one, as
            torch does, or for one of today where a module does not want an old one.

    Raises:
        MismatchError: a module's own loading code fails.
    """
    tensors = {name: value for name, value in state.items() if not is_extra(name)}
    try:
        result = _walked(module, own, tensors, versions or {})
    except Exception as error:
        present: Mapping[str, Any] = getattr(module.state_dict(), "_metadata", {})
        try:
            if versions:
                raise
            result = _walked(module, own, tensors, present)
        except Exception:
            kind = type(module).__name__
            text = f"{kind} does not take this state: its own loading code fails with {type(error).__name__}: {error}"
            raise MismatchError(f"{text}. Nothing was loaded.") from error
    for name, target in own.items():
        if is_uninitialized(target) and name in tensors:
            result.copies[name] = Copy(target, tensors[name])
    _plan_extras(result, state)
    _settle_ties(result, names_of(own))
    return result


def _walked(
    module: nn.Module, own: Mapping[str, torch.Tensor], tensors: Mapping[str, Any], versions: Mapping[str, Any]
) -> Plan:
    result = Plan(module)
    names = names_of(own)
    lazy = {name for name, value in own.items() if is_uninitialized(value)}
    noting = _Noting({id(value) for value in own.values()}, [v for n, v in own.items() if n not in lazy])
    state = OrderedDict((name, value) for name, value in tensors.items() if name not in lazy)
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(False)
    before = remember(module)
    try:
        with noting, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="for .*: copying from a non-meta parameter")
            _walk(module, state, "", versions, result)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
        result.assigned = undo(before)
    result.missing = [name for name in result.missing if not (name in lazy and name in tensors)]
    _sort_out_problems(result)
    for target, value in noting.found:
        group = names[id(target)]
        name = next((name for name in group if state.get(name) is value), group[0])
        result.copies.setdefault(name, Copy(target, value))
    _note_assigned(result, own, tensors)
    return result


def _note_assigned(result: Plan, own: Mapping[str, torch.Tensor], tensors: Mapping[str, Any]) -> None:
    """What is assigned is loaded as well; each tensor under one of its names."""
    if not result.assigned:
        return
    name_assignments(result.module, result.assigned, own, tensors)
    noted = {id(copy.target): name for name, copy in result.copies.items()}
    for one in result.assigned:
        for name in sorted(one.names, key=lambda name: name not in tensors):
            first = noted.setdefault(id(own[name]), name)
            result.copies.setdefault(first, Copy(own[name], tensors.get(name, one.new)))
        one.names = tuple({noted[id(own[name])]: None for name in one.names})


def _walk(module: nn.Module, state: dict[str, Any], prefix: str, versions: Mapping[str, Any], result: Plan) -> None:
    """As ``load_state_dict`` goes through a module."""
    version = dict(versions.get(prefix[:-1], {}))
    load: Callable[..., None] = module._load_from_state_dict
    load(state, prefix, version, True, result.missing, result.unexpected, result.problems)
    parts: dict[str, dict[str, Any]] = defaultdict(
        dict
    )  # in one pass: torch's own goes through all names for each child
    for name, value in state.items() if module._modules else ():
        if name.startswith(prefix):
            parts[name[len(prefix) :].partition(".")[0]][name] = value
    for name, child in module._modules.items():
        if child is not None:
            _walk(child, parts[name], f"{prefix}{name}.", versions, result)
    if module._load_state_dict_post_hooks and (result.missing or result.unexpected):
        before = remember(result.module)  # a hook may know that some do not matter; what else it does, it does later
        _run_post_hooks(module, result)
        undo(before)


def _run_post_hooks(module: nn.Module, result: Plan) -> None:
    for hook in module._load_state_dict_post_hooks.values():
        hook(module, _IncompatibleKeys(result.missing, result.unexpected))


class _Noting(TorchFunctionMode):
    """Notes what would be copied into the given tensors, or into what shares their memory, and copies nothing."""

    def __init__(self, own: set[int], tensors: list[torch.Tensor]) -> None:
        super().__init__()
        self.found: list[Copy] = []
        self._own = own
        self._places = {_place(tensor): tensor for tensor in tensors if tensor.numel() and not tensor.is_meta}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") == "copy_" and len(args) > 1 and isinstance(args[1], torch.Tensor):
            target = args[0] if id(args[0]) in self._own else self._places.get(_place(args[0]))
            if target is not None:
                self.found.append(Copy(target, args[1]))
                return args[0]
        return func(*args, **(kwargs or {}))


def _place(tensor: torch.Tensor) -> tuple[int, torch.Size, torch.dtype]:
    try:
        return tensor.data_ptr(), tensor.shape, tensor.dtype
    except RuntimeError:  # a kind of tensor without memory of its own
        return -id(tensor), tensor.shape, tensor.dtype


def _sort_out_problems(result: Plan) -> None:
    for text in list(result.problems):
        if found := _WRONG_SIZE.match(text):
            result.wrong_shape.append(found.group(1))
            result.problems.remove(text)


def _plan_extras(result: Plan, state: Mapping[str, Any]) -> None:
    result.missing = [name for name in result.missing if not (is_extra(name) and name in state)]
    modules = dict(result.module.named_modules(remove_duplicate=False))
    for name, value in state.items():
        if not is_extra(name):
            continue
        module = modules.get(name.rpartition(".")[0])
        if module is not None and type(module).set_extra_state is not nn.Module.set_extra_state:
            result.extras[name] = (module, value)
        elif name not in result.unexpected:
            result.unexpected.append(name)


def _settle_ties(result: Plan, names: Mapping[int, list[str]]) -> None:
    """A tensor with several names is not missing when one of them is there."""
    filled = {name for copy in result.copies.values() for name in names[id(copy.target)]}
    result.missing = [name for name in result.missing if name not in filled]


def fill(result: Plan, *, is_owned: bool) -> None:
    """Do what was planned.

    Args:
        result: the plan, checked by its caller: shapes, dtypes and layouts fit.
        is_owned: the values belong to nobody else: a parameter on the meta device may become them, instead of a copy.

    Raises:
        MismatchError: a ``set_extra_state`` fails (the module is as it was), or the device does (it may be in parts).
    """
    _set_extras(result)
    assigned = {name for one in result.assigned for name in one.names}
    values = _apart([copy for name, copy in result.copies.items() if name not in assigned])
    try:
        with torch.no_grad():
            assign(result.assigned, is_owned=is_owned)
            _assign(
                [copy for copy in values if copy.target.is_meta and not is_uninitialized(copy.target)], result, is_owned
            )
            for target, value in values:
                if is_uninitialized(target):
                    target.materialize(value.shape)  # type: ignore[attr-defined]
                if not target.is_meta:
                    target.copy_(value)
    except (RuntimeError, NotImplementedError) as error:
        raise MismatchError(
            f"{type(result.module).__name__} was filled in parts only, a copy failed: {error}. Load again before use."
        ) from error
    for module in result.module.modules():
        _run_post_hooks(module, Plan(module))


def _set_extras(result: Plan) -> None:
    before: list[tuple[nn.Module, Any]] = []
    for name, (module, value) in result.extras.items():
        try:
            before.append((module, module.get_extra_state()))
            module.set_extra_state(value)
        except Exception as error:
            for changed, old in reversed(before):
                changed.set_extra_state(old)
            kind = type(module).__name__
            raise MismatchError(f"{name}: {kind}.set_extra_state fails: {error}. Nothing was loaded.") from error


def _apart(copies: list[Copy]) -> list[Copy]:
    """A value that shares memory with another tensor of the module is copied first, or it would change under way."""
    places: dict[int, int] = {}
    for target, _ in copies:
        if (storage := storage_of(target)) is not None:
            places.setdefault(storage, id(target))
    return [
        Copy(target, value.clone())
        if (storage := storage_of(value)) in places
        and (storage != storage_of(target) or value.data_ptr() != target.data_ptr())
        else Copy(target, value)
        for target, value in copies
    ]


def _assign(copies: list[Copy], result: Plan, is_owned: bool) -> None:
    """Parameters and buffers without values are replaced, in all places where they are."""
    if not copies:
        return
    places = defaultdict(list)
    for table, name, value in _tables(result.module):
        places[id(value)].append((table, name))
    used: set[int] = set()
    for target, value in copies:
        storage = storage_of(value)
        is_shared = not is_owned or storage in used
        new = value.detach().to(target.dtype, copy=is_shared)
        used |= {storage} if storage is not None else set()
        if isinstance(target, nn.Parameter):
            new = nn.Parameter(new, requires_grad=target.requires_grad)
            new.__dict__.update(target.__dict__)
        for table, name in places[id(target)]:
            table[name] = new


def _tables(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    for owner in module.modules():
        for table in (owner._parameters, owner._buffers):
            for name, value in list(table.items()):
                if value is not None:
                    yield table, name, value
