"""Pixels: what is given as an image, as bytes of red, green and blue."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np

from relume.errors import ConfigurationError, MissingPackageError
from relume.monitor.kinds.arrays import Array, Snapshot, is_tensor, snapshot

LAYOUTS = ("HW", "HWC", "CHW", "NHW", "NHWC", "NCHW")
_CHANNELS = (1, 3, 4)
_MOST_PIXELS = 178_956_970  # as many as Pillow reads without a complaint
_NOT_A_NUMBER = (255, 0, 255)


def pillow() -> Any:
    """``PIL.Image``.

    Raises:
        MissingPackageError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError('images need Pillow: pip install "relume[vision]".') from error
    return Image


def is_pillow(value: Any) -> bool:
    """Whether it is an image of Pillow; Pillow is not imported for it."""
    library = sys.modules.get("PIL.Image")
    return library is not None and isinstance(value, library.Image)


class Picture:
    """One image, or a batch of images of one size.

    Attributes:
        count: how many images.
        width, height: of each, in pixels.
        is_batch: whether it was given as a batch.
    """

    def __init__(self, data: Any, layout: str | None = None) -> None:
        self._source: Any
        if is_pillow(data):
            self._source, self._layout = data.copy(), "PIL"
            self.width, self.height = data.size
            self.count, self.is_batch = 1, False
        else:
            self._source = snapshot(data, "Image")
            self._layout = _layout_of(self._source, layout)
            sizes = dict(zip(self._layout, self._source.shape, strict=True))
            self.width, self.height, self.count = sizes["W"], sizes["H"], sizes.get("N", 1)
            self.is_batch = "N" in sizes
        if not 0 < self.width * self.height * self.count <= _MOST_PIXELS:
            raise ConfigurationError(
                f"Image: {self.count} x {self.height} x {self.width} pixels cannot be shown. Give between 1 and "
                f"{_MOST_PIXELS:,} pixels."
            )

    def images(self) -> tuple[list[Any], tuple[float, float] | None]:
        """The images as those of Pillow (L, RGB or RGBA), and the range of values that was stretched to black and white."""
        if self._layout == "PIL":
            return [_plain(self._source)], None
        values = self._source.read()
        values = values.reshape((1, *values.shape)) if not self.is_batch else values
        if "C" not in self._layout:
            values = values[..., None]
        elif self._layout.endswith("CHW"):
            values = values.transpose(0, 2, 3, 1)
        pixels, stretched = _as_bytes(values)
        return [_image(one) for one in pixels], stretched


def _layout_of(given: Snapshot, layout: str | None) -> str:
    shape = given.shape
    if layout is not None and layout not in LAYOUTS:
        raise ConfigurationError(f"Image: layout must be one of {', '.join(LAYOUTS)}, not {layout!r}.")
    if layout is not None:
        channels = shape[layout.index("C")] if "C" in layout and len(layout) == len(shape) else 1
        if len(layout) != len(shape) or channels not in _CHANNELS:
            raise ConfigurationError(
                f"Image: an array of shape {shape} is none of layout {layout!r} with 1, 3 or 4 channels."
            )
        return layout
    inner = shape[-3:]
    if len(shape) == 2:
        return "HW"
    first, last = (len(inner) == 3 and inner[at] in _CHANNELS for at in (0, 2))
    if len(shape) not in (3, 4) or not (first or last):
        hint = " Or layout='NHW', if it is a batch of grey images." if len(shape) == 3 else ""
        raise ConfigurationError(
            f"Image: an array of shape {shape} is no image. Give height x width, with 1, 3 or 4 channels behind or before "
            f"them, and batches with one dimension more.{hint} Values that are no image: relume.Histogram."
        )
    order = "CHW" if first and (given.is_tensor or not last) else "HWC"
    return order if len(shape) == 3 else "N" + order


def _as_bytes(values: Array) -> tuple[Array, tuple[float, float] | None]:
    """Bytes of shape (N, H, W, 1, 3 or 4)."""
    if values.dtype == np.uint8:
        return values, None
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255), None
    wide: Any = values.astype(np.float64 if values.dtype.itemsize > 4 or values.dtype.kind != "f" else np.float32)
    is_number = np.isfinite(wide)
    low, high = (float(wide.min(where=is_number, initial=np.inf)), float(wide.max(where=is_number, initial=-np.inf)))
    are_bytes = values.dtype.kind != "f" or (high > 1 and bool((wide == np.floor(wide))[is_number].all()))
    stretched = None
    if not is_number.any():
        scaled = np.zeros_like(wide)
    elif are_bytes and low >= 0 and high <= 255:
        scaled = wide
    elif low >= -1e-3 and high <= 1 + 1e-3 and not are_bytes:
        scaled = wide * 255
    else:
        stretched = (low, high)
        middle = wide / 2 - low / 2  # halved, as the difference of two doubles may be none
        scaled = middle * (255 / (high / 2 - low / 2)) if high > low else np.full_like(wide, 127.0)
    scaled = np.where(np.isposinf(wide), 255, np.where(np.isneginf(wide), 0, scaled))
    pixels = np.nan_to_num(scaled + 0.5, nan=0.0).clip(0, 255).astype(np.uint8)
    return _marked(pixels, np.isnan(wide).any(axis=-1)), stretched


def _marked(pixels: Array, is_nan: Array) -> Array:
    """Pixels that are no number stand out."""
    if not is_nan.any():
        return pixels
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    pixels[is_nan, :3] = _NOT_A_NUMBER
    pixels[is_nan, 3:] = 255
    return pixels


def _image(pixels: Array) -> Any:
    return pillow().fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def _plain(image: Any) -> Any:
    """As L, RGB or RGBA."""
    if image.mode in ("L", "RGB", "RGBA"):
        return image
    if image.mode.startswith(("I", "F")):
        return _image(_as_bytes(_sixteen_bits(np.asarray(image)))[0][..., None])
    has_alpha = "transparency" in image.info or image.mode in ("PA", "La", "LA", "RGBa")
    return image.convert("RGBA" if has_alpha else "L" if image.mode == "1" else "RGB")


def _sixteen_bits(values: Array) -> Array:
    return values.astype(np.float32) / 65535 if values.dtype == np.uint16 else values


def rgb(image: Any) -> Any:
    """As RGB, on white where it is transparent."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    ground = pillow().new("RGB", image.size, "white")
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def png(image: Any) -> bytes:
    """The bytes of its file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def is_several(data: Any) -> bool:
    """Whether it is a list of images rather than nested lists of numbers."""
    if not isinstance(data, (list, tuple)) or not data:
        return False
    return all(is_pillow(one) or is_tensor(one) or isinstance(one, np.ndarray) or hasattr(one, "drawn") for one in data)
