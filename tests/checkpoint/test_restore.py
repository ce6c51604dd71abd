from __future__ import annotations

import pathlib

import pytest
import torch
from torch import nn

from relume.checkpoint import Store, restore_module, without_values
from relume.errors import MismatchError

from .same import same


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight
        self.norm.weight.requires_grad_(False)


def test_a_module_without_values_gets_those_of_the_checkpoint(tmp_path: pathlib.Path) -> None:
    original = _Tied()
    store = Store(tmp_path)
    store.save({"model": original.state_dict()})
    with without_values():
        model = _Tied()
    assert all(parameter.is_meta for parameter in model.parameters())
    restored = restore_module(model, store.load(1, part=("model",)))
    assert same(restored.state_dict(), original.state_dict())
    assert restored.out.weight is restored.embed.weight
    assert len(list(restored.parameters())) == len(list(original.parameters()))
    assert not restored.norm.weight.requires_grad
    assert restored.embed.weight.requires_grad


def test_a_restored_module_trains(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    store.save(nn.Linear(3, 2).state_dict())
    with without_values():
        model = nn.Linear(3, 2)
    restore_module(model, store.load(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, store.load(1)["weight"])


def test_everything_that_does_not_fit_is_named_at_once() -> None:
    tensors = {"weight": torch.ones(5, 3), "bias": torch.ones(2, dtype=torch.float64), "other": torch.ones(1)}
    model = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(MismatchError) as raised:
        restore_module(model, tensors)
    for part in (
        "3 tensors do not fit Linear",
        "weight has shape (5, 3) where the module has (2, 3)",
        "bias has dtype torch.float64 where the module has torch.float32",
        "other is not in the module",
    ):
        assert part in str(raised.value)
    assert same(dict(model.state_dict()), before)
    with pytest.raises(MismatchError, match="bias is missing"):
        restore_module(model, {"weight": torch.ones(2, 3)})


def test_a_buffer_that_no_checkpoint_has_is_named() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.ones(3), persistent=False)

    with without_values():
        model = Masked()
    with pytest.raises(MismatchError, match="keeps mask out of its state_dict"):
        restore_module(model, {})
