"""What deterministic algorithms cost: a training step with ``deterministic=True`` and without, in turns in one process.

The MLP and the small CNN of ``relume train``, and a table of embeddings that is read by indexing, whose gradient adds many
rows into one place. ``off`` and ``on`` are the medians over all rounds of the processor time of a step (on a GPU: time by
the clock, synchronised); ``slower`` is the median of the rounds' own ratios, so that slow phases of the machine cancel.
``memory filled`` is what torch's filling of uninitialised memory alone adds, which is part of ``on``. ``repeats`` says
whether two trainings end with the same weights, without and with it.

    python bench/deterministic.py --rounds 20
    python bench/deterministic.py --device cuda
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import harness
import torch
from harness import console
from rich.table import Table
from torch import nn

from relume import determinism
from relume.models.small import CNN, MLP

BATCH, ROWS = 64, 200


class Indexed(nn.Module):
    """A table of numbers, read by indexing."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(ROWS, 64))
        self.head = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = (images.flatten(1) * (ROWS - 1)).long()
        return self.head(self.table[rows].mean(1))


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": MLP, "cnn": CNN, "indexed": Indexed}


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    facts, results = harness.machine(), {}
    for name in options.only or MODELS:
        results[name] = measure(name, options)
        console.print(line(name, results[name]), highlight=False)
    console.print(table(results))
    console.print(
        f"{options.rounds} rounds of {options.steps} steps of {BATCH}, on {options.device}, "
        f"{torch.get_num_threads()} threads. {harness.describe(facts)}",
        style="dim",
    )
    harness.write("deterministic", {"machine": facts, "options": vars(options), "results": results})


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[float]] = {"off": [], "on": [], "unfilled": []}
    train = Training(name, options.device)
    order = list(found)
    for mode in order:  # warm
        with setting(mode):
            train.steps(3)
    for number in range(options.rounds):
        for mode in order[number % 3 :] + order[: number % 3]:
            with setting(mode):
                found[mode].append(train.steps(options.steps))
    ratios = [on / off for on, off in zip(found["on"], found["off"], strict=True)]
    filling = [on / bare for on, bare in zip(found["on"], found["unfilled"], strict=True)]
    return {
        "seconds": found,
        "slower": statistics.median(ratios) - 1,
        "filling": statistics.median(filling) - 1,
        "repeats": {mode: repeats(name, options.device, mode) for mode in ("off", "on")},
    }


class setting:  # noqa: N801
    """Deterministic algorithms, or not, or without filling memory."""

    def __init__(self, mode: str) -> None:
        self.mode, self.held = mode, determinism.held(mode != "off")

    def __enter__(self) -> None:
        self.held.__enter__()
        if self.mode == "unfilled":
            torch.utils.deterministic.fill_uninitialized_memory = False

    def __exit__(self, *error: Any) -> None:
        self.held.__exit__(*error)


class Training:
    """One model and its data; batches are at hand, so that nothing but steps is measured."""

    def __init__(self, name: str, device: str) -> None:
        generator = torch.Generator().manual_seed(1)
        torch.manual_seed(0)
        self.device = device
        self.model = MODELS[name]().to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.loss = nn.CrossEntropyLoss()
        images = torch.rand(8, BATCH, 1, 28, 28, generator=generator)
        labels = torch.randint(10, (8, BATCH), generator=generator)
        self.batches = [(x.to(device), y.to(device)) for x, y in zip(images, labels, strict=True)]

    def steps(self, count: int) -> float:
        """Seconds a step."""
        is_cpu = self.device == "cpu"
        clock = time.process_time if is_cpu else time.perf_counter
        begin = clock()
        for number in range(count):
            x, y = self.batches[number % len(self.batches)]
            self.loss(self.model(x), y).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        if not is_cpu:
            torch.cuda.synchronize()
        return (clock() - begin) / count


def repeats(name: str, device: str, mode: str) -> bool:
    """Whether three trainings of 20 steps end with the same bits."""
    ends = []
    for _ in range(3):
        train = Training(name, device)
        with setting(mode):
            train.steps(20)
        ends.append(torch.cat([p.detach().flatten().cpu() for p in train.model.parameters()]))
    return all(torch.equal(ends[0], end) for end in ends[1:])


def line(name: str, found: dict[str, Any]) -> str:
    off, on = (1e3 * statistics.median(found["seconds"][mode]) for mode in ("off", "on"))
    return f"{name}: {off:.3f} ms a step, {on:.3f} ms with deterministic=True ({found['slower']:+.1%})"


def table(results: dict[str, dict[str, Any]]) -> Table:
    made = Table("model", box=None, header_style="bold")
    for heading in ("off [ms]", "on [ms]", "slower", "memory filled", "repeats off", "repeats on"):
        made.add_column(heading, justify="right")
    for name, found in results.items():
        off, on = (f"{1e3 * statistics.median(found['seconds'][mode]):.3f}" for mode in ("off", "on"))
        yes = {True: "yes", False: "no"}
        same = (yes[found["repeats"][mode]] for mode in ("off", "on"))
        made.add_row(name, off, on, f"{found['slower']:+.1%}", f"{found['filling']:+.1%}", *same)
    return made


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="how often each is measured (20)")
    parser.add_argument("--steps", type=int, default=50, help="steps a round (50)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; by default as they are")
    parser.add_argument("--only", nargs="*", choices=list(MODELS), help="these models")
    parser.add_argument("--quick", action="store_true", help="a few seconds: does it still run?")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps = 2, 5
    return options


if __name__ == "__main__":
    main()
