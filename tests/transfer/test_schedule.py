"""Which phase holds at which epoch and step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from relume.errors import ConfigurationError, NoMatchError
from relume.transfer.groups import blocks_of, parameter_groups
from relume.transfer.phases import Phase, Stall
from relume.transfer.schedule import FreezeSchedule, Start


def names(schedule: FreezeSchedule, places: list[tuple[int, int]], **options: int) -> list[str]:
    return [schedule.at(*place, **options).parts() for place in places]


def test_phases_of_epochs_follow_each_other() -> None:
    schedule = FreezeSchedule([Phase("a", epochs=3), Phase("b", epochs=2), Phase("c", epochs=1)])
    assert [schedule.at(epoch, 10 * epoch).parts() for epoch in range(8)] == ["a"] * 3 + ["b"] * 2 + ["c"] * 3


def test_phases_of_steps_and_epochs_follow_each_other() -> None:
    schedule = FreezeSchedule([Phase("a", steps=15), Phase("b", epochs=1), Phase("c", steps=5), Phase("d")])
    found = [schedule.at(step // 10, step, steps_per_epoch=10).parts() for step in range(50)]
    # b begins within the second epoch and has the whole third one.
    assert found == ["a"] * 15 + ["b"] * 15 + ["c"] * 5 + ["d"] * 15


@given(
    st.lists(st.tuples(st.sampled_from(["epochs", "steps"]), st.integers(1, 7)), min_size=1, max_size=5),
    st.integers(1, 6),
)
def test_looked_at_batch_by_batch_it_is_as_by_the_cursor_alone(lengths: list[tuple[Any, int]], per_epoch: int) -> None:
    schedule = FreezeSchedule([Phase(f"p{i}", **{unit: n}) for i, (unit, n) in enumerate(lengths)])
    starts, number = [Start(0, 0)], 0
    for step in range(40):
        epoch, batch = divmod(step, per_epoch)
        number, starts = schedule.starts(epoch, step, starts, inside=batch > 0, is_live=True)
        assert schedule.at(epoch, step, steps_per_epoch=per_epoch) is schedule[number]
        assert set(schedule[number].trainable) <= schedule.ever_trainable(epoch, per_epoch)
        assert set(schedule[number].trainable) <= schedule.ever_trainable(epoch)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sampled_from(["epochs", "steps"]), st.integers(1, 5))
def test_turns_go_round_for_ever(lengths: list[int], unit: Any, per_epoch: int) -> None:
    schedule = FreezeSchedule([Phase(f"p{i}", **{unit: n}) for i, n in enumerate(lengths)], repeat=True)
    order = [f"p{i}" for i, n in enumerate(lengths) for _ in range(n)]
    for step in range(60):
        epoch = step // per_epoch
        now = schedule.at(epoch, step)
        assert now.parts() == order[(epoch if unit == "epochs" else step) % len(order)]
        assert now.parts() in schedule.ever_trainable(epoch, per_epoch) <= schedule.ever_trainable(epoch) | {"p0"}


def test_a_stall_lasts_until_it_is_said_to_have_come() -> None:
    schedule = FreezeSchedule([Phase("a", until=Stall("val/loss", 2)), Phase("b", epochs=1), Phase("c")])
    assert schedule.at(50, 500).parts() == "a"
    number, starts = schedule.starts(4, 40, [Start(0, 0)], has_stalled=True)
    assert (number, starts) == (1, [Start(0, 0), Start(4, 40)])
    assert schedule.starts(5, 50, starts, has_stalled=True)[0] == 2
    assert schedule.ever_trainable(0) == {"a"} and schedule.ever_trainable(9) == {"a", "b", "c"}
    assert schedule.ever_trainable(2) == {"a", "b"}, "two values without an improvement take two epochs"


def test_gradual_unfreezing_takes_the_blocks_from_the_top() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18()
    schedule = FreezeSchedule.gradual(model, every="2 epochs", most=3)
    assert [phase.parts() for phase in schedule.all] == ["fc", "fc, layer4", "fc, layer4, layer3"]
    assert names(schedule, [(0, 0), (1, 9), (2, 18), (5, 50)]) == ["fc", "fc", "fc, layer4", "fc, layer4, layer3"]
    assert len(FreezeSchedule.gradual(model).all) == len(blocks_of(model)) == 7


def test_the_table_and_the_line() -> None:
    schedule = FreezeSchedule.alternate({"a": ["x", "y"], "b": "z"}, every="2 epochs", state="drop", batchnorm="eval")
    assert str(schedule).splitlines()[1].split("  ")[0] == "1"
    assert "statistics eval, drops optimizer state" in str(schedule) and str(schedule).endswith("again from phase 1")
    assert schedule.summary() == "a (x, y): 2 epochs; b (z): 2 epochs; and again"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FreezeSchedule([]), "at least one relume.Phase"),
        (lambda: FreezeSchedule(None), "phases must be a list of relume.Phase, not None"),  # type: ignore[arg-type]
        (lambda: FreezeSchedule(["fc"]), "consists of relume.Phase, not str: 'fc'"),  # type: ignore[list-item]
        (lambda: FreezeSchedule([Phase("a"), Phase("b")]), r"phase 1 \(a\) has no end, so phase 2 \(b\) never comes"),
        (lambda: FreezeSchedule([Phase("a", epochs=1, name="x"), Phase("b", name="x")]), "two phases are called 'x'"),
        (lambda: FreezeSchedule([Phase("a", epochs=1), Phase("b", steps=1)], repeat=True), "repeat=True: each phase needs"),
        (lambda: FreezeSchedule([Phase("a", until=Stall("loss"))], repeat=True), "repeat=True"),
        (lambda: FreezeSchedule.alternate({"a": "x"}), "at least two groups by name"),
        (lambda: FreezeSchedule.alternate({"a": "x", "b": "y"}, every="often"), "every='often' is not understood"),
        (lambda: FreezeSchedule.gradual(["a", "b"], every=0), "every=0: it lasts at least 1"),
        (lambda: FreezeSchedule.gradual(["a", "b"], most=0), "most must be a whole number of at least 1, not 0"),
        (lambda: FreezeSchedule.gradual([]), "at least one relume.Phase"),
        (lambda: Phase("a", epochs=0), "epochs=0: it lasts at least 1 of the epochs"),
        (lambda: Phase("a", steps=-3), "steps=-3: it lasts at least 1"),
        (lambda: Phase("a", steps=1.5), "steps=1.5 is not understood"),  # type: ignore[arg-type]
        (lambda: Phase("a", epochs=True), "epochs=True is not understood"),
        (lambda: Phase("a", epochs=1, steps=2), "give one of epochs=, steps= and until="),
        (lambda: Phase("a", until="val/loss"), "until='val/loss' must be a relume.Stall"),  # type: ignore[arg-type]
        (lambda: Phase("a", lr=0), "phase of a: lr must be a number above 0, not 0"),
        (lambda: Phase("a", lr=-1.0, name="x"), "phase 'x': lr must be a number above 0"),
        (lambda: Phase("a", lr=float("nan")), "lr must be a number above 0, not nan"),
        (lambda: Phase("a", warmup=0), "warmup=0"),
        (lambda: Phase("a", warmup="soon"), "warmup='soon' is not understood"),
        (lambda: Phase("a", batchnorm="off"), "batchnorm='off': it is 'eval' or 'train'"),  # type: ignore[arg-type]
        (lambda: Phase("a", state="lose"), "state='lose': it is 'keep' or 'drop'"),  # type: ignore[arg-type]
        (lambda: Phase([]), r"trainable=\[\] is empty"),
        (lambda: Phase(7), "7 is a int: parts of a model"),  # type: ignore[arg-type]
        (lambda: Phase(["a", 7]), "7 is a int: parts of a model"),  # type: ignore[list-item]
        (lambda: Phase("a", name=""), "the name of a phase is a text, not ''"),
        (lambda: Stall(""), "the metric's name is needed"),
        (lambda: Stall("val/loss", 0), "patience must be a whole number of at least 1, not 0"),
        (lambda: Stall("val/x"), "does not tell whether smaller or larger is better"),
        (lambda: Stall("val/loss", mode="low"), "mode is 'min' or 'max', not 'low'"),  # type: ignore[arg-type]
        (lambda: Stall("val/loss", min_delta=-1.0), "min_delta must be at least 0"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "vit_b_16", "convnext_tiny", "swin_t", "efficientnet_b0", "densenet121", "mobilenet_v3_small"]
)  # fmt: skip
def test_every_parameter_is_in_one_group_and_the_head_is_fastest(name: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    groups = parameter_groups(model, 0.1, factor=0.5, weight_decay=0.05, no_decay=True)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(map(id, model.parameters())), "each exactly once"
    rates = [group["lr"] for group in groups]
    assert rates == sorted(rates, reverse=True) and rates[0] == 0.1 and len(set(rates)) == len(blocks_of(model)) >= 5
    top, last = {id(p) for p in groups[0]["params"]}, list(model.parameters())[-2]
    assert id(last) in top
    for group in groups:
        assert group["weight_decay"] == (0.0 if group["name"].endswith("(no decay)") else 0.05)
        assert all(p.dim() > 1 or group["weight_decay"] == 0 for p in group["params"])
    assert len({group["name"] for group in groups}) == len(groups)
    assert [g["name"] for g in torch.optim.SGD(groups).param_groups] == [g["name"] for g in groups]


def test_groups_may_be_given_and_tied_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    made = parameter_groups(model, 1.0, factor=0.1, groups={"top": ["2"], "middle": "1"})
    assert [(g["name"], len(g["params"]), g["lr"]) for g in made] == [
        ("top", 2, 1.0),
        ("middle", 2, 0.1),
        ("rest", 1, 0.1**2),
    ]
    assert [g["name"] for g in parameter_groups(model, 1.0, groups=["2", ["1", "0.bias"]])] == ["2", "1, 0.bias"]
    assert [len(g["params"]) for g in parameter_groups(model, 1.0)] == [2, 2, 1]
    assert {g["weight_decay"] for g in parameter_groups(model, 1.0, no_decay=["*.bias"]) if "decay" in g["name"]} == {
        0.0
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0}, "lr must be a number above 0, not 0"),
        ({"lr": 1.0, "factor": -1}, "factor must be a number above 0, not -1"),
        ({"lr": 1.0, "weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"lr": 1.0, "groups": ["0", "0.*"]}, "0.weight is in the groups '0' and '0.*'"),
        ({"lr": 1.0, "groups": ["0", "0"]}, "the same group is given twice"),
        ({"lr": 1.0, "groups": ["x"]}, "'x' matches nothing"),
        ({"lr": 1.0, "groups": {"a": ["1"]}}, "the group 'a' has no parameters"),
        ({"lr": 1.0, "no_decay": ["y"]}, "'y' matches nothing"),
    ],
)
def test_bad_groups_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigurationError, NoMatchError), match=message):
        parameter_groups(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), **arguments)


def test_one_group_is_no_list_of_letters() -> None:
    assert [phase.parts() for phase in FreezeSchedule.gradual("layer4").all] == ["layer4"]
