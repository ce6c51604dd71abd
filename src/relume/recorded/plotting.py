"""Curves of runs as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from relume.errors import ConfigurationError, MissingPackageError, StorageError
from relume.monitor import RunRecord, points
from relume.monitor.buckets import buckets_of
from relume.recorded.chart import COLOURS
from relume.recorded.comparing import curves_of, find_runs
from relume.recorded.reading import dead_branches, resumes
from relume.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Axis = Literal["step", "epoch", "time"]
_SUFFIXES = (".png", ".svg", ".pdf")
_BUCKETS = 1500
_STYLES = ("-", "--", "-.", ":")
_UNITS = ((2 * 86400, 86400.0, "days"), (2 * 3600, 3600.0, "hours"), (120, 60.0, "minutes"), (0, 1.0, "seconds"))


def plot(
    *runs: str | Path,
    metrics: Sequence[str] | str | None = None,
    x: Axis = "step",
    smooth: float = 0.0,
    log: bool = False,
    branches: bool = False,
    out: str | Path | None = None,
    root: str | Path = "runs",
) -> Figure:
    """Draw the curves of runs, one plot a metric.

    A long series is drawn in buckets with the area from its smallest to its largest value, so that no spike is lost. Where a
    run was resumed there is a dotted line.

    Args:
        runs: names below ``root``, or paths.
        metrics: names or patterns (``"val/*"``); a few that most runs have by default.
        x: ``"step"``, ``"epoch"`` or ``"time"`` (since each run began).
        smooth: weight of what came before in an exponential mean, from 0 (none) to below 1; the raw curve stays under it.
        log: a logarithmic axis of values.
        branches: also what was logged and done again after a resume, dashed.
        out: a file to write, .png, .svg or .pdf.

    Returns:
        The figure; a notebook shows it.

    Raises:
        ConfigurationError: an argument makes no sense, or nothing was logged.
        UnknownNameError: no such run or metric; lists the closest names.
        MissingPackageError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    names = [metrics] if isinstance(metrics, str) else metrics
    _check(runs, x, smooth, out)
    folders = find_runs(runs, root)
    curves = curves_of(folders, names)
    if not curves:
        raise ConfigurationError(f"there is nothing to draw: no numbers were logged in {', '.join(map(str, runs))}.")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError('matplotlib is not installed: pip install "relume[tables]"') from None
    across = 1 if len(curves) == 1 else 2 if len(curves) <= 4 else 3
    down = math.ceil(len(curves) / across)
    figure = Figure(figsize=(6.4 if across == 1 else 4.8 * across, 3.4 * down + 0.5), dpi=150, layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    begins = [RunRecord.load(folder).created for folder in folders]
    unit, unit_name = _unit(curves, begins) if x == "time" else (1.0, x)
    dead = [dead_branches(folder) if branches else [] for folder in folders]
    for plotted, (name, found) in zip(axes, curves.items(), strict=False):
        for i, series in enumerate(found):
            place = (begins[i], unit)
            for branch in dead[i]:
                if name in branch:
                    _draw_dead(plotted, branch[name], i, x, place)
            if name in series:
                _draw(plotted, series[name], i, x, smooth, place)
            for step, epoch, moment in resumes(folders[i]) if name in series else ():
                where = {"step": step, "epoch": epoch, "time": (moment - begins[i]) / unit}[x]
                plotted.axvline(where, color=_colour(i), linestyle=":", linewidth=0.9, alpha=0.8)
        _dress(plotted, name, unit_name, log)
    for unused in axes[len(curves) :]:
        unused.set_visible(False)
    _legend(figure, [folder.name for folder in folders])
    if out is not None:
        _save(figure, Path(out))
    return figure


def smoothed(values: np.ndarray[Any, Any], weight: float) -> np.ndarray[Any, Any]:
    """An exponential mean without the pull to zero at its begin; NaN and infinities are passed over.

    Example:
        >>> smoothed(np.array([1.0, 1.0, 4.0]), 0.5).round(3).tolist()
        [1.0, 1.0, 2.714]
    """
    mean = share = 0.0
    result = []
    for value in values.tolist():
        if not math.isfinite(value):
            result.append(value)
            continue
        mean = weight * mean + (1 - weight) * value
        share = weight * share + (1 - weight)
        result.append(mean / share)
    return np.array(result)


def check_target(out: Path) -> None:
    """Whether a picture can be written there, as far as its name tells.

    Raises:
        ConfigurationError: its suffix is not known.
    """
    if out.suffix.lower() not in _SUFFIXES:
        raise ConfigurationError(
            f"{out.name!r} is no picture that can be drawn: its name ends in {', '.join(_SUFFIXES)}."
        )


def _check(runs: Sequence[str | Path], x: str, smooth: float, out: str | Path | None) -> None:
    if not runs:
        raise ConfigurationError("there is no run to draw: plot('fashion').")
    if x not in ("step", "epoch", "time"):
        raise ConfigurationError(f'{x!r} is no axis: "step", "epoch" or "time".')
    if not isinstance(smooth, (int, float)) or not 0 <= smooth < 1:
        raise ConfigurationError(f"smooth={smooth!r} makes no sense: from 0 (not at all) to below 1, such as 0.9.")
    if out is not None:
        check_target(Path(out))


def _draw(axes: Any, series: points.Points, run: int, x: Axis, smooth: float, place: tuple[float, float]) -> None:
    raw = buckets_of(series, _BUCKETS, x)
    if not len(raw):
        return
    where, colour = _where(raw.x, x, place), _colour(run)
    if len(raw) < len(series):
        shade, edge = (colour, 0.12 if smooth else 0.25), (colour, 0.5)  # the edge: a spike of one bucket has no area
        axes.fill_between(where, raw.min, raw.max, facecolor=shade, edgecolor=edge, linewidth=0.7)
    line = {"color": colour, "linestyle": _STYLES[run // len(COLOURS) % len(_STYLES)]}
    if not smooth:
        axes.plot(where, raw.mean, **line, linewidth=1.5, marker="o" if len(raw) <= 30 else None, markersize=3.5)
        return
    axes.plot(where, raw.mean, **line, linewidth=0.8, alpha=0.35)
    even = series.copy()
    even["value"] = smoothed(series["value"], smooth)
    found = buckets_of(even, _BUCKETS, x)
    axes.plot(_where(found.x, x, place), found.mean, **line, linewidth=1.8)


def _draw_dead(axes: Any, series: points.Points, run: int, x: Axis, place: tuple[float, float]) -> None:
    raw = buckets_of(series, _BUCKETS, x)
    where = _where(raw.x, x, place)
    axes.plot(where, raw.mean, color=_colour(run), linestyle=(0, (2, 2)), linewidth=0.9, alpha=0.55)


def _where(x: np.ndarray[Any, Any], axis: Axis, place: tuple[float, float]) -> np.ndarray[Any, Any]:
    begin, unit = place
    found: np.ndarray[Any, Any] = (x - begin) / unit if axis == "time" else x
    return found


def _dress(axes: Any, name: str, label: str, log: bool) -> None:
    axes.set_title(_literal(name), fontsize=10, loc="left", fontweight="bold")
    axes.set_xlabel(label if label in ("step", "epoch") else f"{label} since the run began", fontsize=8.5)
    axes.tick_params(labelsize=8, length=3, color="#888888")
    axes.grid(True, color="#000000", alpha=0.09, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.margins(x=0.02)
    if log and any(np.any(np.asarray(line.get_ydata()) > 0) for line in axes.lines):
        axes.set_yscale("log", nonpositive="mask")


def _legend(figure: Any, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    styles: Any = _STYLES
    handles = [
        Line2D([], [], color=_colour(i), linestyle=styles[i // len(COLOURS) % len(styles)], linewidth=2, label=_literal(name))
        for i, name in enumerate(names)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper left", ncols=min(4, len(names)), frameon=False, fontsize=9)


def _save(figure: Any, out: Path) -> None:
    import matplotlib

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # neither a date nor random names in it: the same runs give the same file
        with matplotlib.rc_context({"svg.hashsalt": "relume"}):
            figure.savefig(out, facecolor="white", metadata={"Date": None} if out.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise StorageError(f"{out} cannot be written ({error.strerror or error}). Choose another file.") from error


def _unit(curves: Any, begins: Sequence[float]) -> tuple[float, str]:
    spans = [
        float(series["time"].max()) - begins[i]
        for runs in curves.values()
        for i, found in enumerate(runs)
        for series in found.values()
        if len(series)
    ]
    longest = max(spans, default=0.0)
    return next((unit, name) for least, unit, name in _UNITS if longest >= least or least == 0)


def _colour(run: int) -> str:
    return COLOURS[run % len(COLOURS)]


def _literal(name: str) -> str:
    """A name as it is: matplotlib would read $…$ as a formula, and hide a label that begins with an underscore."""
    shown = printable(name, 60).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
