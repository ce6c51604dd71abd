"""Canonical names of parameters: the same whether a model is wrapped (DataParallel, DDP, ``torch.compile``) or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

_COMPILED = "_orig_mod"
_PARALLEL = "module"


def canonical(name: str) -> str:
    """``name`` without the segments that DataParallel, DDP and ``torch.compile`` put into it.

    A string does not tell whether a submodule that is called "module" is a wrapper; `canonical_in` knows the model and does.

    Example:
        >>> canonical("module._orig_mod.features.0.weight"), canonical("submodule.weight")
        ('features.0.weight', 'submodule.weight')
    """
    *path, last = name.split(".")
    return ".".join([segment for segment in path if segment not in (_PARALLEL, _COMPILED)] + [last])


def canonical_in(model: nn.Module) -> Callable[[str], str]:
    """A function that takes the wrappers of ``model`` out of a name, and leaves a user's own submodule "module" in it."""
    prefixes = [
        (f"{place}.{inner}." if place else f"{inner}.", len(inner) + 1)
        for place, owner in model.named_modules(remove_duplicate=False)
        if (inner := _wrapped(owner)) is not None
    ]
    prefixes.sort(key=lambda prefix: len(prefix[0]), reverse=True)

    def rename(name: str) -> str:
        for prefix, length in prefixes:
            if name.startswith(prefix):
                name = prefix[:-length] + name[len(prefix) :]
        return name

    return rename


def parameter_names(models: Mapping[str, nn.Module]) -> dict[int, str]:
    """``id(parameter)`` to ``"<model>.<canonical name>"``; a tied parameter has the first of its names.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> list(parameter_names({"model": nn.DataParallel(layer)}).values())
        ['model.weight', 'model.bias']
    """
    names: dict[int, str] = {}
    for name, parameter in named_parameters(models):
        names.setdefault(id(parameter), name)
    return names


def named_parameters(models: Mapping[str, nn.Module]) -> list[tuple[str, nn.Parameter]]:
    """The parameters of several models, each once a model, by ``"<model>.<canonical name>"``."""
    found = []
    for model_name, model in models.items():
        rename = canonical_in(model)
        found += [(f"{model_name}.{rename(name)}", parameter) for name, parameter in model.named_parameters()]
    return found


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside of DataParallel, DDP and compiled wrappers, however many.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> unwrap(nn.DataParallel(nn.DataParallel(layer))) is layer
        True
    """
    while (inner := _wrapped(model)) is not None:
        model = model._modules[inner]  # type: ignore[assignment]
    return model


def _wrapped(module: nn.Module) -> str | None:
    """The name under which a wrapper holds what it wraps."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return _PARALLEL
    # By what it holds and not by its class: importing torch._dynamo takes a second.
    if type(module).__name__ == "OptimizedModule" and isinstance(module._modules.get(_COMPILED), nn.Module):
        return _COMPILED
    return None


def is_uninitialized(value: object) -> bool:
    """Whether it is a parameter or buffer of a lazy module that has no shape yet."""
    return isinstance(value, torch.Tensor) and torch.nn.parameter.is_lazy(value)
