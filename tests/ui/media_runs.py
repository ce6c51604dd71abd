"""A run with something of every kind that can be logged, over several steps."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

import relume


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(inner)))


class SmallResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.layer1, self.layer2 = Residual(8), Residual(8)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.pool(self.layer2(self.layer1(self.stem(x)))), 1))


def torus(around: int = 36, across: int = 18) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices, colours and triangles of a ring."""
    u, v = torch.meshgrid(
        torch.arange(around) * math.tau / around, torch.arange(across) * math.tau / across, indexing="ij"
    )
    ring = 1 + 0.4 * v.cos()
    vertices = torch.stack([ring * u.cos(), ring * u.sin(), 0.4 * v.sin()], -1).reshape(-1, 3)
    colors = ((vertices / 1.4 + 1) * 127).to(torch.uint8)
    faces = []
    for i in range(around):
        for j in range(across):
            a, b = i * across + j, i * across + (j + 1) % across
            c, d = (i + 1) % around * across + j, (i + 1) % around * across + (j + 1) % across
            faces += [[a, c, b], [b, c, d]]
    return vertices, colors, torch.tensor(faces)


def figure(step: int) -> object:
    """A picture of matplotlib; made without pyplot, which would keep it."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(5, 3))
    axes = drawn.add_subplot(xlabel="x", ylabel="sin", title=f"Step {step}")
    x = torch.linspace(0, 6.3, 100)
    axes.plot(x.numpy(), torch.sin(x * (1 + step / 100)).numpy())
    return drawn


def log_pictures(run: relume.Run, step: int, model: nn.Module) -> None:
    from made_runs import CLASSES, clothes

    images, labels = (part[:64] for part in clothes(False, 512).tensors)
    with torch.no_grad():
        scores = model(images) + nn.functional.one_hot(labels, 10) * step / 120
    run.log_predictions(images, scores.softmax(1), labels, CLASSES, count=24, step=step)
    values = {
        "val/confusion": relume.ConfusionMatrix(labels, scores, CLASSES),
        "val/pr": relume.PRCurve(labels == 1, scores.softmax(1)[:, 1]),
        "samples": relume.Image(images[:8], caption="the first eight of the test part"),
        "sine": relume.Figure(figure(step)),
    }
    run.log(values, step=step)


def make_media(root: Path, steps: int = 60, every: int = 15) -> None:
    torch.manual_seed(3)
    model = SmallResNet().eval()
    vertices, colors, faces = torus()
    config = {"model": "SmallResNet", "lr": 2e-3, "augment": {"flip": True, "crop": [24, 24]}}
    with relume.Run("media", root=root, config=config, quiet=True, notes="Something of **every** kind.") as run:
        run.log({"graph": relume.Graph(model, torch.zeros(1, 1, 28, 28))}, step=0)
        for step in range(steps + 1):
            run.log(
                {"train/loss": 2.3 * math.exp(-step / 25), "system/cpu_percent": 60 + 30 * math.sin(step / 5)},
                step=step,
            )
            run.log(
                {"system/memory_bytes": 4e9 + step * 2e7, "system/gpu0/utilization_percent": 80 + step % 7}, step=step
            )
            if step % every == 0:
                log_pictures(run, step, model)
                run.log({"weights/fc": relume.Histogram(torch.randn(4000) * (0.3 + step / 60) + step / 40)}, step=step)
                run.log({"gradients/fc": relume.Histogram(torch.randn(4000).pow(3) / (1 + step))}, step=step)
                run.log({"notes": f"## Step {step}\n\n- a *list* of `two`\n- things <b>not bold</b>"}, step=step)
                run.log({"ring": relume.Mesh(vertices * (1 + step / 100), colors, faces)}, step=step)
                run.log({"cloud": relume.Mesh(torch.randn(800, 3))}, step=step)
                rows = [[word, round(1 / (place + 1 + step), 4)] for place, word in enumerate(("Bag", "Coat", "Dress"))]
                run.log({"worst": relume.Table(rows, columns=["class", "error"])}, step=step)
