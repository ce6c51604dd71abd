"""What turns a raw image into an input, told from a data set's transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from relume.datasets import ToTensor
from relume.errors import ConfigurationError
from relume.share.rows import base_of


def known_transform(dataset: Any) -> ToTensor | None:
    """What a data set does with its images, as relume's own transform; None where it is something else.

    torchvision's ``Resize(n)`` with ``CenterCrop(n)``, ``Grayscale``, ``ToTensor`` and ``Normalize`` are known, and v2's
    ``ToImage`` with ``ToDtype(torch.float32, scale=True)``. Whoever uses this compares what both give for some images.
    """
    base, _ = base_of(dataset)
    transform = getattr(base, "transform", None)
    if isinstance(transform, ToTensor):
        return transform
    steps = getattr(transform, "transforms", [transform])
    if not isinstance(steps, (list, tuple)) or not steps:
        return None
    try:
        fields: dict[str, Any] = {}
        for step in steps:
            if (found := _step(step)) is None:
                return None
            fields |= found
    except (AttributeError, TypeError, ValueError):
        return None
    return _made(fields)


def _made(fields: Mapping[str, Any]) -> ToTensor | None:
    if not fields.get("is_tensor") or fields.get("resize") != fields.get("crop"):
        return None
    try:
        return ToTensor(fields.get("crop"), fields.get("channels"), fields.get("mean"), fields.get("std"))
    except ConfigurationError:
        return None


def _step(step: Any) -> dict[str, Any] | None:
    if not type(step).__module__.startswith("torchvision.transforms"):
        return None
    match type(step).__name__:
        case "ToTensor":
            return {"is_tensor": True}
        case "ToImage":
            return {}
        case "ToDtype" if step.dtype == torch.float32 and step.scale:
            return {"is_tensor": True}
        case "Resize":
            return {"resize": _side(step.size)}
        case "CenterCrop":
            return {"crop": _side(step.size)}
        case "Grayscale":
            return {"channels": int(step.num_output_channels)}
        case "Normalize":
            return {"mean": tuple(map(float, step.mean)), "std": tuple(map(float, step.std))}
    return None


def _side(size: Any) -> int | None:
    numbers = [size] if isinstance(size, int) else list(size)
    return int(numbers[0]) if len(set(numbers)) == 1 else -1
