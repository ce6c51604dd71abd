"""What a value is, where ``run.log`` was given something that is no number."""

from __future__ import annotations

from typing import Any

import numpy as np

from relume.errors import ConfigurationError
from relume.monitor.classes import ClassReport
from relume.monitor.kinds.arrays import is_tensor
from relume.monitor.kinds.base import Media
from relume.monitor.kinds.curves import ConfusionMatrix
from relume.monitor.kinds.figure import Figure, is_figure
from relume.monitor.kinds.image import Image
from relume.monitor.kinds.pixels import is_pillow, is_several
from relume.monitor.kinds.table import Table, is_frame
from relume.monitor.kinds.text import Text


def media_of(name: str, value: Any) -> Media:
    """``value`` as one of the kinds.

    Raises:
        ConfigurationError: it is none; names it, and what would fit.
    """
    if isinstance(value, Media):
        return value
    if isinstance(value, str):
        return Text(value)
    if isinstance(value, ClassReport):
        return ConfusionMatrix(value)
    for is_one, kind in ((is_pillow, Image), (is_figure, Figure), (is_frame, Table)):
        if is_one(value):
            made: Media = kind(value)
            return made
    if is_several(value) and all(is_pillow(one) or isinstance(one, Image) for one in value):
        return Image(value)
    if is_tensor(value) or isinstance(value, (np.ndarray, list, tuple)):
        shape = np.shape(value) if isinstance(value, np.ndarray) or is_tensor(value) else None
        form = f" of shape {tuple(shape)}" if shape is not None else f" of length {len(value)}"
        what = "tensor" if is_tensor(value) else "array" if shape is not None else type(value).__name__
        raise ConfigurationError(
            f"cannot log {name!r}: a {what}{form} is no single number. Log its .mean(), "
            "relume.Histogram(...) or relume.Image(...) of it, or one name for each element."
        )
    raise ConfigurationError(f"cannot log {name!r}: a {type(value).__name__} is no number ({_shown(value)}).")


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:  # an object may not even be able to show itself
        return "it cannot be shown"
