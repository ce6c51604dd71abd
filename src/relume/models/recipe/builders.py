"""What may build a model by name: classes of modules and registered builders, looked up and never imported on a file's word."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from torch import nn

from relume.errors import ConfigurationError, RecipeError

Parameters = ParamSpec("Parameters")
Module = TypeVar("Module", bound=nn.Module)
Builder = Callable[..., nn.Module]

_FACADES = ("torch.nn", "torchvision.models", "torchvision.ops", "timm", "timm.models", "timm.layers", "relume.models")
"""What is imported when a file asks for it; within ``torch``, ``torchvision``, ``timm`` and ``relume`` all else is refused."""

_NAME = re.compile(r"((?:[A-Za-z]\w*|__main__)(?:\.[A-Za-z]\w*)*):([A-Za-z]\w*)\Z", re.ASCII)
_TIMM_NAME = re.compile(r"[\w.]+\Z", re.ASCII)
_WEIGHTS = re.compile(r"pretrained|weights\Z|weights_backbone\Z|checkpoint_path\Z|cache_dir\Z")
"""Arguments that make a builder read files or the network; the weights of a model come from its own file."""

_registered: dict[str, tuple[Builder, Builder]] = {}  # by name: what records, and what it calls


def builder(function: Callable[Parameters, Module]) -> Callable[Parameters, Module]:
    """Register a function that builds a model, so that `build` takes it and a recipe may name it.

    What the function builds, called by itself, has its recipe too. Registering says that calling the function with
    whatever arguments stand in a file does no harm.

    Raises:
        ConfigurationError: it is no function at the top level of a module.

    Example:
        >>> @builder
        ... def small_net(width: int) -> nn.Module:
        ...     return nn.Linear(width, 1)
        >>> small_net(3).in_features
        3
    """
    if not inspect.isfunction(function):
        raise ConfigurationError(f"@relume.builder is for functions, not for {function!r:.80}; classes need none.")
    name = f"{function.__module__}:{function.__qualname__}"
    if not _NAME.match(name):
        raise ConfigurationError(
            f"@relume.builder: {name!r} cannot be found again by that name. Define it at the top level of a module, with a "
            "name that does not begin with an underscore."
        )

    @functools.wraps(function)
    def built(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Module:
        from relume.models.recipe.building import build

        return build(built, *args, **kwargs)  # type: ignore[return-value]

    _registered[name] = built, function
    return built


def inner(found: Builder) -> Builder:
    """What a registered builder does when it is called, without recording."""
    return next((function for built, function in _registered.values() if built is found), found)


def name_of(found: Any) -> str:
    """The name by which `find` finds a builder again.

    Raises:
        RecipeError: it cannot, and why.
    """
    kind = getattr(found, "__qualname__", repr(found))
    candidates = [f"{facade}:{kind}" for facade in _FACADES if facade in sys.modules]
    for name in [*candidates, f"{getattr(found, '__module__', '')}:{kind}"]:
        try:
            if find(name) is found:
                return name
        except RecipeError as error:
            problem = error
    if "<locals>" in kind:
        raise RecipeError(
            f"{kind} is defined inside a function, where it cannot be found again: define it in a module."
        )
    raise problem


def find(name: str) -> Builder:
    """The builder called ``MODULE:NAME``.

    Nothing is imported but torch.nn, torchvision.models, timm and relume.models; nothing is called.

    Raises:
        RecipeError: there is none, or it is neither a class of modules nor a registered builder.
    """
    parts = _NAME.match(name)
    if parts is None:
        raise RecipeError(f"{name!r:.100} names no builder: those are called MODULE:NAME, without private parts.")
    place, attribute = parts.groups()
    if name in _registered:
        return _registered[name][0]
    is_library = place.partition(".")[0] in {facade.partition(".")[0] for facade in _FACADES}
    if is_library:
        _import_facade(place, name)
    module = sys.modules.get(place)
    if module is None:
        raise RecipeError(f"{name} is not imported, and a file may not import it: `import {place}` first.")
    found: Any = vars(module).get(attribute)
    if found is None and place in _FACADES and attribute in getattr(module, "__all__", ()):
        found = getattr(module, attribute)  # it is imported when it is first used
    if inspect.isclass(found) and issubclass(found, nn.Module):
        if is_library or found.__module__ == place or place == "__main__":
            return cast(Builder, found)
        raise RecipeError(f"{name} is a class of {found.__module__}, and is named by another module.")
    if found is None and place == "__main__":
        raise RecipeError(
            f"there is no {attribute} in __main__, the script that runs here; the script that made the file had it. Define or "
            "import it there first."
        )
    if found is None:
        raise RecipeError(
            f"there is no {attribute} in {place}: `import` the version of it that the model was saved with."
        )
    if is_library and _is_builder_of_library(place, attribute, found):
        return cast(Builder, found)
    raise RecipeError(
        f"{name} is neither a class of modules nor a registered builder, and is not called. A function that builds a model "
        "of yours is registered by @relume.builder."
    )


def prepare(recipe: Any) -> None:
    """Look up all builders in a recipe, and import the libraries that they need, before anything is built.

    Raises:
        RecipeError: one of them is not allowed, or not there.
    """
    if isinstance(recipe, list):
        for one in recipe:
            prepare(one)
    elif isinstance(recipe, dict):
        for key, one in recipe.items():
            if key in ("builder", "class") and isinstance(one, str):
                find(one)
                if one == "relume.models:make_model":
                    for library in ("torchvision.models", "timm"):
                        with contextlib.suppress(ImportError):
                            importlib.import_module(library)
            prepare(one)


def _import_facade(place: str, name: str) -> None:
    facade = next((one for one in _FACADES if place == one or (place.startswith(one + ".") and one != "timm")), None)
    if facade is None:
        raise RecipeError(f"{name} is refused: of these libraries, only {', '.join(_FACADES)} build models.")
    try:
        importlib.import_module(facade)
    except ImportError as error:
        raise RecipeError(f'{name} needs {facade.partition(".")[0]}: pip install "relume[vision]".') from error


def _is_builder_of_library(place: str, attribute: str, found: Any) -> bool:
    if place.startswith("torchvision.models"):
        from torchvision import models

        return attribute in models.list_models() and models.get_model_builder(attribute) is found
    if place.startswith("timm"):
        import timm

        if found is timm.create_model:
            return True
        return bool(timm.is_model(attribute)) and timm.models.model_entrypoint(attribute) is found
    if place.startswith("relume.models"):
        from relume.models.make import make_model

        return found is make_model
    return False


def without_weights(found: Builder, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Which arguments of a library's builder to put in place of those that load weights: none, or False."""
    if not _reads_weights(name):
        return {}
    given = _bound(found, args, kwargs)
    parameters = inspect.signature(found).parameters
    asked = {key for key, value in given.items() if _WEIGHTS.match(key) and value not in (None, False)}
    by_default = {
        key for key, one in parameters.items() if _WEIGHTS.match(key) and one.default not in (None, False, one.empty)
    }
    return {key: False if key == "pretrained" else None for key in asked | by_default}


def check_call(found: Builder, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments out of a file that make a library's builder read other files or the network, or choose the device.

    Raises:
        RecipeError: names the argument.
    """
    given = _bound(found, args, kwargs)
    if given.get("device") is not None:  # it would take memory before anything can be compared with the file
        raise RecipeError(f"{name} with device={given['device']!r:.60}: a recipe does not choose the device.")
    if not _reads_weights(name):
        return
    for key, value in given.items():
        if _WEIGHTS.match(key) and value not in (None, False):
            raise RecipeError(
                f"{name} with {key}={value!r:.60} would read other files or the network: the weights of a model come from "
                "its own file."
            )
        if key == "model_name" and not (isinstance(value, str) and _TIMM_NAME.match(value)):
            raise RecipeError(f"{name} with the model {value!r:.60} would read other files or the network.")


def _reads_weights(name: str) -> bool:
    return name.startswith(("torchvision.", "timm.", "timm:", "relume."))


def _bound(found: Builder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    try:
        bound = inspect.signature(found).bind(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{getattr(found, '__qualname__', found)} cannot be called so: {error!s:.150}.") from error
    given = dict(bound.arguments)
    for parameter in bound.signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(parameter.name, {})
    return given
