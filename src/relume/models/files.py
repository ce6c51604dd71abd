"""Weights in files of any kind: opened, read, written."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from relume.checkpoint import CHECKPOINTS, Checkpoint, Store
from relume.errors import ClassicFileError, ConfigurationError, ModelFileError, UnknownNameError, closest
from relume.models.bundled import is_bundle, open_bundle
from relume.models.checkpointfile import read_checkpoint
from relume.models.contents import ModelFile, checked_state
from relume.models.kinds import described, kind_of
from relume.models.sharded import INDEX_ENDING, read_sharded, write_sharded
from relume.models.tensorfile import read_tensorfile, write_tensorfile
from relume.models.torchfile import to_own_memory, write_torchfile
from relume.models.weights import weights_of

PathLike = str | os.PathLike[str]

_TORCH_ENDINGS = (".pt", ".pth")
_SAFETENSORS = ".safetensors"
_IN_FOLDER = ("model.safetensors", "model.safetensors.index.json")
_SHOWN = 6

# ---------------------------------------------------------------------------------------------------------------- reading


def open_model_file(
    path: PathLike, *, model: str | None = None, refuse: bool = True, verify: bool = False
) -> ModelFile:
    """Open a file of weights, of a model or of a training, whatever its format. Nothing that is in it runs.

    Args:
        path: a ``.safetensors`` file, the index of a sharded one, the folder of either, what ``torch.save`` wrote,
            TorchScript, ``.pt2``, a bundle (``.relume``, or the folder that it was unpacked to); or a checkpoint:
            ``"fashion"`` (a run's newest), ``"fashion@best"``, ``"runs/fashion@12"``, a manifest. What is there as a file is
            not looked for as a run. The content tells the format, not the name.
        model: which of several models.
        refuse: raise for files with a pickle that would run code. False opens them too, with what is suspicious listed;
            it runs in neither case.
        verify: read every tensor now and compare it with its checksum, where the format has them.

    Raises:
        ModelFileError: the file is missing, damaged, or of a kind that is not read; says which, and what to do.
        UnsafeFileError: it is not what it pretends to be, or would run code.
        UnknownNameError: there is no such run, or no such model in it.
        CheckpointError: the checkpoint is damaged, or there is none.

    Example:
        >>> path = save_weights(nn.Linear(2, 1), tmp_path / "line.safetensors")
        >>> found = open_model_file(path)
        >>> found.format, list(found.state)
        ('safetensors', ['weight', 'bias'])
    """
    if is_bundle(_text(path)):
        _check_single(Path(path), model)
        return open_bundle(path, verify=verify)
    place = _located(path)
    if not isinstance(place, Path):
        return read_checkpoint(*place, model=model, verify=verify)
    kind = kind_of(place)
    if kind == "json" and not _is_index(place):
        return read_checkpoint(*_checkpoint(str(place), is_folder=False), model=model, verify=verify)
    if kind in ("torch", ""):
        return _open_torch(place, kind == "torch", model, refuse, verify)
    _check_single(place, model)
    if kind == "safetensors":
        return read_tensorfile(place, verify=verify)
    if kind == "json":
        return read_sharded(place, verify=verify)
    from relume.models.exported import read_pt2_state

    _check_no_verify(place, verify)
    return read_pt2_state(place)


def read_state(path: PathLike, *, model: str | None = None, verify: bool = False) -> dict[str, Any]:
    """The weights in a file or a checkpoint, by name, in its order; the extra state of modules is among them.

    Tensors are on the CPU and mapped from the file, where its format allows it: opening reads none of them, using one
    reads it, writing to one changes this process's memory and not the file. Tied ones share memory.

    Args:
        path, model: see `open_model_file`.
        verify: read every tensor now and compare it with its checksum.

    Raises:
        ModelFileError, UnsafeFileError, UnknownNameError, CheckpointError: see `open_model_file`.

    Example:
        >>> import torch
        >>> path = save_weights({"weight": torch.arange(3)}, tmp_path / "three.pt")
        >>> read_state(path)
        {'weight': tensor([0, 1, 2])}
    """
    return dict(checked_state(open_model_file(path, model=model, verify=verify)))


def open_for(path: PathLike, model: str | None) -> tuple[ModelFile, bool]:
    """`open_model_file` of one of two files, of which the other may be the one with several models.

    Returns:
        The file, and whether ``model`` was chosen in it: a file with a single model is taken whatever that is called.
    """
    try:
        return open_model_file(path, model=model), model is not None
    except ConfigurationError as error:
        file = None if model is None else open_model_file(path)
        if file is None or len(_models_in(file)) > 1:
            raise error
        return file, False


def _models_in(file: ModelFile) -> Mapping[str, Any]:
    from relume.models.classic import classic_of

    try:
        return {} if file.content is None else classic_of(file.content, file.path).models
    except ClassicFileError:
        return {}


def _open_torch(path: Path, is_zip: bool, model: str | None, refuse: bool, verify: bool) -> ModelFile:
    from relume.models.pickles import is_torch_file, read_torch

    if not is_zip and not is_torch_file(path):
        raise described(path)
    _check_no_verify(path, verify)
    opened = read_torch(path, refuse=refuse)
    return opened if model is None else _one_of(opened, model)


def _one_of(opened: ModelFile, model: str) -> ModelFile:
    """The file with the weights of one of the models in its classic dictionary."""
    from dataclasses import replace

    from relume.models.classic import classic_of

    models = classic_of(opened.content, opened.path).models
    if model not in models:
        raise UnknownNameError(f"there is no model {model!r} in {opened.path}: {closest(model, models)}")
    return replace(opened, state=models[model], problem="")


def _check_single(path: Path, model: str | None) -> None:
    if model is not None:
        raise ConfigurationError(f"model={model!r}: {path} holds the weights of one model. Leave it out.")


def _check_no_verify(path: Path, verify: bool) -> None:
    if verify:
        raise ModelFileError(
            f"{path} has no checksums of its tensors, so that verify=True has nothing to compare with. Files that relume "
            "writes as .safetensors, and its checkpoints, have them."
        )


def _is_index(path: Path) -> bool:
    """Whether a JSON file is an index of shards; what else there is are manifests of checkpoints."""
    return path.name.endswith(".index.json") or path.parent.name != CHECKPOINTS


def _located(path: PathLike) -> Path | tuple[Store, Checkpoint]:
    """The file that is meant, or the checkpoint."""
    name = _text(path)
    place = Path(name)
    try:
        is_folder, is_there = place.is_dir(), place.exists()
    except OSError:  # a name that is too long
        is_folder = is_there = False
    if is_there and not is_folder:
        return place
    if not is_folder and (index := _index_of(place)):
        return index
    return (_in_folder(place) if is_folder else None) or _checkpoint(name, is_folder)


def _index_of(place: Path) -> Path | None:
    """The index of the shards that were saved under this name of a file; None where there is none."""
    index = place.with_name(f"{place.name}.index.json") if place.name.endswith(_SAFETENSORS) else None
    try:
        return index if index and index.is_file() else None
    except OSError:  # a name that is too long
        return None


def _text(path: PathLike) -> str:
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ConfigurationError(f"{path!r:.80} is no path of a file, and no name of a run.")
    return name


def _checkpoint(name: str, is_folder: bool) -> tuple[Store, Checkpoint]:
    from relume.saved import find_checkpoint  # what knows runs takes a while to import, and most names are files

    root = os.environ.get("RELUME_ROOT") or "runs"
    try:
        return find_checkpoint(name, root)
    except UnknownNameError as error:
        what = "has no file of weights in it, and is no run" if is_folder else "is not there as a file"
        raise ModelFileError(f"{name} {what}; and {error}{_near(Path(name))}") from None
    except OSError as error:
        if error.errno is None:  # relume's own
            raise
        raise ModelFileError(f"{name:.200} cannot be read: {error.strerror}.") from error


def _near(path: Path) -> str:
    """Files of nearly that name, for a message."""
    try:
        names = [other.name for other in path.absolute().parent.iterdir() if other.is_file()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, cutoff=0.6)
    return f" Beside it is {' and '.join(map(repr, near))}." if near else ""


def _in_folder(folder: Path) -> Path | None:
    """The file of weights in a folder of Hugging Face's form, or the only one there; None where there is none."""
    try:
        names = sorted(one.name for one in folder.iterdir() if not one.name.startswith(".") and one.is_file())
    except OSError as error:
        raise ModelFileError(f"{folder} cannot be read: {error.strerror}. Check its owner and its rights.") from error
    for usual in _IN_FOLDER:
        if usual in names:
            return folder / usual
    for ending in (INDEX_ENDING, _SAFETENSORS, ".pt", ".pth", ".pt2"):
        found = [name for name in names if name.endswith(ending)]
        if len(found) > 1:
            shown = ", ".join(found[:_SHOWN]) + (" …" if len(found) > _SHOWN else "")
            raise ModelFileError(f"{folder} has {len(found)} files of weights: {shown}. Give the path of one.")
        if found:
            return folder / found[0]
    return None


# ---------------------------------------------------------------------------------------------------------------- writing


def save_weights(
    model: nn.Module | Mapping[str, Any],
    path: PathLike,
    *,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int | None = None,
) -> Path:
    """Save the weights of a model, whole or not at all: a file that is there is replaced when the new one is on the disk.

    Args:
        model: a model (what DataParallel, DDP and ``torch.compile`` add to names is taken off), or a state_dict.
        path: its ending decides. ``.safetensors``: any reader of that format opens it, tied weights are stored once, and
            there are checksums for ``read_state(path, verify=True)``. ``.pt`` and ``.pth``: a bare state_dict for plain
            ``torch.load``, with all tensors on the CPU. None: ``.safetensors`` is appended. Nothing may change the weights
            while they are written.
        metadata: text by text, kept in a ``.safetensors`` file.
        max_shard_bytes: write ``NAME-00001-of-00003.safetensors`` and so on with at most so many bytes of tensors each, and
            ``NAME.safetensors.index.json``, as Hugging Face does. Those of an earlier save are deleted afterwards.

    Returns:
        The path of the file, or of the index.

    Raises:
        ConfigurationError: the ending is not known, there is no such folder, or an argument does not fit the rest.
        UnstorableError: something is no weight, has no values (meta device), or does not go into this format; names it.
        StoreWriteError: the disk is full, read-only or fails; what was there is untouched.

    Example:
        >>> save_weights(nn.Linear(2, 1), tmp_path / "line").name
        'line.safetensors'
    """
    target = _target(path, metadata, max_shard_bytes)
    state = weights_of(model)
    if target.suffix.lower() in _TORCH_ENDINGS:
        write_torchfile(to_own_memory(state), target)
        return target
    if max_shard_bytes is not None:
        return write_sharded(state, target, max_shard_bytes, metadata)
    write_tensorfile(state, target, metadata)
    return target


_MAX_NAME_BYTES = 200  # of the 255 that file systems take, some are for the name while it is written


def _target(path: PathLike, metadata: Mapping[str, str] | None, max_shard_bytes: int | None) -> Path:
    target = Path(_text(path))
    if len(os.fsencode(target.name)) > _MAX_NAME_BYTES:
        raise ConfigurationError(
            f"{target.name:.40}… is longer than {_MAX_NAME_BYTES} bytes: no folder takes such a name."
        )
    if target.is_dir() or not target.name or _text(path).endswith(("/", os.sep)):
        raise ConfigurationError(f"{target} is a folder. Give the name of a file: {target / 'model.safetensors'}.")
    if not target.suffix:
        target = target.with_name(f"{target.name}{_SAFETENSORS}")
    is_torch = target.suffix.lower() in _TORCH_ENDINGS
    if not is_torch and target.suffix.lower() != _SAFETENSORS:
        raise ConfigurationError(
            f"{target.name!r} ends in {target.suffix!r}. The ending says what is written: .safetensors, or .pt or .pth for plain "
            "torch.load."
        )
    for name, value in {"metadata": metadata, "max_shard_bytes": max_shard_bytes}.items():
        if is_torch and value is not None:
            raise ConfigurationError(f"{name}={value!r:.80} is for .safetensors; {target.name} has no place for it.")
    if not target.parent.is_dir():
        raise ConfigurationError(f"there is no folder {target.parent} to write {target.name} to.")
    if target.is_symlink():  # it stays, and what it points to is replaced
        target = Path(os.path.realpath(target))
    if target.exists() and not target.is_file():
        raise ConfigurationError(f"{target} is there, and is no file that could be replaced.")
    return target
