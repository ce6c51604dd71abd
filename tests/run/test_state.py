"""State by name: what is captured, stored and put back goes on bit for bit."""

from __future__ import annotations

import contextlib
import copy
import enum
import inspect
import math
import pathlib
import random
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel

from relume.checkpoint import Store, decode, encode
from relume.errors import ConfigurationError, MismatchError, OptimizerError, UnstorableError
from relume.names import parameter_names
from relume.run.state import (
    constants,
    gradients,
    group_options,
    initial_options,
    load_gradients,
    load_model_state,
    load_object_state,
    load_optimizer_state,
    load_random_state,
    model_state,
    object_state,
    optimizer_state,
    random_state,
)

Make = Callable[[], tuple[nn.Module, torch.optim.Optimizer]]


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, tensors of any kind included."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(bits(one), bits(other))
    if isinstance(one, dict):
        return type(one) is type(other) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple, deque)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return type(one) is type(other) and (one == other or repr(one) == repr(other))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def stored(state: Any) -> Any:
    """What comes back from a checkpoint, without its files."""
    encoded = encode(state)
    return decode(encoded.tree, lambda place: copy.deepcopy(encoded.sources[place].value))


def batch(step: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(step)).to(dtype)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, start: int, stop: int, scheduler: Any = None) -> None:
    dtype = next(model.parameters()).dtype
    for step in range(start, stop):

        def closure(step: int = step) -> torch.Tensor:
            optimizer.zero_grad()
            inputs = batch(step, dtype)
            loss = model(inputs.abs().long() % 4 if isinstance(model, nn.Embedding) else inputs).float().square().mean()
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss.item() + step)
        elif scheduler is not None:
            scheduler.step()


# ------------------------------------------------------------------------------------------------------- optimizers

CASES: dict[str, list[dict[str, Any]]] = {
    "ASGD": [{"lambd": 0.1, "t0": 2}, {"weight_decay": 0.1, "foreach": True}, {"maximize": True}],
    "Adadelta": [{}, {"foreach": True, "weight_decay": 0.1}, {"maximize": True}],
    "Adafactor": [{}, {"foreach": True, "weight_decay": 0.1}],
    "Adagrad": [{"lr_decay": 0.1}, {"initial_accumulator_value": 0.5, "foreach": True}, {"fused": True}],
    "Adam": [{}, {"amsgrad": True}, {"foreach": True, "maximize": True}, {"fused": True, "amsgrad": True}, {"weight_decay": 0.1}],
    "AdamW": [{}, {"amsgrad": True}, {"foreach": True}, {"fused": True}],
    "Adamax": [{}, {"foreach": True, "weight_decay": 0.1}],
    "LBFGS": [{"max_iter": 3}, {"max_iter": 3, "line_search_fn": "strong_wolfe"}, {"max_iter": 3, "history_size": 2}],
    "Muon": [{}, {"nesterov": False, "weight_decay": 0.2}],
    "NAdam": [{}, {"decoupled_weight_decay": True, "weight_decay": 0.1}, {"foreach": True}],
    "RAdam": [{}, {"foreach": True}, {"decoupled_weight_decay": True, "weight_decay": 0.1}],
    "RMSprop": [{}, {"centered": True, "momentum": 0.5}, {"foreach": True, "momentum": 0.9}],
    "Rprop": [{}, {"foreach": True}],
    "SGD": [{}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "dampening": 0.1, "maximize": True}, {"momentum": 0.9, "fused": True}],
    "SparseAdam": [{}, {"betas": (0.5, 0.9)}],
}  # fmt: skip
OPTIMIZERS = sorted(
    name
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
)
LR = {"SGD": 0.05, "Adadelta": 1.0, "LBFGS": 0.5}


def test_every_optimizer_of_torch_has_a_case() -> None:
    assert set(OPTIMIZERS) <= set(CASES), "add a case for the new optimizer"


def optimizer_maker(name: str, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> Make:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(1)
        if name == "SparseAdam":
            model: nn.Module = nn.Embedding(4, 3, sparse=True)
        else:
            model = nn.Sequential(nn.Linear(4, 5, bias=name != "Muon"), nn.Tanh(), nn.Linear(5, 4, bias=name != "Muon"))
        model.to(dtype)
        kind = getattr(torch.optim, name)
        return model, kind(model.parameters(), **{"lr": LR.get(name, 0.01)} | options)

    return make


def captured(model: nn.Module, optimizer: torch.optim.Optimizer, **more: Any) -> dict[str, Any]:
    names = parameter_names({"model": model})
    return {"model": model_state(model), "optimizer": optimizer_state(optimizer, names, **more)}


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], **more: Any) -> list[str]:
    notes = load_model_state(model, state["model"])
    return notes + load_optimizer_state(optimizer, state["optimizer"], parameter_names({"model": model}), **more)


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name in OPTIMIZERS for options in CASES.get(name, [])],
    ids=lambda value: value if isinstance(value, str) else ",".join(value) or "plain",
)
def test_every_optimizer_goes_on_as_if_never_stopped(
    name: str, options: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    make = optimizer_maker(name, options)
    model, optimizer = make()
    train(model, optimizer, 0, 3)
    store = Store(tmp_path)
    loaded = store.load(store.save(captured(model, optimizer)))
    at_save = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, 3, 7)

    other, other_optimizer = make()
    assert restore(other, other_optimizer, loaded) == []
    assert same(other_optimizer.state_dict(), at_save)
    train(other, other_optimizer, 3, 7)
    assert same(model_state(other), model_state(model))
    assert same(other_optimizer.state_dict(), optimizer.state_dict())


@pytest.mark.parametrize("name", ["Adam", "NAdam", "ASGD", "SGD", "Adagrad", "RAdam"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_no_bit_is_cast_for_parameters_of_another_dtype(name: str, dtype: torch.dtype) -> None:
    make = optimizer_maker(name, {"momentum": 0.9} if name == "SGD" else {}, dtype)
    model, optimizer = make()
    train(model, optimizer, 0, 3)
    for entry in optimizer.state.values():
        for key, value in entry.items():
            if value.dim():
                entry[key] = value.float() + 1e-4  # as an optimizer that keeps its state in float32
    loaded = stored(captured(model, optimizer))
    other, other_optimizer = make()
    assert restore(other, other_optimizer, loaded) == []
    assert same(other_optimizer.state_dict(), optimizer.state_dict())


def test_a_state_that_was_loaded_shares_no_memory_with_the_checkpoint() -> None:
    model, optimizer = optimizer_maker("Adam", {})()
    train(model, optimizer, 0, 2)
    loaded = stored(captured(model, optimizer))
    before = copy.deepcopy(loaded)
    for _ in range(2):
        restore(model, optimizer, loaded)
        train(model, optimizer, 2, 4)
        assert same(loaded, before)


def test_parameters_are_matched_by_name_and_never_by_position() -> None:
    model, optimizer = optimizer_maker("Adam", {})()
    train(model, optimizer, 0, 3)
    loaded = stored(captured(model, optimizer))
    turned = torch.optim.Adam(list(reversed(list(model.parameters()))), lr=0.01)
    assert load_optimizer_state(turned, loaded["optimizer"], parameter_names({"model": model})) == []
    for parameter in model.parameters():
        assert same(turned.state[parameter], optimizer.state[parameter])


def test_a_wrapped_model_takes_the_state_of_the_plain_one() -> None:
    make = optimizer_maker("Adam", {"amsgrad": True})
    model, optimizer = make()
    train(model, optimizer, 0, 3)
    loaded = stored(captured(model, optimizer))
    other, other_optimizer = make()
    wrapped = nn.DataParallel(torch.compile(other))
    assert restore(wrapped, other_optimizer, loaded) == []
    assert same(model_state(wrapped), model_state(model))
    assert same(optimizer_state(other_optimizer, parameter_names({"model": wrapped})), loaded["optimizer"])


def test_another_class_of_optimizer_is_said_and_nothing_loaded() -> None:
    model, optimizer = optimizer_maker("Adam", {})()
    train(model, optimizer, 0, 2)
    state = stored(captured(model, optimizer))["optimizer"]
    other = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    notes = load_optimizer_state(other, state, parameter_names({"model": model}), what="optimizer 'main'")
    assert notes == [
        "optimizer 'main': the checkpoint's is Adam, the script's is SGD: nothing was loaded, it starts afresh"
    ]
    assert not other.state and other.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize("name", ["Adam", "Adagrad", "LBFGS"])
def test_parameters_come_and_go_and_the_notes_name_them(name: str) -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    kind = getattr(torch.optim, name)
    optimizer = kind(model.parameters(), lr=0.01)

    def step(module: nn.ModuleDict, of: torch.optim.Optimizer) -> None:
        def closure() -> torch.Tensor:
            of.zero_grad()
            loss = sum(part(batch(0)).square().mean() for part in module.values())
            loss.backward()
            return loss

        of.step(closure)

    step(model, optimizer)
    state = stored(optimizer_state(optimizer, parameter_names({"model": model})))
    changed = nn.ModuleDict({"a": model["a"], "c": nn.Linear(4, 4)})
    live = kind(changed.parameters(), lr=0.01)
    notes = load_optimizer_state(live, state, parameter_names({"model": changed}))
    text = "\n".join(notes)
    assert (
        "2 parameters of the checkpoint no longer there: their state is left out: model.b.weight, model.b.bias" in text
    )
    if name == "LBFGS":
        assert "LBFGS starts afresh" in text and not live.state
    else:
        assert "2 parameters new: they start with empty state: model.c.weight, model.c.bias" in text
        assert same(live.state[model["a"].weight], optimizer.state[model["a"].weight])
    step(changed, live)


def test_a_parameter_of_another_shape_starts_with_empty_state() -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 0, 2)
    state = stored(optimizer_state(optimizer, parameter_names({"model": model})))
    other = nn.Linear(4, 5)
    live = torch.optim.Adam(other.parameters())
    notes = load_optimizer_state(live, state, parameter_names({"model": other}))
    assert notes == [
        "optimizer: 2 parameters of another shape than in the checkpoint: they start with empty state: "
        "model.weight, model.bias"
    ]
    assert not live.state
    train(other, live, 0, 1)


def test_groups_find_their_options_by_name() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    a, b = list(model["a"].parameters()), list(model["b"].parameters())
    optimizer = torch.optim.SGD([{"params": a, "lr": 0.1}, {"params": b, "lr": 0.2}], lr=1.0)
    names = parameter_names({"model": model})
    initial = group_options(optimizer)
    optimizer.param_groups[0]["lr"] = 0.05
    state = stored(optimizer_state(optimizer, names, initial=initial))
    turned = torch.optim.SGD([{"params": b, "lr": 0.2}, {"params": a, "lr": 0.1}], lr=1.0)
    assert load_optimizer_state(turned, state, names) == []
    assert [group["lr"] for group in turned.param_groups] == [0.2, 0.05]

    one = torch.optim.SGD([*a, *b], lr=0.1)
    notes = load_optimizer_state(one, state, names)
    assert "were in groups 0, 1 with different options: those of group 0 are used" in notes[-1]

    head = nn.Linear(2, 1)
    grown = torch.optim.SGD([{"params": a, "lr": 0.1}, {"params": b, "lr": 0.2}, {"params": head.parameters()}], lr=1.0)
    notes = load_optimizer_state(grown, state, parameter_names({"model": model, "head": head}))
    assert [group["lr"] for group in grown.param_groups] == [0.05, 0.2, 1.0]
    assert any("group 2 (2 parameters) is new" in note for note in notes)


def test_an_optimizer_with_parameters_of_no_model_is_an_error() -> None:
    model = nn.Linear(2, 3)
    stranger = nn.Parameter(torch.ones(7, 9))
    optimizer = torch.optim.SGD([*model.parameters(), stranger], lr=0.1)
    with pytest.raises(OptimizerError, match=r"SGD updates 1 parameter of no model \(of shape \(7, 9\)\)"):
        optimizer_state(optimizer, parameter_names({"model": model}))


def changed_options(script: dict[str, Any], override: frozenset[str] = frozenset()) -> tuple[list[str], dict[str, Any]]:
    """What becomes of a change in the script, when the learning rate had been halved during the training."""
    model = nn.Linear(2, 2)
    names = parameter_names({"model": model})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    initial = group_options(optimizer)
    optimizer.param_groups[0]["lr"] = 0.05
    state = stored(optimizer_state(optimizer, names, initial=initial))
    live = torch.optim.Adam(model.parameters(), **{"lr": 0.1} | script)
    return load_optimizer_state(live, state, names, override=override), live.param_groups[0]


def test_an_unchanged_script_goes_on_with_the_checkpoints_options() -> None:
    notes, group = changed_options({})
    assert notes == [] and group["lr"] == 0.05


def test_a_changed_option_is_named_with_both_values_and_the_checkpoints_is_used() -> None:
    notes, group = changed_options({"lr": 0.3, "betas": (0.8, 0.99)})
    assert notes == [
        "optimizer: lr was 0.1 and is 0.3 in the script: the checkpoint's 0.05 is used (override={'lr'} uses the script's)",
        "optimizer: betas was (0.9, 0.999) and is (0.8, 0.99) in the script: the checkpoint's (0.9, 0.999) is used "
        "(override={'betas'} uses the script's)",
    ]
    assert (group["lr"], group["betas"]) == (0.05, (0.9, 0.999))


def test_override_takes_the_scripts_value() -> None:
    notes, group = changed_options({"lr": 0.3, "weight_decay": 0.5}, frozenset({"lr"}))
    assert notes[0] == "optimizer: lr was 0.1 and is 0.3 in the script: the script's is used"
    assert (group["lr"], group["weight_decay"]) == (0.3, 0)
    notes, group = changed_options({}, frozenset({"lr"}))
    assert notes == [] and group["lr"] == 0.05, "what the script did not change goes on"


def test_how_the_step_is_computed_is_the_scripts() -> None:
    notes, group = changed_options({"foreach": True})
    assert group["foreach"] is True and "the last bits may differ" in notes[0]


def test_an_overridden_learning_rate_keeps_to_the_schedule() -> None:
    def make(lr: float) -> Any:
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        scheduler = lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
        return model, optimizer, scheduler, group_options(optimizer), initial_options(scheduler)

    model, optimizer, scheduler, options, schedule = make(0.1)
    train(model, optimizer, 0, 2, scheduler)
    names = parameter_names({"model": model})
    state = stored(
        [optimizer_state(optimizer, names, initial=options), object_state("scheduler", scheduler, initial=schedule)]
    )
    model, optimizer, scheduler, options, schedule = make(0.4)
    names, override = parameter_names({"model": model}), frozenset({"lr"})
    notes = load_optimizer_state(optimizer, state[0], names, initial=options, override=override)
    notes += load_object_state("scheduler", scheduler, state[1], initial=schedule, override=override)
    assert notes[0].endswith("lr was 0.1 and is 0.4 in the script: the script's is used, on the schedule 0.1")
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    train(model, optimizer, 2, 3, scheduler)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4 * 0.5**3)


def test_a_learning_rate_that_is_a_tensor_stays_one() -> None:
    model = nn.Linear(4, 2)
    names = parameter_names({"model": model})
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1), foreach=False)
    optimizer.param_groups[0]["lr"] *= 0.3
    state = stored(optimizer_state(optimizer, names))
    live = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1), foreach=False)
    load_optimizer_state(live, state, names)
    assert same(live.param_groups[0]["lr"], optimizer.param_groups[0]["lr"])
    plain = torch.optim.Adam(model.parameters(), lr=0.1)
    load_optimizer_state(plain, state, names)
    assert type(plain.param_groups[0]["lr"]) is float


class Hooked(torch.optim.SGD):
    """An optimizer of another make: further entries, texts, arrays and hooks."""

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        self.calls = 0
        self.state["global"] = {"ticks": 0}

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        self.calls += 1
        self.state["global"]["ticks"] += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter].update(
                    kind="nf4",
                    counts=np.array([self.calls]),
                    recent=deque([self.calls], maxlen=2),
                    code=parameter.numel,
                )
        return loss

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]
        super().load_state_dict(state)


def test_an_optimizer_of_another_make_gets_all_that_it_keeps() -> None:
    def make() -> tuple[nn.Module, Hooked]:
        torch.manual_seed(1)
        model = nn.Linear(4, 2)
        return model, Hooked(model.parameters(), lr=0.1, momentum=0.9)

    model, optimizer = make()
    train(model, optimizer, 0, 3)
    loaded = stored(captured(model, optimizer))
    other, live = make()
    train(other, live, 0, 1)
    assert restore(other, live, loaded) == []
    assert live.calls == 3 and live.state["global"] == {"ticks": 3}
    entry = live.state[next(other.parameters())]
    assert entry["kind"] == "nf4" and entry["counts"].tolist() == [3] and entry["recent"].maxlen == 2
    assert entry["code"] == next(other.parameters()).numel


def test_a_quantized_state_that_hooks_restore_is_left_as_they_make_it() -> None:
    model = nn.Linear(4, 2)
    names = parameter_names({"model": model})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer, 0, 2)
    state = stored(optimizer_state(optimizer, names))

    def halve(live: torch.optim.Optimizer) -> None:
        for entry in live.state.values():
            entry["momentum_buffer"] = entry["momentum_buffer"].half()

    live = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    live.register_load_state_dict_post_hook(halve)
    load_optimizer_state(live, state, names)
    assert all(entry["momentum_buffer"].dtype == torch.float16 for entry in live.state.values())


def test_an_optimizer_that_refuses_its_state_is_named() -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = stored(optimizer_state(optimizer, parameter_names({"model": model})))

    def refuse(live: Any, state: Any) -> None:
        raise KeyError("amsgrad")

    optimizer.register_load_state_dict_pre_hook(refuse)
    with pytest.raises(
        MismatchError, match="optimizer: SGD does not take the state of the checkpoint: KeyError: 'amsgrad'"
    ):
        load_optimizer_state(optimizer, state, parameter_names({"model": model}))


def test_state_takes_the_layout_of_its_parameter() -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    state = stored(optimizer_state(optimizer, parameter_names({"model": model})))
    load_optimizer_state(optimizer, state, parameter_names({"model": model}))
    assert optimizer.state[model.weight]["exp_avg"].stride() == model.weight.stride()


# ------------------------------------------------------------------------------------------------------- schedulers


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


def scheduled(lr_of: Callable[[Any], Any], parts: int = 1) -> Any:
    layers = [nn.Linear(2, 2) for _ in range(parts)]
    return lr_of(torch.optim.SGD([{"params": layer.parameters()} for layer in layers], lr=0.1))


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


# ---------------------------------------------------------------------------------------------------------- objects


class Tracked:
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state.pop("value")


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


# ----------------------------------------------------------------------------------------------------------- models


class WithExtra(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("cache", torch.zeros(1), persistent=False)
        self.vocabulary = {"a": 1}

    def get_extra_state(self) -> Any:
        return {"vocabulary": self.vocabulary}

    def set_extra_state(self, state: Any) -> None:
        self.vocabulary = state["vocabulary"]


def weight_normed() -> nn.Module:
    return nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))


def old_weight_normed() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        return nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(4, 3)))


MODELS: list[Callable[[], nn.Module]] = [
    lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)),
    WithExtra,
    weight_normed,
    old_weight_normed,
    lambda: torch.nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)),
    lambda: torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)),
    lambda: nn.LSTM(4, 3),
    lambda: nn.MultiheadAttention(4, 2),
]


@pytest.mark.parametrize("make", MODELS)
def test_a_model_comes_back_into_the_objects_that_are_there(
    make: Callable[[], nn.Module], tmp_path: pathlib.Path
) -> None:
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    if isinstance(model, WithExtra):
        model.vocabulary = {"b": 2}
        model.seen += 5
    store = Store(tmp_path)
    loaded = store.load(store.save(model_state(model)))
    other = make()
    before = [(id(tensor), tensor.data_ptr()) for tensor in (*other.parameters(), *other.buffers())]
    assert load_model_state(other, loaded) == []
    assert same(model_state(other), model_state(model))
    assert before == [(id(tensor), tensor.data_ptr()) for tensor in (*other.parameters(), *other.buffers())]
    if isinstance(other, WithExtra):
        assert other.vocabulary == {"b": 2} and int(other.seen) == 5


def test_a_model_state_is_live_and_ties_stay_one_memory() -> None:
    model = nn.ModuleDict({"one": nn.Linear(3, 3), "two": nn.Linear(3, 3)})
    model["two"].weight = model["one"].weight
    state = model_state(model)
    assert state["one.weight"].data_ptr() == state["two.weight"].data_ptr() == model["one"].weight.data_ptr()
    assert len(encode(state).sources) == 3
    with torch.no_grad():
        model["one"].weight.fill_(7)
    assert bool((state["two.weight"] == 7).all())
    loaded = stored(state)
    load_model_state(model, loaded)
    assert model["two"].weight is model["one"].weight


def test_missing_and_unexpected_tensors_are_one_note() -> None:
    old = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 3)})
    new = nn.ModuleDict({"body": nn.Linear(2, 2), "fc": nn.Linear(2, 3)})
    kept = new["fc"].weight.detach().clone()
    notes = load_model_state(nn.DataParallel(new), stored(model_state(old)), what="model 'net'")
    assert notes == [
        "model 'net': 2 tensors of the checkpoint have no place in the model: head.weight, head.bias; "
        "2 tensors of the model keep their present values: fc.weight, fc.bias"
    ]
    assert same(new["body"].weight, old["body"].weight) and same(new["fc"].weight, kept)


def test_a_note_names_some_of_many() -> None:
    notes = load_model_state(nn.Linear(1, 1), model_state(nn.Sequential(*[nn.Linear(1, 1) for _ in range(9)])))
    assert "18 tensors" in notes[0] and "3.bias and 10 more" in notes[0]


def test_tensors_that_do_not_fit_are_all_named_and_nothing_changes() -> None:
    state = model_state(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3, dtype=torch.float64), nn.Linear(3, 1)))
    state["2.bias"] = "text"
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    model[0] = nn.Linear(5, 3)
    before = copy.deepcopy(model_state(model))
    with pytest.raises(MismatchError) as caught:
        load_model_state(model, state)
    text = str(caught.value)
    assert "0.weight has shape (3, 2) where the model has (3, 5)" in text
    assert "1.weight has dtype torch.float64 where the model has torch.float32; 1.bias has" in text
    assert "2.bias is a str where the model has a tensor" in text
    assert text.startswith("model: 4 tensors")
    assert same(model_state(model), before)


def test_a_model_on_the_meta_device_is_an_error() -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    with pytest.raises(MismatchError, match=r"weight is on the meta device in the model.*to_empty"):
        load_model_state(model, model_state(nn.Linear(2, 2)))


def test_a_lazy_model_gets_its_shapes_from_the_state() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    empty = model_state(model)
    assert "0.weight" not in empty
    encode(empty)
    optimizer = torch.optim.Adam(model.parameters())
    names = parameter_names({"model": model})
    optimizer_state(optimizer, names)
    train(model, optimizer, 0, 2)
    state = stored(captured(model, optimizer))
    lazy = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    weight = lazy[0].weight
    live = torch.optim.Adam(lazy.parameters())
    assert restore(lazy, live, state) == []
    assert lazy[0].weight is weight
    train(model, optimizer, 2, 4)
    train(lazy, live, 2, 4)
    assert same(model_state(lazy), model_state(model))
    fresh = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    assert load_model_state(fresh, stored(empty)) == []


def test_old_versions_of_modules_reach_their_own_loading() -> None:
    seen = []

    class Versioned(nn.Linear):
        _version = 3

        def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
            seen.append(metadata.get("version"))
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    model = nn.Sequential(nn.DataParallel(Versioned(2, 2)))
    state = stored(model_state(model))
    state._metadata["0"]["version"] = 1
    load_model_state(model, state)
    load_model_state(model, dict(state))
    assert seen == [1, 3]


# -------------------------------------------------------------------------------------------------------- gradients


def test_gradients_come_back_in_the_middle_of_accumulation() -> None:
    def make() -> Any:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        model[1].bias.requires_grad_(False)
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    model, optimizer = make()
    model(batch(0)).sum().backward()
    state = gradients({"model": model})
    assert list(state) == ["model.0.weight", "model.0.bias", "model.1.weight"]
    assert state["model.0.weight"] is model[0].weight.grad
    loaded = stored(state)
    model(batch(1)).sum().backward()
    optimizer.step()
    other, live = make()
    other[1].bias.grad = torch.ones(2)
    assert load_gradients({"model": other}, loaded) == []
    assert other[1].bias.grad is None
    other(batch(1)).sum().backward()
    live.step()
    assert same(model_state(other), model_state(model))


def test_gradients_of_former_parameters_are_a_note_and_others_shapes_an_error() -> None:
    model = nn.Linear(2, 2)
    assert load_gradients({"model": model}, {"model.old": torch.ones(1)}) == [
        "gradients: those of 1 former parameter are left out: model.old"
    ]
    with pytest.raises(MismatchError, match=r"model.weight is torch.float32 of shape \(1,\) where"):
        load_gradients({"model": model}, {"model.weight": torch.ones(1), "model.bias": torch.ones(2)})
    with pytest.raises(MismatchError, match=r"model.bias is torch.float16"):
        load_gradients({"model": model}, {"model.bias": torch.ones(2).half()})
    assert model.bias.grad is None


@pytest.mark.parametrize("is_coalesced", [False, True])
def test_sparse_gradients_come_back(is_coalesced: bool) -> None:
    model = nn.Embedding(5, 3, sparse=True)
    model(torch.tensor([1, 1, 4])).sum().backward()
    if is_coalesced:
        model.weight.grad = model.weight.grad.coalesce()
    loaded = stored(gradients({"model": model}))
    other = nn.Embedding(5, 3, sparse=True)
    load_gradients({"model": other}, loaded)
    assert other.weight.grad.is_coalesced() == is_coalesced
    assert same(other.weight.grad._indices(), model.weight.grad._indices())
    assert same(other.weight.grad._values(), model.weight.grad._values())


# -------------------------------------------------------------------------------------------------------- constants


def ids(tensors: list[torch.Tensor]) -> set[int]:
    return {id(tensor) for tensor in tensors}


def test_frozen_parameters_are_constant_and_buffers_never() -> None:
    model = nn.ModuleDict({"body": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "head": nn.Linear(4, 2)})
    model["body"].requires_grad_(False)
    assert ids(constants({"model": model})) == ids(list(model["body"].parameters()))


def test_frozen_blocks_below_trained_ones_are_constant() -> None:
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(4)])
    model[:2].requires_grad_(False)
    assert ids(constants({"model": model})) == ids(list(model[:2].parameters()))


def test_what_another_part_of_the_script_may_write_to_is_not_constant() -> None:
    online = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    target = copy.deepcopy(online).requires_grad_(False)
    assert constants({"online": online, "target": target}) == []
    assert constants({"model": nn.ModuleDict({"online": online, "target": target})}) == []
    average = AveragedModel(online).requires_grad_(False)
    assert constants({"model": nn.ModuleDict({"online": online, "average": average})}) == []
    lazy = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    lazy[0].weight.requires_grad = False
    assert constants({"lazy": lazy}) == []


# ------------------------------------------------------------------------------------------------------- randomness


def draw() -> list[Any]:
    return [torch.randn(3).tolist(), np.random.randn(), np.random.rand(), random.gauss(0, 1), random.random()]


@pytest.fixture
def _own_generators() -> Iterator[None]:
    before = np.random.get_bit_generator(), random.getstate()
    yield
    np.random.set_bit_generator(before[0])
    random.setstate(before[1])


@pytest.mark.usefixtures("_own_generators")
@pytest.mark.parametrize("kind", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
@pytest.mark.parametrize("waiting", [0, 1])
def test_every_generator_goes_on(kind: str, waiting: int, tmp_path: pathlib.Path) -> None:
    np.random.set_bit_generator(getattr(np.random, kind)(7))
    random.seed(5)
    for _ in range(waiting):
        np.random.randn(), random.gauss(0, 1)
    store = Store(tmp_path)
    state = store.load(store.save(random_state()))
    expected = [draw() for _ in range(3)]
    np.random.set_bit_generator(np.random.MT19937(1))
    np.random.randn(), random.gauss(0, 1), torch.randn(5)
    assert load_random_state(state) == []
    assert type(np.random.get_bit_generator()).__name__ == kind
    assert [draw() for _ in range(3)] == expected


@pytest.mark.usefixtures("_own_generators")
def test_devices_and_generators_that_are_not_there_are_notes() -> None:
    state = random_state()
    numpy_state = state["numpy"] | {"bit_generator": "MyOwn"}
    missing = [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() + 1)
    notes = load_random_state(
        state | {"cuda": missing, "numpy": numpy_state} if not torch.cuda.is_available() else state
    )
    if not torch.cuda.is_available():
        assert notes == [
            "random numbers: the checkpoint has numpy's global generator on MyOwn, which is not numpy's own",
            "random numbers: the checkpoint has 1 CUDA device, this machine 0: they are left out, and what is drawn there "
            "is not what it would have been",
        ]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_generators_go_on() -> None:
    torch.randn(3, device="cuda")
    state = stored(random_state())
    expected = torch.randn(5, device="cuda")
    torch.randn(7, device="cuda")
    assert load_random_state(state) == []
    assert same(torch.randn(5, device="cuda"), expected)
