"""Pictures of a model card: training curves, confusion matrix, examples.

Drawn with matplotlib's objects on a canvas of their own, with its defaults whatever the user has set, and without a date or a
version in the file: the same documents give the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from relume.errors import MissingPackageError
from relume.monitor.classes import ClassReport
from relume.share.described import Documents
from relume.share.documents import PICTURES_FOLDER
from relume.share.hubheader import stated
from relume.share.predicted import Prediction, predictions
from relume.text import counted, printable

_INK, _FAINT = "#1b1f24", "#667079"
_TRAIN, _VAL, _OTHERS = "#0072b2", "#d55e00", ("#009e73", "#cc79a7", "#56b4e9")
_DPI, _WIDTH_INCHES = 150, 8.0
_MOST_PANELS, _MANY_POINTS = 4, 150
_MOST_CLASSES, _WITH_COUNTS, _MOST_LABELS = 300, 20, 26
_NAME = 22
_MOST_EXAMPLES, _MOST_PIXELS = 16, 50_000_000
_TRAIN_NAMES, _VAL_NAMES = ("train", "training"), ("val", "valid", "validation", "test", "eval")
_Points = Sequence[tuple[int, int, float]]


@dataclass(frozen=True)
class Drawn:
    """A picture.

    Attributes:
        path: in the bundle.
        text: what it shows, in words, for those who do not see it.
    """

    path: str
    png: bytes
    text: str


def drawn(documents: Documents) -> dict[str, Drawn]:
    """All pictures that the documents give something for: ``curves``, ``confusion``, ``examples``.

    Raises:
        MissingPackageError: there is something to draw, and matplotlib or Pillow is not installed.
    """
    made = {"curves": _curves(documents), "confusion": _confusion(documents), "examples": _examples(documents)}
    return {what: picture for what, picture in made.items() if picture is not None}


# -------------------------------------------------------------------------------------------------------- training curves


def _curves(documents: Documents) -> Drawn | None:
    panels = _panels(documents)
    if not panels:
        return None
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    with _figure(_WIDTH_INCHES, 3.3 * down + 0.1 if across == 2 else 3.9) as figure:
        axes = list(figure.subplots(down, across, squeeze=False).flat)
        for plotted, (metric, series) in zip(axes, panels.items(), strict=False):
            _panel(plotted, metric, series, documents)
        steps = [step for series in panels.values() for points in series.values() for step, _, _ in points]
        room = 0.03 * (max(steps) - min(steps))
        for plotted in axes[: len(panels)]:
            plotted.set_xlim(min(steps) - room, max(steps) + room)
        for unused in axes[len(panels) :]:
            unused.set_visible(False)
        png = _png(figure)
    return Drawn(f"{PICTURES_FOLDER}curves.png", png, _curves_in_words(panels, documents))


def _panels(documents: Documents) -> dict[str, dict[str, _Points]]:
    """Metrics with the parts that they were measured on; those of training and validation first, then those claimed."""
    found: dict[str, dict[str, _Points]] = {}
    for name, points in sorted(documents.claims.curves.items()):
        shown = [point for point in points if math.isfinite(point[2])]
        part, slash, metric = name.partition("/")
        if len({step for step, _, _ in shown}) < 2:
            continue
        if slash and part in (*_TRAIN_NAMES, *_VAL_NAMES):
            found.setdefault(metric, {})[part] = shown
        elif not slash and "_" in name and name.partition("_")[0] in (*_TRAIN_NAMES, *_VAL_NAMES):
            found.setdefault(name.partition("_")[2], {})[name.partition("_")[0]] = shown
    if not found:
        found = {name: {"": points} for name, points in _alone(documents)}
    found = {metric: series for metric, series in found.items() if not _is_repeated(metric, series, found)}
    claimed = [claim.name.rpartition("/")[2] for claim in stated(documents)]
    order = sorted(found, key=lambda metric: (-len(found[metric]), metric not in claimed, metric != "loss", metric))
    return {metric: found[metric] for metric in order[:_MOST_PANELS]}


def _is_repeated(metric: str, series: Mapping[str, _Points], found: Mapping[str, Mapping[str, _Points]]) -> bool:
    """Whether it is the mean of an epoch of what another panel shows."""
    base = found.get(metric.removesuffix("_epoch"), {})
    return metric.endswith("_epoch") and set(series) <= set(base)


def _alone(documents: Documents) -> Iterator[tuple[str, _Points]]:
    for name, points in sorted(documents.claims.curves.items()):
        shown = [point for point in points if math.isfinite(point[2])]
        if len({step for step, _, _ in shown}) > 1 and not name.startswith(("system/", "time/")):
            yield name, shown


def _panel(axes: Any, metric: str, series: Mapping[str, _Points], documents: Documents) -> None:
    others = iter(_OTHERS * 3)
    for part, points in series.items():
        colour = _TRAIN if part in _TRAIN_NAMES or not part else _VAL if part in ("val", "valid") else next(others)
        _line(axes, part or metric, points, colour)
    _mark(axes, series, documents)
    axes.set_title(_legible(metric, 28), fontsize=12, loc="left", fontweight="bold", color=_INK)
    axes.set_xlabel("step (updates of the weights)", fontsize=10, color=_FAINT)
    axes.grid(True, color="#000000", alpha=0.09, linewidth=0.7)
    if _spread(series) > 200:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
    axes.legend(facecolor="white", framealpha=0.85, edgecolor="none", fontsize=10, labelcolor=_INK)
    _quiet(axes)


def _line(axes: Any, name: str, points: _Points, colour: str) -> None:
    import numpy as np

    from relume.recorded.plotting import smoothed

    steps = np.array([step for step, _, _ in points])
    values = np.array([value for _, _, value in points])
    label = _legible(name, 24)
    label = f" {label}" if label.startswith("_") else label  # matplotlib would hide it
    if len(points) <= _MANY_POINTS:
        axes.plot(
            steps,
            values,
            color=colour,
            linewidth=2,
            marker="o" if len(points) <= 40 else None,
            markersize=4.5,
            label=label,
        )
        return
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
    forth, back = smoothed(values, 0.9), smoothed(values[::-1], 0.9)[::-1]  # one alone lags behind
    axes.plot(steps, (forth + back) / 2, color=colour, linewidth=2, label=f"{label} (smoothed)")


def _mark(axes: Any, series: Mapping[str, _Points], documents: Documents) -> None:
    """The packed checkpoint: a line, and a ring around the value that it had."""
    step = documents.run.step
    if step is None or not any(points[0][0] <= step <= points[-1][0] for points in series.values()):
        return
    axes.axvline(step, color=_INK, linestyle=(0, (4, 3)), linewidth=1.1, label="packed")
    for part, points in series.items():
        at = [value for where, _, value in points if where == step]
        if at and part not in _TRAIN_NAMES:
            axes.plot(
                [step], [at[-1]], marker="o", markersize=10, markerfacecolor="none", markeredgecolor=_INK, zorder=5
            )


def _spread(series: Mapping[str, _Points]) -> float:
    """How often the smallest value goes into the largest; 1 where a logarithm makes no sense."""
    values = [value for points in series.values() for _, _, value in points]
    return max(values) / min(values) if min(values) > 0 else 1.0


def _curves_in_words(panels: Mapping[str, Mapping[str, _Points]], documents: Documents) -> str:
    said = []
    for metric, series in panels.items():
        parts = (
            f"{printable(part or 'it', 20)} from {points[0][2]:.4g} to {points[-1][2]:.4g}"
            for part, points in series.items()
        )
        said.append(f"{printable(metric, 40)}: {', '.join(parts)}")
    packed = "" if documents.run.step is None else f" The packed checkpoint is that of step {documents.run.step:,}."
    return f"Curves of the training. {'; '.join(said)}.{packed}"


# -------------------------------------------------------------------------------------------------------- confusion matrix


def _confusion(documents: Documents) -> Drawn | None:
    report = documents.report
    if report is None or not 2 <= len(report.classes) <= _MOST_CLASSES or not report.samples:
        return None
    count = len(report.classes)
    side = _WIDTH_INCHES if count > 5 else 6.0
    with _figure(side, side * 0.92) as figure:
        _matrix(figure, figure.subplots(), report)
        png = _png(figure, bbox_inches="tight", pad_inches=0.1)
    words = f"Confusion matrix of {counted(count, 'class', 'classes')} on {counted(report.samples, 'example')}"
    pairs = (
        f"{printable(one, 40)} taken for {printable(other, 40)} {times:,} times"
        for one, other, times in report.confused(3)
    )
    mistakes = "; ".join(pairs)
    return Drawn(
        f"{PICTURES_FOLDER}confusion.png", png, f"{words}. {f'Most often: {mistakes}.' if mistakes else 'No mistakes.'}"
    )


def _matrix(figure: Any, axes: Any, report: ClassReport) -> None:
    import numpy as np
    from matplotlib.colors import PowerNorm

    counts = np.array(report.confusion, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    # the root of a share: a few mistakes among thousands would else be white
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    if len(counts) <= _WITH_COUNTS:
        _numbers(axes, counts, shares)
        axes.set_xticks(np.arange(len(counts)) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(counts)) - 0.5, minor=True)
        axes.grid(which="minor", color="#ffffff", linewidth=1.5)
    every = math.ceil(len(counts) / _MOST_LABELS)
    places = list(range(0, len(counts), every))
    names = [_class_name(report, place) for place in places]
    letters = 10.5 if len(places) <= 14 else 8.5
    longest = max(map(len, names))
    turned = 90 if len(places) > 14 or longest > 14 else 45 if longest * len(places) > 40 else 0
    aligned = {"ha": "right", "rotation_mode": "anchor"} if turned == 45 else {}
    axes.set_xticks(places, names, fontsize=letters, rotation=turned, **aligned)
    axes.set_yticks(places, names, fontsize=letters)
    axes.set_xlabel("taken for", fontsize=11, color=_FAINT)
    axes.set_ylabel("is", fontsize=11, color=_FAINT)
    few = "" if every == 1 else f", one class in {every} named"
    title = f"{counted(report.samples, 'example')}, {report.accuracy:.2%} right{few}"
    axes.set_title(title, fontsize=12, loc="left", fontweight="bold", color=_INK)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 0.01, 0.1, 0.3, 0.6, 1])
    bar.ax.set_yticklabels(["0", "1%", "10%", "30%", "60%", "100%"], fontsize=9, color=_FAINT)
    bar.set_label("share of the row's class", fontsize=10, color=_FAINT)
    bar.outline.set_visible(False)
    _quiet(axes)
    axes.tick_params(which="both", length=0)


def _class_name(report: ClassReport, place: int) -> str:
    """Its number stands for a name in letters that the font does not have."""
    shown = _legible(report.classes[place], _NAME)
    return shown if "\u25a1" not in shown else f"class {place}"


def _numbers(axes: Any, counts: Any, shares: Any) -> None:
    largest = int(counts.max())
    letters = 11 if len(counts) <= 12 and largest < 10_000 else 8 if largest < 10_000 else 6.5
    for (row, column), count in sorted((place, int(counts[place])) for place in zip(*counts.nonzero(), strict=True)):
        ink = "#ffffff" if shares[row, column] > 0.35 else _INK
        shown = f"{count}" if count < 100_000 else f"{count / 1000:.0f}k"
        axes.text(column, row, shown, ha="center", va="center", fontsize=letters, color=ink)


# ---------------------------------------------------------------------------------------------------------------- examples


def _examples(documents: Documents) -> Drawn | None:
    found = [one for one in predictions(documents) if one.raw in documents.raw][:_MOST_EXAMPLES]
    if not found:
        return None
    _needed("PIL")
    tiles = [(image, one) for one in found if (image := _image(documents.raw[one.raw])) is not None]
    if not tiles:
        return None
    from relume.monitor.kinds.pixels import png
    from relume.monitor.kinds.predictions import Guess, sheet

    known = [one for _, one in tiles if one.is_right is not None]
    right = sum(one.is_right is True for one in known)
    headline = f"{right} of {counted(len(known), 'example')} right" if known else counted(len(tiles), "example")
    guesses = [Guess(n, one.true, one.predicted, one.is_right, None, one.share) for n, (_, one) in enumerate(tiles)]
    picture = sheet(
        [(image, guess) for (image, _), guess in zip(tiles, guesses, strict=True)], headline, min(4, len(tiles))
    )
    words = "; ".join(_in_words(one) for _, one in tiles[:8])
    return Drawn(f"{PICTURES_FOLDER}examples.png", png(picture), f"Examples: {words}.")


def _in_words(one: Prediction) -> str:
    true, predicted = printable(one.true, 40), printable(one.predicted, 40)
    if not predicted:
        return true or "an example"
    return f"{true} taken for {predicted}" if true else f"taken for {predicted}"


def _image(content: bytes) -> Any:
    """A PNG as a picture of Pillow; None where it is none, or larger than a card needs."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content), formats=["PNG"])
        if image.width * image.height > _MOST_PIXELS:
            return None
        image.load()
        return image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


# ----------------------------------------------------------------------------------------------------------- how it is drawn


@contextmanager
def _figure(width: float, height: float) -> Iterator[Any]:
    """An empty figure, under matplotlib's own defaults; the user's settings are as they were afterwards."""
    _needed("matplotlib")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    with matplotlib.rc_context({**defaults, "text.parse_math": False, "axes.unicode_minus": True}):
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        yield figure


def _png(figure: Any, **how: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor="white", metadata={"Software": None}, **how)
    return out.getvalue()


def _quiet(axes: Any) -> None:
    axes.spines[:].set_visible(False)
    axes.spines[["left", "bottom"]].set_visible(True)
    axes.spines[["left", "bottom"]].set_color("#b5bcc2")
    axes.tick_params(length=3, color="#b5bcc2", labelcolor=_INK)


def _legible(name: str, limit: int) -> str:
    """A name in letters that the font has; a box stands for each other one."""
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    known = font.get_charmap()
    return "".join(letter if ord(letter) in known else "\u25a1" for letter in printable(name, limit))


def _needed(package: str) -> None:
    try:
        __import__(package)
    except ImportError:
        name = {"PIL": "Pillow"}.get(package, package)
        raise MissingPackageError(f'pictures need {name}: pip install "relume[share]"') from None
