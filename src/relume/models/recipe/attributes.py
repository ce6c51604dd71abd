"""What a module holds beside its parameters, buffers and submodules, and whether another holds the same."""

from __future__ import annotations

import enum
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from relume.modes import StaysInEval

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_MODULE_OWN = {*vars(nn.Module()), "call_super_init", "dump_patches", "_relume_recipe", "_relume_facts"}
_COMPUTED_BY_TORCH = ("_g", "_v", "_orig")  # weight_norm, spectral_norm and prune set NAME from these parameters
_MAX_DEPTH = 12

Same = Callable[[torch.Tensor, torch.Tensor], bool]


def differing_attribute(ours: nn.Module, theirs: nn.Module, own: set[int], same: Same) -> tuple[str, Any, Any] | None:
    """The first attribute that two modules do not have alike, with its two values; objects of unknown kinds are not judged.

    Args:
        own: ids of the parameters, buffers and modules of both models: attributes that are one of them are compared elsewhere.
        same: compares two tensors of one shape.
    """
    mine, other = vars(ours), vars(theirs)
    for name in {**mine, **other}:
        one, two = mine.get(name), other.get(name)
        if _is_compared(ours, name, one, two, own) and not _alike(one, two, own, same, 0):
            return name, one, two
    return None


def holds_tensors(module: nn.Module, own: set[int]) -> bool:
    """Whether some attribute holds a tensor that is neither parameter nor buffer."""
    values = (value for name, value in vars(module).items() if name not in _MODULE_OWN)
    return any(isinstance(leaf, torch.Tensor) for value in values for leaf in _leaves(value, own, 0))


def ids_of(*models: nn.Module) -> set[int]:
    """Of all modules, parameters and buffers."""
    return {id(one) for model in models for one in (*model.modules(), *model.parameters(), *model.buffers())}


def same_tensor(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Whether the values are the same, NaN being equal to NaN; the device does not count."""
    theirs = theirs.detach().cpu()
    ours = ours.detach().cpu().to(theirs.dtype)
    if ours.is_floating_point() and ours.itemsize == 1:
        ours, theirs = ours.float(), theirs.float()
    if torch.equal(ours, theirs):
        return True
    is_number = ours.is_floating_point() or ours.is_complex()
    return is_number and torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True)


def shown(value: Any) -> str:
    """A value for an error message: short, and on one line."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return " ".join(f"{value!r:.80}".split())[:60]


def _is_compared(module: nn.Module, name: str, one: Any, two: Any, own: set[int]) -> bool:
    if name in _MODULE_OWN or isinstance(two if one is None else one, StaysInEval):
        return False
    if any(name + end in module._parameters for end in _COMPUTED_BY_TORCH):
        return False
    if not name.startswith("_"):
        return _is_known(one) and _is_known(two)
    # A private attribute that the builder leaves empty is a cache.
    if type(module).__module__.startswith("torch.") or _is_empty(two):
        return False
    return any(isinstance(leaf, torch.Tensor) or callable(leaf) for leaf in _leaves(one, own, 0))


def _is_known(value: Any) -> bool:
    return (
        isinstance(value, (*_PLAIN, torch.Tensor, list, tuple, dict, set, frozenset, enum.Enum, torch.dtype))
        or callable(value)
        or type(value).__module__ == "numpy"
    )


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (list, tuple, dict)) and not value)


def _alike(one: Any, two: Any, own: set[int], same: Same, depth: int) -> bool:
    if one is two or depth > _MAX_DEPTH:
        return True
    (kind, parts), (other_kind, other_parts) = _taken_apart(one, own), _taken_apart(two, own)
    if kind != other_kind or len(parts) != len(other_parts):
        return False
    if isinstance(one, torch.Tensor):
        return id(one) in own or same(one, two)
    return all(_alike(a, b, own, same, depth + 1) for a, b in zip(parts, other_parts, strict=True))


def _leaves(value: Any, own: set[int], depth: int) -> Iterator[Any]:
    parts = _taken_apart(value, own)[1] if depth <= _MAX_DEPTH and id(value) not in own else []
    if not parts and id(value) not in own:
        yield value
    for part in parts:
        yield from _leaves(part, own, depth + 1)


def _taken_apart(value: Any, own: set[int]) -> tuple[Any, list[Any]]:
    """What two values must have in common, and the values in them to be compared in turn."""
    kind = _name(type(value))
    if isinstance(value, torch.Tensor):
        return ("tensor", tuple(value.shape)), []
    if isinstance(value, nn.Module):
        return kind, [] if id(value) in own else list(value.state_dict().values())
    if isinstance(value, dict):
        return (kind, repr(list(value))), list(value.values())
    if isinstance(value, (list, tuple)):
        return kind, list(value)
    if isinstance(value, (set, frozenset)):
        return (kind, sorted(map(repr, value))), []
    if isinstance(value, (*_PLAIN, enum.Enum, torch.dtype)):
        return (kind, repr(value)), []
    if type(value).__module__ == "numpy" and hasattr(value, "tobytes"):
        return (kind, str(value.dtype), value.shape, value.tobytes()), []
    return _callable_taken_apart(value, kind)


def _callable_taken_apart(value: Any, kind: Any) -> tuple[Any, list[Any]]:
    if inspect.isclass(value):
        return _name(value), []
    if isinstance(value, functools.partial):
        return kind, [value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return (kind, _name(type(value.__self__))), [value.__func__]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if not _is_unset(cell)]
        return value.__code__, [value.__defaults__, value.__kwdefaults__, cells]
    if isinstance(value, types.BuiltinFunctionType):
        return (kind, value.__qualname__), []
    return kind, [dict(vars(value))] if callable(value) and hasattr(value, "__dict__") else []


def _is_unset(cell: Any) -> bool:
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True


def _name(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__
