"""Runs with checkpoints as a Run makes them, without training one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.checkpoint import Checkpoint, Store
from relume.monitor import Process, RunRecord
from relume.names import parameter_names
from relume.run import state

LOSSES = [0.5, 0.2, 0.3]


def make_run(root: Path, name: str) -> Path:
    """The folder of a run that has no checkpoints yet."""
    folder = root / name
    (folder / "journal").mkdir(parents=True)
    RunRecord(name=name, id=name, created=time.time(), seed=0, process=Process.current()).save(folder)
    return folder


def save_run(root: Path, name: str, losses: list[float] = LOSSES, *, seed: int = 0, **meta: Any) -> list[Checkpoint]:
    """A run with one checkpoint an epoch; its first layer is frozen."""
    make_run(root, name)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam(model[2].parameters(), lr=0.1)
    saved = []
    for epoch, loss in enumerate(losses, 1):
        train(model, optimizer, 1)
        captured = state_of({"model": model}, {"optimizer": optimizer})
        metrics = {"train/loss": loss + 1, "val/loss": loss, "val/accuracy": 1 - loss, "lr": 0.1}
        described = describe(epoch, 10 * epoch, metrics) | {"run": name} | meta
        label = f"epoch={epoch}-step={10 * epoch}"
        saved.append(Store(root).save(captured, described, folder=f"{name}/checkpoints", label=label))
    return saved


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> list[str]:
    """Train on batches that depend on their number alone; the losses to the last bit."""
    losses = []
    for step in range(first, first + steps):
        x = torch.randn(16, 20, generator=torch.Generator().manual_seed(step))
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item().hex())
    return losses


def state_of(
    models: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    schedulers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a Run captures of them."""
    names = parameter_names(models)
    return {
        "models": {name: state.model_state(model) for name, model in models.items()},
        "optimizers": {name: state.optimizer_state(o, names) for name, o in optimizers.items()},
        "schedulers": {name: state.object_state(name, one) for name, one in (schedulers or {}).items()},
        "scaler": None,
    }


def describe(epoch: int, step: int, metrics: Mapping[str, float], batch: int = 0) -> dict[str, Any]:
    cursor = {"epoch": epoch, "batch": batch, "step": step, "samples": 16 * step}
    return {"kind": "training", "cursor": cursor, "metrics": dict(metrics), "config": {"lr": 0.1}, "reason": "1 epoch"}


def flip(path: Path, position: int = -1) -> None:
    """Damage one byte."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def packs(root: Path) -> list[Path]:
    """All packs, oldest first."""
    return sorted((root / "store" / "packs").rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
