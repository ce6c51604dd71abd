"""What a model is called with, given as shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from relume.errors import ConfigurationError
from relume.models.look.entries import dtype_name
from relume.names import is_uninitialized

_FORMS = (
    "It is a shape without the batch, such as (3, 224, 224); a list of shapes for several inputs; a dictionary of them for "
    "inputs by name; or tensors, with their batch, in their place."
)


@dataclass(frozen=True)
class InputSpec:
    """Shape, with the batch, and dtype of one input."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{' x '.join(map(str, self.shape)) or 'scalar'} {dtype_name(self.dtype)}"

    @property
    def size_bytes(self) -> int:
        """Of its values."""
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize

    def make(self, device: torch.device) -> torch.Tensor:
        """Zeros, which are valid indices too; they draw no random numbers."""
        return torch.zeros(self.shape, dtype=self.dtype, device=device)


@dataclass(frozen=True)
class Inputs:
    """Arguments of a model, by position or by name."""

    positional: tuple[InputSpec, ...] = ()
    named: Mapping[str, InputSpec] = field(default_factory=dict)

    def __str__(self) -> str:
        texts = [*map(str, self.positional), *(f"{name}: {spec}" for name, spec in self.named.items())]
        return ", ".join(texts)

    @property
    def size_bytes(self) -> int:
        """Of all of them."""
        return sum(spec.size_bytes for spec in (*self.positional, *self.named.values()))

    def make(self, device: torch.device) -> list[torch.Tensor] | dict[str, torch.Tensor]:
        """Tensors for ``model(*inputs)`` or ``model(**inputs)``."""
        if self.named:
            return {name: spec.make(device) for name, spec in self.named.items()}
        return [spec.make(device) for spec in self.positional]


def read_inputs(model: nn.Module, input_shape: Any, batch_size: int, dtypes: Any) -> Inputs:
    """The inputs that a user means.

    Raises:
        ConfigurationError: a shape, batch size or dtype that makes no sense; names it.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size!r}: it is a whole number from 1 on.")
    default = _default_dtype(model)
    if isinstance(input_shape, Mapping):
        if not input_shape:
            raise ConfigurationError(f"input_shape={input_shape!r} is empty. {_FORMS}")
        by_name = _dtypes_by_name(dtypes, list(input_shape), default)
        return Inputs(named={str(k): _spec(v, batch_size, by_name[k], dtypes) for k, v in input_shape.items()})
    shapes = [input_shape] if _is_one(input_shape) else input_shape
    if not isinstance(shapes, Sequence) or isinstance(shapes, str):
        raise ConfigurationError(f"input_shape={input_shape!r:.80} is not understood. {_FORMS}")
    kinds = _dtypes_in_order(dtypes, len(shapes), default)
    return Inputs(tuple(_spec(shape, batch_size, kind, dtypes) for shape, kind in zip(shapes, kinds, strict=True)))


def _is_one(shape: Any) -> bool:
    if isinstance(shape, torch.Tensor):
        return True
    return isinstance(shape, Sequence) and not any(isinstance(item, (Sequence, torch.Tensor)) for item in shape)


def _spec(shape: Any, batch_size: int, dtype: torch.dtype, dtypes: Any) -> InputSpec:
    if isinstance(shape, torch.Tensor):
        return InputSpec(tuple(shape.shape), shape.dtype if dtypes is None else dtype)
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise ConfigurationError(f"{shape!r:.80} is no shape of an input. {_FORMS}")
    for length in shape:
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise ConfigurationError(
                f"{length!r:.40} in the shape {tuple(shape)!r:.80}: lengths are whole numbers from 1 on."
            )
    if math.prod(shape) * batch_size * dtype.itemsize >= 2**62:
        raise ConfigurationError(f"an input of {(batch_size, *shape)!r:.120} is larger than any memory.")
    return InputSpec((batch_size, *shape), dtype)


def _dtypes_in_order(dtypes: Any, count: int, default: torch.dtype) -> list[torch.dtype]:
    if dtypes is None or isinstance(dtypes, (torch.dtype, str)):
        return [_dtype(dtypes, default)] * count
    if not isinstance(dtypes, Sequence) or len(dtypes) != count:
        raise ConfigurationError(
            f"dtypes={dtypes!r:.80}: give one dtype for all inputs, or one for each of the {count}."
        )
    return [_dtype(dtype, default) for dtype in dtypes]


def _dtypes_by_name(dtypes: Any, names: list[Any], default: torch.dtype) -> dict[Any, torch.dtype]:
    if not isinstance(dtypes, Mapping):
        return dict(zip(names, _dtypes_in_order(dtypes, len(names), default), strict=True))
    unknown = [str(name) for name in dtypes if name not in names]
    if unknown:
        raise ConfigurationError(f"dtypes has {', '.join(unknown):.80}, of which input_shape has no shape.")
    return {name: _dtype(dtypes.get(name), default) for name in names}


def _dtype(value: Any, default: torch.dtype) -> torch.dtype:
    if isinstance(value, str):
        value = getattr(torch, value, value)
    if value is None:
        return default
    if not isinstance(value, torch.dtype):
        raise ConfigurationError(f"dtypes: {value!r:.40} is no dtype of torch, such as torch.long.")
    return value


def _default_dtype(model: nn.Module) -> torch.dtype:
    """That of the first parameter of floating point."""
    known = (p.dtype for p in model.parameters() if not is_uninitialized(p) and p.is_floating_point())
    return next((dtype for dtype in known if dtype.itemsize > 1), torch.get_default_dtype())
