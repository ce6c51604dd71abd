"""A million numbers read back: folding the journal into its index, buckets of a long series, a zoom, all columns.

Allowed for a series of 100,000 points: 1,000 buckets in 50 ms, a zoom into 1% of it in 5 ms.

    python bench/history.py
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness import console
from rich.table import Table

from relume.monitor.buckets import buckets
from relume.monitor.index import columns, fold, metric_summary
from relume.monitor.journal import values_line

METRICS = 10


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.steps, options.repeats)
    table = Table("what", "milliseconds", "allowed", title=f"{options.steps * METRICS:,} numbers, {METRICS} a line")
    allowed = {"1,000 buckets of one metric": 50, "zoom into 1% of it": 5}
    for name, value in found["milliseconds"].items():
        table.add_row(name, f"{value:.2f}", str(allowed.get(name, "")))
    console.print(table)
    console.print(
        f"memory: folding added {found['fold_megabytes']:.1f} MB, journal {found['journal_megabytes']:.1f} MB"
    )
    facts = harness.machine()
    console.print(harness.describe(facts), style="dim")
    harness.write("history", {"machine": facts, "options": vars(options), **found})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="lines, of ten numbers each (100000)")
    parser.add_argument("--repeats", type=int, default=21, help="readings of each (21)")
    parser.add_argument("--quick", action="store_true", help="1,000 lines once: does it run?")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.repeats = 1000, 1
    return options


def measure(folder: Path, steps: int, repeats: int) -> dict[str, Any]:
    journal = write_journal(folder, steps)
    before = peak_megabytes()
    begin = time.perf_counter()
    fold(folder)
    folding = (time.perf_counter() - begin) * 1000
    added = peak_megabytes() - before
    middle = steps // 2
    asked: dict[str, Callable[[], Any]] = {
        "1,000 buckets of one metric": lambda: buckets(folder, "train/m3"),
        "zoom into 1% of it": lambda: buckets(folder, "train/m3", first_step=middle, last_step=middle + steps // 100),
        "all columns": lambda: columns(folder),
        "summary of all metrics": lambda: metric_summary(folder),
    }
    found = {"fold the whole journal": folding, **{name: median(ask, repeats) for name, ask in asked.items()}}
    return {
        "milliseconds": found,
        "fold_megabytes": added,
        "journal_megabytes": journal.stat().st_size / 1e6,
        "index_megabytes": (folder / "metrics.db").stat().st_size / 1e6,
    }


def write_journal(folder: Path, steps: int) -> Path:
    (folder / "journal").mkdir()
    path = folder / "journal" / "0001.jsonl"
    with path.open("wb") as file:
        file.write(b'{"journal":1,"run":"bench","segment":1,"resumed":null}\n')
        for step in range(steps):
            values = {f"train/m{i}": math.sin(step / 1000 + i) + random.gauss(0, 0.1) for i in range(METRICS)}
            file.write(values_line(step, step // 1000, 1.7e9 + step / 10, values))
    return path


def median(ask: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        ask()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
