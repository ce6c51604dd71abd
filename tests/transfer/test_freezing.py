"""What is frozen stays as it is: parameters, statistics and modes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import relume
from relume.errors import ConfigurationError, NoMatchError
from relume.transfer import held_modules, hold_modules, set_trainable, settle


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)),
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(6, 2)),
    )


def everything(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def train(model: nn.Module, steps: int = 5) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()


def test_frozen_parts_do_not_move_and_the_rest_does() -> None:
    model = net()
    before = everything(model)
    relume.freeze(model, trainable="2")
    train(model)
    after = everything(model)
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"2"}


@pytest.mark.parametrize(
    "freeze",
    [
        lambda model: relume.freeze(model, "0", "1"),
        lambda model: relume.freeze(model, "[01]"),
        lambda model: relume.freeze(model, "0.*", "1.*"),
        lambda model: relume.freeze(model, model[0], model[1]),
        lambda model: relume.freeze(model, *model[0].parameters(), *model[1].parameters()),
        lambda model: relume.freeze(model, before="2"),
        lambda model: relume.freeze(model, before=model[2]),
        lambda model: relume.freeze(model, trainable=["2.*"]),
        lambda model: relume.freeze(model, trainable=model[2]),
        lambda model: (relume.freeze(model), relume.unfreeze(model, "2"))[1],
        lambda model: relume.freeze(nn.DataParallel(model), "0", "1"),
    ],
)
def test_ways_to_say_the_same(freeze: Callable[[Any], relume.FreezeReport]) -> None:
    model = net()
    report = freeze(model)
    assert report.trainable_names == ("2.3.weight", "2.3.bias")
    assert (report.trainable, report.frozen) == (14, 112 + 8 + 222 + 12)
    model.train()
    assert not any(one.training for one in (model[0][1], model[1][1], model[0], model[1]))
    assert all(one.training for one in model[2].modules()) and model.training
    assert report.drifting == ()


def test_everything_before_a_parameter_is_frozen() -> None:
    model = net()
    relume.freeze(model, before="1.1.bias")
    assert relume.frozen(model).trainable_names == ("1.1.bias", "2.3.weight", "2.3.bias")
    model.train()
    assert held_modules(model) == ["0", "0.0", "0.1", "0.2", "0.3", "1.0"]


def test_modes_hold_through_copies_and_pickles() -> None:
    model = net()
    relume.freeze(model, "0")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.train()
        assert not other[0][1].training and other[1][1].training
        relume.unfreeze(other)
        other.train()
        assert other[0][1].training
        model.train()
        assert not model[0][1].training, "a copy must not share the hold of the original"


def test_compiled_models_hold_too() -> None:
    model = net()
    relume.freeze(model, "0", "1")
    compiled = torch.compile(model, backend="eager")
    compiled.train()
    assert not model[0][1].training
    assert relume.frozen(compiled).trainable == 14
    compiled(torch.randn(2, 3, 8, 8)).sum().backward()
    relume.unfreeze(compiled, "1")
    compiled.train()
    compiled(torch.randn(2, 3, 8, 8)).sum().backward()
    assert model[1][0].weight.grad is not None and model[0][0].weight.grad is None


def test_statistics_and_dropout_may_stay_on() -> None:
    model = net()
    report = relume.freeze(model, "0", batchnorm="train", dropout="train")
    model.train()
    assert model[0][1].training and model[0][3].training
    assert report.drifting == ("0.1",)
    assert "statistics move" in str(report)
    relume.freeze(model, "0")
    model.train()
    assert not model[0][1].training and not model[0][3].training and not relume.frozen(model).drifting


def test_unfreezing_can_leave_the_statistics_pinned() -> None:
    model = net()
    relume.freeze(model, "0", "1")
    relume.unfreeze(model, "1", batchnorm="eval")
    model.train()
    assert not model[1][1].training and model[1].training and model[1][3].training
    assert model[1][1].weight.requires_grad
    statistics = model[1][1].running_mean.clone()
    train(model)
    assert torch.equal(statistics, model[1][1].running_mean)
    relume.unfreeze(model, "0.0")  # another part does not let go of them
    assert not model[1][1].training


def test_a_released_module_gets_the_mode_that_was_asked_for() -> None:
    model = net().eval()
    relume.freeze(model)
    model.train()
    assert not any(module.training for module in model.modules())
    relume.unfreeze(model)
    assert all(module.training for module in model.modules())
    relume.freeze(model)
    model.eval()
    relume.unfreeze(model)
    assert not any(module.training for module in model.modules())


def test_a_train_method_of_the_users_own_is_still_called() -> None:
    class Counting(nn.Linear):
        calls = 0

        def train(self, mode: bool = True) -> Counting:
            self.calls += 1
            return super().train(mode)

    model = nn.Sequential(Counting(2, 2), nn.Linear(2, 1))
    relume.freeze(model, "0")
    assert model.train() is model
    assert model[0].calls == 1 and not model[0].training


def test_a_frozen_batch_norm_without_parameters_is_pinned() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False), nn.Linear(3, 1))
    relume.freeze(model, trainable="2")
    model.train()
    assert not model[1].training


@pytest.mark.parametrize("is_by_hand", [False, True])
def test_a_dropout_between_frozen_layers_is_off_and_one_before_the_head_is_on(is_by_hand: bool) -> None:
    classifier = nn.Sequential(
        nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 1), nn.Dropout(), nn.LayerNorm(1)
    )
    model = nn.Sequential(nn.Dropout(), nn.Linear(3, 3), nn.Dropout(), classifier, nn.Dropout())
    if is_by_hand:
        relume.freeze(model)
        relume.unfreeze(model, "3.4")
    else:
        relume.freeze(model, trainable="3.4")
    model.train()
    on = [name for name, module in model.named_modules() if isinstance(module, nn.Dropout) and module.training]
    assert on == ["2", "3.3", "3.5", "4"]
    assert "3.6" in held_modules(model)


def test_tied_parameters_are_one() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    report = relume.freeze(model, "1.weight")
    assert report.frozen == 9 and report.frozen_names == ("0.weight",)
    assert not model[0].weight.requires_grad


def test_gradients_of_what_is_frozen_are_dropped() -> None:
    model = net()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    relume.freeze(model, "0")
    assert model[0][0].weight.grad is None and model[1][0].weight.grad is not None


def test_a_new_head_in_a_frozen_model_trains() -> None:
    model = net()
    relume.freeze(model)
    model[2][3] = nn.Linear(6, 5)
    settle(model)
    model.train()
    assert model[2][2].training is False or model[2].training
    assert model.training and model[2].training and not model[0].training


def test_held_modules_come_back_by_name() -> None:
    model, other = net(), net()
    relume.freeze(model, "0", "1.1")
    names = held_modules(model)
    hold_modules(other, [*names, "gone"])
    other.train()
    assert held_modules(other) == names == ["0", "0.0", "0.1", "0.2", "0.3", "1.1"]
    hold_modules(other, [])
    assert held_modules(other) == [] and other[0][1].training


def test_a_mask_sets_what_it_names() -> None:
    model = net()
    set_trainable(model, {"0.0.weight": False, "gone": True})
    assert not model[0][0].weight.requires_grad and model[0][0].bias.requires_grad


def test_quantized_numbers_stay_as_they_are() -> None:
    class Indexed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.arange(3), requires_grad=False)
            self.inner = nn.Linear(2, 1)

    model = Indexed()
    relume.freeze(model)
    relume.unfreeze(model)
    assert model.inner.weight.requires_grad and not model.table.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patterns": ["3"]}, "'3' matches nothing in Sequential"),
        ({"patterns": ["0.conv"]}, "did you mean|known:"),
        ({"patterns": ["0", "x.*"]}, r"'x\.\*' matches nothing"),
        ({"patterns": [""]}, None),
        ({"trainable": []}, None),
        ({"patterns": [nn.Linear(2, 2)]}, "a Linear was given that is not in the model"),
        ({"patterns": [nn.Parameter(torch.ones(2))]}, r"a parameter of shape \(2,\)"),
        ({"patterns": [7]}, "7 is a int"),
        ({"before": "0"}, "no parameter comes before 0.0.weight"),
        ({"before": "0.2"}, "it has no parameters"),
        ({"patterns": ["0"], "trainable": "1"}, "give either that or"),
        ({"patterns": ["0"], "batchnorm": "off"}, "batchnorm='off': it is 'eval' or 'train'"),
        ({"patterns": ["0"], "dropout": True}, "dropout=True"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, Any], message: str | None) -> None:
    model = net()
    arguments = dict(arguments)
    patterns = arguments.pop("patterns", [])
    if message is None:
        assert relume.freeze(model, *patterns, **arguments).trainable == 0
        return
    with pytest.raises((NoMatchError, ConfigurationError), match=message):
        relume.freeze(model, *patterns, **arguments)
    assert relume.frozen(model).frozen == 0, "nothing may be frozen by half"


def test_no_model_is_said() -> None:
    with pytest.raises(ConfigurationError, match=r"must be an nn\.Module, not a dict"):
        relume.freeze({}, "x")  # type: ignore[arg-type]


def test_the_report_shows_blocks() -> None:
    torchvision = pytest.importorskip("torchvision")
    report = relume.freeze(torchvision.models.resnet18(), trainable="fc")
    assert [(block.name, block.trainable, block.note) for block in report.blocks] == [
        ("conv1", 0, ""),
        ("bn1", 0, "statistics pinned"),
        ("layer1", 0, "statistics pinned"),
        ("layer2", 0, "statistics pinned"),
        ("layer3", 0, "statistics pinned"),
        ("layer4", 0, "statistics pinned"),
        ("fc", 513_000, ""),
    ]
    assert sum(block.trainable + block.frozen for block in report.blocks) == 11_689_512
    assert str(report).splitlines()[0] == "ResNet: 513,000 of 11,689,512 parameters trainable (4.39%)"
    assert "statistics pinned" in report._repr_html_()
    deep = relume.freeze(torchvision.models.vit_b_16(), "*.bias")
    assert len(deep.blocks) <= 24 and sum(block.frozen for block in deep.blocks) == deep.frozen


def test_lazy_layers_are_frozen_before_they_have_a_shape() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.LazyLinear(2))
    relume.freeze(model, trainable="2")
    model(torch.ones(1, 4))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["2.weight", "2.bias"]
    other = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    assert relume.freeze(other, "0").trainable == 8
    other(torch.ones(1, 4))
    assert (relume.frozen(other).frozen, relume.unfreeze(other).trainable) == (15, 23)
