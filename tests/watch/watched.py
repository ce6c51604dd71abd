"""Small trainings to watch, and what their journals say of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.monitor.journal import live_lines


def network() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def data(count: int = 24, batch: int = 4) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 6, generator=generator)
    return DataLoader(TensorDataset(x, x.abs().argmax(1).clamp(max=2)), batch, shuffle=True)


def train(
    root: Path,
    watch: Any,
    *,
    model: nn.Module | None = None,
    epochs: int = 2,
    lr: float = 0.1,
    loader: Any = None,
    fit: dict[str, Any] | None = None,
    **options: Any,
) -> relume.Trainer:
    """Six steps an epoch, by the Trainer."""
    model = network() if model is None else model
    optimizer = options.pop("optimizer", None) or torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=lr, momentum=0.9
    )
    trainer = relume.Trainer(
        model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, seed=3, device="cpu", quiet=True, **options
    )
    trainer.fit(loader or data(), epochs=epochs, run="watched", root=root, watch=watch, **(fit or {}))
    return trainer


def logged(folder: Path) -> dict[str, dict[int, float]]:
    """Each metric's values by step; a step must have what a watcher logs once."""
    found: dict[str, dict[int, float]] = {}
    for line in live_lines(folder):
        for name, value in line.get("values", {}).items():
            known = found.setdefault(name, {})
            assert name.startswith("train/") or line["step"] not in known, (name, line["step"])
            known[line["step"]] = float(value)
    return found


def losses(folder: Path) -> list[tuple[int, float]]:
    return [
        (line["step"], line["values"]["train/loss"])
        for line in live_lines(folder)
        if "train/loss" in line.get("values", {})
    ]


def media(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Each histogram by step; a step must have it once."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for line in live_lines(folder):
        for name, content in line.get("media", {}).items():
            if name == "hparams":  # the settings, which each run has
                continue
            assert line["step"] not in found.setdefault(name, {}), (name, line["step"])
            assert content["kind"] == "histogram"
            assert len(content["edges"]) == len(content["counts"]) + 1
            assert sum(content["counts"]) + content["nan"] + content["infinite"] == content["count"]
            found[name][line["step"]] = content
    return found


def notes(folder: Path) -> list[str]:
    return [line["text"] for line in live_lines(folder) if line.get("event") == "note"]


def weights(model: nn.Module) -> list[bytes]:
    return [tensor.detach().numpy().tobytes() for tensor in model.state_dict().values()]


def norm(values: Any) -> float:
    return math.sqrt(sum(value * value for value in values))
