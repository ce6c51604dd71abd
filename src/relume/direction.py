"""Which way a metric gets better, told from its name."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Literal

Mode = Literal["min", "max"]

_SMALLER_IS_BETTER = {
    "loss", "error", "err", "mae", "mape", "mse", "rmse", "nll", "perplexity", "ppl", "wer", "cer", "fid", "distance",
    "time", "seconds",
}  # fmt: skip
_LARGER_IS_BETTER = {
    "accuracy", "acc", "auc", "auroc", "f1", "precision", "recall", "map", "iou", "miou", "dice", "bleu", "rouge",
    "r2", "score", "psnr", "ssim", "ap", "top1", "top5",
}  # fmt: skip


@cache
def mode_of(name: str) -> Mode | None:
    """Whether a smaller (``"min"``) or a larger value is better; ``None`` when the name does not tell.

    Example:
        >>> mode_of("val/loss"), mode_of("val/top5_accuracy"), mode_of("lr")
        ('min', 'max', None)
    """
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    is_smaller, is_larger = bool(words & _SMALLER_IS_BETTER), bool(words & _LARGER_IS_BETTER)
    if is_smaller == is_larger:
        return None
    return "min" if is_smaller else "max"


def improves(name: str, value: float, best: float | None) -> bool:
    """Whether ``value`` is better than ``best``; NaN never is, and anything is better than nothing.

    A name that does not tell counts as "smaller is better".
    """
    # Hot path: 0.3 microseconds. A comparison with NaN is false.
    if best is None:
        return not math.isnan(value)
    return value > best if mode_of(name) == "max" else value < best
