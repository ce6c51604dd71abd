"""Figures of matplotlib."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from relume.errors import ConfigurationError
from relume.monitor.kinds.base import Content, Media
from relume.monitor.kinds.files import keep

_LARGEST_SVG_BYTES = 4_000_000


class Figure(Media):
    """A figure of matplotlib, as PNG and as SVG.

    It is drawn in this call, which takes some tens of milliseconds: matplotlib cannot draw in two threads at once. Closing
    the figure is up to its owner (``plt.close(figure)``).

    Args:
        figure: a ``matplotlib.figure.Figure``, or an ``Axes`` of one.
        svg: whether it is stored as SVG too; one that would be larger than 4 MB is not.

    Raises:
        ConfigurationError: it is no figure, or cannot be drawn.

    Example:
        >>> from matplotlib.figure import Figure as Drawing
        >>> drawing = Drawing()
        >>> drawing.subplots().plot([1, 3, 2])  # doctest: +ELLIPSIS
        [...]
        >>> import tempfile
        >>> sorted(Figure(drawing).content(Path(tempfile.mkdtemp())))
        ['file', 'height', 'kind', 'svg', 'width']
    """

    kind = "figure"

    def __init__(self, figure: Any, *, svg: bool = True) -> None:
        if not is_figure(figure):
            raise ConfigurationError(f"Figure: a {type(figure).__name__} is no figure of matplotlib. Give plt.gcf().")
        figure = getattr(figure, "figure", figure)
        figure = getattr(figure, "get_figure", lambda root=True: figure)(root=True) or figure
        try:
            self._png = _drawn(figure, "png")
            self._svg = _drawn(figure, "svg") if svg else b""
        except Exception as error:  # mathtext that is wrong, sizes beyond measure, ...
            raise ConfigurationError(
                f"Figure: it cannot be drawn ({type(error).__name__}: {error!s:.200}). figure.savefig(...) says the same."
            ) from error

    def describe(self, folder: Path) -> Content:
        width, height = (int.from_bytes(self._png[at : at + 4], "big") for at in (16, 20))
        content = {"file": keep(folder, self._png, "png"), "width": width, "height": height}
        if 0 < len(self._svg) <= _LARGEST_SVG_BYTES:
            content["svg"] = keep(folder, self._svg, "svg")
        return content


def is_figure(value: Any) -> bool:
    """Whether it is a figure of matplotlib or a part of one; matplotlib is not imported for it."""
    figures, axes = sys.modules.get("matplotlib.figure"), sys.modules.get("matplotlib.axes")
    kinds = tuple(kind for kind in (getattr(figures, "FigureBase", None), getattr(axes, "Axes", None)) if kind)
    return isinstance(value, kinds)


def _drawn(figure: Any, format: str) -> bytes:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "relume"}):  # the same figure gives the same file
        nothing = {"Date": None} if format == "svg" else {"Software": None}
        figure.savefig(buffer, format=format, metadata=nothing)
    return buffer.getvalue()
