"""The arguments of builders as JSON, and back."""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from relume.checkpoint.tensors import torch_dtype
from relume.errors import RecipeError
from relume.models.recipe import builders

_MAX_DEPTH = 50


def to_json(value: Any, path: str, describe: Callable[[nn.Module, str], dict[str, Any]]) -> Any:
    """``value`` as JSON: plain things as themselves, all else as a table with one key that says what it is.

    Args:
        path: what an error calls the value: ``"layers[2]"``.
        describe: gives the recipe of a module.

    Raises:
        RecipeError: it cannot be remembered; names it.

    Example:
        >>> to_json({"size": (3, 4), "dtype": torch.float16}, "options", lambda module, path: {})
        {'dict': [['size', {'tuple': [3, 4]}], ['dtype', {'dtype': 'float16'}]]}
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, nn.Module):
        return {"build": describe(value, path)}
    if inspect.isclass(value) and issubclass(value, nn.Module):
        return {"class": builders.name_of(value)}
    if type(value) is list:
        return [to_json(one, f"{path}[{place}]", describe) for place, one in enumerate(value)]
    if type(value) in (tuple, torch.Size):
        return {"tuple": [to_json(one, f"{path}[{place}]", describe) for place, one in enumerate(value)]}
    if type(value) in (dict, OrderedDict) and all(isinstance(key, (str, int)) for key in value):
        pairs = [[key, to_json(one, f"{path}[{key!r}]", describe)] for key, one in value.items()]
        return {"dict" if type(value) is dict else "ordered": pairs}
    raise RecipeError(
        f"the argument {path} is {value!r:.80} of type {type(value).__name__}, which a recipe cannot hold: it holds numbers, "
        "strings, None, dtypes, modules that relume.build made, classes of modules, and lists, tuples and dicts of these. "
        "Make it inside of the builder, from such arguments."
    )


def from_json(value: Any, make: Callable[[Mapping[str, Any]], nn.Module], depth: int = 0) -> Any:
    """What `to_json` took down.

    Args:
        make: makes a module of its recipe.

    Raises:
        RecipeError: it is no such thing.
    """
    if depth > _MAX_DEPTH:
        raise RecipeError(f"its arguments are nested more than {_MAX_DEPTH} deep.")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [from_json(one, make, depth + 1) for one in value]
    if not isinstance(value, dict) or len(value) != 1:
        raise RecipeError(f"an argument {value!r:.80} is not understood.")
    ((kind, content),) = value.items()
    try:
        return _special(kind, content, make, depth + 1)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecipeError(f"an argument {value!r:.80} is not understood: {error!s:.100}.") from error


def _special(kind: str, content: Any, make: Callable[[Mapping[str, Any]], nn.Module], depth: int) -> Any:
    match kind:
        case "float" if content in ("inf", "-inf", "nan"):
            return float(content)
        case "dtype":
            return torch_dtype(content)
        case "build":
            return make(content)
        case "class":
            found = builders.find(content)
            if inspect.isclass(found):
                return found
        case "tuple" if isinstance(content, list):
            return tuple(from_json(one, make, depth) for one in content)
        case "dict" | "ordered":
            pairs = {_key(key): from_json(one, make, depth) for key, one in content}
            return pairs if kind == "dict" else OrderedDict(pairs)
    raise ValueError(f"{kind!r:.40} is unknown")


def _key(key: Any) -> str | int:
    if type(key) not in (str, int) or key == "device":
        raise ValueError(f"{key!r:.40} is no key")
    return key  # type: ignore[no-any-return]
