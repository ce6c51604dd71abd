"""Numbers on their way to the journal: read now when they are at hand, later when a device still computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from relume.errors import ConfigurationError

Ready = dict[str, float | int]


class Copy:
    """A tensor of a device whose copy to the host has been started and not waited for."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._event: Any = None
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(tensor.device))
        else:
            self._host = tensor.cpu()

    def is_ready(self) -> bool:
        return self._event is None or bool(self._event.query())

    def read(self) -> list[Any]:
        """The numbers; waits for the device when they are not there yet."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.tolist()


class Arriving:
    """Device scalars whose copy to the host has been started and not waited for."""

    def __init__(self, names: list[str], scalars: list[torch.Tensor]) -> None:
        self.names = names
        self._copy = Copy(torch.stack([s.detach().reshape(()).to(widest(s)) for s in scalars]))
        self.is_ready = self._copy.is_ready

    def read(self) -> Ready:
        """The values; waits for the device when they are not there yet."""
        return dict(zip(self.names, self._copy.read(), strict=True))


def widest(tensor: torch.Tensor) -> torch.dtype:
    """The widest format of numbers that the tensor's device has."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def split(values: Mapping[str, Any]) -> tuple[Ready, Arriving | None]:
    """Plain numbers of ``values``, and the device scalars among them (hot path: 1 microsecond a number).

    Nested mappings become names with slashes: ``{"val": {"loss": 1.0}}`` is ``val/loss``.

    Raises:
        ConfigurationError: a value that is no number and no tensor with one element; names the key.
    """
    ready: Ready = {}
    names: list[str] = []
    scalars: list[torch.Tensor] = []
    for name, value in values.items():
        kind = type(value)
        if type(name) is not str:
            raise ConfigurationError(f"the name of a metric must be text, not {name!r}.")
        if kind is float:
            ready[name] = value
        elif isinstance(value, torch.Tensor):
            if value.numel() != 1:
                raise ConfigurationError(
                    f"cannot log {name!r}: a tensor of shape {tuple(value.shape)} is no single number. "
                    "Log its .mean(), or one name for each element."
                )
            if value.device.type == "cpu":
                ready[name] = _plain(name, value.item())
            else:
                names.append(name)
                scalars.append(value)
        elif isinstance(value, Mapping):
            inner, arriving = split({f"{name}/{key}": item for key, item in value.items()})
            ready.update(inner)
            if arriving is not None:
                ready.update(arriving.read())
        else:
            ready[name] = _plain(name, value)
    return ready, Arriving(names, scalars) if scalars else None


def _large(name: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigurationError(f"cannot log {name!r}: the number has {len(str(value))} digits.") from None


def _plain(name: str, value: Any) -> float | int:
    if isinstance(value, (bool, int, np.bool_, np.integer)):
        return int(value) if abs(int(value)) < 2**63 else _large(name, int(value))
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, np.ndarray) and value.size == 1:
        return float(value.reshape(()))
    raise ConfigurationError(f"cannot log {name!r}: a {type(value).__name__} is no number ({value!r:.80}).")
