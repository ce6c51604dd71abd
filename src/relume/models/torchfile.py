"""Files that plain ``torch.load`` opens, written whole or not at all."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from relume.checkpoint import files
from relume.errors import UnstorableError
from relume.models.tensorfile import staged
from relume.models.weights import identity


def write_torchfile(content: Any, path: Path) -> int:
    """``torch.save`` to a new file that takes the place of ``path`` when it is on the disk; returns its size in bytes.

    Raises:
        StoreWriteError: the disk is full, read-only or fails. The file that was there is untouched.
    """
    with files.explained(f"writing {path.name}", path.absolute().parent), staged(path) as beside:
        size_bytes = files.write_new_by(beside, lambda file: _save(content, file))
        files.publish(beside, path)
    return size_bytes


def to_own_memory(state: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """A state_dict for ``torch.save``: on the CPU, and with no memory that is not its own.

    torch writes the whole memory that a tensor is a part of: a slice of a large one would come with all of it. Tensors that
    together make up their memory, such as tied weights, stay as they are.
    """
    used: defaultdict[int, dict[Any, int]] = defaultdict(dict)
    dtypes: defaultdict[int, set[torch.dtype]] = defaultdict(set)
    for value in _tensors(state):
        dtypes[value.untyped_storage().data_ptr()].add(value.dtype)
        used[value.untyped_storage().data_ptr()][identity(value)] = value.numel() * value.element_size()
    made: dict[Any, torch.Tensor] = {}

    def own(value: Any) -> Any:
        key = identity(value) if isinstance(value, torch.Tensor) else None
        if key is None:
            return value.cpu() if isinstance(value, torch.Tensor) else value
        if key not in made:
            storage = value.untyped_storage()
            is_whole = sum(used[storage.data_ptr()].values()) >= storage.nbytes()
            is_whole = is_whole and len(dtypes[storage.data_ptr()]) == 1  # torch saves no memory under two dtypes
            made[key] = value.cpu() if is_whole or value.device.type != "cpu" else value.clone()
        return made[key]

    owned = OrderedDict((name, own(value)) for name, value in state.items())
    if hasattr(state, "_metadata"):
        owned._metadata = state._metadata  # type: ignore[attr-defined]
    return owned


def _tensors(state: Mapping[str, Any]) -> list[torch.Tensor]:
    return [value for value in state.values() if isinstance(value, torch.Tensor) and identity(value) is not None]


def _save(content: Any, file: files.NewFile) -> None:
    try:
        torch.save(content, file)  # type: ignore[arg-type]
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch's writer hides what the disk said
            raise error.__context__ from None
        raise
    except KeyError as error:  # a dtype that has no storage of its own, such as int4
        raise UnstorableError(
            f"torch.save cannot write this: {error.args[0]}. Save to .safetensors, which holds every dtype through relume."
        ) from None
