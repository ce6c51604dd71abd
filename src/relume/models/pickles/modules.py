"""Models in a pickle: the tree of modules, their names, and the state_dict that the model would have given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from relume.errors import ClassicFileError, UnsafeFileError, closest
from relume.models.pickles.inert import Inert, describe, walk

Shapes = dict[str, tuple[int, ...]]

_MAX_NAMES = 300_000
_MAX_LETTERS = 100_000_000


def is_module(value: Any) -> bool:
    """Whether a stand-in is that of an ``nn.Module``."""
    if not isinstance(value, Inert) or not isinstance(value.state, (dict, tuple)):
        return False
    attributes = value.attributes
    return all(isinstance(attributes.get(name), dict) for name in ("_parameters", "_buffers", "_modules"))


def is_state_dict(value: Any) -> bool:
    """Whether a value is the state_dict of a model: tensors by name, one of them of more than a number.

    What modules have given as their extra state may be anything.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    if not value:
        return hasattr(value, "_metadata")
    tensors = [item for key, item in value.items() if not key.endswith("_extra_state")]
    if not all(isinstance(item, torch.Tensor) for item in tensors):
        return False
    return any(item.ndim for item in tensors) or (bool(tensors) and hasattr(value, "_metadata"))


def state_dict_in(content: Any, *, model: str | None = None, path: str | Path = "the file") -> dict[str, Any]:
    """The weights in what ``torch.save`` wrote.

    Args:
        content: of a `ModelFile`. A state_dict; a classic dictionary with one in it
            (`relume.models.classic.ClassicCheckpoint`); a whole model, or a dictionary with such a model.
        model: which model, by its name in the file, where there are several.
        path: what error messages call the file.

    Returns:
        Tensors by name, in the order of the module; those that were tied share memory. Extra state of modules that is
        tensors or plain Python comes along.

    Raises:
        ClassicFileError: there is none, or several and ``model`` does not say which; lists what there is.
        UnsafeFileError: modules that contain themselves, or that share one another so that they never end.

    Example:
        >>> content = {"epoch": 3, "model_state_dict": {"weight": torch.ones(2)}}
        >>> state_dict_in(content)
        {'weight': tensor([1., 1.])}
    """
    from relume.models.classic import classic_of  # which reads through this package

    if model is None and _is_all_tensors(content):
        return cast(dict[str, Any], content)
    models = classic_of(content, Path(path)).models
    if model is not None and model not in models:
        raise ClassicFileError(f"{path} has no model {model!r}: {closest(model, models)}")
    if model is None and "model" not in models and len(models) > 1:
        raise ClassicFileError(f"{path} holds {several_models(models)}")
    return models[model or ("model" if "model" in models else next(iter(models)))]


class Names:
    """How many names of tensors and modules are made of a file, and how long they are together.

    Modules that share one another have names without end, though the file is small.
    """

    def __init__(self) -> None:
        self._left, self._letters_left = _MAX_NAMES, _MAX_LETTERS

    def take(self, prefix: str, count: int = 1) -> None:
        """Count names that begin with ``prefix``; raises UnsafeFileError when they are too many."""
        self._left -= count
        self._letters_left -= count * len(prefix)
        if self._left < 0 or self._letters_left < 0:
            raise UnsafeFileError(
                f"the model is refused: its modules contain themselves or share one another, so that they have more than "
                f"{_MAX_NAMES:,} names. Nothing of the file was run."
            )


def module_state(module: Inert, names: Names | None = None) -> dict[str, torch.Tensor]:
    """What ``state_dict()`` of the model would have given. ``names`` counts over several models of one file."""
    names = names or Names()
    state: dict[str, torch.Tensor] = {}
    for prefix, part in _modules(module, names):
        attributes = part.attributes
        hidden = attributes.get("_non_persistent_buffers_set")
        hidden = hidden if isinstance(hidden, (set, frozenset, list)) else ()
        named = [*attributes["_parameters"].items()]
        named += [(name, value) for name, value in attributes["_buffers"].items() if name not in hidden]
        names.take(prefix, len(named))
        for name, value in named:
            if isinstance(name, str) and isinstance(value, torch.Tensor):
                state[f"{prefix}{name}"] = value.detach()
    return state


def module_tree(content: Any) -> list[tuple[str, str, Shapes]]:
    """The modules of a whole model, or of each model in a dictionary, as they would print.

    Returns:
        For each module its path (``""`` for the model itself), its class and the shapes of its own parameters. Empty
        where there is no model in ``content``.

    Raises:
        UnsafeFileError: modules that contain themselves, or that share one another so that they never end.
    """
    if is_module(content):
        models = [("", content)]
    elif isinstance(content, dict):
        models = [
            (f"{key}." if isinstance(key, str) else "", value) for key, value in content.items() if is_module(value)
        ]
        if len(models) == 1:
            models = [("", models[0][1])]
    else:
        models = []
    names = Names()
    tree = []
    for start, model in models:
        for prefix, part in _modules(model, names):
            parameters = part.attributes["_parameters"]
            names.take(prefix, len(parameters))
            tree.append((f"{start}{prefix}".removesuffix("."), part.class_name, _shapes(parameters)))
    return tree


def _modules(module: Inert, names: Names) -> Iterator[tuple[str, Inert]]:
    """All modules below one with the prefixes of their names, in the order of ``state_dict()``.

    One that is used at several places comes once for each, as it does there.
    """
    waiting = [("", module)]
    while waiting:
        prefix, part = waiting.pop()
        yield prefix, part
        below = part.attributes["_modules"]
        names.take(prefix, len(below))
        children = [(name, child) for name, child in below.items() if isinstance(name, str) and is_module(child)]
        for name, child in reversed(children):
            names.take(name, 1)
            waiting.append((f"{prefix}{name}.", child))


def _shapes(parameters: Mapping[Any, Any]) -> Shapes:
    return {
        name: tuple(value.shape)
        for name, value in parameters.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }


def _is_all_tensors(content: Any) -> bool:
    """A dictionary of nothing but tensors is a state_dict, be they numbers only."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())
    )


def several_models(names: Iterable[str]) -> str:
    """The end of a message that one of them must be chosen."""
    return f"several models: {', '.join(names)}; choose with model= (--model); in load_weights with source_model=."


def unread_tensors(content: Any) -> list[str]:
    """Where there are tensors of kinds that are not read, such as quantized ones."""
    return [".".join(path) for path, value in walk(content) if _is_unread_tensor(value)]


def readable_tensors(content: Any) -> dict[str, torch.Tensor]:
    """The tensors beside those that are not read; empty where that is not what keeps a content from being a state_dict."""
    if not isinstance(content, dict) or not any(map(_is_unread_tensor, content.values())):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}


def _is_unread_tensor(value: Any) -> bool:
    return isinstance(value, Inert) and value.class_name.startswith("torch._utils._rebuild_")


def found_in(content: Any) -> str:
    """What a content is, for the message that no weights are in it."""
    if isinstance(content, dict):
        keys = [describe(key) for key in list(content)[:20]]
        return f"a dictionary with {', '.join(keys) or 'nothing'}" + (", …" if len(content) > 20 else "")
    if isinstance(content, Inert):
        return f"an object of {content.class_name[:200]}"
    return f"a {type(content).__name__}"
