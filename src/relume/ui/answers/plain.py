"""Answers as JSON can hold them, and a browser reads them unchanged."""

from __future__ import annotations

import math
from typing import Any

from relume.monitor import jsonable

_EXACT = 2**53


def plain(value: Any) -> Any:
    """``value`` with NaN and infinity as texts, as the journal has them, and so whole numbers that a browser would round.

    Half of a surrogate pair, which no UTF-8 can say, is written as Python does it.

    Example:
        >>> plain({"loss": float("nan"), "best": (float("-inf"), 0.5), "seed": 2**60})
        {'loss': 'NaN', 'best': ['-Infinity', 0.5], 'seed': '1152921504606846976'}
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else str(value)
    if isinstance(value, float):
        return (
            value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        )
    if isinstance(value, dict):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return jsonable(value)
