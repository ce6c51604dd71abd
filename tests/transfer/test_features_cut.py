"""A model is cut where what is constant ends, and the two parts give the bits of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import relume
from relume.transfer.features import NoCut, find_cut
from relume.transfer.features.cache import verify

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")


def tv(name: str, **more: Any) -> nn.Module:
    return getattr(torchvision.models, name)(num_classes=5, **more)


def tm(name: str, **more: Any) -> nn.Module:
    return timm.create_model(name, num_classes=5, **more)


MODELS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "resnet18": (lambda: tv("resnet18"), "fc", 512),
    "vgg11_bn": (lambda: tv("vgg11_bn"), "classifier", 512),
    "mobilenet_v3_small": (lambda: tv("mobilenet_v3_small"), "classifier", 576),
    "densenet121": (lambda: tv("densenet121"), "classifier", 1024),
    "squeezenet1_1": (lambda: tv("squeezenet1_1"), "classifier", 512),
    "shufflenet": (lambda: tv("shufflenet_v2_x0_5"), "fc", 1024),
    "convnext_tiny": (lambda: tv("convnext_tiny"), "classifier", 768),
    "swin_t": (lambda: tv("swin_t"), "head", 768),
    "efficientnet_b0": (lambda: tv("efficientnet_b0"), "classifier", 1280),
    "regnet": (lambda: tv("regnet_y_400mf"), "fc", 440),
    "vit": (
        lambda: torchvision.models.VisionTransformer(64, 16, 2, 4, 32, 64, dropout=0.1, num_classes=5),
        "heads",
        32,
    ),
    "timm vit_tiny": (lambda: tm("vit_tiny_patch16_224", img_size=64, drop_rate=0.1), "head", 192),
    "timm resnet18": (lambda: tm("resnet18"), "fc", 512),
    "timm efficientnet_lite0": (lambda: tm("tf_efficientnet_lite0", drop_path_rate=0.2), "classifier", 1280),
    "timm convnext_atto": (lambda: tm("convnext_atto"), "head.fc", 320),
    "timm mobilenetv3": (lambda: tm("mobilenetv3_small_100"), "classifier", 1024),
}


def images(count: int = 3, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size, size)


def outputs(function: Callable[[], Any]) -> torch.Tensor:
    torch.manual_seed(7)
    return function()


@pytest.mark.parametrize("name", MODELS)
def test_both_parts_give_the_bits_of_the_model_and_only_the_head_is_above(name: str) -> None:
    make, head, width = MODELS[name]
    model = make()
    relume.freeze(model, trainable=head)
    model.train()
    x = images()
    cut = find_cut(model, (x,), {})
    with torch.no_grad():
        features = cut.lower(x)
    assert verify(model, cut, (x,), {}), "not bit for bit"
    assert torch.equal(outputs(lambda: model(x)), outputs(lambda: cut.upper(*features)))
    assert features[0].shape[1] == width
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for p in cut.upper.parameters()} == trained, "what is trained, and nothing else, is above"
    cut.upper(*features).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("trainable", "after"),
    [
        (["layer4", "fc"], "layer3 (Sequential)"),
        (["layer4.1", "fc"], "layer4.0 (BasicBlock)"),
        (["layer4.1.conv2", "fc"], "layer4.0 (BasicBlock) and layer4.1.relu (ReLU)"),
        (["fc.bias"], "flatten of avgpool (AdaptiveAvgPool2d)"),
    ],
)
def test_the_cut_follows_what_is_trained(trainable: list[str], after: str) -> None:
    model = tv("resnet18")
    relume.freeze(model, trainable=trainable)
    model.train()
    cut = find_cut(model, (images(),), {})
    assert cut.after == after
    assert verify(model, cut, (images(),), {})


def test_a_cut_behind_a_module_by_name() -> None:
    model = tv("resnet18")
    relume.freeze(model, trainable="fc")
    model.train()
    cut = find_cut(model, (images(),), {}, after="layer2.0")
    assert cut.lower(images())[0].shape[1:] == (128, 8, 8)
    assert verify(model, cut, (images(),), {})
    with pytest.raises(NoCut, match=r"what comes up to fc is not constant: fc\.weight is trained"):
        find_cut(model, (images(),), {}, after="fc")


def test_in_evaluation_mode_dropout_is_constant_too() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 2))
    relume.freeze(model, "0")
    x = torch.randn(3, 4)
    model.train()
    assert find_cut(model, (x,), {}).after == "0 (Linear)"
    model.eval()
    assert find_cut(model, (x,), {}).after == "2 (ReLU)"


class Branching(nn.Module):
    """Its forward pass looks at values: torch.fx cannot follow it."""

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.head = head or nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        if bool((x.detach().sum() > 1e9).item()):
            x = x * 2
        return self.head(x)


def test_what_cannot_be_traced_is_cut_before_its_head() -> None:
    model = Branching()
    relume.freeze(model, "body")
    model.train()
    x = torch.randn(3, 4)
    cut = find_cut(model, (x,), {})
    assert cut.way == "the head" and cut.after == "what goes into head (Linear)"
    assert verify(model, cut, (x,), {})
    assert not model.head._forward_pre_hooks, "nothing is left in the model"
    names = {name for name, _ in cut.tensors}
    assert names == {"body.weight", "body.bias"}


def test_a_part_that_cannot_be_traced_stays_whole() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Branching(), nn.Linear(2, 2))
    relume.freeze(model, "0", "1.body")
    model.train()
    cut = find_cut(model, (torch.randn(3, 4),), {})
    assert cut.way == "traced" and cut.after == "0 (Linear)"


class Around(nn.Module):
    """A frozen body and a head with something between them."""

    def __init__(
        self, between: Callable[[nn.Module, torch.Tensor], torch.Tensor], head: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.head = head or nn.Linear(4, 2)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.between(self, self.body(x)))


@pytest.mark.parametrize(
    ("between", "after"),
    [
        (lambda self, x: nn.functional.dropout(x, 0.5, self.training), "body (Linear)"),
        (lambda self, x: x - x.mean(0), "body (Linear)"),
        (lambda self, x: x + torch.randn_like(x), "body (Linear)"),
        (lambda self, x: nn.functional.batch_norm(x, None, None, training=True), "body (Linear)"),
        (lambda self, x: x.flip(0), "body (Linear)"),
        (lambda self, x: x * self.scale, "body (Linear)"),
        (lambda self, x: x.view(x.shape[0], -1), "view of body (Linear)"),
        (lambda self, x: x.relu_(), "relu_ of body (Linear)"),
        (lambda self, x: x.view(x.size(0) * 2, 2).view(x.size(0), 4), "body (Linear)"),
    ],
)
def test_what_mixes_samples_or_is_random_or_trained_is_above_the_cut(between: Any, after: str) -> None:
    model = Around(between)
    relume.freeze(model, "body")
    model.train()
    x = torch.randn(3, 4)
    cut = find_cut(model, (x,), {})
    assert cut.after == after
    assert verify(model, cut, (x,), {})


def test_the_number_of_samples_and_sizes_are_taken_from_the_features() -> None:
    class Sizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)
            self.token = nn.Parameter(torch.randn(1, 1, 4))
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            count, width = x.shape[0], x.shape[-1]
            y = self.body(x).flatten(2).transpose(1, 2)
            y = torch.cat([self.token.expand(count, -1, -1), y], 1)
            return self.head(y.mean(1) / width)

    model = Sizes()
    relume.freeze(model, "body")
    cut = find_cut(model.train(), (images(3, 8),), {})
    features = cut.lower(images(5, 8))
    assert [tuple(one.shape) for one in features] == [(5, 36, 4)], "the image itself is not kept"
    assert cut.upper(*features).shape == (5, 2)
    assert verify(model, cut, (images(3, 8),), {})


def test_named_inputs_and_several_of_them() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(4, 3), nn.Linear(5, 3), nn.Linear(3, 2)

        def forward(
            self, left: torch.Tensor, right: torch.Tensor, scale: float = 2.0, extra: Any = None
        ) -> torch.Tensor:
            joined = self.first(left) + self.second(right) * scale
            return self.head(joined if extra is None else joined + extra)

    model = Two()
    relume.freeze(model, trainable="head")
    model.train()
    named = {"right": torch.randn(3, 5), "left": torch.randn(3, 4)}
    cut = find_cut(model, (), named)
    assert verify(model, cut, (), named)
    assert cut.lower(**named)[0].shape == (3, 3)


def seen(model: nn.Module) -> nn.Module:
    model[0].register_forward_hook(lambda *_: None)
    return model


def without_freeze(model: nn.Module) -> nn.Module:
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), r"0\.weight is trained"),
        (
            lambda: without_freeze(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))),
            r"0 \(BatchNorm1d\) is in training mode",
        ),
        (lambda: without_freeze(seen(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))), "has a forward hook"),
        (lambda: nn.Sequential(nn.Linear(4, 4)).requires_grad_(False).eval(), "all of the model is frozen"),
        (lambda: without_freeze(nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(2))), "a lazy module has no shape yet"),
        (lambda: nn.Sequential(nn.Flatten(0, -1), nn.Linear(12, 2)), "mixes samples|no tensor|is trained"),
    ],
)
def test_what_cannot_be_cut_says_why(make: Callable[[], nn.Module], message: str) -> None:
    model = make()
    with pytest.raises(NoCut, match=message):
        find_cut(model, (torch.randn(3, 4),), {})


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (lambda: nn.Linear(4, 2), None),
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1), nn.Linear(3, 2)), None),
    ],
)
def test_heads_of_models_that_cannot_be_traced(head: Any, message: str | None) -> None:
    model = Branching(head())
    relume.freeze(model, "body")
    x = torch.randn(3, 4)
    assert verify(model.train(), find_cut(model, (x,), {}), (x,), {})


def test_a_model_that_cannot_be_traced_with_two_trained_parts_says_so() -> None:
    class Double(Branching):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.body(x)
            return self.head(x) if bool(x.sum() > 0) else self.other(x)

    model = Double()
    relume.freeze(model, "body")
    with pytest.raises(NoCut, match=r"cannot be traced(.|\n)*more than one part of it is not constant \(head, other\)"):
        find_cut(model, (torch.randn(3, 4),), {})


def test_a_model_that_changes_what_its_head_gives_is_not_cut() -> None:
    class After(Branching):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    model = After()
    relume.freeze(model, "body")
    with pytest.raises(NoCut, match="what head .Linear. gives is not the model's output"):
        find_cut(model, (torch.randn(3, 4),), {})


def test_random_numbers_before_a_head_that_cannot_be_traced() -> None:
    class Noisy(Branching):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + torch.rand(x.shape[0], 1))

    model = Noisy()
    relume.freeze(model, "body")
    with pytest.raises(NoCut, match="random numbers are drawn before head"):
        find_cut(model, (torch.randn(3, 4),), {})


def test_a_draw_that_tracing_would_freeze_is_refused() -> None:
    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x)) + torch.rand(2)

    model = Drawn()
    relume.freeze(model, "body")
    with pytest.raises(NoCut, match="draws random numbers"):
        find_cut(model, (torch.randn(3, 4),), {})


def test_cutting_leaves_no_trace_in_the_model_and_in_the_random_numbers() -> None:
    model = tv("resnet18")
    relume.freeze(model, trainable="layer4")
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    attributes, before = set(vars(model)), torch.get_rng_state()
    x = images()
    before = torch.get_rng_state()
    cut = find_cut(model, (x,), {})
    verify(model, cut, (x,), {})
    assert torch.equal(before, torch.get_rng_state())
    assert set(vars(model)) == attributes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
