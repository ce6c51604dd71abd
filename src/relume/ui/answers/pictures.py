"""The pictures of a logged image or figure: under which names they are asked for, and their bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from relume.errors import RunError, UnknownNameError
from relume.monitor.kinds.files import kept
from relume.monitor.kinds.pixels import pillow
from relume.text import printable

LARGEST_BYTES = 128_000_000
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST = 400


def files_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The stored pictures of a content, by the names under which the page asks for them."""
    if content.get("kind") == "figure":
        return {"figure.png": content.get("file")}
    found = {"0.png": content.get("file")}
    if "plain" in content:
        found["plain.png"] = content["plain"]
    masks = content.get("masks")
    for number, mask in enumerate(masks[:_MOST] if isinstance(masks, list) else ()):
        if isinstance(mask, dict):
            found[f"mask-{number}.png"] = mask.get("file")
    return found


def boxes_of(content: Mapping[str, Any]) -> list[tuple[list[int], Mapping[str, Any]]]:
    """Of a sheet of predictions, where each sample's picture lies in it, and what was predicted; the worst first."""
    found = []
    held = content.get("predictions")
    for one in held[:_MOST] if isinstance(held, list) else ():
        box = one.get("box") if isinstance(one, dict) else None
        if isinstance(box, list) and len(box) == 4 and all(type(side) is int and 0 <= side < 100_000 for side in box):
            found.append((box, one))
    return found


def bytes_of(folder: Path, content: Mapping[str, Any], name: str) -> bytes:
    """A picture as PNG.

    Raises:
        UnknownNameError: the content has none of this name.
        RunError: it is gone, damaged, too large, or no PNG.
    """
    boxes = tuple(tuple(box) for box, _ in boxes_of(content))
    samples = [f"sample-{number}.png" for number in range(len(boxes))]
    if name in samples:
        return _cut_out(folder, str(content.get("file")), boxes)[samples.index(name)]
    files = files_of(content) if content.get("kind") in ("image", "figure") else {}
    if name not in files:
        raise UnknownNameError(f"there is no picture {printable(name)!r} here.")
    data = stored(folder, files[name])
    if not data.startswith(_PNG):
        raise RunError(f"{printable(files[name], 200)!r} is no PNG.")
    return data


def stored(folder: Path, name: object) -> bytes:
    """The bytes of a file of the run's media, and of nothing else.

    Raises:
        RunError: it is gone, damaged, a link to somewhere else, or larger than 128 MB.
    """
    path = folder / str(name)
    is_ours = isinstance(name, str) and name.startswith("media/") and name.count("/") == 2
    if is_ours and any(part.is_symlink() for part in (path, path.parent, path.parent.parent)):
        raise RunError(f"{printable(name, 200)!r} is a link, which is not followed.")
    try:
        if is_ours and path.stat().st_size > LARGEST_BYTES:
            raise RunError(f"{printable(name, 200)!r} is too large to be shown ({path.stat().st_size:,} bytes).")
    except (OSError, ValueError):
        pass  # it is told below
    return kept(folder, name)


@lru_cache(maxsize=4)
def _cut_out(folder: Path, name: str, boxes: tuple[tuple[int, ...], ...]) -> list[bytes]:
    """All samples of a sheet, which is decoded once for them: a page asks for one after the other."""
    data = stored(folder, name)
    try:
        sheet = pillow().open(io.BytesIO(data), formats=["PNG"])
        return [_encoded(sheet.crop(_within(box, sheet.size))) for box in boxes]
    except Exception as error:  # a decoder raises whatever comes to its mind
        raise RunError(f"the picture is damaged ({type(error).__name__}: {error!s:.200}).") from error


def _encoded(image: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, "PNG")
    return made.getvalue()


def _within(box: tuple[int, ...], size: tuple[int, int]) -> tuple[int, ...]:
    """Boxes come from a journal: one that is larger than the sheet would take memory for nothing."""
    return tuple(min(side, most) for side, most in zip(box, (*size, *size), strict=True))
