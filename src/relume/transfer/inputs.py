"""The images that a model was trained on: their size and scale, and the transform that makes such images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from relume.datasets.transform import scaled
from relume.errors import ConfigurationError, DataError, MissingPackageError
from relume.models.recipe.building import note, noted, recipe_kept
from relume.names import unwrap

_FACT = "input"
_INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")
_MAX_SIDE = 1 << 14
_MAX_CHANNELS = 1 << 12


@dataclass(frozen=True)
class InputSpec:
    """The images that a model expects.

    Attributes:
        size: height and width in pixels.
        mean, std: of each channel, for pixels between 0 and 1; they are subtracted and divided by.
        interpolation: how images are resized: ``"bilinear"``, ``"bicubic"``, …
        resize: the shorter side gets so many pixels before the middle is cut out; a pair: height and width do, whatever
            the proportions were. None: as ``size``.
        source: what says so, in words.

    Raises:
        ConfigurationError: a size below one, a deviation that is not positive, or an unknown interpolation.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    resize: int | tuple[int, int] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        sides = [*self.size, *((self.resize,) if isinstance(self.resize, int) else self.resize or ())]
        if len(self.size) != 2 or not all(type(side) is int and 1 <= side <= _MAX_SIDE for side in sides):
            raise ConfigurationError(
                f"size={self.size}, resize={self.resize}: height and width are 1 to {_MAX_SIDE} pixels."
            )
        if not 1 <= len(self.mean) == len(self.std) <= _MAX_CHANNELS:
            raise ConfigurationError(f"mean={self.mean}, std={self.std}: there is one of each for every channel.")
        if not all(math.isfinite(value) for value in self.mean) or not all(0 < value < math.inf for value in self.std):
            raise ConfigurationError(
                f"mean={self.mean}, std={self.std}: they are finite, and no deviation is 0 or less."
            )
        if self.interpolation not in _INTERPOLATIONS:
            raise ConfigurationError(f"interpolation={self.interpolation!r}: known are {', '.join(_INTERPOLATIONS)}.")

    @property
    def channels(self) -> int:
        """How many channels the images have."""
        return len(self.mean)

    def transform(self, train: bool = False) -> ImageTransform:
        """What turns a PIL image, or a tensor of bytes, into what the model expects.

        Args:
            train: cut out a random part (8% to 100%) and mirror every other image, on torch's random numbers, instead of
                cutting out the middle.

        Raises:
            MissingPackageError: torchvision is not installed.
        """
        try:
            import torchvision.transforms.functional  # noqa: F401
        except ImportError as error:
            raise MissingPackageError('transforms of images need torchvision: pip install "relume[vision]".') from error
        return ImageTransform(self, train)

    def __str__(self) -> str:
        height, width = self.size
        numbers = [" ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std)]
        said = f" ({self.source})" if self.source else ""
        return f"{self.channels} x {height} x {width}, mean {numbers[0]}, std {numbers[1]}, {self.interpolation}{said}"


@dataclass(frozen=True)
class ImageTransform:
    """Images as a model expects them. Made by :meth:`InputSpec.transform`; goes to the workers of a DataLoader.

    Called with a PIL image, or a tensor of shape (height, width), (channels, height, width) or (images, channels, height,
    width) with bytes or with floats between 0 and 1, on any device. Grey images become RGB where the model wants colours,
    coloured ones grey where it does not, and transparency is dropped. Gives floats of shape (channels, height, width).

    Raises:
        DataError: it is no such image.
    """

    spec: InputSpec
    train: bool = False

    def __call__(self, image: Any) -> torch.Tensor:
        from torchvision.transforms import functional

        image = _as_tensor_or_pil(image, self.spec.channels)
        image = self._random_part(image) if self.train else self._middle(image)
        pixels = image if isinstance(image, torch.Tensor) else functional.pil_to_tensor(image)
        floats = pixels.to(torch.get_default_dtype()) if pixels.is_floating_point() else scaled(pixels)
        mean, std = (floats.new_tensor(values).view(-1, 1, 1) for values in (self.spec.mean, self.spec.std))
        return floats.sub(mean).div_(std)

    def _middle(self, image: Any) -> Any:
        from torchvision.transforms import InterpolationMode, functional

        mode = InterpolationMode(self.spec.interpolation)
        image = functional.resize(image, _resized(image, self.spec), mode, antialias=True)
        return functional.center_crop(image, list(self.spec.size))

    def _random_part(self, image: Any) -> Any:
        from torchvision.transforms import InterpolationMode, RandomResizedCrop, functional

        mode = InterpolationMode(self.spec.interpolation)
        part = RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
        image = functional.resized_crop(image, *part, list(self.spec.size), mode, antialias=True)
        return functional.hflip(image) if torch.rand(()).item() < 0.5 else image


def input_of(model: nn.Module) -> InputSpec:
    """The images that a model was trained on, as its library or its file says.

    Args:
        model: of :func:`relume.backbone` or timm, built by ``relume.build`` of a builder of torchvision, or one with such a
            model inside.

    Raises:
        ConfigurationError: nothing says it.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        >>> expect_input(model, InputSpec(size=(28, 28), mean=(0.286,), std=(0.353,)))
        >>> input_of(model).transform()(torch.zeros(28, 28, dtype=torch.uint8)).shape
        torch.Size([1, 28, 28])
    """
    if not isinstance(model, nn.Module):
        raise ConfigurationError(f"the model must be an nn.Module, not a {type(model).__name__}.")
    spec = known_input(model)
    if spec is None:
        raise ConfigurationError(
            f"what images {type(unwrap(model)).__name__} was trained on is not known. Build it by relume.backbone(...), or "
            "say it: relume.transfer.expect_input(model, InputSpec(size=(224, 224), mean=..., std=...))."
        )
    return spec


def expect_input(model: nn.Module, spec: InputSpec) -> None:
    """Say what images a model expects. It stays with the model, its copies and its files that have a recipe."""
    if not isinstance(spec, InputSpec):
        raise ConfigurationError(f"{spec!r:.80} is a {type(spec).__name__}, and no InputSpec.")
    note(unwrap(model), **{_FACT: asdict(spec)})


def known_input(model: nn.Module) -> InputSpec | None:
    """As `input_of`; None where nothing says it, or parts of a model say different things."""
    inner = unwrap(model)
    said = _said_by(inner)
    if said is not None:
        return said
    parts = {spec for part in inner.modules() if (spec := _said_by(part)) is not None}
    return parts.pop() if len(parts) == 1 else None


def _said_by(part: nn.Module) -> InputSpec | None:
    if isinstance(found := noted(part).get(_FACT), Mapping):
        return _read(found)
    config = vars(part).get("pretrained_cfg")
    if isinstance(config, Mapping) and "input_size" in config:
        return of_timm(config)
    recipe = recipe_kept(part)
    place, _, name = str(recipe.get("builder")).partition(":") if recipe else ("", "", "")
    if place.startswith("torchvision.models"):
        return of_torchvision(name)
    return None


def _read(found: Mapping[str, Any]) -> InputSpec | None:
    """What was noted, which may come from a file."""
    try:
        resize = found.get("resize")
        return InputSpec(
            size=tuple(found["size"]),
            mean=tuple(map(float, found["mean"])),
            std=tuple(map(float, found["std"])),
            interpolation=str(found.get("interpolation")),
            resize=tuple(resize) if isinstance(resize, (list, tuple)) else resize,
            source=str(found.get("source", ""))[:200],
        )
    except (ConfigurationError, KeyError, TypeError, ValueError):
        return None


def of_timm(config: Mapping[str, Any]) -> InputSpec:
    """What timm's configuration of a pretrained model says.

    Source: ``timm.data.transforms_factory.transforms_imagenet_eval``.
    """
    channels, height, width = config["input_size"]
    fraction = config.get("crop_pct") or 0.875
    larger = math.floor(height / fraction), math.floor(width / fraction)
    squash = config.get("crop_mode") == "squash" or height != width
    name = ".".join(str(config[key]) for key in ("architecture", "tag") if config.get(key))
    spec = InputSpec(
        size=(height, width),
        mean=tuple(config.get("mean") or (0.485, 0.456, 0.406)),
        std=tuple(config.get("std") or (0.229, 0.224, 0.225)),
        interpolation=config.get("interpolation") or "bilinear",
        resize=larger if squash else larger[0],
        source=f"timm/{name}",
    )
    return spec if channels == spec.channels else for_channels(spec, channels)


def of_torchvision(name: str, weights: str | None = None) -> InputSpec | None:
    """What torchvision says of pretrained weights; by default of a model's best."""
    from torchvision import models

    try:
        known = models.get_model_weights(name)
    except ValueError:
        return None
    if not len(known):
        return None
    entry = known[weights or "DEFAULT"]
    preset = entry.transforms()
    crop, resize = (
        value[0] if isinstance(value, (list, tuple)) else value for value in (preset.crop_size, preset.resize_size)
    )
    return InputSpec(
        size=(crop, crop),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        resize=resize,
        source=f"torchvision/{name} {entry.name}",
    )


def for_channels(spec: InputSpec, channels: int) -> InputSpec:
    """The same for another number of channels, each of which has the mean of those there were."""
    mean, std = (sum(values) / len(values) for values in (spec.mean, spec.std))
    return InputSpec(spec.size, (mean,) * channels, (std,) * channels, spec.interpolation, spec.resize, spec.source)


def for_size(spec: InputSpec, size: int) -> InputSpec:
    """The same for another size, the part that is cut out being in proportion."""
    resize = spec.resize or spec.size
    factor = size / min(spec.size)
    larger = (
        round(resize * factor) if isinstance(resize, int) else (round(resize[0] * factor), round(resize[1] * factor))
    )
    return InputSpec((size, size), spec.mean, spec.std, spec.interpolation, larger, spec.source)


def _resized(image: Any, spec: InputSpec) -> list[int]:
    resize = spec.resize or spec.size
    return [resize] if isinstance(resize, int) else list(resize)


def _as_tensor_or_pil(image: Any, channels: int) -> Any:
    """The image with as many channels as are wanted."""
    if isinstance(image, torch.Tensor):
        return _with_channels(image, channels)
    if hasattr(image, "convert") and hasattr(image, "mode"):
        wanted = {1: "L", 3: "RGB"}.get(channels)
        if wanted is None:
            raise DataError(f"a PIL image has 1 or 3 channels, and the model expects {channels}: give tensors.")
        return image if image.mode == wanted else image.convert(wanted)
    raise DataError(f"{image!r:.60} is a {type(image).__name__}: the transform takes PIL images and tensors.")


def _with_channels(image: torch.Tensor, channels: int) -> torch.Tensor:
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise DataError(
            f"a tensor of {str(image.dtype).removeprefix('torch.')}: images are bytes (uint8), or floats from 0 to 1."
        )
    if image.ndim == 2:
        image = image[None]
    if image.ndim not in (3, 4) or image.numel() == 0:
        raise DataError(f"a tensor of shape {tuple(image.shape)} is no image: (channels, height, width) is one.")
    there = image.shape[-3]
    if there == channels:
        return image
    if there in (2, 4) and channels in (1, 3):  # the last one is how opaque it is
        return _with_channels(image[..., : there - 1, :, :], channels)
    if there == 1 and channels == 3:
        return image.expand(*image.shape[:-3], 3, *image.shape[-2:])
    if there == 3 and channels == 1:
        from torchvision.transforms.functional import rgb_to_grayscale

        return rgb_to_grayscale(image)  # type: ignore[no-any-return]
    raise DataError(f"an image of {there} channels (shape {tuple(image.shape)}), and the model expects {channels}.")
