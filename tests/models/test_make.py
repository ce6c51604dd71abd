from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import relume
from relume.errors import ConfigurationError, DownloadError, MissingPackageError, UnknownNameError
from relume.models import CNN, MLP, make_model

WEIGHTS = "resnet18-f37072fd.pth"  # what torchvision calls the file of resnet18's IMAGENET1K_V1


def pretrained(hub: Path) -> nn.Module:
    model = torchvision.models.resnet18()
    torch.save(model.state_dict(), hub / WEIGHTS)
    return model.eval()


def test_the_own_models_are_made_by_name() -> None:
    assert type(make_model("mlp")) is MLP
    assert type(make_model("cnn", classes=3, channels=3, size=16)) is CNN


def test_the_mlp_made_by_name_has_the_tutorials_weights() -> None:
    torch.manual_seed(5)
    made = make_model("mlp")
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), MLP().parameters(), strict=True))
    assert made.training


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("torchvision/resnet18", 28),
        ("torchvision/mobilenet_v3_small", 28),
        ("torchvision/squeezenet1_1", 28),
        ("torchvision/googlenet", 28),
        ("timm/test_resnet", 28),
        ("timm/test_vit", 32),
        ("timm/test_vit", 160),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_models_of_libraries_take_the_data_they_are_made_for(name: str, size: int, channels: int) -> None:
    model = make_model(name, classes=7, channels=channels, size=size)
    assert model.training
    logits = model(torch.rand(2, channels, size, size))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert unused == []


def test_a_vision_transformer_of_torchvision_is_built_for_the_size() -> None:
    assert make_model("torchvision/vit_b_32", size=32).image_size == 32


@pytest.mark.parametrize("channels", [1, 6])
def test_the_first_convolution_keeps_its_meaning(hub: Path, channels: int) -> None:
    """An image whose channels are all alike gives the same as its copy in three channels."""
    original = pretrained(hub)
    model = make_model("torchvision/resnet18", classes=1000, channels=channels, size=64, weights="default").eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = original(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(model(grey.expand(-1, channels, -1, -1)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", ["default", "IMAGENET1K_V1"])
def test_pretrained_weights_are_kept_but_for_the_head(hub: Path, weights: str) -> None:
    original = pretrained(hub).state_dict()
    state = make_model("torchvision/resnet18", classes=7, channels=3, weights=weights).state_dict()
    assert state["fc.weight"].shape == (7, 512)
    kept = [name for name in original if not name.startswith("fc.")]
    assert all(torch.equal(state[name], original[name]) for name in kept)
    state = make_model("torchvision/resnet18", classes=1000, channels=3, weights=weights).state_dict()
    assert all(torch.equal(state[name], original[name]) for name in original)


def test_weights_of_torchvision_that_do_not_arrive_are_an_error(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = f"weights of 'torchvision/resnet18' did not arrive: .* put them into {hub}/{WEIGHTS} .from https://"
    with pytest.raises(DownloadError, match=message):
        make_model("torchvision/resnet18", weights="default")


def test_weights_of_timm_come_from_its_cache_or_are_an_error(tmp_path: Path) -> None:
    """In a process of its own, because the Hugging Face Hub reads its settings when it is imported."""
    repository = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123")
    (repository / "snapshots" / "0123").mkdir(parents=True)
    state = make_model("timm/test_resnet", classes=1000, channels=3).state_dict()
    save_file(state, repository / "snapshots" / "0123" / "model.safetensors")
    code = (
        "import torch, relume.models, relume.errors\n"
        "from safetensors.torch import load_file\n"
        f"expected = load_file({str(repository / 'snapshots' / '0123' / 'model.safetensors')!r})\n"
        "for weights in ('default', 'r160_in1k'):\n"
        "    model = relume.models.make_model('timm/test_resnet', 7, 3, weights=weights)\n"
        "    state = model.state_dict()\n"
        "    kept = [name for name in expected if state[name].shape == expected[name].shape]\n"
        "    print(all(torch.equal(state[name], expected[name]) for name in kept), len(expected) - len(kept))\n"
        "try:\n"
        "    relume.models.make_model('timm/resnet18', weights='default')\n"
        "except relume.errors.DownloadError as error:\n"
        "    print(error)\n"
    )
    source = str(Path(relume.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    first, second, last = done.stdout.splitlines()[0], done.stdout.splitlines()[1], done.stdout.splitlines()[-1]
    assert first == second == "True 2"  # the head's weight and bias are new
    assert "the weights of 'timm/resnet18' did not arrive" in done.stdout
    assert "put them into the cache of the Hugging Face Hub ($HF_HOME)" in last


def test_libraries_are_imported_only_for_their_own_models() -> None:
    code = (
        "import sys; from relume.models import make_model; make_model('cnn');"
        "print([m for m in ('torchvision', 'timm') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(relume.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


# -------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cn", r"no model 'cn': did you mean 'cnn'\? Models of a library are named 'torchvision/NAME' and 'timm/NAME'"),
        ("resnet18", "no model 'resnet18': known: cnn, mlp. .* such as 'torchvision/resnet18'"),
        ("torchvision/", "no model 'torchvision/'"),
        ("keras/resnet", "no model 'keras/resnet'"),
        ("torchvision/resnt18", "torchvision has no classification model 'resnt18': did you mean 'resnet18'"),
        ("torchvision/fasterrcnn_resnet50_fpn", "torchvision has no classification model 'fasterrcnn"),
        ("timm/resnt18", "timm has no classification model 'resnt18': did you mean 'resnet18'"),
    ],
)
def test_an_unknown_model_lists_the_closest(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        make_model(name)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        (
            "torchvision/resnet50",
            "IMAGENET1K_V3",
            "'torchvision/resnet50' has no weights 'IMAGENET1K_V3': did you mean",
        ),
        ("timm/resnet18", "a9_in1k", "'timm/resnet18' has no weights 'a9_in1k': did you mean 'a3_in1k'"),
    ],
)
def test_unknown_weights_list_the_closest(name: str, weights: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        make_model(name, weights=weights)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cnn", "'cnn' has no pretrained weights"),
        ("timm/cspresnet50d", "timm has no pretrained weights for 'cspresnet50d'"),
    ],
)
def test_weights_that_are_not_to_be_had_are_an_error(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"weights='default': {message}"):
        make_model(name, weights="default")


@pytest.mark.parametrize("option", ["classes", "channels", "size"])
def test_numbers_below_one_are_an_error(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option}=0: it is at least 1"):
        make_model("mlp", **{option: 0})


@pytest.mark.parametrize("name", ["torchvision/alexnet", "timm/convmixer_768_32"])
def test_images_that_a_model_cannot_take_are_an_error_before_training(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{name}' cannot take images of 1 x 5 x 5 .* Choose another"):
        make_model(name, size=5)


@pytest.mark.parametrize("name", ["timm/lamhalobotnet50ts_256", "torchvision/vit_b_32"])
def test_a_model_that_cannot_be_built_for_the_size_is_an_error(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"'{name}' cannot take images of 1 x 28 x 28 .*size=224 is what"):
        make_model(name, size=28)


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_without_the_library_the_error_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"the model '{package}/resnet18' needs {package}: pip install \"relume\[vision\]\""
    with pytest.raises(MissingPackageError, match=message):
        make_model(f"{package}/resnet18")
