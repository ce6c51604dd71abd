"""Real runs for the tests of what is done with runs afterwards."""

from __future__ import annotations

import math
from pathlib import Path

import torch

import relume


def make_run(root: Path, name: str, lr: float, *, steps: int = 60, model: str = "small") -> Path:
    with relume.Run(name=name, root=root, config={"optimizer": {"lr": lr}, "model": model, "epochs": 3}) as run:
        for step in range(steps):
            run.log({"train/loss": math.exp(-step * lr)}, step=step)
            if step % 10 == 9:
                run.log({"val/accuracy": 1 - math.exp(-step * lr) / 2, "val/loss": math.exp(-step * lr)}, step=step)
    return run.folder


def make_resumed_run(root: Path, name: str = "resumed") -> Path:
    """Three epochs, of which the third was begun and logged and then done again."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train(stop_in: int | None) -> None:
        with relume.Run(name=name, root=root, model=model, optimizer=optimizer, seed=1) as run:
            for epoch in run.epochs(3):
                for step in range(5):
                    model(torch.ones(1, 2)).sum().backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    run.log({"loss": float(epoch * 10 + step), ("old" if stop_in else "new"): 1.0})
                    if epoch == stop_in and step == 2:
                        raise RuntimeError("the power went out")

    try:
        train(2)
    except RuntimeError:
        pass
    train(None)
    return root / name
