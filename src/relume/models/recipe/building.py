"""How a model was built: remembered when it is, and done again when it is loaded."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from relume.checkpoint import without_values
from relume.errors import MissingPackageError, RecipeError
from relume.models.recipe import builders
from relume.models.recipe.budget import Held, LimitedMemory, TooMuchError, check_numbers, limited_work
from relume.models.recipe.values import from_json, to_json

Recipe = dict[str, Any]
"""``{"builder": "MODULE:NAME", "args": [...], "kwargs": {...}}``; ``"replaced": {PATH: recipe}`` for parts put in later;
``"facts": JSON as text`` for what is known of the model besides, see `note`."""

_ATTRIBUTE = "_relume_recipe"
_FACTS = "_relume_facts"
_MAX_FACTS = 10_000  # characters
_CLASSES = {"torchvision.models": "num_classes", "timm": "num_classes", "timm.models": "num_classes"}


def build(builder: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """Call ``builder`` and remember on the module how it was built, for `relume.save_model`.

    Args:
        builder: a class of modules at the top level of a module, a builder of torchvision.models, ``timm.create_model``, or a
            function registered by ``@relume.builder``.
        args, kwargs: numbers, strings, None, dtypes, modules that have a recipe themselves, classes of modules, and lists,
            tuples and dicts of these. Arguments that ask for pretrained weights are obeyed and not remembered: the weights
            are saved with the model.

    Raises:
        RecipeError: the builder cannot be found again by its name, an argument cannot be remembered (it is named), or what
            was built is no module.

    Example:
        >>> model = build(nn.Sequential, build(nn.Linear, 4, 8), nn.ReLU())
        >>> recipe_of(model)["args"][0]["build"]
        {'builder': 'torch.nn:Linear', 'args': [4, 8], 'kwargs': {}}
    """
    recipe = _taken_down(builder, args, kwargs)
    module = builders.inner(builder)(*args, **kwargs)
    if not isinstance(module, nn.Module):
        raise RecipeError(f"{recipe['builder']} gave {module!r:.60}, which is no module: relume.build is for models.")
    remember(module, recipe)
    return module


def remember(module: nn.Module, recipe: Recipe) -> None:
    """Keep a recipe on a module, where a copy and a pickle of it have it too."""
    object.__setattr__(module, _ATTRIBUTE, recipe)


def recipe_kept(module: nn.Module) -> Recipe | None:
    """The recipe that is kept on a module."""
    recipe = getattr(module, _ATTRIBUTE, None)
    return recipe if isinstance(recipe, dict) else None


def note(module: nn.Module, **facts: Any) -> None:
    """Keep plain facts (JSON) on a module, in copies and pickles of it, and in its recipe in files."""
    object.__setattr__(module, _FACTS, {**noted(module), **facts})


def noted(module: nn.Module) -> dict[str, Any]:
    """What `note` kept."""
    facts = getattr(module, _FACTS, None)
    return facts if isinstance(facts, dict) else {}


def with_classes(module: nn.Module, classes: int) -> bool:
    """Let the recipe that is kept on a module build it for another number of classes; False where no argument is for that."""
    recipe = recipe_kept(module) or {}
    place, _, name = str(recipe.get("builder")).partition(":")
    args, kwargs = list(recipe.get("args", [])), dict(recipe.get("kwargs", {}))
    if (place, name) == ("relume.models", "make_model"):
        if len(args) > 1:
            args[1] = classes
        else:
            kwargs["classes"] = classes
    elif place in _CLASSES and (place != "timm" or name == "create_model"):
        kwargs[_CLASSES[place]] = classes
    else:
        return False
    remember(module, {**recipe, "args": args, "kwargs": kwargs})
    return True


def remember_own(module: nn.Module, kind: type[nn.Module], **kwargs: Any) -> None:
    """For the constructors of relume's own classes: a subclass is built in another way, which they do not know."""
    if type(module) is kind:
        remember(module, {"builder": builders.name_of(kind), "args": [], "kwargs": kwargs})


def recipe_of(module: nn.Module, path: str = "") -> Recipe:
    """How ``module`` was built, from what `build` remembered, or for plain modules of torch.nn from what they hold.

    Raises:
        RecipeError: that is not known; says what to do.
    """
    from relume.models.exported.model import ExportedModel
    from relume.models.recipe.describe import described

    recipe = recipe_kept(module) or described(module, path)
    if recipe is not None:
        facts = noted(module)
        return {**recipe, "facts": json.dumps(facts)} if facts else recipe
    if recipe is None and isinstance(module, (torch.fx.GraphModule, ExportedModel)):
        raise RecipeError(
            "the model is a graph and has no recipe, only what its class did is left. Save it as a graph again: "
            "save_model(model, 'model.pt2', example_inputs=...); save_weights writes its weights alone."
        )
    if recipe is None:
        kind = type(module).__name__
        where = f" ({path})" if path else ""
        raise RecipeError(
            f"how {kind}{where} was built is not known. {_remedy(module)}; or "
            "save its graph, which needs no class: save_model(model, 'model.pt2', example_inputs=...)."
        )
    return recipe


def _remedy(module: nn.Module) -> str:
    kind = type(module)
    if torch.nn.utils.parametrize.is_parametrized(module):
        return (
            f"Its parametrizations (such as weight_norm) make a class of their own out of {kind.__bases__[0].__name__}: make "
            "the whole model, with these calls, in a function with @relume.builder"
        )
    if called := _library_call(module):
        return f"Build it by {called}"
    return f"Build it by relume.build({kind.__name__}, ...) in place of {kind.__name__}(...)"


def _library_call(module: nn.Module) -> str:
    """What to call in place of the builder of a library that gave a model of its class, as far as that is known."""
    place = type(module).__module__
    if place.startswith("torchvision.models."):
        from torchvision import models

        built = {name: models.get_model_builder(name) for name in models.list_models()}
        names = [
            name
            for name, one in built.items()
            if one.__name__ == name and inspect.signature(one).return_annotation is type(module)
        ]
        if names:
            name = min(names, key=lambda name: (len(name), name))
            within = place.removeprefix("torchvision.models.").rpartition(".")[0]
            full = ".".join(filter(None, ["torchvision.models", within, name]))
            return (
                f"relume.build({full}, ...) in place of {full}(...), or whichever function gave it, or by "
                f"relume.models.make_model('torchvision/{name}')"
            )
    config = getattr(module, "pretrained_cfg", None)
    name = config.get("architecture") if place.startswith("timm.") and isinstance(config, dict) else None
    if name:
        return (
            f"relume.build(timm.create_model, {name!r}, ...) in place of timm.create_model({name!r}, ...), or by "
            f"relume.models.make_model('timm/{name}')"
        )
    return ""


def make(recipe: Any, held: Held) -> tuple[nn.Module, bool]:
    """Build a module out of a recipe from a file, without values where its builder bears that.

    Args:
        held: what tensors the file has: building may not cost far more.

    Returns:
        The module, and whether it has values: a builder that reads a tensor while it builds must have them.

    Raises:
        RecipeError: it is not understood, not allowed, or fails.
    """
    try:
        _prepare(recipe, held)
        try:
            with limited_work(recipe, held), without_values():
                return _made(recipe), False
        except _BuilderError:  # on the meta device
            with torch.random.fork_rng(devices=[]), limited_work(recipe, held), LimitedMemory(held):
                return _made(recipe), True
    except TooMuchError as error:
        raise RecipeError(f"the recipe is not followed: {error}.") from None


def make_with_values(recipe: Any, held: Held) -> nn.Module:
    """As `make`, with the values that the builder computes; the global random numbers stay as they are."""
    try:
        _prepare(recipe, held)
        with torch.random.fork_rng(devices=[]), limited_work(recipe, held), LimitedMemory(held):
            return _made(recipe)
    except TooMuchError as error:
        raise RecipeError(f"the recipe is not followed: {error}.") from None


def _prepare(recipe: Any, held: Held) -> None:
    """Look everything up that a recipe names, and look at its numbers, before anything is called."""
    try:
        builders.prepare(recipe)
        check_numbers(recipe, held)
    except RecursionError:
        raise RecipeError("the recipe is nested too deep.") from None


class _BuilderError(RecipeError):
    """A builder raised."""


def _taken_down(builder: Callable[..., nn.Module], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Recipe:
    name = builders.name_of(builder)
    changed = builders.without_weights(builder, name, args, kwargs)
    bound = inspect.signature(builders.inner(builder)).parameters if changed else {}
    names = [key for key, one in bound.items() if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    kept_args = [changed.pop(names[place], value) if place < len(names) else value for place, value in enumerate(args)]
    return {
        "builder": name,
        "args": [to_json(value, f"number {place + 1}", recipe_of) for place, value in enumerate(kept_args)],
        "kwargs": {
            key: to_json(value, key, recipe_of) for key, value in {**kwargs, **changed}.items() if key != "device"
        },
    }


def _made(recipe: Any) -> nn.Module:
    if not isinstance(recipe, dict) or not isinstance(recipe.get("builder"), str):
        raise RecipeError(f"the recipe {recipe!r:.80} is not understood.")
    name, args, kwargs = recipe["builder"], recipe.get("args", []), recipe.get("kwargs", {})
    replaced = recipe.get("replaced", {})
    if not isinstance(args, list) or not _is_table(kwargs) or not _is_table(replaced):
        raise RecipeError(f"the recipe of {name:.80} is not understood.")
    found = builders.find(name)
    values = tuple(from_json(value, _made) for value in args)
    options = {key: from_json(value, _made) for key, value in kwargs.items()}
    builders.check_call(found, name, values, options)
    options |= builders.without_weights(found, name, values, options)  # some builders load them by default
    try:
        module = builders.inner(found)(*values, **options)
        for path, part in replaced.items():
            module.set_submodule(path, _made(part))
    except (RecipeError, TooMuchError, MissingPackageError):
        raise
    except Exception as error:  # a builder may raise anything
        raise _BuilderError(
            f"{name} fails with the arguments of the recipe: {type(error).__name__} {error!s:.200}"
        ) from error
    if not isinstance(module, nn.Module):
        raise RecipeError(f"{name} gave {type(module).__name__}, which is no module.")
    remember(module, recipe)
    if "facts" in recipe:
        note(module, **_facts(recipe["facts"]))
    return module


def _facts(text: Any) -> dict[str, Any]:
    try:
        facts = json.loads(text) if isinstance(text, str) and len(text) <= _MAX_FACTS else None
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise RecipeError(f"the facts {text!r:.80} in a recipe are not understood.")
    return facts


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)
