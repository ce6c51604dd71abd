"""Where a model of ``relume train`` begins, what of it is frozen, and what the optimizer gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from relume import save_weights
from relume.datasets import ToTensor
from relume.errors import ConfigurationError, MismatchError, NoMatchError, UnknownNameError
from relume.models import make_model
from relume.train.finetuning import (
    expected_input,
    fine_tuning,
    is_source,
    optimizer_of,
    scheduler_of,
    starting_model,
)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RESNET = "torchvision/resnet18"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(3)
    return str(save_weights(make_model(RESNET, 7, 3, 32), tmp_path / "weights.safetensors"))


def test_pretrained_weights_say_how_they_want_their_images(weights: str) -> None:
    assert expected_input(RESNET, None) is None
    assert expected_input(RESNET, "default") == ToTensor(224, 3, *IMAGENET)
    assert expected_input(RESNET, weights) == ToTensor(224, 3, *IMAGENET)
    assert expected_input("timm/tf_efficientnet_lite0", "default") == ToTensor(224, 3, (0.5,) * 3, (0.5,) * 3)
    assert expected_input("cnn", weights) is None


def test_a_file_that_says_its_input_is_believed(tmp_path: Path) -> None:
    metadata = {"relume.input": '{"size": 20, "channels": 3, "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}'}
    file = save_weights(nn.Linear(2, 1), tmp_path / "own.safetensors", metadata=metadata)
    assert expected_input("cnn", str(file)) == ToTensor(20, 3, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


def test_files_and_checkpoints_are_told_from_names(weights: str) -> None:
    assert all(map(is_source, (weights, "missing.pt", "pets@best", "runs/pets")))
    assert not any(map(is_source, ("default", "IMAGENET1K_V1", "a1_in1k")))


def test_a_head_of_another_size_is_new_and_the_rest_is_loaded(weights: str) -> None:
    model = starting_model(RESNET, 3, 3, 32, weights)
    source = starting_model(RESNET, 7, 3, 32, weights).state_dict()
    state = model.state_dict()
    assert state["fc.weight"].shape == (3, 512)
    assert all(state[name].equal(source[name]) for name in state if not name.startswith("fc."))


def test_own_models_take_files_and_no_names(tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = make_model("cnn", 10, 3, 16)
    file = str(save_weights(source, tmp_path / "cnn.safetensors"))
    model = starting_model("cnn", 4, 3, 16, file)
    assert torch.equal(model.features[0].weight, source.features[0].weight)
    assert model.classifier[2].out_features == 4
    with pytest.raises(ConfigurationError, match="'cnn' has no pretrained weights"):
        starting_model("cnn", 4, 3, 16, "default")


def test_weights_that_do_not_fit(weights: str) -> None:
    with pytest.raises(MismatchError):
        starting_model("torchvision/resnet34", 3, 3, 32, weights)
    with pytest.raises(UnknownNameError, match="no weights 'IMAGENT'"):
        starting_model(RESNET, 3, 3, 32, "IMAGENT")


def test_the_head_alone_goes_to_the_optimizer_when_the_rest_stays_frozen() -> None:
    model = make_model(RESNET, 3, 3, 32)
    tuning = fine_tuning(model, ["backbone"], None, 1e-3, None)
    assert tuning.schedule is None and tuning.report is not None and tuning.report.trainable == 1539
    assert {id(p) for p in tuning.groups[0]["params"]} == {id(p) for p in model.fc.parameters()}


def test_what_is_unfrozen_later_is_in_the_optimizer_with_its_learning_rate() -> None:
    model = make_model(RESNET, 3, 3, 32)
    tuning = fine_tuning(model, ["backbone"], 2, 1e-3, 1e-5)
    assert tuning.schedule is not None
    assert tuning.schedule.at(1, 0).parts() == "fc.weight, fc.bias" and tuning.schedule.at(2, 0).parts() == "all"
    assert [(group["name"], group["lr"]) for group in tuning.groups] == [("backbone", 1e-5), ("head", 1e-3)]
    assert sum(len(group["params"]) for group in tuning.groups) == len(list(model.parameters()))


def test_the_head_of_a_model_of_a_fixed_size_is_found_by_an_example() -> None:
    model = make_model("cnn", 3, 1, 20)
    tuning = fine_tuning(model, ["backbone"], None, 1e-3, None, torch.zeros(2, 1, 20, 20))
    assert tuning.report.trainable_names == ("classifier.2.weight", "classifier.2.bias")


def test_patterns_add_to_the_backbone_and_must_match() -> None:
    model = make_model(RESNET, 3, 3, 32)
    assert fine_tuning(model, ["backbone", "fc.bias"], None, 1e-3, None).report.trainable_names == ("fc.weight",)
    with pytest.raises(NoMatchError, match="'conv' matches nothing"):
        fine_tuning(make_model(RESNET, 3, 3, 32), ["conv"], None, 1e-3, None)
    with pytest.raises(ConfigurationError, match="freezes the whole model: nothing is left to train"):
        fine_tuning(model, ["*"], None, 1e-3, None)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["none", "cosine", "onecycle"])
def test_each_group_keeps_its_own_learning_rate(name: str, schedule: str) -> None:
    groups = [
        {"params": [nn.Parameter(torch.ones(2))], "lr": lr, "name": part} for part, lr in (("a", 1e-4), ("b", 1e-2))
    ]
    optimizer = optimizer_of(groups, name, 1e-2, 0.9, 0.0)
    scheduler = scheduler_of(optimizer, schedule, 10)
    low, high = (group["lr"] for group in optimizer.param_groups)
    assert low * 100 == pytest.approx(high)
    assert (scheduler is None) == (schedule == "none")
