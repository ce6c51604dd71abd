"""A copy of a model to be tried, so that the model itself is never called, moved or changed."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from relume.errors import ConfigurationError
from relume.names import is_uninitialized

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class Trial:
    """A copy of a model.

    Attributes:
        model: the copy. It shares nothing with the model, has none of the user's hooks, and no gradients.
        device: where its parameters are.
        copies: ``id`` of each parameter of the model to its copy.
    """

    model: nn.Module
    device: torch.device
    copies: dict[int, nn.Parameter]


def without_weights(model: nn.Module) -> Trial:
    """A copy on the meta device: its tensors have shapes and dtypes and no values, and it costs no memory."""
    memo = _memo_without_hooks(model)
    for tensor in _tensors(model):
        memo[id(tensor)] = _empty_like(tensor)
    return _trial(model, memo, _empty_like, torch.device("meta"))


def with_weights(model: nn.Module) -> Trial:
    """A copy with all values, where the model is: for models that look at values when they are called."""
    device = next((tensor.device for tensor in _tensors(model)), torch.device("cpu"))
    return _trial(model, _memo_without_hooks(model), lambda tensor: tensor.detach().clone(), device)


class _CopyTensors(TorchFunctionMode):
    """Has ``make`` copy the tensors that modules hold as plain attributes; torch refuses those that were computed."""

    def __init__(self, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self._make = make

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.__deepcopy__:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = self._make(tensor)
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _trial(
    model: nn.Module, memo: dict[int, Any], make: Callable[[torch.Tensor], torch.Tensor], device: torch.device
) -> Trial:
    try:
        with _CopyTensors(make):
            copied = copy.deepcopy(model, memo)
    except Exception as error:  # whatever objects a model holds
        raise ConfigurationError(
            f"this {type(model).__name__} cannot be copied to be tried ({type(error).__name__}: {error!s:.200}). A summary "
            "without an input shape needs no copy."
        ) from error
    for module in copied.modules():
        _drop_hooks(module)
    for parameter in copied.parameters():
        parameter.grad = None
    copies = {id(one): memo[id(one)] for one in model.parameters() if id(one) in memo}
    return Trial(copied, device, copies)


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _empty_like(tensor: torch.Tensor) -> torch.Tensor:
    if is_uninitialized(tensor):
        kind: Any = type(tensor)
        return kind(requires_grad=tensor.requires_grad, device="meta", dtype=tensor.dtype)  # type: ignore[no-any-return]
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def _memo_without_hooks(model: nn.Module) -> dict[int, Any]:
    """For ``deepcopy``: hooks that are the user's alone are not copied, with whatever they hold on to."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for name in _HOOKS:
            hooks = getattr(module, name, {})
            if hooks and not any(map(_is_of_torch, hooks.values())):
                memo[id(hooks)] = OrderedDict()
    return memo


def _drop_hooks(module: nn.Module) -> None:
    """Leave only the hooks that torch itself needs, for lazy modules and weight norms."""
    for name in _HOOKS:
        hooks = getattr(module, name, {})
        for key in [key for key, hook in hooks.items() if not _is_of_torch(hook)]:
            del hooks[key]


def _is_of_torch(hook: Any) -> bool:
    place = getattr(hook, "__module__", None) or type(hook).__module__
    return str(place).startswith("torch.")
