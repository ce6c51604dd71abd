"""Architecture and weights in one file, without pickle: by a recipe, or as a graph."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.checkpoint import restore_module
from relume.errors import ConfigurationError, MismatchError, RecipeError, warn
from relume.models.bundled import Through, load_bundle
from relume.models.contents import RECIPE, ModelFile, checked_state
from relume.models.exported import load_exported, save_exported
from relume.models.files import open_model_file, read_state, save_weights
from relume.models.recipe.attributes import differing_attribute, holds_tensors, ids_of, same_tensor
from relume.models.recipe.budget import Held
from relume.models.recipe.building import make, make_with_values, recipe_of
from relume.models.recipe.describe import DEFINED_ANEW, differences
from relume.modes import hold, is_held
from relume.names import is_uninitialized, unwrap

_FORMAT = 1
_MAX_DOCUMENT = 32 << 20


def save_model(model: nn.Module, path: str | Path, example_inputs: Any = None) -> Path:
    """Write a model with its architecture: `load_model` needs no code of yours to build it, or the class and no arguments.

    Args:
        path: its ending decides. ``.safetensors`` holds the weights and a recipe, how `relume.build` built the model: it loads
            at once, as the class that it was, ready to be trained further; a class of your own must be imported where it is
            loaded. ``.pt2`` holds the weights and a graph of what the model does in evaluation mode: it needs no class at all,
            runs with any batch size, also from C++, and cannot be trained like the model.
        example_inputs: for ``.pt2``, what the model is called with: a tensor, a tuple of positional or a dict of keyword
            arguments.

    Returns:
        The file. It is written whole or not at all.

    Raises:
        RecipeError: how the model was built is not known, or building it so would give another; says what to do.
        ModelFileError: the model has no graph for any batch size.
        ConfigurationError: another ending, or no example inputs.
        StoreWriteError: the file cannot be written.

    Example:
        >>> import relume, tempfile
        >>> model = relume.models.MLP(classes=3)
        >>> file = save_model(model, Path(tempfile.mkdtemp()) / "small.safetensors")
        >>> type(load_model(file)).__name__
        'MLP'
    """
    path = Path(path)
    if not isinstance(model, nn.Module):
        raise ConfigurationError(
            f"model is {model!r:.60}: save_model saves modules; for a state_dict there is save_weights."
        )
    inner = unwrap(model)
    waiting = [name for name, value in inner.named_parameters() if is_uninitialized(value)]
    if waiting:
        raise ConfigurationError(f"{', '.join(waiting)[:200]} have no shape yet: call the model once before saving it.")
    if path.suffix == ".pt2":
        if example_inputs is None:
            raise ConfigurationError("a .pt2 file is traced: give example_inputs=, what the model is called with.")
        return save_exported(inner, path, example_inputs)
    if path.suffix == ".safetensors":
        document = model_document(inner)
        _warn_of_hooks(inner)
        return Path(save_weights(inner, path, metadata={RECIPE: json.dumps(document)}))
    raise ConfigurationError(
        f"{path.name!r}: a whole model is saved as .safetensors (with a recipe) or .pt2 (as a graph). For "
        "weights alone there is relume.save_weights."
    )


def model_document(model: nn.Module) -> dict[str, Any]:
    """What must be kept beside the weights to have the model again: its recipe, modes, frozen and tied parameters. JSON.

    Raises:
        RecipeError: how the model was built is not known, or building it so would give another.
    """
    state = model.state_dict()
    odd = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise RecipeError(
            f"{', '.join(odd)[:200]} of the state_dict is no tensor, and a file of weights holds only tensors."
        )
    recipe = _proved(model, recipe_of(model))
    return {
        "format": _FORMAT,
        "recipe": recipe,
        "training": model.training,
        "other_mode": [name for name, part in model.named_modules() if part.training != model.training],
        "held": [name for name, part in model.named_modules() if is_held(part)],
        "frozen": [name for name, value in model.named_parameters() if not value.requires_grad],
        "tied": _tied(model),
        "shared": _shared(model),
    }


def load_model(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    verify: bool = False,
    mmap: bool = True,
    model: str | None = None,
    trust: bool = False,
    through: Through | None = None,
) -> nn.Module:
    """The model in a file of `save_model`, in a bundle, or in a checkpoint that has a recipe (``runs/fashion@best``).

    With a recipe it is the class that was saved, in the mode it was in, with what was frozen or tied being so again.
    It is built without values, and its tensors stay in the file until they are used: a VGG-19 takes milliseconds, and
    memory only for what is changed. From a ``.pt2`` file it is a graph that is called like the model, see `save_model`.
    Nothing in the file is run, and nothing is imported because it says so.

    Of a bundle (``fashion.relume``, or the folder that it was unpacked to) every byte is compared with its manifest first.
    Its model is built by its recipe, where that names what relume, torch, torchvision or timm builds, or a class that you
    have imported; else it is its graph. The code in it runs with ``trust=True`` alone.

    Args:
        device: where the tensors shall be.
        verify: check the tensors against the checksums that relume wrote, which reads all of them.
        mmap: leave the tensors in the file until they are used; otherwise they are read now, and the file may go.
        model: which of several models in a checkpoint.
        trust: run the code of a bundle to have the class that its author wrote: your decision, as with any program. Look
            at it first: ``relume unpack fashion.relume``.
        through: only this way into a bundle: ``"recipe"``, ``"code"`` or ``"graph"``.

    Raises:
        ConfigurationError: there are several models, and ``model`` was not given; lists them.
        BundleError: a bundle is damaged, was changed, or lacks what is needed.
        RecipeError: the file has none, or it names what is not imported or not allowed, or builds another model.
        ModelFileError: the file is missing, damaged or not understood.
        UnsafeFileError: it holds what would run code.
    """
    device = _device(device)
    if model is None and not trust and through is None and str(path).endswith(".pt2"):
        return load_exported(path, device=device, mmap=mmap)
    file = open_model_file(path, model=model)
    if file.format == "bundle":
        return load_bundle(file, trust=trust, device=device, through=through, mmap=mmap)
    if trust or through is not None:
        asked = "trust=True" if trust else f"through={through!r:.40}"
        raise ConfigurationError(
            f"{asked} is for bundles (.relume), which hold code: {file.path} is none. Leave it out."
        )
    if file.format == "pt2":
        return load_exported(file.path, device=device, mmap=mmap)
    held = read_state(path, model=model, verify=True) if verify else checked_state(file)
    state = {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}
    built = rebuilt(_document(file), state, str(file.path))
    if not mmap:
        take_into_memory(built)
    return built.to(device)


def rebuilt(document: Mapping[str, Any], state: Mapping[str, torch.Tensor], where: str) -> nn.Module:
    """The model that `model_document` describes, with these tensors: mapped ones stay mapped.

    Args:
        where: the file, for messages.

    Raises:
        RecipeError: the document is damaged or newer, names what is not imported or not allowed, or builds another model.
    """
    if not isinstance(document.get("recipe"), dict):
        raise RecipeError(f"{where}: its recipe is damaged.")
    if document.get("format") != _FORMAT:
        raise RecipeError(
            f"{where}: its recipe has format {document.get('format')!r:.20}; this relume reads {_FORMAT}."
        )
    built = _built(document, state, where)
    _set_modes(built, document)
    return built


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigurationError(f"device={device!r:.40} is none that torch knows.") from error


def _proved(model: nn.Module, recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe, with parts that were put in later, that builds such a model; there is no other way to know."""
    held = Held.of(model.state_dict())
    found = differences(model, make(recipe, held)[0])
    if found and "" not in found:
        parts = {path: _part(model, path, difference) for path, difference in found.items()}
        recipe = {**recipe, "replaced": {**recipe.get("replaced", {}), **parts}}
        found = differences(model, make(recipe, held)[0])
    if found:
        listed = "; ".join(
            f"{path or 'the model itself'}: {difference}" for path, difference in list(found.items())[:5]
        )
        if all(difference.endswith(DEFINED_ANEW) for difference in found.values()):
            raise RecipeError(
                f"{listed}, as by running a cell of a notebook again: the model is of the old class, and a file finds the new "
                "one. Build the model again, and give it the weights: load_state_dict(old_model.state_dict())."
            )
        raise RecipeError(
            f"{type(model).__name__} is not what its recipe builds: {listed}. It was changed after it was built: "
            "build it as it is, with these arguments, or put the changes into a function with @relume.builder."
        )
    _check_computed(model, recipe, held)
    return recipe


def _part(model: nn.Module, path: str, difference: str) -> dict[str, Any]:
    try:
        return recipe_of(model.get_submodule(path), path)
    except RecipeError as error:
        raise RecipeError(f"{path} was changed after it was built: {difference}. And {error}") from error


def _check_computed(model: nn.Module, recipe: dict[str, Any], held: Held) -> None:
    """Tensors out of the state_dict come from the builder: it must compute those that the model has."""
    ours, own = _computed(model), ids_of(model)
    parts = dict(model.named_modules())
    parts = {path: part for path, part in parts.items() if holds_tensors(part, own)}
    if not ours and not parts:
        return
    built = make_with_values(recipe, held)
    theirs, own = _computed(built), ids_of(model, built)
    other = [name for name, value in ours.items() if not same_tensor(value, theirs[name])]
    if other:
        raise RecipeError(
            f"{', '.join(other)[:200]}: these buffers are not in the state_dict, and have other values than when the "
            "model was built. Register them with persistent=True."
        )
    for path, part in parts.items():
        if found := differing_attribute(part, built.get_submodule(path), own, same_tensor):
            raise RecipeError(
                f"{path + '.' if path else ''}{found[0]} has tensors with other values than when the model was built, or "
                "than building it again gives, and is not in the state_dict: it would be lost. Register them as buffers."
            )


def _warn_of_hooks(model: nn.Module) -> None:
    hooked = {
        path or "the model itself": hook
        for path, part in model.named_modules()
        for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
        if getattr(hook, "__module__", "").partition(".")[0] not in ("torch", "relume")
    }
    if hooked:
        names = ", ".join(
            f"{getattr(hook, '__name__', type(hook).__name__)} of {path}" for path, hook in hooked.items()
        )
        warn(
            f"Forward hooks are not saved ({names:.200}): where they change what comes out, the loaded model computes "
            "something else. Register them again on it, or do in forward() what they do."
        )


def _computed(model: nn.Module) -> dict[str, torch.Tensor]:
    kept = model.state_dict().keys()
    return {name: value for name, value in model.named_buffers(remove_duplicate=False) if name not in kept}


def _tied(model: nn.Module) -> list[list[str]]:
    names: dict[int, list[str]] = defaultdict(list)
    for name, value in model.named_parameters(remove_duplicate=False):
        names[id(value)].append(name)
    return [several for several in names.values() if len(several) > 1]


def _shared(model: nn.Module) -> list[list[str]]:
    """The paths of each module that stands in several places."""
    paths: dict[int, list[str]] = defaultdict(list)
    for path, part in model.named_modules(remove_duplicate=False):
        paths[id(part)].append(path)
    return [several for several in paths.values() if len(several) > 1]


def _document(file: ModelFile) -> dict[str, Any]:
    text = file.metadata.get(RECIPE)
    if text is None:
        raise RecipeError(
            f"{file.path} holds weights and no recipe of a model. Build the model and load them into it: "
            f"relume.load_weights(model, {str(file.path)!r}). relume.save_model writes both."
        )
    try:
        document = json.loads(text) if len(text) <= _MAX_DOCUMENT else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RecipeError(f"{file.path}: its recipe is damaged.")
    return document


def _built(document: Mapping[str, Any], state: Mapping[str, torch.Tensor], where: str) -> nn.Module:
    held = Held.of(state)
    try:
        model, has_values = make(document["recipe"], held)
        _share(model, document.get("shared", []))
        _check_shapes(model, state)
        if not has_values and _lacks_values(model):
            model = make_with_values(document["recipe"], held)
            _share(model, document.get("shared", []))
        _take_dtypes(model, state)
        tensors = OrderedDict(state)
        if (versions := getattr(model.state_dict(), "_metadata", None)) is not None:
            tensors._metadata = versions  # type: ignore[attr-defined]
        restore_module(model, tensors)
        _tie(model, document.get("tied", []))
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from error
    except (MismatchError, RuntimeError, TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise RecipeError(f"{where}: its recipe and its tensors do not belong together: {error!s:.300}") from error
    return model


def _check_shapes(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Before anything is built with values: a recipe may ask for a model of any size."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    held = {name: tuple(value.shape) for name, value in state.items()}
    if own != held:
        other = [name for name in {**own, **held} if own.get(name) != held.get(name)]
        shown = "; ".join(
            f"{name}: {own.get(name, 'none')} built, {held.get(name, 'none')} in the file" for name in other[:5]
        )
        raise RecipeError(f"its recipe builds another model than its tensors are of: {len(other)} differ ({shown}).")


def _lacks_values(model: nn.Module) -> bool:
    """Whether there are tensors that the state_dict does not have: they are computed by the builder."""
    if _computed(model):
        return True
    return any(
        isinstance(leaf, torch.Tensor) and leaf.is_meta
        for part in model.modules()
        for name, value in vars(part).items()
        if name not in ("_parameters", "_buffers", "_modules")
        for leaf in _leaves(value)
    )


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple, dict)):
        return torch.utils._pytree.tree_leaves(value) if value else []
    return [value]


def _take_dtypes(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """A model that was saved after ``.half()`` or ``.bfloat16()``."""
    for name, value in model.state_dict(keep_vars=True).items():
        if value.dtype != state[name].dtype:
            value.requires_grad_(False)
            value.data = value.data.to(state[name].dtype)


def _tie(model: nn.Module, groups: Any) -> None:
    """Make one parameter of those that were one."""
    for first, *others in groups:
        owner, _, name = first.rpartition(".")
        shared = model.get_submodule(owner)._parameters[name]
        for other in others:
            owner, _, name = other.rpartition(".")
            part = model.get_submodule(owner)
            if shared is None or part._parameters[name].shape != shared.shape:  # type: ignore[union-attr]
                raise ValueError(f"{first} and {other} cannot be tied")
            part._parameters[name] = shared


def _share(model: nn.Module, groups: Any) -> None:
    """Make one module of those that were one. They must be alike: a file could make a model that contains itself."""
    for first, *others in groups:
        shared = model.get_submodule(first)
        for other in others:
            owner, _, name = other.rpartition(".")
            parts = model.get_submodule(owner)._modules
            if name not in parts or _outline(model.get_submodule(other)) != _outline(shared):
                raise ValueError(f"{first} and {other} cannot be one module")
            parts[name] = shared


def _outline(module: nn.Module) -> list[tuple[str, type]]:
    return [(path, type(part)) for path, part in module.named_modules(remove_duplicate=False)]


def _set_modes(model: nn.Module, document: Mapping[str, Any]) -> None:
    training = document.get("training") is True
    others, held, frozen = (_names(document.get(key)) for key in ("other_mode", "held", "frozen"))
    for name, part in model.named_modules():
        part.training = training != (name in others)
    for name, part in model.named_modules():
        if name in held:
            part.training = training  # what it would be in
            hold(part)
    for name, value in model.named_parameters():
        if value.is_floating_point() or value.is_complex():
            value.requires_grad_(name not in frozen)


def _names(value: Any) -> set[str]:
    return set(value) if isinstance(value, list) and all(isinstance(name, str) for name in value) else set()


def take_into_memory(model: nn.Module) -> None:
    """Read the tensors that are still in a file; it may go then."""
    for value in (*model.parameters(), *model.buffers()):
        value.data = value.data.clone()
