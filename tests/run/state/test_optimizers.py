"""Optimizers by the names of their parameters: every one of torch goes on bit for bit."""

from __future__ import annotations

import copy
import inspect
import pathlib
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from relume.checkpoint import Store
from relume.errors import MismatchError, OptimizerError
from relume.names import parameter_names
from relume.run.state import (
    group_options,
    initial_options,
    load_object_state,
    load_optimizer_state,
    model_state,
    object_state,
    optimizer_state,
)

from .common import batch, captured, optimizer_maker, restore, same, stored, train

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


def test_every_optimizer_of_torch_has_a_case() -> None:
    assert set(OPTIMIZERS) <= set(CASES), "add a case for the new optimizer"


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
