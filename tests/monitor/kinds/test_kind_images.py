"""Images: what is taken, what is refused, and what stands in the picture afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from relume.errors import ConfigurationError
from relume.monitor.kinds import Image, read
from relume.monitor.kinds.canvas import columns_for


def shown(tmp_path: Path, image: Image) -> np.ndarray:
    return np.asarray(read(tmp_path, image.content(tmp_path)))


@pytest.mark.parametrize(
    "values",
    [
        np.full((4, 6), 0.5),
        np.full((4, 6, 1), 128, np.uint8),
        torch.full((1, 4, 6), 0.5),
        torch.full((4, 6), 0.5, dtype=torch.bfloat16),
        torch.full((1, 4, 6), 128, dtype=torch.int64),
        Pillow.new("L", (6, 4), 128),
        [[0.5] * 6] * 4,
        torch.full((4, 6), 0.5, requires_grad=True),
    ],
)
def test_the_same_grey_comes_from_all_that_holds_it(tmp_path: Path, values: object) -> None:
    picture = shown(tmp_path, Image(values))
    assert picture.shape == (4, 6) and (picture == 128).all()


def test_channels_stand_first_in_tensors_and_last_in_arrays(tmp_path: Path) -> None:
    red = np.zeros((3, 5, 3), np.uint8)
    red[..., 0] = 200
    for given in (red, torch.from_numpy(red).permute(2, 0, 1), np.moveaxis(np.repeat(red, 2, 1), 2, 0)):
        picture = shown(tmp_path, Image(given))
        assert picture.shape[0] == 3 and (picture == [200, 0, 0]).all()
    both = shown(tmp_path, Image(red, layout="CHW"))  # 3 x 5 x 3 can be read in both ways
    assert both.shape == (5, 3, 3)


def test_values_beyond_0_to_1_are_stretched_and_the_content_says_so(tmp_path: Path) -> None:
    content = Image(np.array([[-2.0, 0.0, 2.0]])).content(tmp_path)
    assert content["stretched"] == [-2.0, 2.0]
    assert np.asarray(read(tmp_path, content)).tolist() == [[0, 128, 255]]
    assert "stretched" not in Image(np.array([[0.0, 255.0]])).content(tmp_path)
    assert shown(tmp_path, Image(np.full((2, 2), 3.5))).tolist() == [[127, 127], [127, 127]]


def test_nan_is_magenta_and_infinity_white_or_black(tmp_path: Path) -> None:
    picture = shown(tmp_path, Image(np.array([[0.5, np.nan, np.inf, -np.inf]])))
    assert picture[0].tolist() == [[128] * 3, [255, 0, 255], [255] * 3, [0] * 3]
    assert (shown(tmp_path, Image(np.full((2, 2), np.nan))) == [255, 0, 255]).all()


def test_transparency_and_16_bits_are_kept(tmp_path: Path) -> None:
    clear = Pillow.new("RGBA", (3, 2), (10, 20, 30, 40))
    assert shown(tmp_path, Image(clear)).tolist() == [[[10, 20, 30, 40]] * 3] * 2
    deep = Pillow.fromarray(np.full((2, 2), 65535, np.uint16))
    assert (shown(tmp_path, Image(deep)) == 255).all()
    assert (shown(tmp_path, Image(Pillow.new("1", (2, 2), 1))) == 255).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros(5), r"an array of shape \(5,\) is no image"),
        (np.zeros((2, 3, 4, 5, 6)), r"\(2, 3, 4, 5, 6\) is no image"),
        (np.zeros((7, 8, 9)), r"layout='NHW', if it is a batch of grey images"),
        (np.zeros((2, 8, 9, 5)), r"\(2, 8, 9, 5\) is no image"),
        (np.zeros((0, 4)), r"1 x 0 x 4 pixels cannot be shown"),
        (np.zeros((2, 2), complex), "is no array of real numbers"),
        (torch.zeros(2, 2, dtype=torch.complex64), "of torch.complex64 cannot be shown"),
        (torch.zeros(2, 2, device="meta"), "without values cannot be shown"),
        (np.array([["a", "b"]]), "is no array of real numbers"),
        ("photo.png", "is no array of real numbers"),
        (None, "is no array of real numbers"),
        ([[1, 2], [3]], "is no array of numbers"),
        (np.zeros((2, 2), "datetime64[s]"), "is no array of real numbers"),
        (np.broadcast_to(np.uint8(0), (20_000, 20_000)), "Give between 1 and 178,956,970 pixels"),
    ],
)
def test_what_is_no_image_is_refused_with_its_shape_or_type(given: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Image.*{message}"):
        Image(given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "WH"}, "layout must be one of HW"),
        ({"layout": "NCHW"}, "is none of layout 'NCHW'"),
        ({"columns": 0}, "columns must be a whole number"),
        ({"captions": ["a"]}, "1 captions for 1 images of a grid"),
        ({"boxes": [[1, 2, 3]]}, r"boxes must have the shape \(N, 4\)"),
        ({"boxes": [[5, 5, 1, 1]]}, "box 0 is .* Give x0, y0, x1, y1"),
        ({"boxes": [[0, 0, float("nan"), 1]]}, "box 0 is"),
        ({"boxes": {"bbox": []}}, "and no 'boxes'"),
        ({"boxes": [{"box": (0, 0, 1, 1), "score_": 1}]}, "a box has the keys"),
        ({"boxes": {"boxes": [[0, 0, 1, 1]], "labels": [1, 2]}}, "1 boxes and 2 labels"),
        ({"masks": np.zeros((3, 3), bool)}, r"mask 'mask' has the shape \(3, 3\), and the image \(8, 9\)"),
        ({"classes": "cat"}, "classes must be a list of names"),
    ],
)
def test_what_does_not_fit_an_image_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Image(np.zeros((8, 9)), **arguments)


def test_a_copy_is_taken_in_the_call(tmp_path: Path) -> None:
    array, tensor, picture = np.zeros((2, 2)), torch.zeros(2, 2), Pillow.new("L", (2, 2))
    images = [Image(array), Image(tensor), Image(picture)]
    array[:], tensor[:] = 1.0, 1.0
    picture.putpixel((0, 0), 255)
    assert all((shown(tmp_path, image) == 0).all() for image in images)


def test_a_grid_holds_all_images_apart_from_each_other(tmp_path: Path) -> None:
    batch = torch.linspace(0.1, 0.9, 6)[:, None, None, None].expand(6, 1, 5, 7)
    picture = shown(tmp_path, Image(batch, columns=3))
    assert picture.shape == (4 + 2 * (5 + 4), 4 + 3 * (7 + 4))
    assert sorted(set(picture.ravel())) == [26, 66, 107, 148, 189, 230, 255]
    mixed = shown(tmp_path, Image([Pillow.new("RGB", (3, 9), "red"), np.zeros((4, 4)), Image(torch.ones(1, 2, 2))]))
    assert mixed.ndim == 3
    assert [columns_for(count) for count in (1, 2, 5, 9, 12, 16)] == [1, 2, 3, 3, 4, 4]
    with pytest.raises(ConfigurationError, match="a list of images holds a batch"):
        Image([torch.zeros(4, 1, 8, 8)])


def test_captions_are_drawn_below_the_images_of_a_grid(tmp_path: Path) -> None:
    plain = shown(tmp_path, Image(np.zeros((2, 4, 4, 1)), captions=["", ""]))
    named = shown(tmp_path, Image(np.zeros((2, 4, 4, 1)), captions=["a cat", "\x1b[31m逃げる" * 30]))
    assert plain.shape == named.shape and (plain != named).sum() > 50


def test_boxes_are_drawn_and_kept_as_they_were_given(tmp_path: Path) -> None:
    ground = np.full((40, 60, 3), 255, np.uint8)
    found = {
        "boxes": torch.tensor([[10.0, 8.0, 30.0, 20.5]]),
        "labels": torch.tensor([1]),
        "scores": torch.tensor([0.75]),
    }
    content = Image(ground, boxes=found, classes=["ground", "cat"]).content(tmp_path)
    assert content["boxes"] == [{"box": [10.0, 8.0, 30.0, 20.5], "label": "cat", "score": 0.75}]
    picture, scale = np.asarray(read(tmp_path, content)), content["scale"]
    assert picture.shape == (40 * scale, 60 * scale, 3) and scale == 8
    inside = picture[14 * scale, 20 * scale]
    border = picture[14 * scale, 10 * scale + 1]
    assert inside.tolist() == [255] * 3 and border.tolist() == [0xE6, 0x9F, 0x00]
    plain = np.asarray(read(tmp_path, {"kind": "image", "file": content["plain"]}))
    assert (plain == ground).all()


def test_boxes_beyond_the_image_and_none_at_all_are_fine(tmp_path: Path) -> None:
    far = Image(np.zeros((20, 20)), boxes=[(-50, -50, 500, 500), {"box": (100, 100, 200, 200), "label": "x" * 500}])
    assert len(far.content(tmp_path)["boxes"]) == 2
    none = Image(
        np.zeros((20, 20)), boxes={"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    )
    assert none.content(tmp_path)["boxes"] == []


def test_masks_are_drawn_with_their_names_and_kept_as_numbers(tmp_path: Path) -> None:
    numbers = np.zeros((30, 30), np.int64)
    numbers[5:15, 5:15] = 2
    content = Image(np.full((30, 30, 3), 255, np.uint8), masks=numbers, classes={2: "road"}).content(tmp_path)
    (mask,) = content["masks"]
    assert mask["classes"] == {"2": "road"}
    kept = np.asarray(read(tmp_path, {"kind": "image", "file": mask["file"]}))
    assert (kept == numbers).all()
    picture, scale = np.asarray(read(tmp_path, content)), content["scale"]
    assert (picture[2 * scale, 25 * scale] == 255).all() and (picture[14 * scale, 14 * scale] != 255).any()


def test_masks_are_taken_by_name_as_a_stack_and_with_many_classes(tmp_path: Path) -> None:
    stack = torch.zeros(2, 1, 10, 12)
    stack[1, 0, 3:6, 3:6] = 0.9
    content = Image(np.zeros((10, 12)), masks=stack, classes=["cat", "dog"]).content(tmp_path)
    assert [mask["name"] for mask in content["masks"]] == ["cat", "dog"]
    named = Image(np.zeros((10, 12)), masks={"sky": np.ones((10, 12), bool)}).content(tmp_path)
    assert named["masks"][0]["classes"] == {"1": "sky"}
    many = Image(np.zeros((2, 2)), masks=np.array([[0, 700], [1, 65535]])).content(tmp_path)
    kept = read(tmp_path, {"kind": "image", "file": many["masks"][0]["file"]})
    assert np.asarray(kept).tolist() == [[0, 700], [1, 65535]]


def test_the_same_picture_is_stored_once(tmp_path: Path) -> None:
    contents = [Image(np.zeros((5, 5))).content(tmp_path) for _ in range(3)]
    assert len({content["file"] for content in contents}) == 1
    assert len([path for path in (tmp_path / "media").rglob("*") if path.is_file()]) == 1
