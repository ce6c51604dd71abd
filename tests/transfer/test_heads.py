"""The classifier of any classification model is found and replaced, and nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import relume
from relume.errors import ConfigurationError, NoMatchError, RecipeError
from relume.generators import fingerprint
from relume.transfer.classifiers import head_of, heads_of
from relume.transfer.heads import replace_head

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")

# By family: the name, where its classifier is, and the side of the images that it is tried on.
TORCHVISION = {
    "alexnet": ("classifier.6", 64),
    "convnext_tiny": ("classifier.2", 32),
    "densenet121": ("classifier", 32),
    "efficientnet_b0": ("classifier.1", 32),
    "efficientnet_v2_s": ("classifier.1", 32),
    "googlenet": ("fc", 32),
    "inception_v3": ("fc", 299),
    "maxvit_t": ("classifier.5", 224),
    "mnasnet0_5": ("classifier.1", 32),
    "mobilenet_v2": ("classifier.1", 32),
    "mobilenet_v3_small": ("classifier.3", 32),
    "regnet_x_400mf": ("fc", 32),
    "resnet18": ("fc", 32),
    "resnext50_32x4d": ("fc", 32),
    "shufflenet_v2_x0_5": ("fc", 32),
    "squeezenet1_1": ("classifier.1", 32),
    "swin_t": ("head", 64),
    "swin_v2_t": ("head", 64),
    "vgg11": ("classifier.6", 32),
    "vgg11_bn": ("classifier.6", 32),
    "vit_b_32": ("heads.head", 32),
    "wide_resnet50_2": ("fc", 32),
}
TIMM = {
    "resnet10t": (("fc",), 32),
    "vit_tiny_patch16_224": (("head",), 32),
    "deit_tiny_distilled_patch16_224": (("head", "head_dist"), 32),
    "swin_tiny_patch4_window7_224": (("head.fc",), 64),
    "convnext_atto": (("head.fc",), 32),
    "efficientnet_b0": (("classifier",), 32),
    "mobilenetv3_small_050": (("classifier",), 32),
    "densenet121": (("classifier",), 32),
    "regnetx_002": (("head.fc",), 32),
    "mixer_s32_224": (("head",), 64),
    "beit_base_patch16_224": (("head",), 32),
    "nf_resnet26": (("head.fc",), 32),
    "levit_128s": (("head.linear", "head_dist.linear"), 64),
    "xcit_nano_12_p16_224": (("head",), 32),
    "hrnet_w18_small": (("classifier",), 64),
    "dla46_c": (("fc",), 64),
    "inception_v3": (("fc",), 96),
    "legacy_seresnet18": (("last_linear",), 32),
    "crossvit_tiny_240": (("head.0", "head.1"), 240),
    "repvit_m0_9": (("head.head.l", "head.head_dist.l"), 32),
    "volo_d1_224": (("aux_head", "head"), 224),
    "caformer_s18": (("head.fc.fc2",), 64),
    "efficientvim_m1": (("heads.0", "heads.1", "heads.2", "heads.3"), 64),
}
SHORT = {
    "alexnet", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
    "regnet_x_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vgg11_bn", "vit_b_32", "convnext_tiny",
    "resnet10t", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "convnext_atto", "mobilenetv3_small_050",
    "regnetx_002", "mixer_s32_224", "levit_128s", "xcit_nano_12_p16_224", "legacy_seresnet18",
}  # fmt: skip

SAVED = {"googlenet", "squeezenet1_1", "resnet18", "levit_128s", "convnext_atto", "deit_tiny_distilled_patch16_224"}
"""Of which the short version writes and reads a file too; the long one does of all."""


def made(library: str, name: str, side: int) -> nn.Module:
    if library == "timm":
        preset = timm.models.get_pretrained_cfg(name)
        is_other = preset.fixed_input_size and preset.input_size[-1] != side
        model = relume.build(timm.create_model, name, **({"img_size": side} if is_other else {}))
    else:
        options: dict[str, Any] = {"image_size": side} if name.startswith("vit") else {}
        options |= {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = relume.build(torchvision.models.get_model_builder(name), **options)
    assert isinstance(model, nn.Module)
    return model


def cases(*, is_long: bool) -> list[Any]:
    rows = [("torchvision", name, (where,), side) for name, (where, side) in TORCHVISION.items()]
    rows += [("timm", name, where, side) for name, (where, side) in TIMM.items()]
    marks = pytest.mark.long if is_long else ()
    return [pytest.param(*row, id=f"{row[0]}-{row[1]}", marks=marks) for row in rows if is_long or row[1] in SHORT]


def proven(library: str, name: str, where: tuple[str, ...], side: int, steps: int, file: Path) -> None:
    """Only the new head is trainable; training leaves every bit of the rest; and a file gives the same model again."""
    is_long = steps > 3
    model = made(library, name, side)
    auxiliary = {"googlenet": ("aux1.fc2", "aux2.fc2"), "inception_v3": ("AuxLogits.fc",)}
    expected = (*where, *(auxiliary.get(name, ()) if library == "torchvision" else ()))
    report = replace_head(model, 7)
    assert report.names == expected and report.classes == 7
    frozen = relume.freeze(model, trainable=list(report.names))
    assert {one.rpartition(".")[0] for one in frozen.trainable_names} == set(expected)
    assert frozen.trainable == report.parameters
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    images, targets = torch.randn(4, 3, side, side), torch.tensor([0, 1, 2, 6])
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        logits = model(images)
        assert not isinstance(logits, tuple) or expected != where, "several outputs are those of auxiliary classifiers"
        outputs = logits if isinstance(logits, tuple) else [logits]
        sum(nn.functional.cross_entropy(one, targets) for one in outputs).backward()
        optimizer.step()
    after = model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == set(frozen.trainable_names)
    if not is_long and name not in SAVED:
        return
    again = relume.load_model(relume.save_model(model, file))
    assert heads_of(again) == expected
    assert relume.frozen(again).trainable_names == frozen.trainable_names
    with torch.no_grad():
        assert torch.equal(model.eval()(images), again.eval()(images))


@pytest.mark.parametrize(("library", "name", "where", "side"), cases(is_long=False))
def test_only_a_new_head_trains(library: str, name: str, where: tuple[str, ...], side: int, tmp_path: Path) -> None:
    proven(library, name, where, side, 3, tmp_path / "model.safetensors")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("library", "name", "where", "side"), cases(is_long=True))
def test_only_a_new_head_trains_for_long(
    library: str, name: str, where: tuple[str, ...], side: int, tmp_path: Path
) -> None:
    proven(library, name, where, side, 20, tmp_path / "model.safetensors")


# ----------------------------------------------------------------------------------------------- what stays untouched


def test_looking_for_the_head_changes_nothing() -> None:
    model = torchvision.models.googlenet(init_weights=False)
    model.aux1.eval()
    relume.freeze(model.inception3a)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    parameters = [(id(p), p.requires_grad, p._version) for p in model.parameters()]
    wrong = {"fc": nn.Identity(), "aux1.fc2": nn.Conv2d(1, 1, 1)}
    numbers = fingerprint()
    calls: list[nn.Module] = []
    model.fc.register_forward_hook(lambda module, *_: calls.append(module))
    assert heads_of(model) == ("fc", "aux1.fc2", "aux2.fc2")
    with pytest.raises(ConfigurationError, match="does not fit"):
        replace_head(model, wrong)
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert modes == [part.training for part in model.modules()]
    assert parameters == [(id(p), p.requires_grad, p._version) for p in model.parameters()]
    assert calls == [] and len(model.fc._forward_hooks) == 1
    assert fingerprint() == numbers


def test_random_numbers_are_those_of_an_ordinary_layer() -> None:
    model = torchvision.models.resnet18()
    torch.manual_seed(3)
    replace_head(model, 5)
    after = torch.rand(1)
    torch.manual_seed(3)
    layer = nn.Linear(512, 5)
    assert torch.equal(model.fc.weight, layer.weight) and torch.equal(after, torch.rand(1))


def test_what_is_around_the_head_stays() -> None:
    model = torchvision.models.efficientnet_b0()
    dropout = model.classifier[0]
    replace_head(model, 3)
    assert model.classifier[0] is dropout and len(model.classifier) == 2
    squeezed = torchvision.models.squeezenet1_1()
    assert "Conv2d(512 to 1000, 1x1)" in str(replace_head(squeezed, 3))
    assert squeezed(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_the_new_head_is_where_and_as_the_old_one_was() -> None:
    model = torchvision.models.squeezenet1_1().to(torch.bfloat16).eval()
    replace_head(model, nn.Conv2d(512, 3, 1))
    assert model.classifier[1].weight.dtype == torch.bfloat16 and not model.classifier[1].training
    with torch.device("meta"):
        without_values = torchvision.models.resnet18()
    replace_head(without_values, 4)
    assert without_values.fc.weight.is_meta


def test_a_head_in_a_frozen_model_trains_with_its_dropout() -> None:
    model = torchvision.models.vgg11()
    relume.freeze(model)
    replace_head(model, 2)
    assert relume.frozen(model).trainable_names == ("classifier.6.weight", "classifier.6.bias")
    other = torchvision.models.vgg11()
    replace_head(other, 2)
    relume.freeze(other, trainable=head_of(other))
    for one in (model, other):
        one.train()
    assert [part.training for part in model.modules()] == [part.training for part in other.modules()]
    assert model.classifier[5].training and model.classifier[6].training and not model.classifier[0].training


def test_timms_own_record_of_the_classes_follows() -> None:
    model = relume.build(timm.create_model, "resnet10t")
    replace_head(model, 9)
    assert model.num_classes == 9  # type: ignore[comparison-overlap]


def test_a_module_in_its_place_is_remembered_as_the_head(tmp_path: Path) -> None:
    model = relume.build(torchvision.models.resnet18)
    head = nn.Sequential(nn.Linear(512, 16), nn.ReLU(), nn.Linear(16, 4))
    report = replace_head(model, head)
    assert (report.features, report.classes, report.parameters) == (512, 4, 512 * 16 + 16 + 16 * 4 + 4)
    again = relume.load_model(relume.save_model(model, tmp_path / "model.safetensors"))
    for one in (model, copy.deepcopy(model), again):
        assert head_of(one) == "fc"
        assert relume.freeze(one, trainable=head_of(one)).trainable == report.parameters
    with pytest.raises(ConfigurationError, match="fc is Sequential of .* cannot be made anew for 9 classes"):
        replace_head(model, 9)
    assert replace_head(model, nn.Linear(512, 9)).classes == 9 and head_of(model) == "fc"


def test_a_head_that_was_taken_off_is_put_on() -> None:
    model = torchvision.models.resnet18()
    model.fc = nn.Identity()
    assert replace_head(model, 4).features == 512
    bare = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    replace_head(bare, 4)
    assert bare(torch.zeros(1, 3, 224, 224)).shape == (1, 4) and bare.num_classes == 4


def test_a_layer_behind_the_whole_model_is_the_head(tmp_path: Path) -> None:
    backbone = relume.build(torchvision.models.vgg19)
    model = nn.Sequential(backbone, nn.Linear(1000, 1))
    assert head_of(model) == "1"
    report = relume.freeze(model, trainable=head_of(model))
    assert report.trainable == 1001
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model.train()(torch.randn(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    after = model.state_dict()
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"1.weight", "1.bias"}
    del before
    again = relume.load_model(relume.save_model(model, tmp_path / "model.safetensors")).train()
    assert relume.frozen(again).trainable_names == ("1.weight", "1.bias")
    assert again.training and not any(part.training for part in again[0].modules())  # type: ignore[index]


class Own(nn.Module):
    """A user's class with a backbone inside."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.back = torchvision.models.resnet18()
        self.back.fc = nn.Identity()
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(512, classes))

    def forward(self, images: torch.Tensor) -> Any:
        return self.head(self.back(images))


def test_a_class_of_ones_own_with_a_backbone_inside(tmp_path: Path) -> None:
    model = relume.build(Own)
    assert head_of(model) == "head.1"
    replace_head(model, 3)
    assert relume.freeze(model, trainable="head").trainable == 512 * 3 + 3
    again = relume.load_model(relume.save_model(model, tmp_path / "own.safetensors"))
    assert head_of(again) == "head.1" and again.head[1].out_features == 3  # type: ignore[index]
    with pytest.raises(RecipeError, match="how Own was built is not known. Build it by relume.build"):
        relume.save_model(Own(), tmp_path / "other.safetensors")


def test_wrapped_models_are_looked_into() -> None:
    model = torchvision.models.resnet18()
    assert head_of(nn.DataParallel(model)) == head_of(torch.compile(model, backend="eager")) == "fc"
    replace_head(nn.DataParallel(model), 6)
    assert model.fc.out_features == 6


def test_computed_weights_are_of_their_layer() -> None:
    model = torchvision.models.resnet18()
    model.fc = nn.utils.parametrizations.weight_norm(model.fc)
    assert head_of(model) == "fc"
    with pytest.raises(ConfigurationError, match="fc is .* cannot be made anew for 3 classes"):
        replace_head(model, 3)
    assert replace_head(model, nn.Linear(512, 3)).classes == 3
    old = torchvision.models.resnet18()
    nn.utils.spectral_norm(old.layer1[0].conv1)
    assert head_of(old) == "fc"


# --------------------------------------------------------------------------------------------------- what is said


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.x, self.y = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, values: torch.Tensor) -> Any:
        hidden = self.body(values).relu()
        return self.x(hidden), self.y(hidden)


class Loose(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.weight = nn.Parameter(torch.ones(3, 3))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.body(values) @ self.weight


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> Any:
        return self.layer(one + other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Two, r"Two has 2 outputs, which come from x \(Linear\(8 to 3\)\), y .*replace_head\(model, \{'name': module\}\)"),
        (Loose, r"the output of Loose comes last from body \(Linear\(4 to 3\)\), weight"),
        (Sum, "the classifier of Sum is not found: it could not be run .*missing 1 required positional"),
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), "Sequential has no classifier: .*from 1 .BatchNorm1d"),
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))), "several layers of Sequential might be"),
        (lambda: nn.Sequential(nn.ReLU()), "could not be run .what Sequential takes cannot be told"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_an_error_with_the_candidates(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(NoMatchError, match=message):
        replace_head(make(), 3)


def test_an_example_tells_what_the_model_takes() -> None:
    model = Sum()
    with pytest.raises(NoMatchError, match="could not be run"):
        head_of(model)
    assert replace_head(model, 5, example=(torch.zeros(2, 4), torch.zeros(2, 4))).classes == 5
    assert head_of(model, {"one": torch.zeros(2, 4), "other": torch.zeros(2, 4)}) == "layer"


def test_a_name_says_what_to_replace() -> None:
    model = Two()
    report = replace_head(model, {"x": nn.Linear(8, 7)})
    assert str(report) == "Two: x was Linear(8 to 3) and is Linear(8 to 7) now, 63 new parameters"
    assert model.x.out_features == 7 and model.y.out_features == 2
    assert "Linear(8 to 7)" in report._repr_html_()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (0, "classes=0: it is at least 1"),
        (-3, "classes=-3"),
        (True, "head=True is a bool: give a whole number"),
        (2.0, "head=2.0 is a float"),
        ("fc", "head='fc' is a str"),
        (None, "head=None is a NoneType"),
        ({}, "a dict gives a module for each name"),
        ({"fc": 3}, "a dict gives a module for each name"),
        ({"fcc": nn.Linear(512, 2)}, "ResNet has no module 'fcc': did you mean 'fc'"),
        (
            {"fc": nn.Linear(51, 2)},
            r"Linear\(51 to 2\) does not fit in the place of fc .Linear\(512 to 1000\).*\(512,\)",
        ),
        (nn.Linear(51, 2), "mat1 and mat2 shapes cannot be multiplied.* The model is as it was"),
        (nn.Conv2d(512, 3, 1), r"Conv2d\(512 to 3, 1x1\) does not fit"),
    ],
)
def test_bad_heads_are_refused_and_the_model_is_as_it_was(head: Any, message: str) -> None:
    model = torchvision.models.resnet18()
    old = model.fc
    with pytest.raises((ConfigurationError, NoMatchError), match=message):
        replace_head(model, head)
    assert model.fc is old


def test_one_module_for_several_classifiers_is_refused() -> None:
    model = torchvision.models.googlenet(init_weights=False)
    with pytest.raises(ConfigurationError, match="GoogLeNet has 3 classifiers: fc, aux1.fc2, aux2.fc2. Give a number"):
        replace_head(model, nn.Linear(1024, 2))
    with pytest.raises(NoMatchError, match="has 3 classifiers: .*heads_of"):
        head_of(model)
    assert "so are aux1.fc2, aux2.fc2" in str(replace_head(model, 2))


def test_a_model_that_is_a_layer_and_what_is_no_model() -> None:
    with pytest.raises(ConfigurationError, match="the model is its own classifier"):
        replace_head(nn.Linear(3, 2), 4)
    with pytest.raises(ConfigurationError, match=r"must be an nn\.Module, not a dict"):
        head_of({})  # type: ignore[arg-type]


@pytest.mark.cuda
def test_a_new_head_goes_to_the_gpu() -> None:
    model = torchvision.models.resnet18().cuda()
    replace_head(model, 3)
    assert model.fc.weight.is_cuda
    assert model(torch.zeros(2, 3, 32, 32, device="cuda")).shape == (2, 3)
