"""Small curves of metrics: a drawing for a notebook, block characters for a terminal."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relume.direction import mode_of
from relume.monitor.buckets import buckets
from relume.page import Drawing, Styled
from relume.text import printable

_BUCKETS = 60
_WIDTH, _HEIGHT, _MARGIN = 120, 26, 3  # pixels
_COLOUR, _BEST_COLOUR = "#3b82f6", "#e8833a"
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Curve:
    """A metric's course: of each bucket of steps the place, the mean, the smallest and the largest value.

    Values that are not finite have no place in it.
    """

    steps: Sequence[float]
    means: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]

    @classmethod
    def of(cls, values: Sequence[float], steps: Sequence[float] | None = None) -> Curve:
        """A curve of single values.

        Example:
            >>> Curve.of([1.0, float("nan"), 0.5]).means, Curve.of([1.0, float("nan"), 0.5]).steps
            ([1.0, 0.5], [0, 2])
        """
        places = range(len(values)) if steps is None else steps
        kept = [(step, value) for step, value in zip(places, values, strict=True) if math.isfinite(value)]
        found = [value for _, value in kept]
        return cls([step for step, _ in kept], found, found, found)


def curve_of(folder: Path, metric: str, count: int = _BUCKETS) -> Curve:
    """The course of one of a run's metrics; where it was logged often, no spike is left out."""
    found = buckets(folder, metric, count)
    is_drawn = np.isfinite(found.min) & np.isfinite(found.max) & np.isfinite(found.mean)
    places = (found.x + found.last_x) / 2.0
    return Curve(*(column[is_drawn].tolist() for column in (places, found.mean, found.min, found.max)))


def drawing(curve: Curve, name: str, width: int = _WIDTH, height: int = _HEIGHT) -> Drawing:
    """The curve as SVG with its best value marked, and as block characters where nothing can be drawn."""
    if not curve.means:
        return Drawing('<span style="opacity: .5">–</span>', Styled("–", "dim"))
    text = blocks(curve.means)
    return Drawing(_svg(curve, name, width, height), Styled(text, "cyan"))


def blocks(values: Sequence[float], width: int = 12) -> str:
    """Values as characters of different height; more than ``width`` are averaged in groups.

    Example:
        >>> blocks([0, 1, 2, 3]), blocks([5.0, 5.0]), blocks([])
        ('▁▃▆█', '▄▄', '')
    """
    if len(values) > width:
        groups = np.array_split(np.asarray(values, dtype=float), width)
        values = [float(np.mean(group)) for group in groups]
    low, span = _scale(values, values)
    return "".join(_BLOCKS[min(7, int((value / 4 - low) / span * 7.99))] for value in values)


def _scale(lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    """The lowest value and the span of all, each a quarter of it so that no difference overflows."""
    if not len(lows):
        return 0.0, 1.0
    low, high = min(lows) / 4, max(highs) / 4
    return (low, high - low) if high - low > 0 else (low - 0.5, 1.0)


def _svg(curve: Curve, name: str, width: int, height: int) -> str:
    low, span = _scale(curve.lows, curve.highs)
    first, length = curve.steps[0], (curve.steps[-1] - curve.steps[0]) or 1.0
    inner_width, inner_height = width - 2 * _MARGIN, height - 2 * _MARGIN

    def point(step: float, value: float) -> str:
        x = _MARGIN + inner_width * ((step - first) / length if len(curve.steps) > 1 else 0.5)
        y = height - _MARGIN - inner_height * ((value / 4 - low) / span)
        return f"{x:.1f},{y:.1f}"

    line = " ".join(map(point, curve.steps, curve.means))
    parts = []
    if curve.lows != curve.highs:
        band = [*map(point, curve.steps, curve.highs), *reversed([*map(point, curve.steps, curve.lows)])]
        shade = 'fill-opacity=".25" stroke-opacity=".45" stroke-width=".8"'
        parts.append(f'<polygon points="{" ".join(band)}" fill="{_COLOUR}" stroke="{_COLOUR}" {shade}/>')
    parts.append(
        f'<polyline points="{line}" fill="none" stroke="{_COLOUR}" stroke-width="1.6" '
        'stroke-linejoin="round" stroke-linecap="round"/>'
    )
    mode = mode_of(name)
    if mode is not None:
        values = curve.highs if mode == "max" else curve.lows
        best = (max if mode == "max" else min)(range(len(values)), key=values.__getitem__)
        x, y = point(curve.steps[best], values[best]).split(",")
        parts.append(f'<circle cx="{x}" cy="{y}" r="2.4" fill="{_BEST_COLOUR}"/>')
    label = html.escape(f"{printable(name)}: {min(curve.lows):.4g} to {max(curve.highs):.4g}")
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}" '
        f'style="vertical-align: middle; display: inline-block"><title>{label}</title>{"".join(parts)}</svg>'
    )
