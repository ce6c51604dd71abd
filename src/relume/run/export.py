"""A checkpoint as one file that needs no relume: a classic ``.pt``, or the weights alone as ``.safetensors``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from relume.checkpoint import Checkpoint, Store
from relume.errors import ConfigurationError, warn
from relume.models.checkpointfile import checkpoint_metadata, checkpoint_state, chosen_model, model_metadata
from relume.models.tensorfile import write_tensorfile
from relume.models.torchfile import write_torchfile
from relume.models.weights import ties_in
from relume.run.classic import from_state

ENDINGS = (".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class Export:
    """What was written, and where.

    Attributes:
        contents: what the file holds, in the order of the file: keys of the dictionary, or names of tensors.
    """

    path: Path
    checkpoint: Checkpoint
    size_bytes: int
    contents: list[str]


_SAID = (
    ".pt or .pth, a dictionary for torch.load; .safetensors, the weights of one model; .onnx and .pt2, what the model "
    "computes, for other runtimes."
)


def check_target(
    out: str | os.PathLike[str], *, force: bool = False, endings: Sequence[str] = ENDINGS, said: str = _SAID
) -> Path:
    """The path, if an export can be written there.

    Args:
        endings: those that are allowed; ``said`` is what each of them stands for, in words.

    Raises:
        ConfigurationError: the ending is not known, the folder is missing, or the file exists and ``force`` is not given.
    """
    out = Path(out)
    if out.suffix.lower() not in endings:
        raise ConfigurationError(
            f"{str(out)!r} ends in {out.suffix or 'nothing'!r}. The ending says what is written: {said}"
        )
    if not out.absolute().parent.is_dir():
        raise ConfigurationError(f"there is no folder {out.parent} to write {out.name} to.")
    if out.is_dir() or (out.exists() and not force):
        raise ConfigurationError(f"{out} exists. Choose another name, or overwrite it with --force (force=True).")
    return out


def export(
    store: Store, checkpoint: Checkpoint, out: str | Path, *, model: str | None = None, force: bool = False
) -> Export:
    """Write a checkpoint's state as one file, whole or not at all.

    Args:
        out: ends in ``.pt`` or ``.pth`` for the classic dictionary (see `from_state`), in ``.safetensors`` for weights.
        model: which of several models' weights; for ``.safetensors`` only.
        force: overwrite ``out``.

    Raises:
        ConfigurationError: ``out`` cannot be written to, see `check_target`; or ``model`` is needed, or not known.
        ClassicFileError: the checkpoint holds no models.
        CheckpointError: the checkpoint is damaged.
        StoreWriteError: the disk is full, read-only or fails; ``out`` is as it was.
    """
    out = check_target(out, force=force)
    meta = store.meta(checkpoint)
    meta = meta if isinstance(meta, Mapping) else {}
    if out.suffix.lower() == ".safetensors":
        tensors, metadata = _weights(store, checkpoint, meta, model)
        size_bytes = write_tensorfile(tensors, out, metadata)
        stored = tensors.keys() - ties_in(tensors).keys()
        return Export(out, checkpoint, size_bytes, [name for name in tensors if name in stored])
    if model is not None:
        raise ConfigurationError(
            f"model={model!r} is for .safetensors, which holds one model: {out.name} holds all of them by name."
        )
    classic = from_state(store.load(checkpoint), meta)
    _warn_of_what_is_lost(classic, meta)
    size_bytes = write_torchfile(classic, out)
    return Export(out, checkpoint, size_bytes, list(classic))


def _weights(
    store: Store, checkpoint: Checkpoint, meta: Mapping[str, Any], model: str | None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """One model's tensors, where they are from, and how the model is built where that is known."""
    state_dict = checkpoint_state(store, checkpoint, model=model)
    for name, value in state_dict.items():
        if not isinstance(value, torch.Tensor):
            warn(f"{name} is no tensor and is not in the file: {value!r:.80}")
    tensors = {name: value.detach() for name, value in state_dict.items() if isinstance(value, torch.Tensor)}
    name = chosen_model(store, checkpoint, model)
    return tensors, checkpoint_metadata(checkpoint, meta) | model_metadata(meta, name)


def _warn_of_what_is_lost(classic: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    if classic.get("batch"):
        warn(
            f"this checkpoint was taken within an epoch: {classic['epoch']} epochs are done, and {classic['batch']} batches "
            "of the next. A plain script that starts that epoch anew trains these batches twice."
        )
