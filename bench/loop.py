"""Seconds an epoch of Fashion-MNIST: relume beside the hand-written loop, Lightning, Ignite and Accelerate.

The quickstart's MLP (784-512-512-10), batches of 64 in order, SGD with lr 1e-3, on the CPU. Every measurement is a
fresh process, the contestants take turns, and the smallest time counts. An epoch reaches from the end of the one
before it (the first: from the call) to its own end; evaluation is not in it.

Columns: ``minimum`` is the fastest epoch and ``median`` the middle one; ``undisturbed`` the sum over the tenths of an
epoch of the fastest time of each; ``processor`` the same in processor time, all threads together; ``first`` the fastest
first epoch, set-up included. ``weights`` says whether the trained weights equal the hand-written loop's to the last
bit, which shows that all did the same work. On a busy machine ``--threads 1`` and ``processor`` tell most.

    python bench/loop.py --repeats 5
    python bench/loop.py --only 'tensors/*' --only 'loader/trainer*'
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import contestants
import fashion
import harness
from contestants import Contestant
from harness import console
from rich.table import Table

Run = dict[str, Any]


def main() -> None:
    options = parse()
    wanted = contestants.chosen(options.only)
    with tempfile.TemporaryDirectory(prefix="relume-bench-") as scratch:
        root = fashion.slice_of(1280, Path(scratch)) if options.quick else fashion.full()
        facts = harness.machine()
        runs = measure_all(wanted, root, options)
    summaries = {key: summarise(of_one) for key, of_one in runs.items() if any("epochs" in run for run in of_one)}
    for setting, title in contestants.SETTINGS.items():
        of_setting = [contestant for contestant in wanted if contestant.setting == setting]
        if of_setting:
            console.print(table(title, of_setting, summaries, runs))
    console.print(
        f"Repeats: {options.repeats}, epochs in each: {options.epochs}. {harness.describe(facts)}", style="dim"
    )
    console.print(harness.disturbance([run["others"] for of_one in runs.values() for run in of_one if "others" in run]))
    settings = {name: value for name, value in vars(options).items() if name != "only"}
    harness.write("loop", {"machine": facts, "options": settings, "summaries": summaries, "runs": runs})
    report_failures(runs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="processes for each contestant (5)")
    parser.add_argument("--epochs", type=int, default=2, help="epochs in each process (2)")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="such as loader/* or lightning")
    parser.add_argument("--threads", type=int, help="torch's threads (torch's own choice)")
    parser.add_argument("--evaluate", action="store_true", help="evaluate on the test set afterwards")
    parser.add_argument("--quick", action="store_true", help="1,280 images and one repeat: does it run?")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 1
    return options


def measure_all(wanted: list[Contestant], root: Path, options: argparse.Namespace) -> dict[str, list[Run]]:
    arguments = ["--root", root, "--epochs", str(options.epochs)]
    arguments += ["--threads", str(options.threads)] if options.threads else []
    arguments += ["--evaluate"] if options.evaluate else []
    runs: dict[str, list[Run]] = {contestant.key: [] for contestant in wanted}

    def measure(key: str) -> Run | None:
        if runs[key] and "epochs" not in runs[key][-1]:
            return None  # missing or failed: it will be so again
        child = harness.spawn([sys.executable, harness.BENCH / "epoch.py", key, *arguments])
        if child.returncode != 0:
            return {"failed": child.stderr or f"exit status {child.returncode}"}
        return json.loads(harness.last_line(child.stdout)) | {"peak_bytes": child.peak_bytes, "others": child.others}

    for _, key, run in harness.rounds(list(runs), options.repeats, measure):
        if run is not None:
            runs[key].append(run)
    return runs


def summarise(runs: list[Run]) -> dict[str, Any]:
    good = [run for run in runs if "epochs" in run]
    seconds = [sum(parts) for run in good for parts in run["epochs"]]
    return {
        "minimum": min(seconds),
        "median": statistics.median(seconds),
        "undisturbed": sum_of_fastest(good, "epochs"),
        "processor": sum_of_fastest(good, "processor"),
        "first": min(sum(run["epochs"][0]) for run in good),
        "weights": sorted({run["weights"] for run in good}),
        "peak_bytes": min(run["peak_bytes"] for run in good),
        **{name: good[-1][name] for name in ("evaluation", "evaluation_seconds") if name in good[-1]},
    }


def sum_of_fastest(runs: list[Run], clock: str) -> float:
    """Over the tenths of an epoch, the sum of the fastest time of each."""
    return sum(min(tenth) for tenth in zip(*(epoch for run in runs for epoch in run[clock]), strict=True))


def table(title: str, rows: list[Contestant], summaries: dict[str, Any], runs: dict[str, list[Run]]) -> Table:
    """Times in seconds an epoch, and their ratios to the hand-written loop's."""
    made = Table(title=f"Seconds an epoch, {title}", title_justify="left", title_style="bold")
    made.add_column("")
    for name in (
        "minimum",
        "ratio",
        "undisturbed",
        "ratio",
        "processor",
        "ratio",
        "median",
        "first",
        "peak",
        "weights",
    ):
        made.add_column(name, justify="right")
    is_evaluated = any("evaluation" in summary for summary in summaries.values())
    if is_evaluated:
        made.add_column("test accuracy", justify="right")
    hand = summaries.get(f"{rows[0].setting}/hand")
    for row in rows:
        found = summaries.get(row.key)
        made.add_row(row.label, *(cells(found, hand) if found else [problem(runs[row.key])]))
    return made


def cells(found: dict[str, Any], hand: dict[str, Any] | None) -> list[str]:
    cells = []
    for name in ("minimum", "undisturbed", "processor"):
        cells += [f"{found[name]:.3f}", f"{found[name] / hand[name]:.3f}" if hand else ""]
    cells += [f"{found['median']:.3f}", f"{found['first']:.3f}", f"{found['peak_bytes'] / 1e6:,.0f} MB"]
    cells.append("" if not hand else "equal" if found["weights"] == hand["weights"] else "[red]differ[/]")
    if "evaluation" in found:
        cells.append(f"{found['evaluation']['accuracy']:.4f} in {found['evaluation_seconds']:.2f} s")
    return cells


def problem(runs: list[Run]) -> str:
    return f"no {runs[-1]['missing']}" if "missing" in runs[-1] else "[red]failed[/]"


def report_failures(runs: dict[str, list[Run]]) -> None:
    failed = {key: run["failed"] for key, of_one in runs.items() for run in of_one if "failed" in run}
    for key, text in failed.items():
        harness.status.print(f"{key} failed: {harness.last_line(text)}", style="red", markup=False, highlight=False)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
