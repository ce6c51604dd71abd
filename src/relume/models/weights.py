"""The weights that are to be written: vetted, by name, and which of them are one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from relume.errors import ConfigurationError, UnstorableError
from relume.models.state import is_extra, model_state
from relume.names import is_uninitialized

_PLAIN = (torch.Size, str, int, float, complex, bytes, torch.dtype, torch.device, type(None))
_SHOWN = 8


def weights_of(source: nn.Module | Mapping[str, Any]) -> OrderedDict[str, Any]:
    """The state_dict to write: tensors detached, arrays of numpy as tensors, the extra state of modules as it is.

    Args:
        source: a model, in wrappers or not, or a state_dict.

    Raises:
        ConfigurationError: it is neither; or a lazy module has not got its shapes.
        UnstorableError: something in it is no weight; names it.
    """
    if isinstance(source, nn.Module):
        _check_has_shapes(source)
        source = model_state(source)
    if not isinstance(source, Mapping):
        raise ConfigurationError(f"weights are those of a model or of a state_dict, not of a {type(source).__name__}.")
    state: OrderedDict[str, Any] = OrderedDict((_checked_name(name), _value(name, v)) for name, v in source.items())
    if meta := [name for name, value in state.items() if isinstance(value, torch.Tensor) and value.is_meta]:
        raise UnstorableError(
            f"{_listed(meta)} on the meta device and {'has' if len(meta) == 1 else 'have'} no values to be saved. Load the "
            "weights first, or build the model on a real device."
        )
    if hasattr(source, "_metadata"):
        state._metadata = source._metadata  # type: ignore[attr-defined]
    return state


def check_dense(state: Mapping[str, Any]) -> None:
    """Raise UnstorableError unless all of ``state`` are tensors made of elements one after the other."""
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UnstorableError(
                f"{name!r} is a {type(value).__name__}, and a safetensors file holds nothing but tensors. Save to a .pt, which "
                f"keeps it, or leave it out: {{name: value for name, value in state.items() if name != {name!r}}}."
            )
        if value.layout != torch.strided or value.is_quantized:
            kind, dense = ("quantized", "dequantize") if value.is_quantized else (f"{value.layout}", "to_dense")
            kind = kind.removeprefix("torch.")
            raise UnstorableError(
                f"{name!r} is a {kind} tensor, which a safetensors file cannot hold. Save to a .pt, or make it an ordinary one "
                f"with .{dense}()."
            )


def identity(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    """What two tensors have in common only if they are the same memory, seen in the same way; None for one that has none."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.numel() == 0:
        return None
    memory = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset())
    return *memory, tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg()


def ties_in(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """For each name whose tensor an earlier name has as well: that name."""
    first: dict[Any, str] = {}
    ties = {}
    for name, value in state.items():
        key = identity(value)
        if key is not None and first.setdefault(key, name) != name:
            ties[name] = first[key]
    return ties


def from_numpy(name: str, array: np.ndarray[Any, Any]) -> torch.Tensor:
    """An array as a tensor, of the same memory where that can be. Raises UnstorableError for a dtype unknown to torch."""
    try:
        native = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
        return torch.from_numpy(native if native.flags.writeable else native.copy())
    except TypeError:
        raise UnstorableError(f"{name!r} is an array of {array.dtype}, for which torch has no dtype.") from None


def _check_has_shapes(model: nn.Module) -> None:
    waiting = [name for name, value in model.state_dict().items() if is_uninitialized(value)]
    if waiting:
        raise ConfigurationError(
            f"{_listed(waiting)} of a lazy module that has not seen its input: there is nothing to save. Call the model "
            "once, model(inputs), then save."
        )


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise ConfigurationError(f"the key {name!r:.80} is a {type(name).__name__}: weights are named by strings.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"the key {name!r:.80} is not text that a file can hold.") from None
    return name


def _value(name: str, value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return from_numpy(name, np.asarray(value))
    if is_uninitialized(value):
        raise ConfigurationError(f"{name!r} has no shape yet: call the model once, model(inputs), then save.")
    if isinstance(value, torch.Tensor):
        plain = value.detach()
        if type(plain) is not torch.Tensor:
            raise UnstorableError(
                f"{name!r} is a {type(value).__name__}, whose meaning is more than its elements. Save what it stands for as an "
                "ordinary tensor (a DTensor: value.full_tensor())."
            )
        return plain
    if is_extra(name):
        _check_plain(name, value)
        return value
    raise UnstorableError(f"{name!r} is a {type(value).__name__} and no tensor. {_remedy(name, value)}")


def _remedy(name: str, value: Any) -> str:
    if isinstance(value, Mapping) and any(isinstance(item, (torch.Tensor, np.ndarray)) for item in value.values()):
        return f"If these are the weights, save them: save_weights(state[{name!r}], path)."
    return "Weights are what model.state_dict() gives; save anything else with a checkpoint of a Run, or torch.save."


def _check_plain(path: str, value: Any) -> None:
    """Raise UnstorableError unless ``torch.load(weights_only=True)`` reads it back."""
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _check_plain(f"{path}.{key}", key)
            _check_plain(f"{path}.{key}", item)
    elif type(value) in (list, tuple, set):
        for number, item in enumerate(value):
            _check_plain(f"{path}[{number}]", item)
    elif type(value) not in (*_PLAIN, bool, torch.Tensor, nn.Parameter):
        raise UnstorableError(
            f"{path} is a {type(value).__name__}, which plain torch.load does not read. Let get_extra_state return tensors, "
            "numbers, text, and lists and dicts of these."
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"{shown} {'is' if len(names) == 1 else 'are'}"
