"""Real runs for the page to show, made with relume itself: a sweep, and one of each kind of fate that a training has.

``python tests/ui/made_runs.py ROOT`` makes them all, to look at by hand; ``python tests/ui/live_run.py ROOT NAME`` adds one
that goes on.
"""

from __future__ import annotations

import functools
import math
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from media_runs import make_media
from odd_runs import make_damaged, make_foreign, make_hostile, make_killed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.datasets import IdxImages
from relume.datasets.idx import part_names

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SPIKE_STEP, LONG_STEPS = 123_457, 200_000
"""Where the one point hides that must not be lost, and among how many."""

SWEEP = [
    {"optimizer": optimizer, "lr": lr, "batch_size": batch_size, "hidden": hidden, "dropout": dropout}
    for optimizer, lr, batch_size, hidden, dropout in (
        ("adam", 3e-3, 64, 128, 0.0), ("adam", 1e-3, 64, 128, 0.1), ("adam", 3e-4, 64, 128, 0.0), ("adam", 1e-2, 64, 64, 0.0),
        ("adam", 1e-3, 32, 64, 0.2), ("adam", 3e-3, 128, 32, 0.0), ("adam", 1e-1, 64, 64, 0.0), ("sgd", 1e-1, 64, 128, 0.0),
        ("sgd", 3e-2, 64, 128, 0.1), ("sgd", 1e-2, 32, 64, 0.0), ("sgd", 1e-3, 128, 32, 0.0), ("adamw", 1e-3, 64, 256, 0.2),
        ("adamw", 3e-3, 128, 128, 0.4), ("adamw", 3e-4, 32, 32, 0.0),
    )
]  # fmt: skip


@functools.cache
def clothes(train: bool, count: int) -> TensorDataset:
    """The first of the images of Fashion-MNIST that come with relume, standardised."""
    folder = Path(relume.__file__).parent / "datasets" / "fashion_mnist_subset"
    images, labels = (folder / f"{name}.gz" for name in part_names(train))
    data = IdxImages(images, labels, CLASSES)
    return TensorDataset((data.data[:count].float().unsqueeze(1) - 73.0) / 90.0, data.targets[:count])


def loaders(batch_size: int, count: int = 1536) -> tuple[DataLoader, DataLoader]:
    return DataLoader(clothes(True, count), batch_size, shuffle=True), DataLoader(clothes(False, 512), 256)


def network(hidden: int, dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10))


def convolutions() -> nn.Sequential:
    """Three blocks of which each can be frozen."""
    model = nn.Sequential()
    for number, (inputs, outputs) in enumerate(((1, 4), (4, 8)), 1):
        block = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2), nn.BatchNorm2d(outputs), nn.ReLU())
        model.add_module(f"block{number}", block)
    model.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(8 * 36, 10)))
    return model


def optimizer_of(name: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](model.parameters(), lr=lr)


class StopAt(relume.Callback):
    """Ends a training in the middle of a step, as power cuts, mistakes and Ctrl-C do."""

    def __init__(self, step: int, error: type[BaseException], text: str = "") -> None:
        self.step, self.error, self.text = step, error, text

    def on_step_end(self, trainer: relume.Trainer) -> None:
        if trainer.run is not None and trainer.run.cursor.step == self.step:
            raise self.error(self.text)


def train(
    root: Path, name: str, settings: dict, epochs: int, *, model: nn.Module | None = None, **more: object
) -> None:
    """One training with the Trainer; ``stop_at`` ends it early with an error that is caught here."""
    torch.manual_seed(1)
    stop_at = more.pop("stop_at", None)
    model = network(settings["hidden"], settings["dropout"]) if model is None else model
    trainer = relume.Trainer(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer_of(settings["optimizer"], model, settings["lr"]),
        metrics={"accuracy": relume.accuracy},
        seed=1,
        device="cpu",
        quiet=True,
        callbacks=[stop_at] if isinstance(stop_at, relume.Callback) else [],
    )
    train_loader, val_loader = loaders(settings["batch_size"])
    config = {key: value for key, value in settings.items() if key not in ("lr", "optimizer")}
    try:
        trainer.fit(train_loader, val_loader, epochs=epochs, run=name, root=root, config=config, **more)  # type: ignore[arg-type]
    except BaseException as error:
        if stop_at is None or not isinstance(error, stop_at.error):  # type: ignore[attr-defined]
            raise


def make_sweep(root: Path, count: int = len(SWEEP), epochs: int = 3) -> None:
    for number, settings in enumerate(SWEEP[:count], 1):
        name = f"sweep-{number:02d}-{settings['optimizer']}-{settings['lr']:g}"
        tags = ["sweep"] + (["baseline"] if number == 2 else [])
        notes = (
            "The baseline: Adam at 0.001, 128 units.\nAll others of the sweep are compared with it."
            if number == 2
            else None
        )
        train(root, name, settings, epochs, tags=tags, notes=notes, watch=relume.Speed(every="20 steps"))


def make_frozen(root: Path) -> None:
    """Step freezing: each part alone in turns of steps, as a schedule that repeats."""
    schedule = relume.FreezeSchedule(
        [
            relume.Phase("head", epochs=1, lr=3e-3, name="head alone"),
            relume.Phase(["block2", "head"], epochs=2, lr=1e-3),
            relume.Phase(lr=3e-4, warmup="10 steps", batchnorm="eval", name="everything"),
        ]
    )
    settings = SWEEP[1] | {"hidden": 0}
    train(
        root, "frozen-phases", settings, 5, model=convolutions(), freeze=schedule, watch=relume.LearningRates("5 steps")
    )
    turns = {"body": ["block1", "block2"], "head": ["head"]}
    alternating = relume.FreezeSchedule.alternate(turns, every="12 steps")
    train(root, "frozen-alternating", settings, 4, model=convolutions(), freeze=alternating)


def make_resumed(root: Path) -> None:
    """Crashed in its sixth epoch, then gone on from the checkpoint of the third: what lies between is a dead branch."""
    settings, keep = SWEEP[4], relume.Keep(last=9)
    crash = StopAt(48 * 5 + 20, RuntimeError, "the power went out")
    train(root, "resumed", settings, 8, keep=keep, stop_at=crash)
    train(root, "resumed", settings | {"lr": 3e-4}, 8, keep=keep, resume="3", override="lr")


def make_ends(root: Path) -> None:
    """One interrupted, one failed, one stopped early, one archived by its tag."""
    train(root, "interrupted", SWEEP[2], 10, stop_at=StopAt(130, KeyboardInterrupt))
    train(root, "failed", SWEEP[3], 10, stop_at=StopAt(75, ValueError, "Expected input batch_size (64) to match (63)"))
    stop = relume.EarlyStopping("val/loss", patience=2, restore_best=True)
    train(root, "early-stopped", SWEEP[11], 40, stop=stop)
    train(root, "old-archived", SWEEP[12], 2, tags=["archived", "first tries"], notes="Superseded by the sweep.")


def make_long(root: Path, steps: int = LONG_STEPS) -> None:
    """Very many points of one metric, of which one alone is large."""
    noise = random.Random(0)
    with relume.Run("long", root=root, config={"steps": steps, "lr": 1e-3}, quiet=True, watch=False) as run:
        for step in range(steps):
            loss = 0.3 + 2.0 * math.exp(-step / 20_000) + noise.gauss(0, 0.05)
            run.log({"train/loss": 42.0 if step == SPIKE_STEP else abs(loss)}, step=step)
            if step % 1000 == 0:
                run.log({"val/loss": 0.35 + 2.0 * math.exp(-step / 20_000)}, step=step)


MAKERS: dict[str, Callable[[Path], None]] = {
    "sweep": make_sweep,
    "frozen": make_frozen,
    "resumed": make_resumed,
    "ends": make_ends,
    "long": make_long,
    "media": make_media,
    "hostile": make_hostile,
    "foreign": make_foreign,
    "killed": make_killed,
    "damaged": make_damaged,
}


def make_all(root: Path, *names: str) -> Path:
    """All of them, or those that are named; returns ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what goes wrong on purpose
        for name in names or MAKERS:
            MAKERS[name](root)
    return root


if __name__ == "__main__":
    make_all(Path(sys.argv[1]), *sys.argv[2:])
