"""Modules that are built without values, and get those of a checkpoint."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from relume.errors import MismatchError

Module = TypeVar("Module", bound=nn.Module)

_FILLS = {
    "normal_", "uniform_", "trunc_normal_", "bernoulli_", "exponential_", "fill_", "zero_", "clamp_", "mul_", "add_",
    "div_", "sub_", "erfinv_", "log_normal_", "cauchy_", "geometric_", "random_", "kaiming_uniform_", "kaiming_normal_",
    "xavier_uniform_", "xavier_normal_",
}  # fmt: skip


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Build modules on the meta device, and skip their initialisation: it costs time and gives nothing there.

    Example:
        >>> with without_values():
        ...     layer = torch.nn.Linear(3, 2)
        >>> layer.weight.device
        device(type='meta')
    """
    with torch.device("meta"), _SkipFills():
        yield


def restore_module(module: Module, tensors: Mapping[str, Any]) -> Module:
    """Give a module the tensors of a state_dict: they become its parameters and buffers and are not copied.

    Args:
        module: may be on the meta device, see `without_values`.
        tensors: a state_dict, each tensor of the shape and dtype that the module has.

    Changes the module in place and returns it. Parameters that were tied stay tied.

    Raises:
        MismatchError: names everything that does not fit; the module is as it was.
    """
    _check_fit(module, tensors)
    ties = _ties(module)
    module.load_state_dict(tensors, assign=True)
    for first, *others in ties:
        for owner, name in others:
            owner._parameters[name] = first[0]._parameters[first[1]]
    _check_complete(module)
    return module


class _SkipFills(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in _FILLS:
            target = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(target, torch.Tensor) and target.is_meta:
                return target
        return func(*args, **(kwargs or {}))


def _check_fit(module: nn.Module, tensors: Mapping[str, Any]) -> None:
    own = module.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is not in the module" for name in tensors if name not in own]
    for name, value in tensors.items():
        expected = own.get(name)
        if not isinstance(value, torch.Tensor) or not isinstance(expected, torch.Tensor):
            continue
        if value.shape != expected.shape:
            problems.append(f"{name} has shape {tuple(value.shape)} where the module has {tuple(expected.shape)}")
        elif value.dtype != expected.dtype:
            problems.append(f"{name} has dtype {value.dtype} where the module has {expected.dtype}")
    if problems:
        raise MismatchError(
            f"{len(problems)} tensors do not fit {type(module).__name__}: {'; '.join(problems)}. Build the module with "
            "the arguments that it had when it was saved, or load what fits by name."
        )


def _ties(module: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """Where one parameter has several names."""
    places: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                places[id(parameter)].append((owner, name))
    return [owners for owners in places.values() if len(owners) > 1]


def _check_complete(module: nn.Module) -> None:
    empty = [name for name, value in _tensors(module) if value.is_meta]
    if empty:
        raise MismatchError(
            f"{type(module).__name__} keeps {', '.join(empty)} out of its state_dict: no checkpoint has it, and it "
            "was built without values. Build the module on a real device."
        )


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
