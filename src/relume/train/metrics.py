"""Metrics over a whole loader: plain functions weighted by batch size, and torchmetrics objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from relume.errors import ConfigurationError

Metrics = Mapping[str, Any]


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The share of samples whose largest output is the target class.

    Args:
        output: scores, shape (N, C) or (N, C, ...), or (N,) for two classes (a score above 0 is class 1).
        target: class numbers, shape (N) or (N, ...), or one-hot or soft labels of the output's shape.

    Returns:
        A scalar between 0 and 1, on the device of ``output``.

    Example:
        >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        tensor(0.5000)
    """
    if output.dim() == 2 and output.shape[1] == 1 and target.dim() == 1:
        output = output.squeeze(1)
    if output.dim() == target.dim() <= 1 or (output.shape == target.shape and output.shape[1] == 1):
        return ((output > 0) == (target > 0.5)).float().mean()
    if output.shape == target.shape:
        target = target.argmax(1)
    return (output.argmax(1) == target).float().mean()


class Mean:
    """A mean weighted by batch size, summed on the device: the short last batch counts for what it holds."""

    def __init__(self) -> None:
        self._sum: torch.Tensor | float = 0.0
        self._count = 0

    def add(self, value: torch.Tensor | float, samples: int) -> None:
        if isinstance(value, torch.Tensor):
            value = value.detach()
            if value.dtype != torch.float64 and value.device.type != "mps":
                value = value.double()
        self._sum = self._sum + value * samples
        self._count += samples

    @property
    def has_values(self) -> bool:
        return self._count > 0

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self._sum, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sum, self._count = state["sum"], state["count"]

    def value(self) -> float:
        """The mean; waits for the device. NaN when nothing was added."""
        return float(self._sum) / self._count if self._count else float("nan")


class MetricSet:
    """Updates all metrics with each batch and computes them once at the end."""

    def __init__(self, metrics: Metrics | None, device: torch.device) -> None:
        self._objects: dict[str, Any] = {}
        self._functions: dict[str, tuple[Callable[..., Any], Mean]] = {}
        for name, metric in (metrics or {}).items():
            if _is_torchmetric(metric):
                self._objects[name] = metric.clone().to(device)  # the user's own keeps what it has gathered
                self._objects[name].reset()
            elif callable(metric):
                self._functions[name] = (metric, Mean())
            else:
                raise ConfigurationError(
                    f"metric {name!r} is a {type(metric).__name__}: give a function of (output, target) or a torchmetrics object."
                )

    def update(self, output: Any, target: Any, samples: int) -> None:
        for metric in self._objects.values():
            metric.update(output, target)
        for name, (function, mean) in self._functions.items():
            value = function(output, target)
            if value is None:
                raise ConfigurationError(f"metric {name!r} gave None: it must give the batch's mean, one number.")
            if isinstance(value, torch.Tensor) and value.numel() != 1:
                raise ConfigurationError(
                    f"metric {name!r} gave a tensor of shape {tuple(value.shape)}: it must give the batch's mean, one number."
                )
            mean.add(value.reshape(()) if isinstance(value, torch.Tensor) else value, samples)

    def compute(self) -> dict[str, float]:
        """The values; a torchmetrics object with several elements gives one number each, ``name/0``, ``name/1``, …"""
        found: dict[str, float] = {}
        for name, metric in self._objects.items():
            _flatten(name, metric.compute(), found)
        for name, (_, mean) in self._functions.items():
            found[name] = mean.value()
        return found


def _is_torchmetric(metric: Any) -> bool:
    """Told by its methods, so that torchmetrics is not imported (0.5 s) for those who do not use it."""
    return isinstance(metric, torch.nn.Module) and all(
        callable(getattr(metric, m, None)) for m in ("update", "compute", "reset")
    )


def _flatten(name: str, value: Any, into: dict[str, float]) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _flatten(f"{name}/{key}", item, into)
    elif isinstance(value, torch.Tensor) and value.numel() != 1:
        for number, item in enumerate(value.flatten().tolist()):
            into[f"{name}/{number}"] = float(item)
    else:
        into[name] = float(value)
