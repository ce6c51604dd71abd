"""What the tests of states share: bit equality, a checkpoint without files, small trainings."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler

from relume.checkpoint import decode, encode
from relume.names import parameter_names
from relume.run.state import (
    load_model_state,
    load_optimizer_state,
    model_state,
    optimizer_state,
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


LR = {"SGD": 0.05, "Adadelta": 1.0, "LBFGS": 0.5}


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


def scheduled(lr_of: Callable[[Any], Any], parts: int = 1) -> Any:
    layers = [nn.Linear(2, 2) for _ in range(parts)]
    return lr_of(torch.optim.SGD([{"params": layer.parameters()} for layer in layers], lr=0.1))


class Tracked:
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state.pop("value")
