"""A user's own training, as small as one can be."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def main(epochs: int) -> None:
    relume.seed_everything(3)
    inputs = torch.randn(64, 4)
    data = TensorDataset(inputs, inputs.abs().argmax(1).clamp(max=2))
    model = relume.build(Net, 8)
    trainer = relume.Trainer(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(model.parameters()),
        metrics={"accuracy": relume.accuracy},
        quiet=True,
    )
    trainer.fit(DataLoader(data, 16, shuffle=True), DataLoader(data, 32), epochs=epochs, run="own", root="runs")
    if place := os.environ.get("SCRIPT_TEST_MARK"):
        Path(place).write_text("ended")


if __name__ == "__main__":
    main(int(sys.argv[1]))
