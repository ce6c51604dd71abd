"""Recipes of plain modules of torch.nn, and the proof that a recipe builds what a model is."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from relume.errors import RecipeError
from relume.models.recipe import builders
from relume.models.recipe.attributes import differing_attribute, ids_of, shown
from relume.models.recipe.values import to_json

_RECURRENT = "input_size hidden_size num_layers bias batch_first dropout bidirectional"
_KEPT: dict[type[nn.Module], str] = {
    nn.RNN: f"{_RECURRENT} nonlinearity",
    nn.GRU: _RECURRENT,
    nn.LSTM: f"{_RECURRENT} proj_size",
    nn.MultiheadAttention: "embed_dim num_heads dropout add_zero_attn kdim vdim batch_first",
}
"""Attributes that are the arguments, of classes whose signatures do not tell."""
_PLAIN = (bool, int, float, str, type(None))
DEFINED_ANEW = "was defined anew after the model was built"
_NOT_TOLD = {"device", "dtype"}


def described(module: nn.Module, path: str) -> dict[str, Any] | None:
    """A recipe from what a module of torch.nn holds; None for other classes, and where its arguments cannot be told.

    Arguments that a module does not keep are taken for their defaults: whoever uses the recipe proves it by `differences`.
    """
    from relume.models.recipe.building import recipe_of

    kind = type(module)
    if not kind.__module__.startswith("torch.nn.modules."):
        return None
    if kind is nn.Sequential:
        children = dict(module._modules)  # named_children leaves out what stands there twice
        if list(children) == [str(place) for place in range(len(children))]:
            args: list[Any] = list(children.values())
        else:
            args = [OrderedDict(children)]
        taken = [
            to_json(one, f"{path}[{place}]", lambda part, _: recipe_of(part, path)) for place, one in enumerate(args)
        ]
        return {"builder": "torch.nn:Sequential", "args": taken, "kwargs": {}}
    if kind in (nn.ModuleList, nn.ModuleDict):
        held: Any = list(module._modules.values()) if kind is nn.ModuleList else dict(module._modules)
        parts = to_json(held, path, lambda part, where: recipe_of(part, where))
        return {"builder": builders.name_of(kind), "args": [parts], "kwargs": {}}
    if names := _KEPT.get(kind):
        return {"builder": builders.name_of(kind), "args": [], "kwargs": _kept(module, names)}
    kwargs: dict[str, Any] | None = {}
    if kind is not nn.Identity:  # which takes whatever it is given
        kwargs = None if module._modules else _arguments(module)
    if kwargs is None:
        return None
    return {"builder": builders.name_of(kind), "args": [], "kwargs": kwargs}


def _kept(module: nn.Module, names: str) -> dict[str, Any]:
    given = {name: getattr(module, name) for name in names.split()}
    if isinstance(module, nn.MultiheadAttention):
        given |= {"bias": module.in_proj_bias is not None, "add_bias_kv": module.bias_k is not None}
    return {name: to_json(value, name, _no_module) for name, value in given.items()}


def _arguments(module: nn.Module) -> dict[str, Any] | None:
    kwargs = {}
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return None
        if name in _NOT_TOLD:
            continue
        value = getattr(module, name, inspect.Parameter.empty)
        if name == "bias":
            value = value is not None
        if not _is_plain(value):
            if parameter.default is inspect.Parameter.empty:
                return None
            continue
        kwargs[name] = to_json(value, name, _no_module)
    return kwargs


def _no_module(module: nn.Module, path: str) -> dict[str, Any]:
    raise RecipeError(f"{path} is a module.")


def differences(live: nn.Module, built: nn.Module) -> dict[str, str]:
    """Where two modules are not the same: the path of each part, and how it differs.

    Compared are the classes, what each part holds (plain values, functions, tensors by their shapes) and says of itself;
    not dtypes, values of tensors, and modes.
    """
    found: dict[str, str] = {}
    own = ids_of(live, built)
    ours, theirs = dict(live.named_modules(remove_duplicate=False)), dict(built.named_modules(remove_duplicate=False))
    for path, part in ours.items():
        other = theirs.get(path)
        if any(path == above or path.startswith(above + ".") for above in found if above):
            continue
        if other is None:
            parent = path.rpartition(".")[0]
            found.setdefault(parent, f"it has {path}, which the recipe does not build")
        elif difference := _difference(part, other, own):
            found[path] = difference
    for path in theirs:
        if path not in ours and not any(path.startswith(above + ".") for above in found if above):
            found.setdefault(path.rpartition(".")[0], f"it lacks {path}, which the recipe builds")
    return found


def _difference(ours: nn.Module, theirs: nn.Module, own: set[int]) -> str:
    if type(ours) is not type(theirs) and not _are_parametrized_alike(ours, theirs):
        if (type(ours).__module__, type(ours).__qualname__) == (type(theirs).__module__, type(theirs).__qualname__):
            return f"its class {type(ours).__name__} {DEFINED_ANEW}"
        return f"it is a {type(ours).__name__}, and the recipe builds a {type(theirs).__name__}"
    if _shapes(ours) != _shapes(theirs):
        return f"its tensors are {_shapes(ours)}, and the recipe builds {_shapes(theirs)}"
    if differing := differing_attribute(ours, theirs, own, lambda one, other: True):
        name, one, other = differing
        return f"its {name} is {shown(one)}, and the recipe builds {shown(other)}"
    if ours.extra_repr() != theirs.extra_repr():
        return f"it is ({ours.extra_repr():.80}), and the recipe builds ({theirs.extra_repr():.80})"
    return ""


def _are_parametrized_alike(ours: nn.Module, theirs: nn.Module) -> bool:
    """Torch makes a class for each parametrized module, derived from the one that it had."""
    both = all(map(parametrize.is_parametrized, (ours, theirs)))
    return both and type(ours).__bases__ == type(theirs).__bases__


def _shapes(module: nn.Module) -> dict[str, Any]:
    own = {**module._parameters, **module._buffers}
    return {name: None if value is None else tuple(value.shape) for name, value in own.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return type(value) in _PLAIN
