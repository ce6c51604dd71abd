"""What a classifier took its samples for, the worst first: as a picture, as text and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relume.errors import ConfigurationError
from relume.monitor.kinds import canvas
from relume.monitor.kinds.arrays import Array
from relume.monitor.kinds.base import Content, Media
from relume.monitor.kinds.curves import chosen, labels, probabilities
from relume.monitor.kinds.files import keep
from relume.monitor.kinds.image import Image
from relume.monitor.kinds.pixels import Picture, is_several, pillow, png, rgb
from relume.monitor.kinds.table import Table
from relume.monitor.kinds.text import Text
from relume.text import counted, printable

_ROWS = 100
_MOST_DRAWN = 400
_LONGEST_NAME = 200
_TILE, _EDGE, _GAP = 152, 5, 10
_SAMPLE_WIDTH = 200
_FRAMES = {True: (canvas.RIGHT, 2), False: (canvas.WRONG, _EDGE), None: (canvas.FAINT, 1)}


@dataclass(frozen=True)
class Guess:
    """What one sample was taken for.

    Attributes:
        number: of the sample, in the order in which they were given.
        is_right: None where it is not known what the sample is, or what it was taken for.
        true_share, share: the probabilities of the true and of the predicted class; None where only classes are known.
    """

    number: int
    true: str
    predicted: str
    is_right: bool | None
    true_share: float | None
    share: float | None


class Predictions(Media):
    """Predicted against true classes: logged as a picture, as a text (``/text``) and as a table (``/table``).

    The worst come first: those whose true class was given the smallest probability; without probabilities the wrong ones, in
    their order. Wrong ones are marked with a cross and a thick frame, right ones with a tick.

    Args:
        samples: images, as for :class:`relume.Image`: a batch, or a list; or a list of texts, of which no picture is drawn.
        predicted: shape (N,), numbers of classes, or (N, K), logits or probabilities.
        true: shape (N,), numbers of classes, or (N, K), of which the largest counts; samples below 0 are left out.
        class_names: the names; the label is the position.
        count: how many are drawn, from 1 to 400.

    Raises:
        ConfigurationError: these do not belong together.
    """

    kind = "image"

    def __init__(
        self, samples: Any, predicted: Any, true: Any, class_names: Sequence[str] | None = None, *, count: int = 16
    ) -> None:
        self._predicted, self._true = labels(predicted, "predicted"), labels(true, "true")
        self._names = [str(name) for name in class_names] if class_names is not None else []
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST_DRAWN:
            raise ConfigurationError(f"log_predictions: count must be from 1 to {_MOST_DRAWN}, not {count!r}.")
        self._count = count
        is_text = isinstance(samples, (list, tuple)) and bool(samples) and all(isinstance(one, str) for one in samples)
        self._texts = list(samples) if is_text else None
        self._images = None if is_text else _images_of(samples)
        given = len(samples) if is_text else self._image_count()
        sizes = {"samples": given, "predicted": self._predicted.shape[0], "true": self._true.shape[0]}
        if len(set(sizes.values())) > 1 or not given:
            counts = ", ".join(f"{number} {name}" for name, number in sizes.items())
            raise ConfigurationError(f"log_predictions: {counts}. Give as many of each, and at least one.")
        classes = self._predicted.shape[1] if len(self._predicted.shape) == 2 else None
        if self._names and classes is not None and classes != len(self._names):
            raise ConfigurationError(
                f"log_predictions: scores of {classes} classes, and {len(self._names)} class_names."
            )
        if self._true.is_ready():
            self._check_classes(chosen(self._true.read()), classes)

    def _image_count(self) -> int:
        return len(self._images) if isinstance(self._images, list) else self._images.count if self._images else 0

    def _check_classes(self, true: Array, classes: int | None) -> None:
        known = classes if classes is not None else len(self._names) or None
        if known is not None and true.max(initial=0) >= known:
            raise ConfigurationError(f"log_predictions: a true class is {true.max()}, and there are {known} classes.")

    def describe(self, folder: Path) -> Content:
        return self.parts(folder)[""]

    def parts(self, folder: Path) -> dict[str, Content]:
        guesses = self._guesses()
        found = {}
        if self._images is not None:
            images = self._drawn_ones()
            drawn = guesses[: self._count]
            picture = sheet([(images[g.number], g) for g in drawn], _headline(guesses))
            size = {"width": picture.width, "height": picture.height}
            content = {"kind": "image", "file": keep(folder, png(picture), "png")}
            found[""] = content | size | {"caption": _headline(guesses), "predictions": _placed(drawn)}
        shown = guesses[:_ROWS]
        found["/text"] = Text(self._as_text(guesses, shown)).content(folder)
        found["/table"] = Table(*self._as_table(shown)).content(folder)
        return found

    def _guesses(self) -> list[Guess]:
        given, true = self._predicted.read(), chosen(self._true.read())
        self._check_classes(true, given.shape[1] if given.ndim == 2 else None)
        scores = None
        if given.ndim == 2 and not self._predicted.is_whole:
            scores = np.nan_to_num(probabilities(given), nan=0.0)
        predicted = chosen(given)
        known = np.flatnonzero(true >= 0)
        rank = (predicted == true)[known].astype(np.float64)
        if scores is not None:
            rank = scores[known, true[known]]
        guesses = []
        for number in known[np.argsort(rank, kind="stable")].tolist():
            is_right = bool(predicted[number] == true[number])
            shares = (
                (None, None) if scores is None else tuple(float(scores[number, c[number]]) for c in (true, predicted))
            )
            guesses.append(
                Guess(number, self._name(true[number]), self._name(predicted[number]), is_right, shares[0], shares[1])
            )
        return guesses

    def _name(self, label: int) -> str:
        return self._names[label] if 0 <= label < len(self._names) else str(label)

    def _drawn_ones(self) -> list[Any]:
        if isinstance(self._images, list):
            return [image.drawn()[0] for image in self._images]
        assert self._images is not None
        images: list[Any] = self._images.images()[0]
        return images

    def _as_text(self, guesses: Sequence[Guess], shown: Sequence[Guess]) -> str:
        """A table in markdown, which is legible as it stands too."""
        has_shares = any(guess.true_share is not None for guess in shown)
        head = ["", "sample", "true", "predicted", *(["p(true)", "p(predicted)"] if has_shares else [])]
        rows = []
        for guess in shown:
            what = f"{guess.number}" if self._texts is None else _cell(self._texts[guess.number], _SAMPLE_WIDTH)
            shares = [f"{share:.3f}" for share in (guess.true_share, guess.share) if share is not None]
            names = [_cell(guess.true), _cell(guess.predicted)]
            rows.append(["right" if guess.is_right else "WRONG", what, *names, *(shares if has_shares else [])])
        widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
        lines = [
            "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in (head, *rows)
        ]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        more = f"\n\n{len(guesses) - len(shown):,} more are not shown." if len(guesses) > len(shown) else ""
        return f"{_headline(guesses)}\n\n" + "\n".join([lines[0], rule, *lines[1:]]) + more

    def _as_table(self, shown: Sequence[Guess]) -> tuple[list[list[Any]], list[str]]:
        columns = ["sample", "true", "predicted", "right", "p(true)", "p(predicted)"]
        rows: list[list[Any]] = [[g.number, g.true, g.predicted, g.is_right, g.true_share, g.share] for g in shown]
        if self._texts is not None:
            columns.insert(1, "text")
            for row, guess in zip(rows, shown, strict=True):
                row.insert(1, self._texts[guess.number][:2000])
        return rows, columns


def _placed(guesses: Sequence[Guess]) -> list[dict[str, Any]]:
    """What each sample of a sheet was taken for, with the box (left, top, right, bottom) of its picture there."""
    columns, top = canvas.columns_for(len(guesses)), _top()
    found = []
    for number, guess in enumerate(guesses):
        left, upper = (at + _EDGE for at in _place(number, columns, top))
        found.append(
            {
                "box": [left, upper, left + _TILE, upper + _TILE],
                "sample": guess.number,
                "true": guess.true[:_LONGEST_NAME],
                "predicted": guess.predicted[:_LONGEST_NAME],
                "right": guess.is_right,
                "p_true": guess.true_share,
                "p_predicted": guess.share,
            }
        )
    return found


def _images_of(samples: Any) -> Any:
    """A batch, or a list of images."""
    if is_several(samples) or (isinstance(samples, (list, tuple)) and not samples):
        return [one if isinstance(one, Image) else Image(one) for one in samples]
    shape = tuple(getattr(samples, "shape", ()))
    layout = "NHW" if len(shape) == 3 else None
    picture = Picture(samples, layout)
    if not picture.is_batch:
        raise ConfigurationError(
            f"log_predictions: images of shape {shape} are no batch. Give (N, C, H, W), (N, H, W, C), (N, H, W) or a list."
        )
    return picture


def _headline(guesses: Sequence[Guess]) -> str:
    right = sum(guess.is_right is True for guess in guesses)
    order = (
        ""
        if not guesses
        else ", the least likely true class first"
        if guesses[0].true_share is not None
        else ", wrong first"
    )
    return f"{right:,} of {counted(len(guesses), 'sample')} right{order}"


def _cell(text: str, limit: int = 60) -> str:
    return printable(text, limit).replace("|", "\\|")


def sheet(tiles: Sequence[tuple[Any, Guess]], headline: str, columns: int | None = None) -> Any:
    """Samples with what they were taken for, as a picture of Pillow, with a line above them."""
    from PIL import ImageDraw

    letters, head = canvas.font(14), canvas.font(15, bold=True)
    columns = columns or canvas.columns_for(len(tiles))
    rows = -(-len(tiles) // columns)
    line, (wide, high) = _line(), _tile_size()
    top = _top()
    width = max(columns * (wide + _GAP) + _GAP, 3 * (wide + _GAP) + _GAP)
    drawn = pillow().new("RGB", (width, rows * (high + _GAP) + top), canvas.PAPER)
    pen = ImageDraw.Draw(drawn)
    pen.text((_GAP, _GAP), canvas.fitted(headline, head, width - 2 * _GAP), font=head, fill=canvas.INK, anchor="la")
    for number, (image, guess) in enumerate(tiles):
        _tile(drawn, pen, _place(number, columns, top), image, guess, letters, line)
    return drawn


def _line() -> int:
    return int(sum(canvas.font(14).getmetrics())) + 2


def _top() -> int:
    """Where the tiles of a sheet begin, below its headline."""
    return int(sum(canvas.font(15, bold=True).getmetrics())) + 2 * _GAP


def _tile_size() -> tuple[int, int]:
    return _TILE + 2 * _EDGE, _TILE + 2 * _EDGE + 2 * _line() + 6


def _place(number: int, columns: int, top: int) -> tuple[int, int]:
    """The left upper corner of a tile."""
    wide, high = _tile_size()
    return _GAP + number % columns * (wide + _GAP), top + number // columns * (high + _GAP)


def _tile(sheet: Any, pen: Any, place: tuple[int, int], image: Any, guess: Guess, letters: Any, line: int) -> None:
    """One sample: its picture in a frame, then what it was taken for, then, where that was wrong, what it is."""
    left, top = place
    shade, thick = _FRAMES[guess.is_right]
    side = _TILE + 2 * _EDGE
    picture = _fitted(rgb(image))
    pen.rectangle((left, top, left + side - 1, top + side - 1), fill="#eef0f2", outline=shade, width=thick)
    sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
    text_top = top + side + 4
    if guess.is_right is not None:
        mark = canvas.tick if guess.is_right else canvas.cross
        mark(pen, (left + 1, text_top + 2), 11, shade)
    share = "" if guess.share is None else f" {guess.share:.0%}"
    if guess.predicted:
        name = _named(guess.predicted, share, letters, side - 18)
        pen.text((left + 18, text_top), name, font=letters, fill=shade, anchor="la")
    if guess.true and not guess.is_right:
        share = "" if guess.true_share is None else f" {guess.true_share:.0%}"
        text = _named(guess.true, share, letters, side - 18 - canvas.width_of("is ", letters))
        pen.text((left + 18, text_top + line), f"is {text}", font=letters, fill=canvas.INK, anchor="la")


def _named(name: str, share: str, letters: Any, width: float) -> str:
    """The share is never cut off."""
    return canvas.fitted(name, letters, width - canvas.width_of(share, letters)) + share


def _fitted(image: Any) -> Any:
    """As large as the tile allows; small pictures keep their square pixels."""
    scale = _TILE / max(image.size)
    if scale >= 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, 0 if scale >= 2 else 1)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, 1)
