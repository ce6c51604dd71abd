"""What becomes of a training that is killed and of a checkpoint that is damaged: relume beside its peers, in one run.

1. ``resume``. A training whose samples draw from torch's, numpy's and Python's generators (shuffled, with dropout,
   batch norm and a schedule; 3 epochs of 94 steps, a checkpoint every 47) runs undisturbed; and once more, killed by
   SIGKILL after step 160, in the middle of an epoch, and started again. Each start is a process of its own.
   ``bits that differ``: of all bits of the final weights and buffers, against the undisturbed training; ``max
   difference`` of two numbers. ``repeats``: whether two undisturbed trainings end alike. ``resumed at``: the step of the
   checkpoint that was used. ``other samples``: batches after it with other samples than the undisturbed training had at
   that step; ``other pixels``: with the same samples, augmented otherwise. ``repeated``, ``missed``: samples of the
   epoch that went on. ``log missing``, ``log twice``: steps that the training's log lacks, and those that it has more
   than once. The log is relume's journal as its readers see it, Lightning's CSVLogger with its defaults, and for the
   others, which bring none that writes files, a line appended to a file at each step.
2. ``flips``. A checkpoint of mobilenet_v3_small with AdamW (31 MB) is saved once. One random bit of its files is flipped,
   it is loaded in a forked process, and the bit is flipped back: ``--flips`` times anywhere in the files, and as often
   between the tensors (names, shapes, offsets, padding). ``silent``: it loads, and some value is another than was saved.
   ``raises``: loading fails. ``crashes``: the process ends by a signal, or gives no answer within a minute.
   ``harmless``: it loads, and all is as saved.
3. ``kills``. A process fills a model and Adam's state (25 MB) with one number, saves, and goes on with the next number.
   It is killed by SIGKILL at a random moment within two saves. Whatever checkpoints there are by name are then loaded,
   each in a process of its own. ``in a save``: kills between begin and end of one. ``newest unreadable``: the newest does
   not load, or holds numbers of two saves. ``nothing loads``: none does. ``finished save lost``: nothing as new as the last
   save that was finished loads. ``restart fails`` with an error, is ``silently wrong``, or goes on from ``older`` than the
   last finished save: what the library's own way to start again does (``resume``, ``ckpt_path="last"``, ``load_state()``;
   else: loading the newest). A killed process is no power cut: what was written and not synced is still there.
4. ``frozen``. What a checkpoint of a frozen VGG19 with a trained head of 4 kB costs: as ``checkpoint.py`` measures it.

Nothing in the tables is known beforehand: each row is measured, says "not installed", or failed. fastai is listed, but
there is no training with it yet.

    python bench/reliability.py
    python bench/reliability.py --only 'resume/*' --only 'kills/run' --kills 200
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

import harness
from harness import console
from reliable import forks
from rich.table import Table

TESTS = ("resume", "flips", "kills", "frozen")
Results = dict[str, dict[str, Any]]


def main() -> None:
    options = parse()
    if options.measure:
        print(json.dumps(measured_here(options)))
        return
    wanted = chosen(options.only)
    facts = harness.machine()
    results: Results = {}
    for test in TESTS:
        keys = [key for key in wanted if key.startswith(f"{test}/")]
        if keys:
            results |= {key: found for _, key, found in harness.rounds(keys, 1, lambda key: measured(key, options))}
            console.print(TABLES[test]({key.partition("/")[2]: results[key] for key in keys}, options))
    console.print(harness.describe(facts), style="dim")
    harness.write("reliability", {"machine": facts, "options": vars(options), "results": results})
    failed = {key: found["failed"] for key, found in results.items() if "failed" in found}
    for key, text in failed.items():
        harness.status.print(
            f"{key} failed: {harness.last_line(text)}", style="red", markup=False, highlight=False, soft_wrap=True
        )
    if failed:
        raise SystemExit(1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="such as resume/* or kills/run")
    parser.add_argument(
        "--flips", type=int, default=300, help="bits flipped in each format, anywhere and between (300)"
    )
    parser.add_argument("--kills", type=int, default=60, help="processes killed for each way to save (60)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the costs of a frozen model (3)")
    parser.add_argument("--workers", type=int, action="append", help="of the loader that is resumed (0 and 2)")
    parser.add_argument("--quick", action="store_true", help="5 flips, 2 kills, no workers, 1 round: does it run?")
    parser.add_argument("--measure", metavar="KEY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.workers = options.workers or [0, 2]
    if options.quick:
        options.flips, options.kills, options.rounds, options.workers = 5, 2, 1, [0]
    return options


def contestants(test: str) -> dict[str, Any]:
    return {one.key: one for one in importlib.import_module(f"reliable.{test}").ALL}


def chosen(patterns: list[str]) -> list[str]:
    every = [f"{test}/{key}" for test in TESTS for key in contestants(test)]
    wanted = [key for key in every if not patterns or any(fnmatch(key, pattern) for pattern in patterns)]
    if not wanted:
        raise SystemExit(f"--only {' '.join(patterns)} matches none of: {' '.join(every)}")
    return wanted


def measured(key: str, options: argparse.Namespace) -> dict[str, Any]:
    """One contestant's measurement, in a process that imports nothing of the others."""
    test, _, name = key.partition("/")
    packages = (module.partition(".")[0] for module in contestants(test)[name].packages)
    missing = next((package for package in packages if importlib.util.find_spec(package) is None), None)
    if missing:
        return {"missing": missing}
    arguments = [f"--{name}={getattr(options, name)}" for name in ("flips", "kills", "rounds")]
    arguments += [f"--workers={workers}" for workers in options.workers]
    child = harness.spawn([sys.executable, harness.BENCH / "reliability.py", "--measure", key, *arguments])
    if child.returncode != 0:
        return {"failed": child.stderr or f"exit status {child.returncode}"}
    return json.loads(harness.last_line(child.stdout)) | {"seconds": child.seconds}


def measured_here(options: argparse.Namespace) -> dict[str, Any]:
    test, _, name = options.measure.partition("/")
    forks.prepare()
    contestant = contestants(test)[name]
    for package in contestant.packages:
        importlib.import_module(package)
    found: dict[str, Any] = importlib.import_module(f"reliable.{test}").measure(contestant, options)
    return found


# --------------------------------------------------------------------------------------------------------- the tables


def table(title: str, columns: tuple[str, ...]) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold")
    made.add_column("", no_wrap=True)
    for name in columns:
        made.add_column(name, justify="right", min_width=max(map(len, name.split())))
    return made


def problem(found: dict[str, Any]) -> str | None:
    if "missing" in found:
        return "not installed"
    return "[red]failed[/]" if "failed" in found else None


def resume_table(rows: Results, options: argparse.Namespace) -> Table:
    columns = ("differing_bits", "max_difference", "repeatable", "resumed_at", "other_samples", "other_pixels",
               "samples_repeated", "samples_missed", "steps_missing", "steps_twice")  # fmt: skip
    names = ("bits that differ", "max difference", "repeats", "resumed at", "other samples",
             "other pixels", "repeated", "missed", "log missing", "log twice")  # fmt: skip
    bits = {one["bits"] for found in rows.values() for one in found.values() if isinstance(one, dict) and "bits" in one}
    of_bits = "".join(f", {count:,} bits of weights" for count in bits)
    made = table(f"1. Killed in the middle of an epoch and resumed{of_bits}", ("workers", *names))
    labels = contestants("resume")
    for key, found in rows.items():
        if text := problem(found):
            made.add_row(labels[key].label, "", text)
            continue
        for workers in options.workers:
            one = found[str(workers)]
            cells = [cell(one[name]) for name in columns] if "bits" in one else ["[red]does not resume[/]"]
            made.add_row(labels[key].label, str(workers), *cells)
    return made


def cell(value: bool | int | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "[red]no[/]"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2g}"


def flips_table(rows: Results, options: argparse.Namespace) -> Table:
    outcomes = ("silent", "raises", "crashes", "harmless")
    made = table(
        f"2. One bit flipped, {options.flips} times anywhere in the files and {options.flips} times between the tensors",
        ("MB", *outcomes, "kB between", *outcomes),
    )
    labels = contestants("flips")
    for key, found in rows.items():
        if text := problem(found):
            made.add_row(labels[key].label, "", text)
            continue
        counts = [[str(found[where][name]) for name in outcomes] for where in ("anywhere", "between")]
        sizes = f"{found['bytes'] / 1e6:.1f}", f"{found['bytes_between'] / 1e3:,.0f}"
        made.add_row(labels[key].label, sizes[0], *counts[0], sizes[1], *counts[1])
    return made


def kills_table(rows: Results, options: argparse.Namespace) -> Table:
    columns = {
        "in_a_save": "in a save",
        "newest_unreadable": "newest unreadable",
        "nothing_loadable": "nothing loads",
        "finished_save_lost": "finished save lost",
        "restart_fails": "restart fails",
        "restart_silently_wrong": "silently wrong",
        "restart_older": "older",
    }
    made = table(f"3. Killed while it saves, {options.kills} times", tuple(columns.values()))
    labels = contestants("kills")
    for key, found in rows.items():
        text = problem(found)
        made.add_row(labels[key].label, *([text] if text else [str(found[name]) for name in columns]))
    return made


def frozen_table(rows: Results, options: argparse.Namespace) -> Table:
    made = table(
        f"4. A frozen VGG19 with a trained head, minimum of {options.rounds} rounds",
        ("blocked ms", "total ms", "written, first save", "written, later", "load ms"),
    )
    for found in rows.values():
        if text := problem(found):
            made.add_row("", text)
        for name, row in found.get("ways", {}).items():
            loads = [f"{seconds * 1e3:.0f} {kind}".strip() for kind, seconds in row["loads"].items()]
            times = [f"{row[name] * 1e3:.1f}" for name in ("blocked", "total")]
            sizes = [f"{row['written_first']:,}", f"{row['written']:,}" if options.rounds > 1 else ""]
            made.add_row(name, *times, *sizes, "\n".join(loads))
    return made


TABLES: dict[str, Callable[[Results, argparse.Namespace], Table]] = {
    "resume": resume_table,
    "flips": flips_table,
    "kills": kills_table,
    "frozen": frozen_table,
}


if __name__ == "__main__":
    main()
