"""Boxes and masks: read from what was given, and drawn on a picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from relume.errors import ConfigurationError
from relume.monitor.kinds import canvas
from relume.monitor.kinds.arrays import Array, Snapshot, is_tensor, snapshot
from relume.monitor.kinds.pixels import pillow

_MOST_CLASSES = 65535
_ALPHA = 0.42

Names = Mapping[int, str]


def names_of(classes: Any) -> Names:
    """Names of classes by their number, from a list or a mapping.

    Raises:
        ConfigurationError: it is neither.
    """
    if classes is None:
        return {}
    if isinstance(classes, Mapping):
        return {int(key): str(name) for key, name in classes.items()}
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        return {number: str(name) for number, name in enumerate(classes)}
    raise ConfigurationError(f"Image: classes must be a list of names or a mapping, not {classes!r:.60}.")


class Boxes:
    """Boxes as they were given; read when they have arrived from their device."""

    def __init__(self, given: Any, names: Names) -> None:
        if isinstance(given, (list, tuple)) and any(isinstance(one, Mapping) for one in given):
            given = _from_rows([one if isinstance(one, Mapping) else {"box": one} for one in given])
        if not isinstance(given, Mapping):
            given = {"boxes": given}
        if "boxes" not in given:
            raise ConfigurationError(f"Image: boxes has the keys {sorted(map(str, given))}, and no 'boxes'.")
        self._boxes = snapshot(given["boxes"], "Image: boxes")
        if self._boxes.shape != (len(self), 4) and self._boxes.size:
            raise ConfigurationError(f"Image: boxes must have the shape (N, 4), not {self._boxes.shape}.")
        self._names = names
        self._labels, self._scores = (
            self._column(given.get("labels"), "labels"),
            self._column(given.get("scores"), "scores"),
        )
        if self._boxes.is_ready():
            _check(self._boxes.read())

    def __len__(self) -> int:
        return self._boxes.shape[0]

    def _column(self, given: Any, what: str) -> Any:
        if given is None:
            return [None] * len(self)
        is_plain = isinstance(given, (list, tuple)) and any(one is None or isinstance(one, str) for one in given)
        column = list(given) if is_plain else snapshot(given, f"Image: {what}")
        count = len(column) if isinstance(column, list) else column.size
        if count != len(self):
            raise ConfigurationError(f"Image: there are {len(self)} boxes and {count} {what}.")
        return column

    def read(self) -> list[dict[str, Any]]:
        """One mapping a box: ``box`` (x0, y0, x1, y1 in pixels), and ``label`` and ``score`` where there are any."""
        values = self._boxes.read().astype(np.float64).reshape(-1, 4)
        _check(values)
        labels, scores = (
            c if isinstance(c, list) else c.read().reshape(-1).tolist() for c in (self._labels, self._scores)
        )
        found = []
        for box, label, score in zip(values.tolist(), labels, scores, strict=True):
            one: dict[str, Any] = {"box": box}
            if label is not None:
                one["label"] = label if isinstance(label, str) else self._names.get(int(label), str(int(label)))
            if score is not None:
                one["score"] = float(score)
            found.append(one)
        return found


def _from_rows(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    for row in rows:
        unknown = set(row) - {"box", "label", "score"}
        if unknown or "box" not in row:
            raise ConfigurationError(
                f"Image: a box has the keys {sorted(map(str, row))}: give 'box', 'label' and 'score'."
            )
    return {
        "boxes": [_numbers(row["box"]) for row in rows],
        "labels": [row.get("label") for row in rows] if any("label" in row for row in rows) else None,
        "scores": [row.get("score") for row in rows] if any("score" in row for row in rows) else None,
    }


def _numbers(box: Any) -> Any:
    return box.tolist() if is_tensor(box) or isinstance(box, np.ndarray) else box


def _check(boxes: Array) -> None:
    if not boxes.size:
        return
    wrong = ~np.isfinite(boxes).all(1) | (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    for number in np.flatnonzero(wrong)[:1]:
        raise ConfigurationError(
            f"Image: box {number} is {[round(float(v), 3) for v in boxes[number]]}. Give x0, y0, x1, y1 in pixels, with "
            "x0 <= x1 and y0 <= y1."
        )


@dataclass
class Mask:
    """A map of class numbers; 0 is the ground."""

    name: str
    given: Snapshot
    names: Names

    def read(self) -> Array:
        """Shape (H, W), uint8 or uint16."""
        values = self.given.read()
        values = values.reshape(values.shape[-2:])
        if values.dtype.kind == "f":
            values = values > 0.5
        if values.size and not 0 <= int(values.min()) <= int(values.max()) <= _MOST_CLASSES:
            raise ConfigurationError(f"Image: mask {self.name!r} has numbers outside of 0 to {_MOST_CLASSES}.")
        return values.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16)


def masks_of(given: Any, names: Names, size: tuple[int, int]) -> list[Mask]:
    """The masks of an image of ``size`` (height, width).

    Raises:
        ConfigurationError: one does not have that shape.
    """
    found = []
    for name, value in _named_masks(given, names):
        shot = snapshot(value, f"Image: mask {name!r}")
        shape = shot.shape[1:] if len(shot.shape) == 3 and shot.shape[0] == 1 else shot.shape
        if shape != size:
            raise ConfigurationError(
                f"Image: mask {name!r} has the shape {shot.shape}, and the image {size}. Give one of height x width."
            )
        is_one = shot.dtype == "bool" or not shot.is_whole
        found.append(Mask(name, shot, {1: name} if is_one else names))
    return found


def _named_masks(given: Any, names: Names) -> Iterator[tuple[str, Any]]:
    if isinstance(given, Mapping):
        yield from ((str(name), value) for name, value in given.items())
        return
    if isinstance(given, (list, tuple)) and given and (is_tensor(given[0]) or isinstance(given[0], np.ndarray)):
        yield from ((names.get(number, str(number)), value) for number, value in enumerate(given))
        return
    whole = snapshot(given, "Image: masks")
    if len(whole.shape) <= 2 or whole.shape[0] == 1:
        yield "mask", given
    else:
        yield from ((names.get(number, str(number)), given[number]) for number in range(whole.shape[0]))


def draw(image: Any, boxes: Sequence[Mapping[str, Any]], masks: Sequence[tuple[Mask, Array]], scale: int) -> Any:
    """``image`` (RGB, enlarged by ``scale``) with masks, boxes and their names; returns another one."""
    from PIL import ImageDraw

    numbers = itertools.count()
    tags: list[tuple[canvas.Box, str, str]] = []
    for mask, values in masks:
        for label in [int(n) for n in np.unique(values) if n]:
            shade = canvas.colour(next(numbers))
            image = _shaded(image, (values == label).repeat(scale, 0).repeat(scale, 1), shade)
            tags.append((_middle(values == label, scale), mask.names.get(label, str(label)), shade))
    side = max(image.size)
    thick, letters = max(3, round(side / 180)), canvas.font(max(14, round(side / 32)))
    pen = ImageDraw.Draw(image)
    shades: dict[str, str] = {}
    for one in boxes:
        text = str(one.get("label", ""))
        shade = shades.setdefault(text, "") or canvas.colour(next(numbers))
        shades[text] = shade
        corners = _clipped([v * scale for v in one["box"]], image.size)
        _frame(pen, corners, thick, shade)
        if "score" in one:
            text = f"{text} {one['score']:.0%}" if 0 <= one["score"] <= 1 else f"{text} {one['score']:.3g}"
        if text:
            tags.append((corners, text.strip(), shade))
    taken: list[canvas.Box] = []
    for corners, text, shade in tags:
        line = canvas.fitted(text, letters, image.width - 8)
        place = _place(_around(corners, line, letters), line, letters, taken, image.size)
        taken.append(canvas.tag_box(place, line, letters))
        canvas.tag(pen, place, line, letters, shade)
    return image


def _shaded(image: Any, where: Array, shade: str) -> Any:
    """A transparent colour inside, an opaque line at its border."""
    pixels = np.asarray(image).astype(np.float32)
    rgb = np.array([int(shade[at : at + 2], 16) for at in (1, 3, 5)], np.float32)
    inner = where.copy()
    reach = max(1, round(max(where.shape) / 250))
    for _ in range(reach):
        smaller = inner.copy()
        smaller[1:] &= inner[:-1]
        smaller[:-1] &= inner[1:]
        smaller[:, 1:] &= inner[:, :-1]
        smaller[:, :-1] &= inner[:, 1:]
        inner = smaller
    pixels[inner] = pixels[inner] * (1 - _ALPHA) + rgb * _ALPHA
    pixels[where & ~inner] = rgb
    return pillow().fromarray(pixels.round().astype(np.uint8))


def _middle(where: Array, scale: int) -> canvas.Box:
    """A point of the mask, near its middle."""
    rows, columns = np.nonzero(where)
    nearest = int(((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2).argmin())
    x, y = float(columns[nearest] * scale), float(rows[nearest] * scale)
    return (x, y, x, y)


def _clipped(box: Sequence[float], size: tuple[int, int]) -> canvas.Box:
    limits = (size[0] - 1, size[1] - 1) * 2
    x0, y0, x1, y1 = (min(max(round(value), 0), limit) for value, limit in zip(box, limits, strict=True))
    return (x0, y0, x1, y1)


def _frame(pen: Any, corners: canvas.Box, thick: int, shade: str) -> None:
    """A coloured line with a dark one around it, to be seen on any ground."""
    x0, y0, x1, y1 = corners
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline="#000000", width=thick + 2)
    pen.rectangle(corners, outline=shade, width=thick)


def _around(corners: canvas.Box, text: str, letters: Any) -> canvas.Box:
    """A point becomes the box whose name, in its upper left corner, stands in the middle of the point."""
    if corners[:2] != corners[2:]:
        return corners
    x0, y0, x1, y1 = canvas.tag_box((0, 0), text, letters)
    left, top = corners[0] - (x1 - x0) / 2, corners[1] + (y1 - y0) / 2
    return (left, top, left, top)


def _place(
    box: canvas.Box, text: str, letters: Any, taken: Sequence[canvas.Box], size: tuple[int, int]
) -> tuple[float, float]:
    """Above the box, or in it, or below it: where nothing stands yet."""
    x0, y0, x1, y1 = canvas.tag_box((0, 0), text, letters)
    wide, high = x1 - x0, y1 - y0
    most_x, most_y = max(0, size[0] - wide - 1), max(0, size[1] - high - 1)
    wanted = [
        (box[0], box[1] - high - 1),
        (box[0], box[1]),
        (box[0], box[3] + 1),
        (box[2] - wide, box[1]),
        (box[0], box[3] - high),
    ]
    wanted += [(box[0], box[1] + step * (high + 1)) for step in range(1, 6)]
    places = [(min(max(x, 0), most_x), min(max(y, 0), most_y)) for x, y in wanted]
    for place, (_, y) in zip(places, wanted, strict=True):
        is_free = not any(canvas.overlaps(canvas.tag_box(place, text, letters), other) for other in taken)
        if is_free and 0 <= y <= most_y:
            return place
    return places[1]
