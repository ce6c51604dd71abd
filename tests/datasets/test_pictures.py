from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relume.datasets import images_below, read_image
from relume.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
SIDEWAYS = 6  # EXIF: turn it a quarter clockwise to see it upright


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_any_mode_of_image_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    found = read_image(path)
    assert (found.mode, found.size) == ("RGB", (14, 10))
    assert np.array_equal(np.array(found), np.array(image.convert("RGB")))


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS).convert("P")
    image.save(tmp_path / "image.png", transparency=bytes(range(256)))
    assert read_image(tmp_path / "image.png").mode == "RGB"


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 140).astype(np.uint16).reshape(10, 14)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert np.array_equal(np.array(read_image(tmp_path / "deep.png"))[:, :, 0], values >> 8)


def test_a_photograph_stands_upright(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[0x0112] = SIDEWAYS
    image.save(tmp_path / "phone.png", exif=exif)
    found = np.array(read_image(tmp_path / "phone.png"))
    assert np.array_equal(found, np.rot90(PIXELS, -1))


def test_a_very_large_image_is_read_without_a_warning(tmp_path: Path) -> None:
    Image.new("1", (10_000, 9_500)).save(tmp_path / "large.png")  # Pillow warns of 89 million pixels and more
    assert read_image(tmp_path / "large.png").size == (10_000, 9_500)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"text", "its format is not known"), (b"", "its format is not known"), (None, "Is a dir")]
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "image.png"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path} cannot be read as an image: .*{reason}.*Replace it or delete it"):
        read_image(path)


def test_an_image_that_was_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(PIXELS).resize((200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="image.jpg cannot be read as an image: image file is truncated"):
        read_image(path)


def test_images_below_a_folder_come_in_order_and_hidden_ones_do_not(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "a/x/3.webp", "b/.hidden.png", "b/notes.txt", "0.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [Path(path).relative_to(tmp_path).as_posix() for path in images_below(tmp_path)]
    assert names == ["0.bmp", "a/x/3.webp", "b/1.JPG", "b/2.png"]
