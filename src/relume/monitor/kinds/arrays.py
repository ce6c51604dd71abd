"""Copies of tensors and arrays: taken in the call, and those of a device read when they have arrived."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from relume.errors import ConfigurationError

Array = np.ndarray[Any, Any]


class Snapshot:
    """The values of an array at one moment.

    Attributes:
        shape: of the array.
        dtype: the name of its type, as numpy has it; tensors of bfloat16 and float8 are float32 here.
        is_tensor: whether it was a torch tensor, whose images have their channels first.
    """

    def __init__(self, host: Any, event: Any, *, is_tensor: bool) -> None:
        self._host, self._event = host, event
        self.is_tensor = is_tensor
        self.shape: tuple[int, ...] = tuple(host.shape)
        self.dtype = str(host.dtype).removeprefix("torch.")

    def is_ready(self) -> bool:
        """Whether :meth:`read` would not wait for a device."""
        return self._event is None or bool(self._event.query())

    def read(self) -> Array:
        """The values; waits for the device where they are not there yet. Not to be written to."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None
        if not isinstance(self._host, np.ndarray):
            self._host = self._host.numpy()
        array: Array = self._host
        return array

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers (or truth values)."""
        return self.dtype == "bool" or self.dtype.startswith(("int", "uint"))


def is_tensor(value: Any) -> bool:
    """Whether ``value`` is a torch tensor; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def snapshot(value: Any, what: str) -> Snapshot:
    """Copy a tensor, an array or nested lists of numbers. A tensor's copy from its device is started and not waited for.

    Raises:
        ConfigurationError: these are no numbers; begins with ``what``.
    """
    if isinstance(value, Snapshot):
        return value
    if is_tensor(value):
        return _of_tensor(value, what)
    try:
        array = np.array(value)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{what}: a {type(value).__name__} is no array of numbers ({error!s:.120}). "
            "Give a tensor, an array or lists of equal length."
        ) from None
    if array.dtype.kind not in "biuf":
        raise ConfigurationError(
            f"{what}: a {type(value).__name__} of {array.dtype} is no array of real numbers. "
            "Give a tensor, an array or lists of whole numbers, fractions or truth values."
        )
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return Snapshot(array, None, is_tensor=False)


def _of_tensor(value: Any, what: str) -> Snapshot:
    import torch

    if value.is_meta or value.is_complex() or value.is_quantized:
        sort = "without values" if value.is_meta else f"of {value.dtype}"
        raise ConfigurationError(f"{what}: a tensor {sort} cannot be shown. Give one of real numbers.")
    value = value.detach()
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    if value.layout is not torch.strided:
        value = value.to_dense()
    if value.dtype not in _known_to_numpy():
        value = value.to(torch.float32)
    if value.device.type == "cpu":
        return Snapshot(value.clone(memory_format=torch.contiguous_format), None, is_tensor=True)
    if value.device.type != "cuda":
        return Snapshot(value.cpu(), None, is_tensor=True)
    with torch.cuda.device(value.device):
        host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        host.copy_(value.contiguous(), non_blocking=True)
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
    return Snapshot(host, event, is_tensor=True)


def _known_to_numpy() -> frozenset[Any]:
    import torch

    floats = (torch.float16, torch.float32, torch.float64)
    return frozenset((torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, *floats))
