"""What watchers cost a training step: an MLP and a ResNet-18, on the CPU with one thread or on a GPU.

``step`` is the fastest step that is not watched, ``median`` the middle one; ``over`` what that adds to a run without any
watcher (``watch=False``); ``watched`` the fastest step that is; ``each 100`` what the watcher costs a training with
``every="100 steps"``, and ``each step`` with ``every="1 step"``, both in percent of a plain step. Watchers whose hooks are
there at each step show it in ``over``. ``system`` is the machine's load, which each run has by default: it works in
another thread each ten seconds, and so is measured by itself, as milliseconds for one look. Times on the CPU are processor
time of the training's thread, so that other programs disturb them little.

    python bench/watch.py --repeats 5
    python bench/watch.py --only 'mlp/*' --device cuda
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
from harness import console
from rich.table import Table

_EVERY = 10
MODES: dict[str, Callable[[Any], Any]] = {
    "none": lambda w: False,
    "system": lambda w: None,
    "rates and speed": lambda w: [w.LearningRates(f"{_EVERY} steps"), w.Speed(f"{_EVERY} steps")],
    "norms": lambda w: [w.Watch(every=f"{_EVERY} steps", histograms=False)],
    "norms, histograms": lambda w: [w.Watch(every=f"{_EVERY} steps")],
    "and activations": lambda w: [w.Watch(activations=True, every=f"{_EVERY} steps")],
    "gradient health": lambda w: [w.GradientHealth(f"{_EVERY} steps")],
    "dead units": lambda w: [w.DeadUnits(every=f"{_EVERY} steps", over="1 step")],
    "nan": lambda w: [w.NonFinite()],
    "nan, forward only": lambda w: [w.NonFinite(backward=False)],
}
MODELS = ("mlp", "resnet18")


def main() -> None:
    options = parse()
    if options.child:
        print(json.dumps(measure(*options.child.split("/"), options)))
        return
    keys = [f"{model}/{mode}" for model in MODELS for mode in MODES]
    wanted = [key for key in keys if not options.only or any(fnmatch.fnmatchcase(key, o) for o in options.only)]
    facts = harness.machine()
    runs: dict[str, list[dict[str, Any]]] = {key: [] for key in wanted}
    failed: dict[str, str] = {}

    def spawn(key: str) -> harness.Finished:
        arguments = ["--child", key, "--steps", str(options.steps), "--device", options.device]
        return harness.spawn([sys.executable, __file__, *arguments])

    for _, key, child in harness.rounds(wanted, options.repeats, spawn):
        if child.returncode != 0:
            failed[key] = harness.last_line(child.stderr)
        else:
            runs[key].append(json.loads(harness.last_line(child.stdout)) | {"others": child.others})
    for model in MODELS:
        rows = {key: runs[key] for key in wanted if key.startswith(f"{model}/") and runs[key]}
        if rows:
            console.print(table(model, rows))
    looks = [run["look"] for of_one in runs.values() for run in of_one if "look" in run]
    if looks:
        console.print(
            f"One look at the machine: {1e3 * statistics.median(looks):.1f} ms, in another thread, each 10 s."
        )
    console.print(f"{options.repeats} repeats of {options.steps} steps. {harness.describe(facts)}", style="dim")
    console.print(harness.disturbance([run["others"] for of_one in runs.values() for run in of_one]))
    harness.write("watch", {"machine": facts, "options": vars(options), "runs": runs, "failed": failed})
    for key, text in failed.items():
        harness.status.print(f"{key} failed: {text}", style="red", markup=False, highlight=False)
    if failed:
        raise SystemExit(1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="processes for each row (5)")
    parser.add_argument("--steps", type=int, default=61, help="steps in each process (61); each tenth is watched")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="such as 'mlp/*'")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="21 steps and one repeat: does it run?")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.steps = 1, 21
    return options


def measure(model_name: str, mode: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each step of a training, in this process."""
    import torch
    from torch import nn

    import relume
    from relume import watch as watchers

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, shape = build(model_name)
    model.to(options.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(shape, generator=generator), torch.randint(10, shape[:1], generator=generator))
    ] * options.steps
    seconds: list[float] = []
    clock = time.thread_time if options.device == "cpu" else time.perf_counter

    def steps(run: relume.Run) -> Iterator[Any]:
        for batch in run.batches(batches):
            begin = clock()
            yield batch
            if options.device != "cpu":
                torch.cuda.synchronize()
            seconds.append(clock() - begin)

    watch = MODES[mode](watchers)
    with (
        tempfile.TemporaryDirectory() as root,
        relume.Run("bench", model=model, optimizer=optimizer, root=root, quiet=True, every=False, watch=watch) as run,
    ):
        for x, y in steps(run):
            loss = nn.functional.cross_entropy(model(x.to(options.device)), y.to(options.device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.log({"train/loss": loss})
        found: dict[str, Any] = {"seconds": seconds, "weights": weights(model)}
        if mode == "system":
            found["look"] = look(run.folder)
    return found


def build(name: str) -> tuple[Any, tuple[int, ...]]:
    from torch import nn

    if name == "mlp":
        layers = [nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
        return nn.Sequential(*layers), (64, 1, 28, 28)
    from torchvision.models import resnet18

    return resnet18(num_classes=10), (8, 3, 64, 64)


def look(folder: Path) -> float:
    from relume.monitor.machine import Machine

    machine = Machine(folder)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        machine.read()
        times.append(time.perf_counter() - begin)
    return min(times)


def weights(model: Any) -> str:
    from relume.checkpoint.hashing import hash_bytes

    return hash_bytes(b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in model.state_dict().values()))


def table(model: str, rows: dict[str, list[dict[str, Any]]]) -> Table:
    made = Table(title=f"Milliseconds a step, {model}", title_justify="left", title_style="bold")
    made.add_column("")
    for name in ("step", "median", "over", "watched", "each 100", "each step", "weights"):
        made.add_column(name, justify="right")
    plain_runs = rows.get(f"{model}/none")
    plain = summary(plain_runs)[0] if plain_runs else None
    for key, of_one in rows.items():
        step, middle, watched = summary(of_one)
        cells = [f"{1e3 * step:.2f}", f"{1e3 * middle:.2f}"]
        if plain is None or plain_runs is None:
            cells += ["", f"{1e3 * watched:.2f}", "", "", ""]
        else:
            is_same = of_one[0]["weights"] == plain_runs[0]["weights"]
            cells += [f"{100 * (step / plain - 1):+.1f}%", f"{1e3 * watched:.2f}"]
            cells += [
                f"{100 * (0.99 * step + 0.01 * watched - plain) / plain:+.1f}%",
                f"{100 * (watched / plain - 1):+.1f}%",
            ]
            cells.append("equal" if is_same else "[red]differ[/]")
        made.add_row(key.partition("/")[2], *cells)
    return made


def summary(runs: list[dict[str, Any]]) -> tuple[float, float, float]:
    """The fastest and the middle step that is not watched, and the fastest that is; the first three steps warm up."""
    plain, watched = [], []
    for run in runs:
        for number, seconds in enumerate(run["seconds"], 1):
            if number > 3:
                (watched if number % _EVERY == 0 else plain).append(seconds)
    return min(plain), statistics.median(plain), min(watched)


if __name__ == "__main__":
    main()
