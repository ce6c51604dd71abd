"""A whole training from process start to process end: relume's command beside the tutorial's own script.

Five epochs of the quickstart's MLP on Fashion-MNIST with an evaluation after each. Every run is a fresh process in a
folder of its own with the data in ./data; the contestants take turns. The accuracy is the last one that a run printed,
or else wrote to its journal; neither script fixes a seed, so it is shown as a range.

    python bench/end_to_end.py --repeats 5
    python bench/end_to_end.py --also 'in memory off={python} -m relume train fashion-mnist --no-in-memory ...'

In a command ``{python}``, ``{epochs}``, ``{runs}`` (a new folder each time) and ``{bench}`` are filled in.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import fashion
import harness
from harness import console
from rich.table import Table

TUTORIAL = "{python} {bench}/tutorial.py {epochs}"
RELUME = (
    "{python} -m relume train fashion-mnist --epochs {epochs} --batch-size 64 --lr 1e-3 --optimizer sgd --no-shuffle "
    "--quiet --root {runs} --name bench"
)
Run = dict[str, Any]


def main() -> None:
    options = parse()
    commands = {
        "the tutorial's script": TUTORIAL,
        "relume train": options.command,
        "relume train, bf16": f"{options.command} --precision bf16",
    }
    commands |= dict(text.split("=", 1) for text in options.also)
    with tempfile.TemporaryDirectory(prefix="relume-bench-") as folder:
        scratch = Path(folder)
        if options.quick:
            fashion.slice_of(1280, scratch / "data")
        else:
            (scratch / "data").symlink_to(fashion.full())
        facts = harness.machine()
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for number, name, run in harness.rounds(
            list(commands), options.repeats, lambda name: measure(commands[name], options.epochs, scratch)
        ):
            runs[name].append(run | {"round": number})
    console.print(table(runs, options.epochs))
    console.print(f"{options.repeats} repeats. {harness.describe(facts)}", style="dim")
    console.print(harness.disturbance([run["others"] for of_one in runs.values() for run in of_one]))
    harness.write("end_to_end", {"machine": facts, "options": vars(options), "commands": commands, "runs": runs})
    report_failures(runs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--command", default=RELUME, help=f"relume's command line ({RELUME})")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=COMMAND", help="one more row")
    parser.add_argument("--quick", action="store_true", help="1,280 images, two epochs, one repeat: does it run?")
    options = parser.parse_args()
    if any("=" not in text for text in options.also):
        parser.error("--also needs NAME=COMMAND")
    if options.quick:
        options.repeats, options.epochs = 1, 2
    return options


def measure(command: str, epochs: int, scratch: Path) -> Run:
    with tempfile.TemporaryDirectory(prefix="runs-", dir=scratch) as runs:
        filled = command.format(python=sys.executable, epochs=epochs, runs=runs, bench=harness.BENCH)
        child = harness.spawn(shlex.split(filled), cwd=scratch)
        run: Run = {"seconds": child.seconds, "peak_bytes": child.peak_bytes, "others": child.others}
        if child.returncode != 0:
            return run | {"failed": child.stderr or f"exit status {child.returncode}"}
        return run | {"accuracy": printed_accuracy(child.stdout) or journal_accuracy(Path(runs))}


def printed_accuracy(text: str) -> float | None:
    """The last accuracy in a program's output, as a fraction: ``Accuracy: 64.9%``, ``val/accuracy=0.649``."""
    found = re.findall(r"accuracy\W{1,3}([0-9.]+) ?(%?)", text, flags=re.IGNORECASE)
    return float(found[-1][0]) / (100 if found[-1][1] else 1) if found else None


def journal_accuracy(runs: Path) -> float | None:
    """The last accuracy in a run's journal, whatever else its lines hold."""
    lines = [line for path in sorted(runs.glob("*/journal/*.jsonl")) for line in path.read_text().splitlines()]
    found = [value for line in lines for value in accuracies(json.loads(line))]
    return found[-1] if found else None


def accuracies(data: Any) -> list[float]:
    if not isinstance(data, dict):
        return []
    own = [value for key, value in data.items() if "accuracy" in key and isinstance(value, float)]
    return own + [found for value in data.values() for found in accuracies(value)]


def table(runs: dict[str, list[Run]], epochs: int) -> Table:
    """Seconds and how many times faster than the first row, which is the tutorial."""
    made = Table(title=f"{epochs} epochs with evaluation, whole process", title_justify="left", title_style="bold")
    made.add_column("")
    for name in ("minimum s", "times faster", "median s", "times faster", "peak memory", "final test accuracy"):
        made.add_column(name, justify="right")
    base: list[float] = []
    for name, of_one in runs.items():
        good = [run for run in of_one if "failed" not in run]
        if not good:
            made.add_row(name, "[red]failed[/]")
            continue
        seconds = [run["seconds"] for run in good]
        base = base or seconds
        peak = min(run["peak_bytes"] for run in good) / 1e6
        cells = [
            cell for of in (min, statistics.median) for cell in (f"{of(seconds):.2f}", f"{of(base) / of(seconds):.2f}")
        ]
        made.add_row(name, *cells, f"{peak:,.0f} MB", spread([run["accuracy"] for run in good]))
    return made


def spread(accuracies: list[float | None]) -> str:
    known = [value for value in accuracies if value is not None]
    if not known:
        return "not found"
    return f"{statistics.mean(known):.4f} ({min(known):.4f} to {max(known):.4f})"


def report_failures(runs: dict[str, list[Run]]) -> None:
    failed = [(name, run["failed"]) for name, of_one in runs.items() for run in of_one if "failed" in run]
    for name, text in failed:
        harness.status.print(f"{name} failed: {harness.last_line(text)}", style="red", markup=False, highlight=False)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
