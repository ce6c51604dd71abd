"""Seconds a process takes to import relume beside torch alone, and to answer ``relume --help``.

Allowed: 0.3 s on top of torch, 0.5 s for the help. relume imports its parts when they are first used, so the row that
uses the engine tells the whole cost. Each measurement is a fresh process and the commands take turns.

    python bench/imports.py
"""

from __future__ import annotations

import argparse
import statistics
import sys

import harness
from harness import console
from rich.table import Table

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import torch, relume": ["-c", "import torch, relume"],
    "import torch, relume.Trainer": ["-c", "import torch; from relume import Run, Trainer, evaluate"],
    "import relume": ["-c", "import relume"],
    "relume --help": ["-m", "relume", "--help"],
}


def main() -> None:
    options = parse()
    facts = harness.machine()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    failed: dict[str, str] = {}
    others: list[float] = []
    for number, name, child in harness.rounds(
        list(COMMANDS), options.repeats + 1, lambda name: harness.spawn([sys.executable, *COMMANDS[name]])
    ):
        if child.returncode != 0:
            failed[name] = harness.last_line(child.stderr)
        elif number:  # the first round compiles and fills the file cache
            seconds[name].append(child.seconds)
            others.append(child.others)
    console.print(table(seconds))
    console.print(f"{options.repeats} repeats. {harness.describe(facts)}", style="dim")
    console.print(harness.disturbance(others))
    harness.write("imports", {"machine": facts, "options": vars(options), "seconds": seconds, "failed": failed})
    for name, text in failed.items():
        harness.status.print(f"{name} failed: {text}", style="red", markup=False, highlight=False)
    if failed:
        raise SystemExit(1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="once: does it run?")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 1
    return options


def table(seconds: dict[str, list[float]]) -> Table:
    made = Table(title="Seconds, whole process", title_justify="left", title_style="bold")
    made.add_column("")
    for name in ("minimum", "over import torch", "median"):
        made.add_column(name, justify="right")
    for name, times in seconds.items():
        if not times:
            made.add_row(name, "[red]failed[/]")
            continue
        over = min(times) - min(seconds["import torch"]) if "torch," in name and seconds["import torch"] else None
        made.add_row(
            name, f"{min(times):.3f}", "" if over is None else f"{over:+.3f}", f"{statistics.median(times):.3f}"
        )
    return made


if __name__ == "__main__":
    main()
