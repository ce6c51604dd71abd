"""Trainings under every kind of freeze schedule, with everything that makes resuming hard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.run.trainings import Augmented
from torch import nn
from torch.utils.data import DataLoader

import relume
from relume.transfer.groups import parameter_groups
from relume.transfer.phases import Phase, Stall
from relume.transfer.schedule import FreezeSchedule

EPOCHS = 4
STEPS_PER_EPOCH = 4

SCHEDULES: dict[str, Callable[[], FreezeSchedule]] = {
    "phases": lambda: FreezeSchedule(
        [
            Phase("8", epochs=1, state="drop"),
            Phase(["4", "5", "8"], steps=3, lr=0.02, warmup=2),
            Phase(["0", "1"], epochs=1, batchnorm="eval", warmup="1 epoch"),
            Phase("8", state="drop"),
        ]
    ),
    "gradual": lambda: FreezeSchedule.gradual(network(), every="3 steps"),
    "turns of steps": lambda: FreezeSchedule.alternate({"body": ["0", "1", "4", "5"], "head": "8"}, every="3 steps"),
    "turns of epochs": lambda: FreezeSchedule.alternate(
        {"body": ["0", "1", "4", "5"], "head": "8"}, every="1 epoch", state="drop"
    ),
    "probe, then fine-tune": lambda: FreezeSchedule.probe_then_finetune("8", 2, lr=0.005, warmup="3 steps"),
    "stall": lambda: FreezeSchedule(
        [
            Phase("8", until=Stall("val/loss", 1, min_delta=10.0), name="a"),
            Phase("4", until=Stall("val/accuracy", 1), name="b"),
            Phase(name="c"),
        ]
    ),
}


class Crash(Exception):
    """Stands for a power cut: what was not in a checkpoint is lost."""


class CrashAt(relume.Callback):
    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_step_end(self, trainer: relume.Trainer) -> None:
        assert trainer.run is not None
        if trainer.run.cursor.step == self.step:
            raise Crash


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3),
        nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2),
    )  # fmt: skip


def train(
    root: Path, kind: str, *, optimizer: str = "adam", crash_at: int | None = None, every: Any = "1 steps", **more: Any
) -> nn.Module:
    """Dropout, batch norm, accumulation over 3 batches with an incomplete last group, weight decay, discriminative rates."""
    torch.manual_seed(5)
    model = network()
    groups = parameter_groups(model, 0.01, factor=0.7)
    chosen: torch.optim.Optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
    if optimizer == "momentum":
        chosen = torch.optim.SGD(groups, momentum=0.9, weight_decay=0.1)
    trainer = relume.Trainer(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=chosen,
        metrics={"accuracy": relume.accuracy},
        accumulate=3,
        device="cpu",
        callbacks=[CrashAt(crash_at)],
        seed=5,
        quiet=True,
    )
    trainer.fit(
        DataLoader(Augmented(64), 6, shuffle=True),
        DataLoader(Augmented(30), 10),
        epochs=EPOCHS,
        run="frozen",
        root=root,
        every=every,
        freeze=SCHEDULES[kind](),
        **more,
    )
    return model


def by_hand(root: Path, *, crash_at: int | None = None) -> dict[str, nn.Module]:
    """Two models, each with an optimizer of its own, trained in turns; gradients are cleared before each batch."""
    torch.manual_seed(3)
    models: dict[str, nn.Module] = {"one": network(), "two": nn.Linear(64, 3)}
    optimizers = {
        "one": torch.optim.AdamW(models["one"].parameters(), lr=0.01),
        "two": torch.optim.RMSprop(models["two"].parameters(), lr=0.001, momentum=0.5),
    }
    loader = DataLoader(Augmented(40), 6, shuffle=True)
    schedule = FreezeSchedule.alternate({"first": ["one.*"], "second": ["two", "one.8"]}, every="5 steps")
    with relume.Run(
        "hand", model=models, optimizer=optimizers, root=root, quiet=True, seed=11, every="2 steps", freeze=schedule
    ) as run:
        for _ in run.epochs(2):
            for x, y in run.batches(loader):
                for optimizer in optimizers.values():
                    optimizer.zero_grad()
                one = models["one"]
                loss = nn.functional.cross_entropy(one(x), y) + models["two"](one[:8](x)).pow(2).mean()  # type: ignore[index]
                loss.backward()
                for optimizer in optimizers.values():
                    optimizer.step()
                run.log({"train/loss": loss})
                if run.cursor.step == crash_at:
                    raise Crash
    return models
