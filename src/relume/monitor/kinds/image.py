"""Images: single ones with boxes and masks, and grids of many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relume.errors import ConfigurationError
from relume.monitor.kinds import canvas, marks
from relume.monitor.kinds.base import Content, Media
from relume.monitor.kinds.files import keep
from relume.monitor.kinds.pixels import Picture, is_several, pillow, png, rgb

_MARKED_SIDE = 480  # an image with boxes or masks is enlarged to at least this
_CAPTIONED_SIDE = 112
_GAP = 4


class Image(Media):
    """An image, or a grid of several.

    Bytes are shown as they are, fractions from 0 to 1 from black to white, whole numbers as 0 to 255. Values beyond that are
    stretched from their smallest to their largest, and the content says so (``"stretched"``). NaN is magenta, infinity white
    or black.

    Args:
        data: an image of Pillow, or a tensor or array: (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels; where both
            could be meant, a tensor has its channels first and an array last. One dimension more, or a list of images, is
            a grid; the images of a list may have marks and sizes of their own.
        caption: what the image shows.
        boxes: shape (N, 4): x0, y0, x1, y1 in pixels; or ``{"boxes": ..., "labels": ..., "scores": ...}``, as torchvision's
            detectors give it; or a list of ``{"box": ..., "label": ..., "score": ...}``.
        masks: maps of class numbers of shape (H, W), of which 0 is the ground; or truth values of that shape, by name or
            as (N, H, W).
        classes: names of the numbers in ``boxes`` and ``masks``: a list, or a mapping.
        layout: which dimension is what, where the shape does not tell: one of HW, HWC, CHW, NHW, NHWC, NCHW.
        captions: one for each image of a grid, drawn below it.
        columns: of a grid.

    Raises:
        ConfigurationError: the shape or the type of something is wrong: says which, and what fits.
        MissingPackageError: Pillow is not installed.

    Example:
        >>> import tempfile, numpy
        >>> content = Image(numpy.zeros((8, 12)), caption="night").content(Path(tempfile.mkdtemp()))
        >>> content["width"], content["height"], content["caption"]
        (12, 8, 'night')
    """

    kind = "image"

    def __init__(
        self,
        data: Any,
        *,
        caption: str = "",
        title: str = "",
        boxes: Any = None,
        masks: Any = None,
        classes: Any = None,
        layout: str | None = None,
        captions: Sequence[str] | None = None,
        columns: int | None = None,
    ) -> None:
        pillow()
        self._caption, self._title = str(caption), str(title)
        several = is_several(data)
        self._tiles = [one if isinstance(one, Image) else Image(one, layout=layout) for one in data] if several else []
        self._picture = None if several else Picture(data, layout)
        self._is_grid = several or (self._picture is not None and self._picture.is_batch)
        self._columns = _checked(columns)
        self._captions = None if captions is None else [str(text) for text in captions]
        names = marks.names_of(classes)
        if self._is_grid and (boxes is not None or masks is not None):
            raise ConfigurationError(
                "Image: boxes and masks belong to one image. Give a list: [relume.Image(x, boxes=...), ...]."
            )
        if any(tile._is_grid for tile in self._tiles):
            raise ConfigurationError(
                "Image: a list of images holds a batch. Give images of height x width (x channels)."
            )
        count = len(self._tiles) or (self._picture.count if self._picture is not None else 1)
        if self._captions is not None and (not self._is_grid or len(self._captions) != count):
            raise ConfigurationError(f"Image: there are {len(self._captions)} captions for {count} images of a grid.")
        self._boxes = None if boxes is None else marks.Boxes(boxes, names)
        size = (self._picture.height, self._picture.width) if self._picture is not None else (0, 0)
        self._masks = [] if masks is None else marks.masks_of(masks, names, size)

    def drawn(self) -> tuple[Any, Content, list[tuple[marks.Mask, Any]]]:
        """The picture, what there is to say of it, and its masks."""
        if self._picture is None:
            tiles = [tile.drawn()[0] for tile in self._tiles]
            captions = self._captions or [tile._caption for tile in self._tiles]
            return grid(tiles, captions if any(captions) else None, self._columns), {}, []
        images, stretched = self._picture.images()
        notes: Content = {} if stretched is None else {"stretched": list(stretched)}
        if self._is_grid:
            return grid(images, self._captions, self._columns), notes, []
        if self._boxes is None and not self._masks:
            return images[0], notes, []
        boxes = self._boxes.read() if self._boxes is not None else []
        masks = [(mask, mask.read()) for mask in self._masks]
        picture, scale = canvas.enlarged(rgb(images[0]), _MARKED_SIDE)
        notes |= {"plain": images[0], "scale": scale}
        notes |= {"boxes": boxes} if self._boxes is not None else {}
        return marks.draw(picture.copy(), boxes, masks, scale), notes, masks

    def describe(self, folder: Path) -> Content:
        picture, notes, masks = self.drawn()
        if "plain" in notes:
            notes["plain"] = keep(folder, png(notes["plain"]), "png")
        if masks:
            notes["masks"] = [
                {
                    "name": mask.name,
                    "file": keep(folder, png(pillow().fromarray(values)), "png"),
                    "classes": {str(number): name for number, name in mask.names.items()},
                }
                for mask, values in masks
            ]
        if self._is_grid and self._captions is not None:
            notes["captions"] = self._captions
        texts = {"caption": self._caption, "title": self._title}
        content = {"file": keep(folder, png(picture), "png"), "width": picture.width, "height": picture.height}
        return content | {name: text for name, text in texts.items() if text} | notes


def _checked(columns: Any) -> int | None:
    if columns is not None and (isinstance(columns, bool) or not isinstance(columns, int) or columns < 1):
        raise ConfigurationError(f"Image: columns must be a whole number of at least 1, not {columns!r}.")
    return columns


def grid(images: Sequence[Any], captions: Sequence[str] | None = None, columns: int | None = None) -> Any:
    """Images side by side, each in the middle of its place, with a caption below it."""
    from PIL import ImageDraw

    side = _CAPTIONED_SIDE if captions is not None else 1
    tiles = [
        canvas.enlarged(rgb(image) if len({i.mode for i in images}) > 1 or captions else image, side)[0]
        for image in images
    ]
    wide, high = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    letters = canvas.font(max(12, round(wide / 16)))
    below = sum(letters.getmetrics()) + 4 if captions is not None else 0
    columns = min(columns or canvas.columns_for(len(tiles)), len(tiles))
    rows = -(-len(tiles) // columns)
    mode = "RGB" if captions is not None else tiles[0].mode
    whole = pillow().new(mode, (columns * (wide + _GAP) + _GAP, rows * (high + below + _GAP) + _GAP), _ground(mode))
    pen = ImageDraw.Draw(whole)
    for number, tile in enumerate(tiles):
        left, top = _GAP + number % columns * (wide + _GAP), _GAP + number // columns * (high + below + _GAP)
        whole.paste(tile, (left + (wide - tile.width) // 2, top + (high - tile.height) // 2))
        if captions is not None:
            line = canvas.fitted(captions[number], letters, wide)
            pen.text((left + wide / 2, top + high + 1), line, font=letters, fill=canvas.INK, anchor="ma")
    return whole


def _ground(mode: str) -> Any:
    return {"L": 255, "RGB": (255, 255, 255), "RGBA": (255, 255, 255, 255)}[mode]
