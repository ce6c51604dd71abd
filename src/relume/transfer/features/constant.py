"""Which modules compute the same for a sample each time: frozen, in evaluation mode, and without hooks that would be missed."""

from __future__ import annotations

import functools
from collections.abc import Collection, Hashable
from types import CodeType, FunctionType

from torch import nn

from relume.names import is_uninitialized
from relume.transfer.modes import is_dropout


class NoCut(Exception):  # noqa: N818 - a decision, not an error
    """Why nothing of a model can be computed once for all."""


class NothingConstant(NoCut):
    """Training begins with the first part of the model, as in the last phase of a schedule."""


class Constancy:
    """Says of the modules of one model whether they are constant, and if not, why.

    Args:
        model: as it is now: requires_grad and the modes of its modules count.
        trainable: ids of further parameters and modules that may be trained, such as those of a later turn of a schedule.
    """

    def __init__(self, model: nn.Module, trainable: Collection[int] = ()) -> None:
        self.model = model
        self._trainable = trainable
        self._reasons: dict[int, str | None] = {}

    def may_change(self, parameter: object) -> bool:
        """Whether a parameter is, or may be, trained."""
        return bool(getattr(parameter, "requires_grad", False)) or id(parameter) in self._trainable

    def reason(self, module: nn.Module, path: str) -> str | None:
        """Why a module with all within it is not constant, or ``None``."""
        if id(module) not in self._reasons:
            self._reasons[id(module)] = self._reason(module, path)
        return self._reasons[id(module)]

    def _reason(self, module: nn.Module, path: str) -> str | None:
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{said(path, module)} has a forward hook, which would not be called"
        if id(module) in self._trainable:
            return f"{said(path, module)} may be trained in this epoch"
        for own, parameter in module._parameters.items():
            if is_uninitialized(parameter):
                return f"{said(path, module)} has no shape yet"
            if parameter is not None and self.may_change(parameter):
                return f"{f'{path}.{own}' if path else own} is trained"
        if module.training and follows_mode(module):
            return f"{said(path, module)} is in training mode"
        for name, child in module.named_children():
            if (reason := self.reason(child, f"{path}.{name}" if path else name)) is not None:
                return reason
        return None

    def has_constant_part(self, module: nn.Module, path: str) -> bool:
        """Whether something within a module that is not constant is."""
        return any(
            self.reason(child, f"{path}.{name}" if path else name) is None
            or self.has_constant_part(child, f"{path}.{name}" if path else name)
            for name, child in module.named_children()
        )


def said(path: str, module: nn.Module) -> str:
    """A module in words: its name and its class."""
    return f"{path} ({type(module).__name__})" if path else type(module).__name__


def follows_mode(module: nn.Module) -> bool:
    """Whether a module may compute something else in training mode: whether any of its methods looks at ``training``."""
    if is_dropout(module) and _rate(module) == 0:
        return False
    kind: Hashable = type(module)  # type: ignore[assignment]
    return _looks_at_mode(kind)


def _rate(module: nn.Module) -> float:
    """The share that a dropout drops, under the names that torch, torchvision and timm give it; 1 if unknown."""
    for name in ("p", "drop_prob", "prob"):
        value = getattr(module, name, None)
        if isinstance(value, (int, float)):
            return float(value)
    return 0.0 if getattr(module, "drop_prob", 1) is None else 1.0


@functools.cache
def _looks_at_mode(kind: Hashable) -> bool:
    methods = [
        function
        for base in getattr(kind, "__mro__", ())
        if base not in (nn.Module, object)
        for function in vars(base).values()
        if isinstance(function, FunctionType)
    ]
    return not methods or any(_mentions(method.__code__) for method in methods)


def _mentions(code: CodeType) -> bool:
    if "training" in code.co_names:
        return True
    return any(_mentions(inner) for inner in code.co_consts if isinstance(inner, CodeType))
