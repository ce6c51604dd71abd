"""Schedulers: every one of torch goes on bit for bit, whatever functions it holds."""

from __future__ import annotations

import contextlib
import inspect
import math
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from relume.checkpoint import Store
from relume.run.state import (
    group_options,
    initial_options,
    load_object_state,
    model_state,
    object_state,
)

from .common import captured, restore, same, scheduled, stored, train


class Decay:
    """A callable object with a state of its own."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, epoch: int) -> float:
        self.calls += 1
        return 0.9**self.calls


class Warmup(lr_scheduler.LRScheduler):
    """A scheduler that holds others, the optimizer under a second name, and functions, as many in the wild do."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.after = lr_scheduler.ExponentialLR(optimizer, 0.9)
        self.of = optimizer
        self.curve = math.sqrt
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        return [base * self.curve(self.last_epoch + 1) * self.after.gamma for base in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch > 1:
            self.after.step()
        super().step(epoch)


def sequential(optimizer: torch.optim.Optimizer) -> Any:
    parts = [lr_scheduler.LambdaLR(optimizer, lambda e: 0.1 + e / 9), lr_scheduler.CosineAnnealingLR(optimizer, 5)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[4])


def chained(optimizer: torch.optim.Optimizer) -> Any:
    return lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer, total_iters=4), lr_scheduler.MultiplicativeLR(optimizer, lambda e: 0.95)]
    )


SCHEDULES: dict[str, list[Callable[[Any], Any]]] = {
    "ChainedScheduler": [chained],
    "ConstantLR": [lambda o: lr_scheduler.ConstantLR(o, total_iters=4)],
    "CosineAnnealingLR": [lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=6)],
    "CosineAnnealingWarmRestarts": [lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=2, T_mult=2)],
    "CyclicLR": [
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2, mode="exp_range", gamma=0.9),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2, scale_fn=lambda x: 0.7**x),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2, scale_fn=Decay(), cycle_momentum=False),
    ],
    "ExponentialLR": [lambda o: lr_scheduler.ExponentialLR(o, 0.9)],
    "LambdaLR": [lambda o: lr_scheduler.LambdaLR(o, lambda e: 0.9**e), lambda o: lr_scheduler.LambdaLR(o, Decay())],
    "LinearLR": [lambda o: lr_scheduler.LinearLR(o, total_iters=5)],
    "MultiStepLR": [lambda o: lr_scheduler.MultiStepLR(o, [2, 4, 4])],
    "MultiplicativeLR": [lambda o: lr_scheduler.MultiplicativeLR(o, Decay())],
    "OneCycleLR": [
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9, three_phase=True, anneal_strategy="linear"),
    ],
    "PolynomialLR": [lambda o: lr_scheduler.PolynomialLR(o, total_iters=6, power=2.0)],
    "ReduceLROnPlateau": [lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, cooldown=1)],
    "SequentialLR": [sequential],
    "StepLR": [lambda o: lr_scheduler.StepLR(o, 2)],
    "SWALR": [lambda o: SWALR(o, 0.02, anneal_epochs=6), lambda o: SWALR(o, 0.02, 6, "linear")],
    "Warmup": [Warmup],
}
SCHEDULERS = sorted(
    name
    for name, value in vars(lr_scheduler).items()
    if inspect.isclass(value)
    and issubclass(value, lr_scheduler.LRScheduler)
    and name not in ("LRScheduler", "_LRScheduler")
)


def test_every_scheduler_of_torch_has_a_case() -> None:
    assert set(SCHEDULERS) <= set(SCHEDULES), "add a case for the new scheduler"


@pytest.mark.parametrize("make_scheduler", [make for makes in SCHEDULES.values() for make in makes])
@pytest.mark.parametrize("steps", [0, 1, 3, 5])
@pytest.mark.filterwarnings("ignore:To get the last learning rate")
def test_every_scheduler_goes_on_as_if_never_stopped(
    make_scheduler: Callable[[Any], Any], steps: int, tmp_path: pathlib.Path
) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        torch.manual_seed(1)
        model = nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with warnings.catch_warnings(action="ignore"):
            return model, optimizer, make_scheduler(optimizer)

    model, optimizer, scheduler = make()
    options, schedule = group_options(optimizer), initial_options(scheduler)
    train(model, optimizer, 0, steps, scheduler)
    state = captured(model, optimizer, initial=options)
    state["scheduler"] = object_state("scheduler", scheduler, initial=schedule)
    store = Store(tmp_path)
    loaded = store.load(store.save(state))
    with forgiving(make_scheduler):
        train(model, optimizer, steps, 8, scheduler)

    other, live, live_scheduler = make()
    options, schedule = group_options(live), initial_options(live_scheduler)
    assert restore(other, live, loaded, initial=options) == []
    assert load_object_state("scheduler", live_scheduler, loaded["scheduler"], initial=schedule) == []
    with forgiving(make_scheduler):
        train(other, live, steps, 8, live_scheduler)
    assert same(model_state(other), model_state(model))
    assert same(live.state_dict(), optimizer.state_dict())
    assert same(object_state("s", live_scheduler), object_state("s", scheduler))


@contextlib.contextmanager
def forgiving(make_scheduler: Any) -> Iterator[None]:
    """SequentialLR warns of its own doing."""
    with warnings.catch_warnings():
        if make_scheduler is sequential:
            warnings.simplefilter("ignore")
        yield


def test_a_resume_between_a_step_and_the_schedulers_first_gives_no_warning() -> None:
    def make() -> Any:
        model = nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, optimizer, lr_scheduler.StepLR(optimizer, 1)

    model, optimizer, scheduler = make()
    train(model, optimizer, 0, 1)
    state = stored([captured(model, optimizer), object_state("scheduler", scheduler)])
    model, optimizer, scheduler = make()
    restore(model, optimizer, state[0])
    load_object_state("scheduler", scheduler, state[1])
    scheduler.step()  # warnings are errors here
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_another_class_of_scheduler_is_said_and_nothing_loaded() -> None:
    state = stored(object_state("scheduler", scheduled(lambda o: lr_scheduler.StepLR(o, 3))))
    live = scheduled(lambda o: lr_scheduler.ExponentialLR(o, 0.5))
    assert load_object_state("scheduler", live, state) == [
        "scheduler: the checkpoint's is a StepLR, the script's a ExponentialLR: it starts afresh"
    ]
    assert not hasattr(live, "step_size")


def test_changed_options_of_a_scheduler_are_named_and_can_be_overridden() -> None:
    old = scheduled(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10))
    state = stored(object_state("scheduler", old, initial=initial_options(old)))
    live = scheduled(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=20))
    notes = load_object_state("scheduler", live, state)
    assert notes == [
        "scheduler: T_max was 10 and is 20 in the script: the checkpoint's is used (override={'T_max'} uses the script's)"
    ]
    assert live.T_max == 10
    live = scheduled(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=20))
    notes = load_object_state("scheduler", live, state, override=frozenset({"T_max"}))
    assert live.T_max == 20 and notes[0].endswith("the script's is used")


def test_changed_options_inside_of_a_sequence_are_named() -> None:
    def make(gamma: float) -> Any:
        def build(optimizer: Any) -> Any:
            parts = [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, gamma)]
            return lr_scheduler.SequentialLR(optimizer, parts, [3])

        return scheduled(build)

    old = make(0.5)
    state = stored(object_state("scheduler", old, initial=initial_options(old)))
    live = make(0.7)
    notes = load_object_state("scheduler", live, state, override=frozenset({"gamma"}))
    assert notes == ["scheduler.1: gamma was 0.5 and is 0.7 in the script: the script's is used"]
    assert live._schedulers[1].gamma == 0.7


def test_a_scheduler_goes_on_when_a_group_was_added() -> None:
    old = scheduled(lambda o: lr_scheduler.ExponentialLR(o, 0.5))
    old.optimizer.step()
    old.step()
    state = stored(object_state("scheduler", old))
    live = scheduled(lambda o: lr_scheduler.LambdaLR(o, lambda e: 1.0), parts=2)
    assert "starts afresh" in load_object_state("scheduler", live, state)[0]
    live = scheduled(lambda o: lr_scheduler.ExponentialLR(o, 0.5), parts=2)
    notes = load_object_state("scheduler", live, state)
    assert notes == ["scheduler: it was saved for 1 group and has 2: the first ones go on"]
    live.optimizer.step()
    live.step()
    assert live.last_epoch == 2 and len(live.get_last_lr()) == 2


def first_curve(x: float) -> float:
    return x


def second_curve(x: float) -> float:
    return 2 * x


def test_another_function_in_the_script_is_named() -> None:
    def make(curve: Any) -> Any:
        live = scheduled(lambda o: lr_scheduler.StepLR(o, 3))
        live.curve = curve
        return live

    state = stored(object_state("scheduler", make(first_curve)))
    live = make(second_curve)
    assert load_object_state("scheduler", live, state) == [
        "scheduler.curve: was first_curve, is second_curve in the script: the script's is used"
    ]
    assert live.curve is second_curve
