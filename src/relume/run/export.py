"""A checkpoint as one file that needs no relume: a classic ``.pt``, or the weights alone as ``.safetensors``."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from relume.checkpoint import Checkpoint, Store, files
from relume.errors import ConfigurationError, RelumeWarning, UnknownNameError, UnstorableError, closest
from relume.models.classic import plain
from relume.run.classic import check_is_runs, from_state

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


def check_target(out: str | Path, *, force: bool = False) -> Path:
    """The path, if an export can be written there.

    Raises:
        ConfigurationError: the ending is not known, the folder is missing, or the file exists and ``force`` is not given.
    """
    out = Path(out)
    if out.suffix.lower() not in ENDINGS:
        raise ConfigurationError(
            f"{str(out)!r} ends in {out.suffix or 'nothing'!r}. The ending says what is written: .pt or .pth, a dictionary "
            "for torch.load; .safetensors, the weights of one model."
        )
    if not out.parent.is_dir():
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
        size_bytes = _write_whole(out, lambda path: _save_safetensors(tensors, path, metadata))
        return Export(out, checkpoint, size_bytes, list(tensors))
    if model is not None:
        raise ConfigurationError(
            f"model={model!r} is for .safetensors, which holds one model: {out.name} holds all of them by name."
        )
    classic = from_state(store.load(checkpoint), meta)
    _warn_of_what_is_lost(classic, meta)
    size_bytes = _write_whole(out, lambda path: _save_torch(classic, path))
    return Export(out, checkpoint, size_bytes, list(classic))


def _weights(
    store: Store, checkpoint: Checkpoint, meta: Mapping[str, Any], model: str | None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """One model's tensors, each once, and what safetensors keeps beside them (as ``safetensors.torch.save_model`` does)."""
    state = {"models": store.load(checkpoint, part=("models",))} if _has_models(store, checkpoint) else {}
    check_is_runs(state)
    state_dict = state["models"][_chosen(model, list(state["models"]))]
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, value in state_dict.items():
        if not isinstance(value, torch.Tensor):
            warnings.warn(f"{name} is no tensor and is not in the file: {value!r:.80}", RelumeWarning, stacklevel=3)
        elif id(value) in first:
            aliases[name] = first[id(value)]
        else:
            first[id(value)] = name
            tensors[name] = value.detach()
    cursor = meta.get("cursor") or {}
    metadata = {
        "format": "pt",
        "run": str(meta.get("run", "")),
        "checkpoint": checkpoint.name,
        "epoch": str(cursor.get("epoch", "")),
        "step": str(cursor.get("step", "")),
        "metrics": json.dumps(plain(meta.get("metrics") or {})),
    }
    return tensors, {key: value for key, value in metadata.items() if value} | aliases


def _has_models(store: Store, checkpoint: Checkpoint) -> bool:
    tree = store.manifest(checkpoint).tree
    return isinstance(tree, dict) and isinstance(tree.get("models"), dict)


def _chosen(model: str | None, names: list[str]) -> str:
    if model is None and len(names) > 1:
        raise ConfigurationError(
            f"the checkpoint has {len(names)} models and .safetensors holds one: choose with --model (model=) one of "
            f"{', '.join(names)}, or write them all to a .pt."
        )
    if model is not None and model not in names:
        raise UnknownNameError(f"there is no model {model!r} in the checkpoint: {closest(model, names)}")
    return model or names[0]


def _warn_of_what_is_lost(classic: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    if classic.get("batch"):
        warnings.warn(
            f"this checkpoint was taken within an epoch: {classic['epoch']} epochs are done, and {classic['batch']} batches "
            "of the next. A plain script that starts that epoch anew trains these batches twice.",
            RelumeWarning,
            stacklevel=3,
        )


def _save_torch(classic: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        try:
            torch.save(classic, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch's writer hides what the disk said
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def _save_safetensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata)
    except (SafetensorError, KeyError, ValueError) as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise UnstorableError(f"safetensors cannot hold these weights: {error}. Write them to a .pt.") from error
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _write_whole(out: Path, write: Callable[[Path], None]) -> int:
    """Have a file written beside its place, to the disk, and give it its name when it is whole; returns its bytes."""
    staged = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with files.explained(f"writing {out.name}", out.absolute().parent):
        try:
            write(staged)
            size_bytes = staged.stat().st_size
            files.publish(staged, out)
        except BaseException:
            files.remove(staged)
            raise
    return size_bytes
