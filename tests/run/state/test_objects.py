"""Tracked objects: what comes back, what cannot be stored, and how it is said."""

from __future__ import annotations

import enum
import math
import pathlib
import random
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from relume.checkpoint import encode
from relume.errors import ConfigurationError, MismatchError, UnstorableError
from relume.run.state import (
    load_model_state,
    load_object_state,
    model_state,
    object_state,
)

from .common import Tracked, same, scheduled, stored, train


def first_curve(x: float) -> float:
    return x


@pytest.mark.parametrize(
    "value",
    [
        {1: "one", (2, 3): [4.0, math.inf], None: True},
        {"set": {1, 2}, "frozen": frozenset({"a"}), "big": 2**90, "bytes": b"x" * 3000},
        deque([1, 2, 3], maxlen=5),
        OrderedDict([("b", 1), ("a", 2)]),
        Counter({"a": 3}),
        defaultdict(list, {"a": [1]}),
        {"array": np.arange(6).reshape(2, 3), "number": np.float32(1.5), "tensor": torch.arange(3)},
        [],
        None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_python_state_of_a_tracked_object_comes_back(value: Any) -> None:
    state = stored(object_state("thing", Tracked(value)))
    for _ in range(2):  # a load_state_dict that takes its argument apart does not harm the state
        live = Tracked()
        assert load_object_state("thing", live, state) == []
        assert same(live.value, value)
    assert getattr(live.value, "default_factory", None) is getattr(value, "default_factory", None)


class Color(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int = 0


@pytest.mark.parametrize("value", [Color.RED, Point(), pathlib.PurePosixPath("a"), object(), {"deep": [Point()]}])
def test_what_cannot_be_stored_is_named_with_its_place(value: Any) -> None:
    state = {"tracked": {"thing": object_state("thing", Tracked(value))}}
    with pytest.raises(UnstorableError, match=r"state\.tracked\.thing\.state\.value.*which a checkpoint cannot hold"):
        encode(state)


def test_a_state_that_contains_itself_is_an_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnstorableError, match="contains itself"):
        encode(object_state("thing", Tracked(endless)))


def test_an_object_without_state_dict_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"history is a builtins\.dict, which has no state_dict\(\)"):
        object_state("history", {})
    with pytest.raises(ConfigurationError, match="no state_dict"):
        load_object_state("history", Point(), {"class": "Point", "state": {}})


def test_a_state_dict_that_fails_is_an_error_with_the_name() -> None:
    scheduler = scheduled(lambda o: lr_scheduler.LambdaLR(o, math.cos))
    with pytest.raises(ConfigurationError, match="schedule: LambdaLR.state_dict.. failed with AttributeError"):
        object_state("schedule", scheduler)


def test_a_state_that_an_object_refuses_is_an_error_with_the_name() -> None:
    with pytest.raises(
        MismatchError, match="thing: Tracked does not take the state of the checkpoint: KeyError: 'value'"
    ):
        load_object_state("thing", Tracked(), {"class": "Tracked", "state": {}})


def test_objects_and_generators_inside_of_a_state_keep_their_identity() -> None:
    def make() -> Tracked:
        return Tracked({"inner": Tracked(5), "noise": torch.Generator().manual_seed(3), "layer": nn.Linear(1, 1)})

    old = make()
    torch.rand(3, generator=old.value["noise"])
    state = stored(object_state("thing", old))
    live = make()
    live.value["inner"].value = 0
    inner = dict(live.value)
    assert load_object_state("thing", live, state) == []
    assert all(live.value[key] is inner[key] for key in inner)
    assert live.value["inner"].value == 5
    assert same(live.value["layer"].weight, old.value["layer"].weight)
    assert torch.rand(1, generator=live.value["noise"]) == torch.rand(1, generator=old.value["noise"])


def test_a_function_or_object_that_the_script_lacks_is_a_note() -> None:
    old = Tracked({"f": first_curve, "inner": Tracked(1), "list": [first_curve]})
    live = Tracked({"list": []})
    notes = load_object_state("thing", live, stored(object_state("thing", old)))
    assert notes == [
        "thing.value.f: the checkpoint had the function first_curve there, which the script lacks",
        "thing.value.inner: the checkpoint had an object there, which the script lacks",
        "thing.value.list.0: the checkpoint had the function first_curve there, which the script lacks",
    ]
    assert live.value == {"list": [None]}


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (lambda: torch.Generator().manual_seed(1), lambda g: torch.randn(3, generator=g).tolist()),
        (lambda: np.random.default_rng(1), lambda g: g.standard_normal(3).tolist()),
        (lambda: np.random.RandomState(1), lambda g: g.randn(3).tolist()),
        (lambda: random.Random(1), lambda g: g.gauss(0, 1)),
    ],
    ids=["torch", "Generator", "RandomState", "Random"],
)
def test_a_tracked_generator_goes_on(make: Any, draw: Any) -> None:
    generator = make()
    draw(generator)
    state = stored(object_state("noise", generator))
    expected = [draw(generator) for _ in range(3)]
    live = make()
    assert load_object_state("noise", live, state) == []
    assert [draw(live) for _ in range(3)] == expected


def test_a_grad_scaler_comes_back_and_may_be_switched() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    scaler.scale(torch.ones(1))
    scaler.update(256.0)
    state = stored(object_state("scaler", scaler))
    live = torch.amp.GradScaler("cpu")
    assert load_object_state("scaler", live, state) == [] and live.get_scale() == 256.0
    off = torch.amp.GradScaler("cpu", enabled=False)
    assert "switched off now" in load_object_state("scaler", off, state)[0]
    assert "starts afresh" in load_object_state("scaler", live, stored(object_state("scaler", off)))[0]
    assert live.get_scale() == 256.0


@pytest.mark.parametrize("use_buffers", [False, True])
def test_an_averaged_model_goes_on(use_buffers: bool) -> None:
    def make() -> tuple[nn.Module, AveragedModel]:
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        average = AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=use_buffers
        )
        return model, average

    def go(model: nn.Module, average: AveragedModel, start: int, stop: int) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(start, stop):
            train(model, optimizer, step, step + 1)
            average.update_parameters(model)

    model, average = make()
    go(model, average, 0, 3)
    state = stored([model_state(model), object_state("average", average)])
    go(model, average, 3, 6)
    other, live = make()
    load_model_state(other, state[0])
    assert load_object_state("average", live, state[1]) == []
    go(other, live, 3, 6)
    assert int(live.n_averaged) == 6
    assert same(model_state(live), model_state(average))
