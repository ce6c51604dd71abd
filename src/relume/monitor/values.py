"""Numbers on their way to the journal: read now when they are at hand, later when a device still computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from relume.errors import ConfigurationError
from relume.monitor.kinds.infer import media_of

if TYPE_CHECKING:
    from relume.monitor.kinds import Media

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


def split(values: Mapping[str, Any], media: dict[str, Media] | None = None) -> tuple[Ready, Arriving | None]:
    """Plain numbers of ``values``, and the device scalars among them (hot path: 1 microsecond a number).

    Nested mappings become names with slashes: ``{"val": {"loss": 1.0}}`` is ``val/loss``.

    Args:
        media: takes what is no number but one of the kinds, as a copy: images, texts, ...

    Raises:
        ConfigurationError: a value that is neither a number nor, with ``media``, one of the kinds; names the key.
    """
    ready: Ready = {}
    later: list[tuple[str, torch.Tensor]] = []
    for name, value in values.items():
        if type(value) is float and type(name) is str:
            ready[name] = value
        else:
            _sort(name, value, ready, later, media)
    return ready, Arriving([name for name, _ in later], [scalar for _, scalar in later]) if later else None


def _sort(
    name: Any, value: Any, ready: Ready, later: list[tuple[str, torch.Tensor]], media: dict[str, Media] | None
) -> None:
    """Put one value where it belongs; those of a nested mapping too."""
    if type(name) is not str:
        raise ConfigurationError(f"the name of a metric must be text, not {name!r}.")
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex() or value.is_meta:
            raise _no_number(name, value)
        if value.device.type != "cpu":
            later.append((name, value))
            return
        value = value.item()
    if isinstance(value, Mapping):
        for key, item in value.items():
            _sort(f"{name}/{key}", item, ready, later, media)
    else:
        number = _plain(name, value)
        if number is not None:
            ready[name] = number
        elif media is not None:
            media[name] = media_of(name, value)
        else:
            raise ConfigurationError(f"cannot log {name!r}: a {type(value).__name__} is no number ({value!r:.80}).")


def _no_number(name: str, value: torch.Tensor) -> ConfigurationError:
    if value.numel() == 1:
        what = "tensor without a value" if value.is_meta else "complex"
        return ConfigurationError(f"cannot log {name!r}: a {what} is no number ({value.dtype}).")
    return ConfigurationError(
        f"cannot log {name!r}: a tensor of shape {tuple(value.shape)} is no single number. Log its .mean(), "
        "relume.Histogram(...) or relume.Image(...) of it, or one name for each element."
    )


def _large(name: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigurationError(f"cannot log {name!r}: the number has {len(str(value))} digits.") from None


def _plain(name: str, value: Any) -> float | int | None:
    """A number as JSON has it; None where it is none."""
    if isinstance(value, (bool, int, np.bool_, np.integer)):
        return int(value) if abs(int(value)) < 2**63 else _large(name, int(value))
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "biuf":
        return _plain(name, value.reshape(())[()])
    return None
