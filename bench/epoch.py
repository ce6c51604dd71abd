"""Time the epochs of one contestant and print them as JSON; bench/loop.py starts this once for each measurement."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
import warnings
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import contestants
import torch
from contestants import Job
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import FashionMNIST
from torchvision.transforms import ToTensor

BATCH_SIZE = 64
LR = 1e-3
WARMUP_BATCHES = 100
PARTS = 10


Moment = tuple[float, float]


def moment() -> Moment:
    return time.perf_counter(), time.process_time()


class Stopwatch(nn.CrossEntropyLoss):
    """The loss of all contestants, which also notes the time at each tenth of an epoch.

    Shared machines have slow phases shorter than an epoch. The sum over the tenths of the fastest time of each is
    the time of an epoch without such phases, and needs far fewer repeats than a whole undisturbed epoch does.
    Each moment is noted twice: the wall clock, and the processor time of this process, all its threads together.
    """

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches
        self.every = -(-batches // PARTS)
        self.seen = 0
        self.epochs: list[list[Moment]] = []
        self.times: list[Moment] = []

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss = super().forward(input, target)
        self.seen += 1
        if self.seen % self.every == 0 and self.seen < self.batches:
            self.times.append(moment())
        return loss

    def start(self) -> None:
        self.times = [moment()]

    def epoch_done(self) -> None:
        """An epoch's last moment is the first of the next, so whatever lies between two epochs is counted."""
        if self.seen != self.batches:
            raise RuntimeError(f"{self.seen} batches were trained on in this epoch, expected {self.batches}")
        self.times.append(moment())
        self.epochs.append(self.times)
        self.times, self.seen = self.times[-1:], 0

    def parts(self, clock: int) -> list[list[float]]:
        """For each epoch the seconds of its tenths: by the wall (0), or of the processors (1)."""
        return [[after[clock] - before[clock] for before, after in pairwise(times)] for times in self.epochs]


def quickstart_mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(28 * 28, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


def loader(root: Path, setting: str, *, train: bool) -> DataLoader[object]:
    dataset = FashionMNIST(root, train=train, transform=ToTensor())
    if setting == "tensors":
        whole = next(iter(DataLoader(dataset, batch_size=len(dataset))))
        return DataLoader(TensorDataset(*whole), batch_size=BATCH_SIZE)
    return DataLoader(dataset, batch_size=BATCH_SIZE)


def warm_up() -> None:
    """The first batches of a process pay for kernels and memory; the same hand-written ones for everybody."""
    model = quickstart_mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for _ in range(WARMUP_BATCHES):
        nn.functional.cross_entropy(model(torch.rand(BATCH_SIZE, 1, 28, 28)), torch.zeros(BATCH_SIZE).long()).backward()
        optimizer.step()
        optimizer.zero_grad()


def fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def measure(contestant: contestants.Contestant, root: Path, epochs: int, *, evaluate: bool) -> dict[str, object]:
    import_module(contestant.package)
    training = loader(root, contestant.setting, train=True)
    warm_up()
    model = quickstart_mlp()
    stopwatch = Stopwatch(len(training))
    with tempfile.TemporaryDirectory(prefix="relume-bench-") as scratch:
        job = Job(
            model,
            stopwatch,
            torch.optim.SGD(model.parameters(), lr=LR),
            training,
            epochs,
            stopwatch.epoch_done,
            Path(scratch),
        )
        stopwatch.start()
        contestant.train(job)
    result: dict[str, object] = {
        "epochs": stopwatch.parts(0),
        "processor": stopwatch.parts(1),
        "weights": fingerprint(model),
        "threads": torch.get_num_threads(),
    }
    if evaluate:
        test = loader(root, contestant.setting, train=False)
        begin = time.perf_counter()
        result["evaluation"] = contestant.evaluate(model, test, nn.CrossEntropyLoss())
        result["evaluation_seconds"] = time.perf_counter() - begin
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contestant", choices=contestants.BY_KEY)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--evaluate", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        contestant = contestants.BY_KEY[options.contestant]
        result = measure(contestant, options.root, options.epochs, evaluate=options.evaluate)
    except ModuleNotFoundError as missing:
        result = {"missing": missing.name}
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
