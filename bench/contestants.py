"""The training loops that are compared, each written as its own documentation writes it. All of relume's API that the
benchmarks use is in this file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader


@dataclass
class Job:
    """What each contestant is given, and the call it owes at the end of every epoch."""

    model: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    loader: DataLoader[Any]
    epochs: int
    epoch_done: Callable[[], None]
    scratch: Path


def hand_written(job: Job) -> None:
    job.model.train()
    for _ in range(job.epochs):
        for X, y in job.loader:
            loss = job.loss(job.model(X), y)
            loss.backward()
            job.optimizer.step()
            job.optimizer.zero_grad()
        job.epoch_done()


def slices(job: Job) -> None:
    """As little as possible around the model: the batches are views, and no loader is asked for them."""
    images, labels = job.loader.dataset.tensors
    batches = list(zip(images.split(job.loader.batch_size), labels.split(job.loader.batch_size), strict=True))
    job.model.train()
    for _ in range(job.epochs):
        for X, y in batches:
            loss = job.loss(job.model(X), y)
            loss.backward()
            job.optimizer.step()
            job.optimizer.zero_grad()
        job.epoch_done()


def relume_trainer(job: Job, in_memory: bool | None) -> None:
    import relume

    class Epochs(relume.Callback):
        def on_epoch_end(self, trainer: Any) -> None:
            job.epoch_done()

    trainer = relume.Trainer(
        job.model,
        loss=job.loss,
        optimizer=job.optimizer,
        device="cpu",
        quiet=True,
        in_memory=in_memory,
        callbacks=[Epochs()],
    )
    trainer.fit(job.loader, epochs=job.epochs, run="bench", root=job.scratch)


def relume_run(job: Job, in_memory: bool | None) -> None:
    import relume

    job.model.train()
    with relume.Run(
        "bench", model=job.model, optimizer=job.optimizer, root=job.scratch, quiet=True, in_memory=in_memory
    ) as run:
        for _ in run.epochs(job.epochs):
            for X, y in run.batches(job.loader):
                loss = job.loss(job.model(X), y)
                loss.backward()
                job.optimizer.step()
                job.optimizer.zero_grad()
                run.log({"train/loss": loss})
            job.epoch_done()


def lightning(job: Job) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = job.model

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            X, y = batch
            return job.loss(self.model(X), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return job.optimizer

        def on_train_epoch_end(self) -> None:
            job.epoch_done()

    # barebones is Lightning's own mode for measuring its overhead: everything that costs speed is off.
    trainer = L.Trainer(max_epochs=job.epochs, accelerator="cpu", barebones=True, default_root_dir=job.scratch)
    trainer.fit(Module(), job.loader)


def ignite(job: Job) -> None:
    from ignite.engine import Events, create_supervised_trainer

    trainer = create_supervised_trainer(
        job.model,
        job.optimizer,
        job.loss,
        device="cpu",
        output_transform=lambda x, y, y_pred, loss: loss,  # the default takes loss.item()
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, job.epoch_done)
    trainer.run(job.loader, max_epochs=job.epochs)


def accelerate(job: Job) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer, loader = accelerator.prepare(job.model, job.optimizer, job.loader)
    model.train()
    for _ in range(job.epochs):
        for X, y in loader:
            loss = job.loss(model(X), y)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        job.epoch_done()


def evaluate_by_hand(model: nn.Module, loader: DataLoader[Any], loss: nn.Module) -> dict[str, float]:
    """The test loop of the tutorial: mean loss over the batches, accuracy over the samples."""
    model.eval()
    total, correct = 0.0, 0.0
    with torch.no_grad():
        for X, y in loader:
            predicted = model(X)
            total += loss(predicted, y).item()
            correct += (predicted.argmax(1) == y).type(torch.float).sum().item()
    return {"loss": total / len(loader), "accuracy": correct / len(loader.dataset)}


def evaluate_by_relume(model: nn.Module, loader: DataLoader[Any], loss: nn.Module) -> dict[str, float]:
    import relume

    found = relume.evaluate(model, loader, loss=loss, metrics={"accuracy": relume.accuracy}, prefix="val/")
    return {"loss": float(found["val/loss"]), "accuracy": float(found["val/accuracy"])}


def stream_epochs(loader: DataLoader[Any], *, in_memory: bool) -> Callable[[int], Iterator[Any]]:
    """relume's batches of ``loader``, as a function of the epoch's number."""
    import relume

    return relume.Stream(loader, seed=0, in_memory=in_memory).epoch


@dataclass(frozen=True)
class Contestant:
    """A row of the table. ``package`` is imported before the clock starts."""

    key: str
    label: str
    package: str
    train: Callable[[Job], None]
    evaluate: Callable[[nn.Module, DataLoader[Any], nn.Module], dict[str, float]] = evaluate_by_hand

    @property
    def setting(self) -> str:
        """Where the data comes from, a key of ``SETTINGS``."""
        return self.key.partition("/")[0]


def _relume(key: str, label: str, train: Callable[[Job, bool | None], None], in_memory: bool | None) -> Contestant:
    return Contestant(key, f"relume {label}", "relume.train", lambda job: train(job, in_memory), evaluate_by_relume)


def _peers(setting: str) -> list[Contestant]:
    return [
        Contestant(f"{setting}/lightning", "Lightning", "lightning", lightning),
        Contestant(f"{setting}/ignite", "Ignite", "ignite.engine", ignite),
        Contestant(f"{setting}/accelerate", "Accelerate", "accelerate", accelerate),
    ]


SETTINGS = {
    "loader": "the tutorial's loader (torchvision dataset, ToTensor, DataLoader)",
    "tensors": "tensors already in memory (TensorDataset, DataLoader)",
}
ALL = [
    Contestant("loader/hand", "hand-written loop", "torch", hand_written),
    _relume("loader/trainer-off", "Trainer, in_memory=False", relume_trainer, False),
    _relume("loader/run-off", "Run, in_memory=False", relume_run, False),
    _relume("loader/trainer", "Trainer", relume_trainer, None),
    _relume("loader/run", "Run", relume_run, None),
    *_peers("loader"),
    Contestant("tensors/hand", "hand-written loop", "torch", hand_written),
    Contestant("tensors/slices", "slices by hand (the floor)", "torch", slices),
    _relume("tensors/trainer-off", "Trainer, in_memory=False", relume_trainer, False),
    _relume("tensors/run-off", "Run, in_memory=False", relume_run, False),
    _relume("tensors/trainer", "Trainer", relume_trainer, None),
    _relume("tensors/run", "Run", relume_run, None),
    *_peers("tensors"),
]
BY_KEY = {contestant.key: contestant for contestant in ALL}


def chosen(patterns: list[str]) -> list[Contestant]:
    """The contestants that match (``loader/*``, ``lightning``), with the hand-written loop of their settings."""
    if not patterns:
        return ALL
    wanted = [c for c in ALL if any(fnmatch(c.key, p) or fnmatch(c.key.partition("/")[2], p) for p in patterns)]
    if not wanted:
        raise SystemExit(f"--only {' '.join(patterns)} matches none of: {' '.join(BY_KEY)}")
    settings = {contestant.setting for contestant in wanted}
    return [c for c in ALL if c in wanted or (c.key.endswith("/hand") and c.setting in settings)]
