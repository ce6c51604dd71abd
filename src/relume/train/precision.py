"""Number formats for the forward and backward pass."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from relume.errors import ConfigurationError, closest

_NAMES = {
    "float32": None, "fp32": None, "32": None,
    "bf16": torch.bfloat16, "bfloat16": torch.bfloat16,
    "fp16": torch.float16, "float16": torch.float16, "16": torch.float16,
}  # fmt: skip


@dataclass(frozen=True)
class Precision:
    """How the forward pass computes: in float32, or under autocast in ``dtype``. Weights stay float32."""

    dtype: torch.dtype | None

    @classmethod
    def named(cls, name: str) -> Precision:
        """``"float32"``, ``"bf16"`` or ``"fp16"`` (the last with a GradScaler).

        Raises:
            ConfigurationError: another name.
        """
        if str(name) not in _NAMES:
            raise ConfigurationError(f"no precision {name!r}: {closest(str(name), ('float32', 'bf16', 'fp16'))}")
        return cls(_NAMES[str(name)])

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

    def is_emulated(self, device: torch.device) -> bool:
        """Whether the processor lacks this format, so that it is slower than float32 and not faster."""
        if self.dtype is None or device.type != "cpu":
            return False
        kind = "bf16" if self.dtype is torch.bfloat16 else "fp16"
        is_supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{kind}_supported", None)
        return is_supported is not None and not is_supported()

    def scaler(self, device: torch.device) -> torch.amp.GradScaler | None:
        """A GradScaler where small gradients would vanish: for fp16."""
        return torch.amp.GradScaler(device.type) if self.dtype is torch.float16 else None


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; ``None`` or ``"auto"`` is the accelerator of this machine, or the CPU.

    Raises:
        ConfigurationError: the device is not there.
    """
    if device is None or device == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return torch.device("cpu") if found is None else found
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(f"device {str(device)!r} cannot be used: {first_line}") from None
    return chosen


def move_state(optimizers: Iterable[torch.optim.Optimizer], device: torch.device) -> None:
    """Bring state that an optimizer already has to the device of its parameters."""
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.dim() and value.device != parameter.device:
                    state[name] = value.to(parameter.device)
