"""Small runs to ask for their details."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume


def blocks_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("body", nn.Linear(4, 8))
    model.add_module("neck", nn.Linear(8, 8))
    model.add_module("head", nn.Linear(8, 3))
    return model


def trained(root: Path, name: str = "a", epochs: int = 3, *, model: nn.Module | None = None, **options: Any) -> Path:
    """A run of 4 steps an epoch, whose loss on the validation is 1 divided by the epoch."""
    model = blocks_model() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = torch.rand(16, 4, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(TensorDataset(inputs, inputs.argmax(1).clamp(max=2)), batch_size=4, shuffle=True)
    options = {"config": {"epochs": epochs, "lr": 0.1}, "seed": 3, "watch": False} | options
    with relume.Run(name, model=model, optimizer=optimizer, root=root, quiet=True, **options) as run:
        for epoch in run.epochs(epochs):
            for x, y in run.batches(loader):
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                run.log({"train/loss": loss})
            run.log({"val/loss": 1 / (epoch + 1)})
    return run.folder


def as_json(answer: Any) -> Any:
    """An answer as it arrives: it must be JSON, in UTF-8, with no NaN in it."""
    return json.loads(json.dumps(answer, allow_nan=False, ensure_ascii=False).encode())
