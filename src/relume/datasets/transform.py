"""From a PIL image to a tensor, without torchvision (whose import takes 0.7 seconds)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from relume.errors import ConfigurationError, MissingPackageError

Transform = Literal["tensor"] | Callable[[Any], Any] | None


_LARGEST_SIDE = 16_384
"""That settings from a file may ask for."""


@dataclass(frozen=True)
class ToTensor:
    """Turn a PIL image into a float tensor, if asked as a square of a given size, and normalised.

    Bit-equal to torchvision's ``Compose([Resize(size), CenterCrop(size), ToTensor(), Normalize(mean, std)])`` for grey and
    RGB images. Any other mode of image (palette, transparency, 16 bits) is converted to RGB first.

    Args:
        size: the shorter side is resized to it (bilinear, antialiased) and the middle is cut out; ``None`` changes
            nothing.
        channels: 1 makes all images grey, 3 makes them RGB; ``None`` leaves grey ones grey.
        mean, std: a number for each channel, in units of pixels in [0, 1]; ``None`` leaves pixels in [0, 1].

    Called with a PIL image, it gives float32 (PyTorch's default dtype) of shape (1 or 3, height, width).

    Raises:
        ConfigurationError: a value that makes no sense, or a mean without a std.

    Example:
        >>> from PIL import Image
        >>> from relume.datasets import ToTensor
        >>> ToTensor(size=32)(Image.new("RGB", (64, 48))).shape
        torch.Size([3, 32, 32])
    """

    size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ConfigurationError(f"size={self.size}: the side of an image is at least 1 pixel.")
        if self.channels not in (None, 1, 3):
            raise ConfigurationError(f"channels={self.channels!r}: an image has 1 (grey) or 3 (RGB).")
        if (self.mean is None) != (self.std is None):
            raise ConfigurationError(f"mean={self.mean} and std={self.std}: give both, or neither.")
        if self.mean is not None and self.std is not None:
            _check_normalisation(self.mean, self.std, self.channels)

    def __call__(self, image: Any) -> torch.Tensor:
        if self.channels is not None:
            image = image.convert("L" if self.channels == 1 else "RGB")
        elif image.mode not in ("L", "RGB"):
            image = image.convert("RGB")
        if self.size is not None:
            image = _square(image, self.size)
        pixels = np.array(image)
        pixels_hwc = pixels[:, :, None] if pixels.ndim == 2 else pixels
        values = scaled(torch.from_numpy(pixels_hwc).permute(2, 0, 1).contiguous())
        if self.mean is None or self.std is None:
            return values
        mean, std = (torch.tensor(numbers, dtype=values.dtype)[:, None, None] for numbers in (self.mean, self.std))
        return values.sub_(mean).div_(std)

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self).items() if name == "size" or value is not None}
        return f"ToTensor({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def as_config(self) -> dict[str, Any]:
        """Its settings as JSON has them, to be kept with a run."""
        fields = {"size": self.size, "channels": self.channels}
        if self.mean is not None and self.std is not None:
            fields |= {"mean": list(self.mean), "std": list(self.std)}  # type: ignore[dict-item]
        return fields

    @classmethod
    def of_config(cls, fields: Any) -> ToTensor:
        """The transform that `as_config` described.

        Raises:
            ConfigurationError: these are no such settings.
        """
        known = ("size", "channels", "mean", "std")
        if not isinstance(fields, Mapping) or not set(fields) <= set(known):
            raise ConfigurationError(f"{fields!r:.200}: how images are prepared is said by {', '.join(known)}.")
        size, channels = fields.get("size"), fields.get("channels")
        whole = [value for value in (size, channels) if value is not None]
        if any(isinstance(value, bool) or not isinstance(value, int) for value in whole):
            raise ConfigurationError(f"{fields!r:.200}: size and channels are whole numbers.")
        if size is not None and size > _LARGEST_SIDE:
            raise ConfigurationError(f"{fields!r:.200}: sides of {_LARGEST_SIDE:,} pixels are the most.")
        return cls(size, channels, *(_numbers(fields.get(name)) for name in ("mean", "std")))


@dataclass(frozen=True)
class Augmented:
    """Flip and crop images at random, then turn them into tensors.

    From a PIL image a part is cut out, of 60% to all of its area and 3:4 to 4:3 in form, and every second one is flipped
    left to right. The random numbers are torch's, so that a run's data stay exact.

    Args:
        prepare: what turns the part into a tensor; it has a size.

    Example:
        >>> from PIL import Image
        >>> Augmented(ToTensor(size=24))(Image.new("RGB", (64, 48))).shape
        torch.Size([3, 24, 24])
    """

    prepare: ToTensor

    def __call__(self, image: Any) -> torch.Tensor:
        size = self.prepare.size
        assert size is not None
        box = _random_box(*image.size)
        image = image.convert("RGB") if image.mode not in ("L", "RGB") else image
        image = image.resize((size, size), pillow().Resampling.BILINEAR, box=box)
        if torch.rand(()).item() < 0.5:
            image = image.transpose(pillow().Transpose.FLIP_LEFT_RIGHT)
        return self.prepare(image)


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


_LEAST_AREA = 0.6


def _random_box(width: int, height: int) -> tuple[float, float, float, float]:
    share, form, across, down = torch.rand(4).tolist()
    area = width * height * (_LEAST_AREA + (1 - _LEAST_AREA) * share)
    ratio = math.exp((2 * form - 1) * math.log(4 / 3))
    inner_width, inner_height = min(math.sqrt(area * ratio), width), min(math.sqrt(area / ratio), height)
    left, top = (width - inner_width) * across, (height - inner_height) * down
    return left, top, left + inner_width, top + inner_height


def _check_normalisation(mean: tuple[float, ...], std: tuple[float, ...], channels: int | None) -> None:
    if len(mean) != len(std) or (channels is not None and len(mean) != channels):
        raise ConfigurationError(f"mean={mean} and std={std}: each has a number for each of the channels ({channels}).")
    if not all(math.isfinite(value) for value in (*mean, *std)) or min(std) <= 0:
        raise ConfigurationError(f"mean={mean} and std={std}: they are finite, and std is above 0.")


def _numbers(values: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    if not isinstance(values, (list, tuple)) or not all(type(value) in (int, float) for value in values) or not values:
        raise ConfigurationError(f"{values!r:.100}: mean and std are lists of numbers.")
    return tuple(float(value) for value in values)
