"""The weights of one model in a checkpoint of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from relume.checkpoint import Checkpoint, Store
from relume.errors import ClassicFileError, ConfigurationError, UnknownNameError, closest
from relume.models.contents import CLASSES, INPUT, RECIPE, ModelFile
from relume.models.state import is_extra


def read_checkpoint(
    store: Store, checkpoint: Checkpoint, *, model: str | None = None, verify: bool = False
) -> ModelFile:
    """Open the weights of one model; its tensors are pages of the store, and nothing else of the checkpoint is read.

    Args:
        model: which, of several.
        verify: check every tensor's bytes now.

    Raises:
        ConfigurationError: there are several models, and ``model`` was not given; lists them.
        UnknownNameError: there is no such model; lists the closest names.
        ClassicFileError: the checkpoint has no models.
        CheckpointError: it is damaged.
    """
    chosen = _chosen(model, _models(store, checkpoint))
    state = checkpoint_state(store, checkpoint, model=chosen, verify=verify)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    kept = {name: value for name, value in state.items() if name in tensors or is_extra(name)}
    size_bytes = sum(value.nbytes for value in {id(value): value for value in tensors.values()}.values())
    meta = store.meta(checkpoint)
    metadata = checkpoint_metadata(checkpoint, meta) | model_metadata(meta, chosen)
    return ModelFile(
        checkpoint.path, "checkpoint", kept, metadata, size_bytes=size_bytes, beside=_beside(store, checkpoint, chosen)
    )


def checkpoint_state(
    store: Store, checkpoint: Checkpoint, *, model: str | None = None, verify: bool = True
) -> Mapping[str, Any]:
    """The state_dict of one model in a checkpoint, extra state included. Raises what `read_checkpoint` does."""
    chosen = _chosen(model, _models(store, checkpoint))
    state = store.load(checkpoint, part=("models", chosen), verify=verify)
    if not isinstance(state, Mapping):
        raise ClassicFileError(
            f"the model {chosen!r} in {checkpoint.path} is no state_dict but a {type(state).__name__}."
        )
    return state


def checkpoint_metadata(checkpoint: Checkpoint, meta: Any) -> dict[str, str]:
    """Where weights are from, in the words of a safetensors file."""
    meta = meta if isinstance(meta, Mapping) else {}
    cursor = meta.get("cursor")
    cursor = cursor if isinstance(cursor, Mapping) else {}
    metadata = {
        "run": str(meta.get("run", "")),
        "checkpoint": checkpoint.name,
        "epoch": str(cursor.get("epoch", "")),
        "step": str(cursor.get("step", "")),
        "metrics": json.dumps(meta.get("metrics") or {}, default=str),
    }
    return {key: value for key, value in metadata.items() if value} | _of_classifier(meta.get("config"))


def _of_classifier(config: Any) -> dict[str, str]:
    """What a classifier of images needs besides its weights, where the run's configuration holds it."""
    config = config if isinstance(config, Mapping) else {}
    keys = {CLASSES: "classes", INPUT: "input"}
    return {name: json.dumps(config[key], default=str) for name, key in keys.items() if key in config}


def model_metadata(meta: Any, model: str) -> dict[str, str]:
    """How the model is built, where the run knew it; as `relume.save_model` writes it beside weights."""
    documents = meta.get("models") if isinstance(meta, Mapping) else None
    document = documents.get(model) if isinstance(documents, Mapping) else None
    return {} if document is None else {RECIPE: json.dumps(document, default=str)}


def _beside(store: Store, checkpoint: Checkpoint, chosen: str) -> tuple[str, ...]:
    """Names of what else there is: ``model 'critic'``, ``optimizers``, ``config``."""
    tree, meta = store.manifest(checkpoint).tree, store.meta(checkpoint)
    held = tree if isinstance(tree, dict) else {}
    others = [f"model {name!r}" for name in held.get("models") or () if name != chosen]
    states = [str(name) for name, state in held.items() if name != "models" and state]
    return (*others, *states, *(["config"] if isinstance(meta, Mapping) and meta.get("config") else []))


def _models(store: Store, checkpoint: Checkpoint) -> list[str]:
    tree = store.manifest(checkpoint).tree
    models = tree.get("models") if isinstance(tree, dict) else None
    if not isinstance(models, dict) or not models:
        held = ", ".join(map(str, tree)) if isinstance(tree, dict) else type(tree).__name__
        raise ClassicFileError(
            f"the checkpoint {checkpoint.path} has no models in it, only: {held or 'nothing':.200}. What has them are the "
            "checkpoints of a Run or a Trainer with a model."
        )
    return list(models)


def chosen_model(store: Store, checkpoint: Checkpoint, model: str | None) -> str:
    """The name of the model that is meant; raises what `read_checkpoint` does."""
    return _chosen(model, _models(store, checkpoint))


def _chosen(model: str | None, names: list[str]) -> str:
    if model is None and len(names) > 1:
        from relume.models.pickles.modules import several_models  # what reads pickles is imported where there are some

        raise ConfigurationError(f"the checkpoint has {several_models(names)}")
    if model is not None and model not in names:
        raise UnknownNameError(f"there is no model {model!r} in the checkpoint: {closest(model, names)}")
    return model or names[0]
