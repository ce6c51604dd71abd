"""What images a model expects, and the transform that makes them: the library's own, to the last bit."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relume
from relume.errors import ConfigurationError, DataError
from relume.transfer.inputs import InputSpec, expect_input, input_of

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")


def picture(width: int = 90, height: int = 61, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


SPEC = InputSpec((32, 32), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", 36)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "convnext_tiny", "efficientnet_b1"])
def test_torchvisions_images_are_its_own_to_the_last_bit(name: str) -> None:
    from relume.transfer.inputs import of_torchvision

    spec = of_torchvision(name)
    assert spec is not None
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    image = picture(300, 270)
    assert torch.equal(spec.transform()(image), preset(image))
    pixels = torchvision.transforms.functional.pil_to_tensor(image)
    assert torch.equal(spec.transform()(pixels), preset(pixels))


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "tf_efficientnet_lite0", "convnext_atto", "eva02_tiny_patch14_336"]
)
def test_timms_images_are_its_own_to_the_last_bit(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    config = timm.data.resolve_model_data_config(model)
    theirs = timm.data.create_transform(**config)
    spec = input_of(model)
    image = picture(400, 360)
    assert torch.equal(spec.transform()(image), theirs(image))
    assert spec.interpolation == config["interpolation"] and spec.size == config["input_size"][1:]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_images_of_every_mode_become_colours(mode: str) -> None:
    image = picture(mode=mode)
    assert torch.equal(SPEC.transform()(image), SPEC.transform()(image.convert("RGB")))


def test_grey_and_transparent_tensors_become_colours() -> None:
    grey = torch.randint(0, 256, (40, 50), dtype=torch.uint8)
    colours = SPEC.transform()(grey.expand(3, 40, 50))
    assert torch.equal(SPEC.transform()(grey), colours) and torch.equal(SPEC.transform()(grey[None]), colours)
    with_alpha = torch.cat([grey.expand(3, 40, 50), torch.zeros(1, 40, 50, dtype=torch.uint8)])
    assert torch.equal(SPEC.transform()(with_alpha), colours)
    batch = SPEC.transform()(grey.expand(2, 3, 40, 50))
    assert batch.shape == (2, 3, 32, 32) and torch.equal(batch[0], colours)


def test_a_model_of_grey_images_gets_them() -> None:
    spec = InputSpec((28, 28), (0.286,), (0.353,))
    assert spec.transform()(picture()).shape == (1, 28, 28)
    pixels = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    assert torch.equal(
        spec.transform()(pixels), spec.transform()(torchvision.transforms.functional.rgb_to_grayscale(pixels))
    )


def test_floats_between_0_and_1_are_taken_as_they_are() -> None:
    pixels = torch.rand(3, 36, 36)
    expected = (pixels[:, 2:-2, 2:-2] - torch.tensor(SPEC.mean)[:, None, None]) / torch.tensor(SPEC.std)[:, None, None]
    assert torch.equal(SPEC.transform()(pixels), expected)


def test_training_images_follow_torchs_random_numbers_and_evaluation_draws_none() -> None:
    image = picture()
    train = SPEC.transform(train=True)
    torch.manual_seed(1)
    first = [train(image) for _ in range(4)]
    torch.manual_seed(1)
    assert all(torch.equal(one, train(image)) for one in first)
    assert not torch.equal(first[0], first[1]) and first[0].shape == (3, 32, 32)
    state = torch.get_rng_state()
    assert torch.equal(SPEC.transform()(image), SPEC.transform()(image))
    assert torch.equal(state, torch.get_rng_state())


def test_transforms_go_to_workers() -> None:
    transform = pickle.loads(pickle.dumps(SPEC.transform(train=True)))
    assert transform == SPEC.transform(train=True)


def test_what_was_said_stays_with_the_model(tmp_path: Any) -> None:
    model = relume.build(nn.Linear, 3, 2)
    with pytest.raises(ConfigurationError, match="what images Linear was trained on is not known.*expect_input"):
        input_of(model)
    expect_input(model, SPEC)
    again = relume.load_model(relume.save_model(model, tmp_path / "model.safetensors"))
    whole = nn.Sequential(nn.Flatten(), model)
    behind = relume.load_model(relume.save_model(whole, tmp_path / "whole.safetensors"))
    for one in (
        model,
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        nn.DataParallel(model),
        again,
        whole,
        behind,
    ):
        assert input_of(one) == SPEC
    other = relume.build(nn.Linear, 3, 2)
    expect_input(other, InputSpec((8, 8), (0.5,), (0.5,)))
    with pytest.raises(ConfigurationError, match="not known"):
        input_of(nn.ModuleList([model, other]))


def test_torchvisions_builders_say_it_through_the_recipe() -> None:
    assert input_of(relume.build(torchvision.models.resnet18)).resize == 256
    with pytest.raises(ConfigurationError, match="what images ResNet was trained on"):
        input_of(torchvision.models.resnet18())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": (0, 3)}, "height and width are 1 to 16384"),
        ({"size": (3, 1 << 20)}, "height and width are 1 to 16384"),
        ({"mean": (0.5,)}, "one of each for every channel"),
        ({"std": (0.1, 0.0, 1.0)}, "no deviation is 0 or less"),
        ({"mean": (0.1, float("nan"), 1.0)}, "they are finite"),
        ({"interpolation": "random"}, "interpolation='random': known are nearest"),
        ({"resize": 0}, "resize=0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(changed: dict[str, Any], message: str) -> None:
    values = {"size": (4, 4), "mean": (0.5, 0.5, 0.5), "std": (0.1, 0.1, 0.1)} | changed
    with pytest.raises(ConfigurationError, match=message):
        InputSpec(**values)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.int64), "a tensor of int64: images are bytes"),
        (torch.zeros(8, dtype=torch.uint8), r"shape \(8,\) is no image"),
        (torch.zeros(3, 0, 8, dtype=torch.uint8), "is no image"),
        (torch.zeros(5, 8, 8, dtype=torch.uint8), "an image of 5 channels .*expects 3"),
        ("cat.png", "'cat.png' is a str: the transform takes PIL images"),
    ],
)
def test_what_is_no_image_is_named(image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SPEC.transform()(image)


def test_a_model_is_wanted() -> None:
    with pytest.raises(ConfigurationError, match=r"must be an nn\.Module"):
        input_of("resnet18")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is a str, and no InputSpec"):
        expect_input(nn.Linear(1, 1), "224")  # type: ignore[arg-type]
    assert "3 x 32 x 32, mean 0.5 0.4 0.3, std 0.2 0.3 0.4, bicubic" in str(SPEC)
