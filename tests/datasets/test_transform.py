from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from relume.datasets import Augmented, ToTensor
from relume.datasets.transform import _random_box, pillow
from relume.errors import ConfigurationError, MissingPackageError


def picture(width: int, height: int, mode: str) -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, shape, dtype=np.uint8))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(["L", "RGB"]), st.integers(1, 80))
def test_it_is_bit_equal_to_torchvisions(width: int, height: int, mode: str, size: int) -> None:
    image = picture(width, height, mode)
    resize = [transforms.Resize(size), transforms.CenterCrop(size)]
    assert torch.equal(ToTensor(size)(image), transforms.Compose([*resize, transforms.ToTensor()])(image))
    assert torch.equal(ToTensor()(image), transforms.ToTensor()(image))


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "CMYK"])
def test_other_modes_become_rgb(mode: str) -> None:
    tensor = ToTensor(8)(picture(12, 10, "RGB").convert(mode))
    assert tensor.shape == (3, 8, 8) and tensor.dtype == torch.float32 and tensor.is_contiguous()


def test_transforms_of_equal_size_are_equal() -> None:
    assert ToTensor(8) == ToTensor(8) != ToTensor()


def test_a_size_below_one_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="size=0: the side of an image is at least 1 pixel"):
        ToTensor(0)


def test_without_pillow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingPackageError, match=r'pip install "relume\[vision\]"'):
        pillow()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_normalising_is_bit_equal_to_torchvisions(width: int, height: int, size: int) -> None:
    image, mean, std = picture(width, height, "RGB"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    expected = transforms.Compose([*theirs, transforms.Normalize(mean, std)])(image)
    assert torch.equal(ToTensor(size, 3, mean, std)(image), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_number_of_channels_is_what_was_asked_for(mode: str, channels: int) -> None:
    assert ToTensor(8, channels)(picture(12, 10, "RGB").convert(mode)).shape == (channels, 8, 8)


def test_its_settings_survive_json() -> None:
    for one in (ToTensor(), ToTensor(32, 1), ToTensor(224, 3, (0.5, 0.4, 0.3), (0.2, 0.2, 1.0))):
        assert ToTensor.of_config(json.loads(json.dumps(one.as_config()))) == one


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": "big"}, "size and channels are whole numbers"),
        ({"channels": 4}, "channels=4: an image has 1"),
        ({"mean": [0.5]}, "give both, or neither"),
        ({"mean": [0.5], "std": [0.0]}, "std is above 0"),
        ({"mean": [0.5], "std": [1.0], "channels": 3}, "each has a number for each of the channels"),
        ({"mean": [float("nan")], "std": [1.0]}, "they are finite"),
        ({"mean": "0.5", "std": [1.0]}, "lists of numbers"),
        ({"colour": 1}, "said by size, channels, mean, std"),
        ("224", "said by size, channels, mean, std"),
    ],
)
def test_settings_that_make_no_sense(fields: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ToTensor.of_config(fields)


def test_augmentation_is_random_and_follows_torchs_seed() -> None:
    image, augmented = picture(60, 40, "RGB"), Augmented(ToTensor(16))
    torch.manual_seed(1)
    first, second = augmented(image), augmented(image)
    torch.manual_seed(1)
    assert torch.equal(augmented(image), first)
    assert not torch.equal(first, second) and first.shape == (3, 16, 16)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 10_000))
def test_a_random_part_lies_within_the_image_and_has_most_of_it(width: int, height: int, seed: int) -> None:
    torch.manual_seed(seed)
    left, top, right, bottom = _random_box(width, height)
    assert 0 <= left < right <= width + 1e-6 and 0 <= top < bottom <= height + 1e-6
    assert (right - left) * (bottom - top) >= 0.3 * width * height or max(width, height) > 1.2 * min(width, height)
