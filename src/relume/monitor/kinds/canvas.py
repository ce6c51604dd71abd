"""Letters, colours and marks on a picture, such that they can be read on any ground."""

from __future__ import annotations

import functools
import importlib.util
import math
from pathlib import Path
from typing import Any

from relume.text import printable

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#0072B2", "#D55E00", "#FFFFFF")
"""Of Okabe and Ito: told apart by people who do not see all colours."""

INK, PAPER, FAINT = "#1b1f24", "#ffffff", "#667079"
RIGHT, WRONG = "#00805c", "#c8480b"
_TAG_PADDING = 3

Box = tuple[float, float, float, float]


def colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


@functools.lru_cache(maxsize=32)
def font(size: int, *, bold: bool = False) -> Any:
    """Letters of this height in pixels: those that come with matplotlib know more alphabets than those of Pillow."""
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        path = Path(place, "mpl-data", "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def width_of(text: str, letters: Any) -> float:
    return float(letters.getlength(text))


def fitted(text: object, letters: Any, width: float) -> str:
    """One line that is no wider than ``width`` pixels; its middle is left out where it is too long."""
    line = printable(text, 200)
    if width_of(line, letters) <= width:
        return line
    low, high = 1, len(line)
    while low < high:  # the most letters that fit
        middle = (low + high + 1) // 2
        low, high = (middle, high) if width_of(printable(line, middle), letters) <= width else (low, middle - 1)
    return printable(line, low)


def tag(draw: Any, place: tuple[float, float], text: str, letters: Any, ground: str) -> None:
    """Text on a small ground of its own; ``place`` is its upper left corner."""
    box = tag_box(place, text, letters)
    draw.rectangle(box, fill=ground)
    draw.text((place[0] + _TAG_PADDING, place[1] + _TAG_PADDING), text, font=letters, fill=ink_on(ground), anchor="la")


def tag_box(place: tuple[float, float], text: str, letters: Any) -> Box:
    """What `tag` covers."""
    ascent, descent = letters.getmetrics()
    return (
        place[0],
        place[1],
        place[0] + width_of(text, letters) + 2 * _TAG_PADDING,
        place[1] + ascent + descent + 2 * _TAG_PADDING - 1,
    )


def ink_on(ground: str) -> str:
    red, green, blue = (int(ground[at : at + 2], 16) for at in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else "#ffffff"


def overlaps(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def tick(draw: Any, place: tuple[float, float], size: float, fill: str) -> None:
    """A mark for what is right; its place is the upper left corner."""
    x, y = place
    points = [(x, y + 0.55 * size), (x + 0.36 * size, y + 0.9 * size), (x + size, y + 0.12 * size)]
    draw.line(points, fill=fill, width=max(2, round(size / 5)), joint="curve")


def cross(draw: Any, place: tuple[float, float], size: float, fill: str) -> None:
    """A mark for what is wrong."""
    x, y = place
    thick = max(2, round(size / 5))
    for a, b in (((0.1, 0.1), (0.9, 0.9)), ((0.1, 0.9), (0.9, 0.1))):
        draw.line([(x + a[0] * size, y + a[1] * size), (x + b[0] * size, y + b[1] * size)], fill=fill, width=thick)


def columns_for(count: int) -> int:
    """Of a grid a little wider than high, with the fewest places left empty in its last row."""
    least = math.ceil(math.sqrt(count))
    return min(range(least, max(least + 1, round(least * 1.5) + 1)), key=lambda columns: (-count % columns, columns))


def enlarged(image: Any, side: int) -> tuple[Any, int]:
    """``image``, its pixels repeated until its longer side has at least ``side``; and how often."""
    scale = max(1, -(-side // max(image.size)))
    return (image if scale == 1 else image.resize((image.width * scale, image.height * scale), 0)), scale
