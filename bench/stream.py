"""Microseconds a batch: relume's exact data stream beside the plain DataLoader, in the main process.

The first three datasets do nothing, so that only the overhead of the loader shows (allowed: 50 microseconds a batch
over the plain DataLoader). The last is Fashion-MNIST in shape, which relume keeps in memory. Short passes over the
same number of batches take turns in one process, and the smallest time counts.

    python bench/stream.py
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import contestants
import harness
import torch
from harness import console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset, TensorDataset

ALLOWED_MICROSECONDS = 50
Passes = dict[str, dict[str, list[float]]]


class Nothing(Dataset[int]):
    """Gives the index itself: all the time goes to the loader."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


@dataclass(frozen=True)
class Case:
    label: str
    loader: DataLoader[Any]
    in_memory: bool = False


def main() -> None:
    options = parse()
    facts = harness.machine()
    found = {case.label: measure(case, options.repeats) for case in cases(options.batches)}
    console.print(table(found))
    console.print(f"{options.repeats} passes of {options.batches} batches. {harness.describe(facts)}", style="dim")
    harness.write("stream", {"machine": facts, "options": vars(options), "microseconds": found})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="passes of each (20)")
    parser.add_argument("--batches", type=int, default=1000, help="batches in a pass (1000)")
    parser.add_argument("--quick", action="store_true", help="20 batches once: does it run?")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.batches = 1, 20
    return options


def cases(batches: int) -> Iterator[Case]:
    for size, shuffle in ((1, False), (64, False), (64, True)):
        loader = DataLoader(Nothing(batches * size), batch_size=size, shuffle=shuffle, collate_fn=list)
        yield Case(f"nothing, batches of {size}{', shuffled' if shuffle else ''}", loader)
    images = TensorDataset(torch.rand(batches * 64, 1, 28, 28), torch.zeros(batches * 64).long())
    yield Case("images 1 x 28 x 28 in memory, batches of 64, shuffled", DataLoader(images, 64, shuffle=True), True)


def measure(case: Case, repeats: int) -> dict[str, list[float]]:
    """Microseconds a batch of every pass. The first pass of each is left out: it sets things up."""
    epoch_of = contestants.stream_epochs(case.loader, in_memory=case.in_memory)
    times: dict[str, list[float]] = {"plain": [], "relume": []}
    for number in range(repeats + 1):
        for name, batches in (("plain", lambda: case.loader), ("relume", lambda: epoch_of(number))):  # noqa: B023
            seconds = timed_pass(batches)
            if number:
                times[name].append(seconds / len(case.loader) * 1e6)
    return times


def timed_pass(batches: Callable[[], Any]) -> float:
    gc.collect()
    begin = time.perf_counter()
    for _ in batches():
        pass
    return time.perf_counter() - begin


def table(found: Passes) -> Table:
    made = Table(title="Microseconds a batch", title_justify="left", title_style="bold")
    made.add_column("dataset")
    for name in ("DataLoader", "relume.Stream", "difference", "median of differences"):
        made.add_column(name, justify="right")
    for label, times in found.items():
        plain, relume = min(times["plain"]), min(times["relume"])
        differences = [ours - theirs for ours, theirs in zip(times["relume"], times["plain"], strict=True)]
        style = "red" if relume - plain > ALLOWED_MICROSECONDS else "green"
        difference = f"[{style}]{relume - plain:+.1f}[/]"
        made.add_row(label, f"{plain:.1f}", f"{relume:.1f}", difference, f"{statistics.median(differences):+.1f}")
    return made


if __name__ == "__main__":
    main()
