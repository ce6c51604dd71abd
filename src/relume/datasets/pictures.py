"""Files of images, of whatever kind they are, read as a person sees them."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import Any

import numpy as np

from relume.datasets.transform import pillow
from relume.errors import DataError

EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".png",
    ".ppm",
    ".bmp",
    ".pgm",
    ".tif",
    ".tiff",
    ".webp",
)  # as torchvision's ImageFolder


def read_image(path: str | os.PathLike[str]) -> Any:
    """A PIL image in RGB, in memory: upright where its EXIF data says how it was held, 16 bits scaled to 8.

    Otherwise as torchvision's ``ImageFolder`` reads it; that leaves photographs lying, and cuts 16 bits off at white.

    Raises:
        DataError: it cannot be read as an image; says why.
    """
    library = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF data, and of sizes that are no attack yet
            with library.open(path) as image:
                return _rgb(_upright(image))
    except Exception as error:  # decoders raise whatever comes to their mind
        reason = "its format is not known" if isinstance(error, library.UnidentifiedImageError) else str(error)
        raise DataError(
            f"{path} cannot be read as an image: {reason or type(error).__name__}. Replace it or delete it."
        ) from error


def images_below(folder: str | os.PathLike[str]) -> list[str]:
    """Paths of all images below a folder, links followed, in torchvision's order. Hidden ones are passed over."""
    found = []
    for place, _, files in sorted(os.walk(folder, followlinks=True)):
        found += [os.path.join(place, name) for name in sorted(files) if is_image(name)]  # noqa: PTH118
    return found


def is_image(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    image.load()
    with contextlib.suppress(Exception):  # EXIF data that cannot be read say nothing
        return ImageOps.exif_transpose(image)
    return image


def _rgb(image: Any) -> Any:
    if image.mode.startswith("I"):  # 16 bits, which convert() would cut off at 255
        values = np.asarray(image).astype(np.int64) >> 8
        return pillow().fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
