"""Milliseconds from the start of a run to the first batch that is trained: at batch 1 of an epoch, and at batch 900.

A checkpoint is made by hand in an epoch of 938 batches of Fashion-MNIST, with augmentation (so nothing is kept in
memory), and a new Run resumes from it. The batches that are skipped are not loaded: both should take the same.
Starts at the two places take turns, and the smallest time counts.

    python bench/restart.py --repeats 7
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import fashion
import harness
import torch
from harness import console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset

import relume

PLACES = (1, 900)


class Noisy(Dataset[Any]):
    """The images, each with noise of its own."""

    def __init__(self, images: Dataset[Any]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        image, label = self.images[index]
        return image + 0.1 * torch.randn(image.shape), label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="starts at each place (7)")
    parser.add_argument("--quick", action="store_true", help="1,280 images: does it run?")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relume-bench-") as scratch:
        root = fashion.slice_of(1280, Path(scratch)) if options.quick else fashion.full()
        places = (1, 15) if options.quick else PLACES
        facts = harness.machine()
        data = Noisy(relume.datasets.fashion_mnist(root, train=True))
        for place in places:
            start(data, Path(scratch, str(place)), stop_at=place)
        found: dict[str, list[float]] = {str(place): [] for place in places}
        for _ in range(options.repeats):
            for place in places:
                found[str(place)].append(1e3 * start(data, Path(scratch, str(place)), stop_at=None))
    least = {place: min(times) for place, times in found.items()}
    table = Table("resumed at batch", "milliseconds", "ratio", title="From the start of a run to its first batch")
    for place, value in least.items():
        table.add_row(place, f"{value:.1f}", f"{value / least[str(places[0])]:.2f}")
    console.print(table)
    console.print(f"{options.repeats} starts at each place. {harness.describe(facts)}", style="dim")
    harness.write("restart", {"machine": facts, "options": vars(options), "milliseconds": found})


def start(data: Dataset[Any], root: Path, stop_at: int | None) -> float:
    """Seconds until the first batch; with ``stop_at``, train that far, make a checkpoint and end as if killed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(data, batch_size=64, shuffle=True)
    began = arrived = time.perf_counter()
    run = relume.Run("restart", model=model, optimizer=optimizer, root=root, every=False, quiet=True)
    try:
        with run:
            for _ in run.epochs(1):
                for number, (x, y) in enumerate(run.batches(loader), 1):
                    arrived = time.perf_counter()
                    if stop_at is None:
                        raise KeyboardInterrupt
                    if number <= 2:
                        nn.functional.cross_entropy(model(x), y).backward()
                    optimizer.step()
                    if number == stop_at:
                        run.checkpoint()
                        raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return arrived - began


if __name__ == "__main__":
    main()
