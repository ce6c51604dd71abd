"""What a tracker that goes wrong costs the training: one that raises, hangs for 60 s, or has a full disk.

An MLP trains with ``run.log`` of ten numbers a step; measured is the time from the first step to the last, in processes
of their own that take turns. Trackers are fed from elsewhere, so that none of them should be seen here. ``local`` is how
many of the steps the run's own record has in the end: all of them.

    python bench/broken.py --repeats 7
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import harness
from harness import console
from rich.table import Table

MODES = ("none", "raises", "hangs", "full disk", "tensorboard")


def main() -> None:
    options = parse()
    if options.child:
        print(json.dumps(measure(options.child, options.steps)))
        return
    facts = harness.machine()
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}

    def spawn(mode: str) -> harness.Finished:
        return harness.spawn([sys.executable, __file__, "--child", mode, "--steps", str(options.steps)])

    for _, mode, child in harness.rounds(MODES, options.repeats, spawn):
        if child.returncode != 0:
            raise SystemExit(f"{mode} failed: {harness.last_line(child.stderr)}")
        runs[mode].append(json.loads(harness.last_line(child.stdout)) | {"others": child.others})
    table = Table(title="A training beside trackers that go wrong", title_justify="left", title_style="bold")
    for column in ("tracker", "seconds", "over none", "median", "warnings", "local"):
        table.add_column(column, justify="left" if column == "tracker" else "right")
    least = {mode: min(run["seconds"] for run in of_one) for mode, of_one in runs.items()}
    for mode, of_one in runs.items():
        middle = statistics.median(run["seconds"] for run in of_one)
        over = f"{100 * (least[mode] / least['none'] - 1):+.1f}%"
        kept = {run["kept"] for run in of_one}
        said = sorted({run["warnings"] for run in of_one})
        table.add_row(mode, f"{least[mode]:.2f}", over, f"{middle:.2f}", str(said), f"{kept} of {options.steps}")
    console.print(table)
    console.print(f"{options.repeats} repeats of {options.steps} steps. {harness.describe(facts)}", style="dim")
    console.print(harness.disturbance([run["others"] for of_one in runs.values() for run in of_one]))
    harness.write("broken", {"machine": facts, "options": vars(options), "runs": runs})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="processes for each row (5)")
    parser.add_argument("--steps", type=int, default=2000, help="steps in each process (2000)")
    parser.add_argument("--quick", action="store_true", help="50 steps and one repeat: does it run?")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.steps = 1, 50
    return options


def measure(mode: str, steps: int) -> dict[str, Any]:
    """Seconds from the first step to the last, in this process."""
    import os

    import torch
    from broken_trackers import BY_NAME
    from torch import nn

    import relume
    from relume.monitor import columns

    os.environ["RELUME_TRACKERS_WAIT"] = "1"
    torch.set_num_threads(1)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, y = torch.randn(64, 784), torch.randint(10, (64,))
    trackers = [BY_NAME[mode]()] if mode in BY_NAME else [mode] if mode != "none" else None
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        options = {"root": root, "quiet": True, "every": False, "trackers": trackers}
        with relume.Run("bench", model=model, optimizer=optimizer, **options) as run:
            time.sleep(2)  # until the tracker's process has started
            begin = time.perf_counter()
            for step in range(steps):
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                run.log({f"m{i}": float(step + i) for i in range(10)})
            seconds = time.perf_counter() - begin
        kept = len(columns(Path(root) / "bench", ["m0"])["m0"])
    said = sum(issubclass(one.category, relume.errors.RelumeWarning) for one in caught)
    return {"seconds": seconds, "kept": kept, "warnings": said}


if __name__ == "__main__":
    main()
