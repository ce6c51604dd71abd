"""Parameters, buffers, gradients and constants by name."""

from __future__ import annotations

import copy
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from relume.checkpoint import Store, encode
from relume.errors import MismatchError
from relume.names import parameter_names
from relume.run.state import (
    constants,
    gradients,
    load_gradients,
    load_model_state,
    model_state,
    optimizer_state,
)

from .common import batch, captured, restore, same, stored, train


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
