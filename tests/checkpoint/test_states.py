"""The states of every optimizer and every scheduler that torch has."""

from __future__ import annotations

import inspect
import pathlib
import warnings
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from relume.checkpoint import Store

from .same import same

OPTIMIZERS = [
    value
    for value in vars(torch.optim).values()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
]
SCHEDULERS = [
    value
    for value in vars(lr_scheduler).values()
    if inspect.isclass(value)
    and issubclass(value, lr_scheduler.LRScheduler)
    and value is not lr_scheduler.LRScheduler
    and not value.__name__.startswith("_")
]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "LambdaLR": {"lr_lambda": lambda epoch: 0.9**epoch},
    "MultiplicativeLR": {"lr_lambda": lambda epoch: 0.9},
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [1, 3, 3]},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingLR": {"T_max": 4},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 10},
}


def _trained(kind: type[torch.optim.Optimizer]) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    needs_embedding = kind.__name__ == "SparseAdam"
    model: torch.nn.Module = (
        torch.nn.Embedding(5, 3, sparse=True) if needs_embedding else torch.nn.Linear(4, 3, bias=False)
    )
    optimizer = kind(model.parameters(), lr=0.01)  # type: ignore[call-arg]

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.tensor([1, 2]) if needs_embedding else torch.ones(2, 4)).square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    return model, optimizer


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_every_optimizer_comes_back(kind: type[torch.optim.Optimizer], tmp_path: pathlib.Path) -> None:
    model, optimizer = _trained(kind)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    store = Store(tmp_path)
    loaded = store.load(store.save(state))
    assert same(loaded, state)
    optimizer.load_state_dict(loaded["optimizer"])
    assert same(optimizer.state_dict(), state["optimizer"])


def _scheduler(kind: type, optimizer: torch.optim.Optimizer) -> Any:
    if kind.__name__ == "SequentialLR":
        parts = [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)]
        return kind(optimizer, schedulers=parts, milestones=[2])
    if kind.__name__ == "ChainedScheduler":
        return kind([lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)])
    return kind(optimizer, **ARGUMENTS.get(kind.__name__, {}))


@pytest.mark.parametrize("kind", SCHEDULERS, ids=lambda kind: kind.__name__)
def test_every_scheduler_comes_back(kind: type, tmp_path: pathlib.Path) -> None:
    _, optimizer = _trained(torch.optim.SGD)
    with warnings.catch_warnings(action="ignore"):
        scheduler = _scheduler(kind, optimizer)
        for epoch in range(3):
            optimizer.step()
            scheduler.step(*[1.0 / (epoch + 1)] if kind.__name__ == "ReduceLROnPlateau" else [])
    store = Store(tmp_path)
    state = scheduler.state_dict()
    loaded = store.load(store.save(state))
    assert same(loaded, state)
    scheduler.load_state_dict(loaded)


def test_the_lists_are_not_empty() -> None:
    print(f"{len(OPTIMIZERS)} optimizers, {len(SCHEDULERS)} schedulers")
    assert len(OPTIMIZERS) >= 13
    assert len(SCHEDULERS) >= 15
