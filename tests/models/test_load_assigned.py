from __future__ import annotations

from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn

from relume.errors import MismatchError
from relume.models.load import load_weights


class Measured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.acc = torchmetrics.Accuracy("multiclass", num_classes=3)
        self.acc.persistent(True)
        self.l = nn.Linear(2, 2)


def measured() -> Measured:
    model = Measured()
    model.acc.update(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]))
    return model


class Bank(nn.Module):
    """Assigns its memory, whatever its length, and counts how often."""

    def __init__(self, length: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("bank", torch.randn(length, 2))
        self.loads = 0
        self.seen: list[str] = []

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        self.loads += 1
        self.seen.append(prefix)
        self.bank = state[f"{prefix}bank"]
        super()._load_from_state_dict(state, prefix, *rest)


class SizedBank(Bank):
    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        self.bank = self.bank.new_zeros(state[f"{prefix}bank"].shape)
        nn.Module._load_from_state_dict(self, state, prefix, *rest)


def test_a_refused_load_leaves_metrics_as_they_were() -> None:
    source, model = measured(), Measured()
    state = source.state_dict()
    before = {name: value for name, value in vars(model.acc).items() if name != "_modules"}
    with pytest.raises(MismatchError, match="nothing was loaded"):
        load_weights(model, {**state, "l.weight": torch.ones(3, 3)})
    assert all(vars(model.acc)[name] is value for name, value in before.items())
    assert model.acc.tp.sum() == 0


def test_metrics_are_loaded_and_said_so() -> None:
    source, model = measured(), Measured()
    report = load_weights(model, source.state_dict())
    assert report.is_complete
    assert "acc.tp" in report.matched
    assert torch.equal(model.acc.tp, source.acc.tp)
    state = source.state_dict()
    load_weights(model, state)
    assert model.acc.tp.data_ptr() != state["acc.tp"].data_ptr()


def test_only_is_respected_by_what_is_assigned() -> None:
    source, model = measured(), Measured()
    report = load_weights(model, source.state_dict(), only="l")
    assert model.acc.tp.sum() == 0
    assert "acc.tp" in report.left_out
    assert torch.equal(model.l.weight, source.l.weight)
    report = load_weights(model, source.state_dict(), only="acc")
    assert set(report.matched) == {f"acc.{name}" for name in ("tp", "fp", "tn", "fn")}
    assert torch.equal(model.acc.tp, source.acc.tp)


@pytest.mark.parametrize("kind", [Bank, SizedBank])
def test_a_memory_bank_is_assigned_when_all_fits(kind: type[Bank]) -> None:
    source, model = kind(5), kind()
    bank = model.bank
    state = source.half().state_dict()
    with pytest.raises(MismatchError, match="unexpected"):
        load_weights(model, {**state, "other": torch.ones(1)})
    assert model.bank is bank
    assert (model.loads, model.seen) == (0, [])
    report = load_weights(model, state)
    assert report.is_complete
    assert "bank" in report.dtype_mismatches
    assert torch.equal(model.bank, source.bank.float())
    assert model.bank.dtype is torch.float32
    assert (model.loads, model.seen) == ((1, [""]) if kind is Bank else (0, []))
    inner = nn.Sequential(kind(), nn.Linear(2, 2))
    report = load_weights(inner, {f"0.{name}": value for name, value in state.items()}, only="0.linear")
    assert inner[0].bank.shape == (0, 2)
    assert "0.bank" in report.left_out


def test_a_bank_with_two_names_is_loaded_from_either() -> None:
    source, model = Bank(5), nn.ModuleList([Bank()])
    model.append(model[0])
    report = load_weights(model, {f"{n}.{name}": v for n in range(2) for name, v in source.state_dict().items()})
    assert torch.equal(model[1].bank, source.bank)
    assert report.tied["1.bank"] == "0.bank"


def test_a_hook_after_loading_counts_once() -> None:
    def count(module: nn.Module, keys: Any) -> None:
        module.loads += 1
        keys.missing_keys.clear()

    model = nn.Linear(2, 2)
    model.loads = 0  # type: ignore[assignment]
    model.register_load_state_dict_post_hook(count)
    load_weights(model, {"weight": torch.ones(2, 2)})
    assert model.loads == 1
