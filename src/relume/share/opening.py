"""The model of a bundle: by its recipe, by the code in it if that is trusted, or as its graph."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from relume.errors import (
    BundleError,
    ConfigurationError,
    MissingPackageError,
    ModelFileError,
    RecipeError,
    UnsafeFileError,
)
from relume.models.bundled import Through
from relume.models.contents import CLASSES, INPUT, RECIPE, ModelFile
from relume.share.bundle import Bundle
from relume.share.documents import CODE_FOLDER, GRAPH_FOLDER, MODEL, WEIGHTS, Model, Preprocessing
from relume.share.documents import INPUT as INPUT_FILE
from relume.share.trust import Tree, builders_in, trusted_code
from relume.share.weights import weights_digest
from relume.text import counted


@dataclass(frozen=True)
class Way:
    """A way to the model of a bundle.

    Attributes:
        name: ``recipe``, ``code`` or ``graph``.
        problem: why it cannot be taken here; empty where it can, as far as can be told without building anything.
        detail: what it takes, in words.
    """

    name: Through
    problem: str = ""
    detail: str = ""


def open_file(path: str | os.PathLike[str], *, verify: bool = False) -> ModelFile:
    """The weights of a bundle and what it says of them, as `relume.models.open_model_file` gives it.

    Every byte is compared with the manifest, ``verify`` or not. The tensors are pages of the bundle.

    Raises:
        BundleError, UnsafeFileError: it is damaged, was changed, lacks its weights, or is made to deceive.
    """
    bundle = Bundle.open(path)
    model = bundle.document(MODEL, Model)
    held = bundle.tensors(WEIGHTS)
    size_bytes = sum(member.size_bytes for member in bundle.manifest.members)
    return ModelFile(Path(path), "bundle", held.state, _metadata(bundle, model), size_bytes=size_bytes, bundle=bundle)


def open_model(
    bundle: Bundle,
    *,
    trust: bool = False,
    device: str | torch.device = "cpu",
    through: Through | None = None,
    mmap: bool = True,
) -> nn.Module:
    """The model of a bundle that `Bundle.open` has verified.

    Args:
        trust: run the code in the bundle to have the model's own class. Without, nothing of it runs.
        device: where the tensors shall be.
        through: only this way. By default the first that works of: the recipe, where relume, torch, torchvision or timm
            builds it, or a class that you have imported; the bundle's code, if it is trusted; its graph. Where code is
            trusted and the recipe names it, the code goes first: what is imported here may be another version of it.
        mmap: leave the tensors in the bundle until they are used.

    Raises:
        RecipeError: none of the ways can be taken here; says why for each, and what to do.
        BundleError: its weights are not those that it names, or its code fails.
        ConfigurationError: ``through`` is no way, or is the code without trust.

    Example:
        >>> from relume.share.archive import write_archive
        >>> from relume.models.tensorfile import tensorfile_parts
        >>> from relume.models.whole import model_document
        >>> model = nn.Sequential(nn.Linear(2, 3))
        >>> config = Model(document=model_document(model)).model_dump_json().encode()
        >>> files = {WEIGHTS: lambda: tensorfile_parts(model.state_dict()), MODEL: lambda: [config]}
        >>> _ = write_archive(tmp_path / "small.relume", "small", files, "0")
        >>> open_model(Bundle.open(tmp_path / "small.relume"))
        Sequential(
          (0): Linear(in_features=2, out_features=3, bias=True)
        )
    """
    _check(through, trust)
    model = bundle.document(MODEL, Model)
    state = _state(bundle, model)
    problems: dict[str, str] = {}
    for name in _order(model, trust, through):
        try:
            built = _BY[name](bundle, model, state, torch.device(device))
        except (RecipeError, MissingPackageError, _NoWayError) as error:
            problems[name] = str(error).removeprefix(f"{bundle.path}: ")
            continue
        if not mmap:
            from relume.models.whole import take_into_memory

            take_into_memory(built)
        return built.to(device)
    raise RecipeError(_no_way(bundle, model, problems, trust))


def ways(bundle: Bundle) -> list[Way]:
    """How the model of a bundle can be opened here, in the order in which it is tried. Nothing is built and nothing run."""
    from relume.models.recipe import builders

    model = bundle.document(MODEL, Model)
    found: list[Way] = []
    recipe = (model.document or {}).get("recipe")
    try:
        if recipe is None:
            raise RecipeError(_why_no_recipe(model))
        builders.prepare(recipe)
        found.append(Way("recipe", detail=f"{_builder(recipe)} builds it"))
    except (RecipeError, RecursionError, MissingPackageError) as error:
        found.append(Way("recipe", str(error)))
    described = code_of(bundle, model)
    if described:
        found.append(Way("code", detail=described))
    elif any(bundle.members(CODE_FOLDER)):
        found.append(Way("code", "no class in it is named as the model's"))
    if any(bundle.members(GRAPH_FOLDER)):
        found.append(Way("graph", detail="needs no class; computes in evaluation mode"))
    else:
        found.append(Way("graph", model.why_no_graph or "it holds none"))
    return found


def code_of(bundle: Bundle, model: Model) -> str:
    """Which classes of the bundle's code the recipe needs, in words; empty where it needs none, or they are not in it."""
    tree = Tree(bundle)
    texts = []
    for module, name in dict.fromkeys(builders_in((model.document or {}).get("recipe"))):
        file = tree.located(module)
        if file and not file.endswith("/"):
            texts.append(f"{name} in {CODE_FOLDER}{file} ({counted(len(tree.source(file).splitlines()), 'line')})")
    return ", ".join(texts[:6])


def classes_of(model: Model, preprocessing: Preprocessing | None) -> list[str]:
    """The names of the classes, by their labels; empty where they are not known."""
    if preprocessing is not None and preprocessing.classes:
        return preprocessing.classes
    names = model.id2label or {}
    return [names[str(label)] for label in range(len(names))] if all(str(n) in names for n in range(len(names))) else []


# ------------------------------------------------------------------------------------------------------------- the ways


class _NoWayError(Exception):
    pass


def _by_recipe(bundle: Bundle, model: Model, state: Mapping[str, torch.Tensor], device: torch.device) -> nn.Module:
    from relume.models.whole import rebuilt

    if model.document is None:
        raise _NoWayError(_why_no_recipe(model))
    return rebuilt(model.document, state, str(bundle.path))


def _by_code(bundle: Bundle, model: Model, state: Mapping[str, torch.Tensor], device: torch.device) -> nn.Module:
    from relume.models.whole import rebuilt

    if model.document is None:
        raise _NoWayError(_why_no_recipe(model))
    if not any(builders_in(model.document.get("recipe"))):
        raise _NoWayError("the recipe names no class of it")
    if not any(bundle.members(CODE_FOLDER)):
        raise _NoWayError("the bundle holds none")
    own = trusted_code(bundle).with_own_names(model.document.get("recipe"))
    return rebuilt({**model.document, "recipe": own}, state, str(bundle.path))


def _by_graph(bundle: Bundle, model: Model, state: Mapping[str, torch.Tensor], device: torch.device) -> nn.Module:
    if not any(bundle.members(GRAPH_FOLDER)):
        raise _NoWayError(model.why_no_graph or "the bundle holds none")
    from relume.models.exported import load_graph

    try:
        return load_graph(bundle, state, device=device, where=str(bundle.path))
    except UnsafeFileError:
        raise
    except ModelFileError as error:  # such as an operator that this torch does not have
        raise _NoWayError(str(error)) from error


_BY = {"recipe": _by_recipe, "code": _by_code, "graph": _by_graph}


def _order(model: Model, trust: bool, through: Through | None) -> list[Through]:
    if through is not None:
        return [through]
    if not trust:
        return ["recipe", "graph"]
    needs_code = any(builders_in((model.document or {}).get("recipe")))
    return ["code", "recipe", "graph"] if needs_code else ["recipe", "code", "graph"]


def _check(through: object, trust: object) -> None:
    if not isinstance(trust, bool):
        raise ConfigurationError(f"trust={trust!r:.40}: it is True or False.")
    if through is not None and through not in get_args(Through):
        raise ConfigurationError(f"through={through!r:.40}: it is 'recipe', 'code', 'graph', or None for what works.")
    if through == "code" and not trust:
        raise ConfigurationError(
            "through='code' runs the code in the bundle, which takes trust=True. Look at it first: relume unpack."
        )


def _state(bundle: Bundle, model: Model) -> dict[str, torch.Tensor]:
    """The weights; config.json must mean these."""
    state = dict(bundle.tensors(WEIGHTS).state)
    if model.weights_digest and weights_digest(state) != model.weights_digest:
        raise BundleError(
            f"{bundle.path}: {WEIGHTS} does not hold the weights that {MODEL} names (weights_digest): they were swapped after "
            "the model was packed, and the manifest was made anew. Nothing of it was used; ask its author."
        )
    return state


def _no_way(bundle: Bundle, model: Model, problems: Mapping[str, str], trust: bool) -> str:
    told = " ".join(f"By its {name}: {problem.rstrip('.')}." for name, problem in problems.items())
    text = f"{bundle.path}: its model cannot be built here. {told}"
    described = "" if trust else code_of(bundle, model)
    if described:
        return (
            f"{text} The bundle holds the code: {described}. It was not run. Look at it (relume unpack "
            f"{bundle.path.name}); if you trust it: load_model(..., trust=True), or --trust on the command line."
        )
    return f"{text} Its weights alone: relume.load_weights(model, {str(bundle.path)!r})."


def _why_no_recipe(model: Model) -> str:
    return model.why_no_document or "how the model was built was not known when it was packed"


def _builder(recipe: Any) -> str:
    name = recipe.get("builder") if isinstance(recipe, dict) else None
    return str(name).replace(":", ".")


def _metadata(bundle: Bundle, model: Model) -> dict[str, str]:
    """What `relume.models` and `relume.train.images` look for beside weights."""
    found = {"format": "relume bundle", "name": bundle.name, "bundle": bundle.manifest.digest}
    if model.document is not None:
        found[RECIPE] = json.dumps(model.document)
    preprocessing = bundle.document(INPUT_FILE, Preprocessing) if INPUT_FILE in bundle else None
    if classes := classes_of(model, preprocessing):
        found[CLASSES] = json.dumps(classes)
    if preprocessing is not None and preprocessing.kind == "image":
        found[INPUT] = json.dumps(preprocessing.settings)
    return found
