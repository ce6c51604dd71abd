"""How features are computed: what besides samples and weights decides their bits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from relume.errors import ConfigurationError


@dataclass(frozen=True)
class Setting:
    """How the lower part is run.

    Attributes:
        device: where.
        precision: the dtype of autocast, or ``None``.
        dtype: what features are stored in, or ``None`` for what they are computed in.
    """

    device: torch.device
    precision: torch.dtype | None = None
    dtype: torch.dtype | None = None

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.precision is None else torch.autocast(self.device.type, dtype=self.precision)

    def marks(self) -> list[Any]:
        """What of this machine and process decides the bits, for the key."""
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        flags: list[Callable[[], Any]] = [
            torch.get_num_threads,
            torch.get_float32_matmul_precision,
            torch.are_deterministic_algorithms_enabled,
            torch.get_default_dtype,
        ]
        return [
            str(torch.__version__), device, str(self.precision), str(self.dtype), *(str(flag()) for flag in flags),
            torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark,
            torch.backends.cudnn.allow_tf32, _processor(),
        ]  # fmt: skip


def check_storage(dtype: object, views: object, prefix: str = "") -> None:
    """Whether these say how features can be stored; ``prefix`` begins their names in the message.

    Raises:
        ConfigurationError: they do not.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigurationError(f"{prefix}dtype={dtype!r}: it is a floating-point dtype such as torch.float16.")
    if views is not None and (isinstance(views, bool) or not isinstance(views, int) or views < 1):
        raise ConfigurationError(f"{prefix}views={views!r}: it is a whole number of at least 1.")


def _processor() -> str:
    get = getattr(torch.backends.cpu, "get_cpu_capability", None)
    return str(get()) if get is not None else ""
