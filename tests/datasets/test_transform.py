from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from relume.datasets import ToTensor
from relume.datasets.transform import pillow
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
