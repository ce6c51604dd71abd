"""From a PIL image to a tensor, without torchvision (whose import takes 0.7 seconds)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from relume.errors import ConfigurationError, MissingPackageError

Transform = Literal["tensor"] | Callable[[Any], Any] | None


@dataclass(frozen=True)
class ToTensor:
    """Turn a PIL image into a float tensor in [0, 1], if asked as a square of a given size.

    Bit-equal to torchvision's ``Compose([Resize(size), CenterCrop(size), ToTensor()])`` for grey and RGB images. Any
    other mode of image (palette, transparency, 16 bits) is converted to RGB first.

    Args:
        size: the shorter side is resized to it (bilinear, antialiased) and the middle is cut out; ``None`` changes
            nothing.

    Called with a PIL image, it gives float32 (PyTorch's default dtype) of shape (1 or 3, height, width).

    Example:
        >>> from PIL import Image
        >>> from relume.datasets import ToTensor
        >>> ToTensor(size=32)(Image.new("RGB", (64, 48))).shape
        torch.Size([3, 32, 32])
    """

    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ConfigurationError(f"size={self.size}: the side of an image is at least 1 pixel.")

    def __call__(self, image: Any) -> torch.Tensor:
        if image.mode not in ("L", "RGB"):
            image = image.convert("RGB")
        if self.size is not None:
            image = _square(image, self.size)
        pixels = np.array(image)
        pixels_hwc = pixels[:, :, None] if pixels.ndim == 2 else pixels
        return scaled(torch.from_numpy(pixels_hwc).permute(2, 0, 1).contiguous())


def scaled(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes as floats in [0, 1], with the same operations as torchvision, so that every bit agrees."""
    return pixels.to(torch.get_default_dtype()).div_(255)


def chosen_transform(transform: Transform) -> Callable[[Any], Any] | None:
    """The callable that a ``transform`` argument stands for."""
    if transform == "tensor":
        return ToTensor()
    if transform is not None and not callable(transform):
        raise ConfigurationError(
            f'transform={transform!r}: it is "tensor", None (gives PIL images) or a callable that takes a PIL image.'
        )
    return transform


def pillow() -> Any:
    """The module ``PIL.Image``, or an error that says how to get it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError('images need Pillow: pip install "relume[vision]".') from error
    return Image


def _square(image: Any, size: int) -> Any:
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if short != size:
        side = int(size * long / short)
        width, height = (size, side) if width <= height else (side, size)
        image = image.resize((width, height), pillow().Resampling.BILINEAR)
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))
