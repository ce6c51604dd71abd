"""The page beside TensorBoard's: how soon a chart is there, a zoom, what is logged; and what it costs a training.

The same numbers are given to both: 100 runs with 50 metrics of 200 points each, and one run of a million points. Each measurement
has a server and a browser of its own; contestants take turns. Times end when the lines are drawn, as the page itself sees it.
TensorBoard's page is opened when its server has read all files: what it shows before would be incomplete.

    python bench/ui.py --rounds 3
    python bench/ui.py --quick
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import psutil
from harness import console
from rich.table import Table

CHROMIUM = "/usr/bin/chromium"
LIMIT_SECONDS = 180.0
PAGES, BLOCK_SECONDS, TURN_SECONDS = 3, 0.5, 8.0
ZOOMS, LIVE_POINTS = 12, 12


def main() -> None:
    options = parse()
    with contextlib.ExitStack() as stack:
        folder = options.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relume-bench-")))
        data = make(folder, options)
        found: dict[str, Any] = {"first": {}, "zoom": [], "live": [], "training": []}
        charts = [f"{name}, {case}" for case in data for name in CONTESTANTS if name in options.only]
        for _, key, result in harness.rounds(charts, options.rounds, lambda key: first_chart(key, data)):
            found["first"].setdefault(key, []).append(result)
        others: dict[str, Callable[[], Any]] = {
            "zoom": lambda: zoom(data[LONG]["relume"], options.zooms),
            "live": lambda: live(folder, options.zooms),
            "training": lambda: training(folder, options.turns),
        }
        if "relume" in options.only:
            for _, key, result in harness.rounds(list(others), options.rounds, lambda key: others[key]()):
                found[key].append(result)
    console.print(table_of(found["first"]))
    for line in lines_of(found):
        console.print(line, highlight=False)
    facts = harness.machine()
    console.print(harness.describe(facts), style="dim")
    harness.write("ui", {"machine": facts, "options": vars(options) | {"data": None}, **found})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (3)")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--metrics", type=int, default=50)
    parser.add_argument("--points", type=int, default=200, help="of each metric (200)")
    parser.add_argument("--long", type=int, default=1_000_000, help="points of the long run (1000000)")
    parser.add_argument("--only", nargs="*", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--data", type=Path, help="a folder where the data are made, or are from before")
    parser.add_argument("--quick", action="store_true", help="few of everything, once: does it run?")
    options = parser.parse_args()
    options.zooms, options.turns = ZOOMS, 3
    if options.quick:
        options.rounds, options.runs, options.metrics, options.long, options.zooms, options.turns = 1, 5, 4, 5000, 3, 1
    return options


# ------------------------------------------------------------------------------------------------------------- the data

MANY, LONG = "many runs", "one long run"


def make(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, Path]]:
    """The folders with the same numbers, by case and contestant."""
    sizes = {MANY: (options.runs, options.metrics, options.points), LONG: (1, 1, options.long)}
    writers = {"relume": write_runs, "TensorBoard": write_events}
    data = {
        case: {name: folder / f"{name}-{'-'.join(map(str, size))}" for name in writers} for case, size in sizes.items()
    }
    for case, size in sizes.items():
        for name in options.only:
            if not data[case][name].exists():
                with harness.status.status(f"making {case} for {name}"):
                    writers[name](data[case][name], *size)
    return data


def rows(run: int, metrics: int, points: int) -> Iterator[tuple[int, dict[str, float]]]:
    rng = random.Random(run)
    names = ["val/loss", *(f"train/m{number}" for number in range(1, metrics))]
    for step in range(points):
        yield step, {name: math.sin(step / 30 + at + run / 9) + rng.gauss(0, 0.1) for at, name in enumerate(names)}


def write_runs(folder: Path, runs: int, metrics: int, points: int) -> None:
    import relume

    for number in range(runs):
        config = {"lr": 10 ** -(1 + number % 4)}
        with relume.Run(f"run-{number:03}", root=folder, quiet=True, watch=False, config=config) as run:
            for step, values in rows(number, metrics, points):
                run.log(values, step=step)


def write_events(folder: Path, runs: int, metrics: int, points: int) -> None:
    from tensorboard.compat.proto import event_pb2, summary_pb2

    from relume.trackers.tensorboard.events import EventFile

    for number in range(runs):
        (folder / f"run-{number:03}").mkdir(parents=True)
        file = EventFile(folder / f"run-{number:03}" / "events.out.tfevents.1.bench", 1.7e9)
        for step, values in rows(number, metrics, points):
            scalars = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            file.add(event_pb2.Event(step=step, wall_time=1.7e9 + step, summary=summary_pb2.Summary(value=scalars)))
        file.close()


# ---------------------------------------------------------------------------------------------------------- contestants


@dataclass(frozen=True)
class Contestant:
    """A server with a page. ``drawn`` is JavaScript that is true once the first chart has all its lines."""

    command: Callable[[Path, int], list[str]]
    ready: Callable[[str, Path], bool]
    page: str
    drawn: str


def folders_of(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.name.startswith("run-")]


def answers(url: str, folder: Path) -> bool:
    with urllib.request.urlopen(url) as page:
        return bool(page.read())


def has_read_all(url: str, folder: Path) -> bool:
    """Whether TensorBoard's server knows the last step of each run."""
    runs = folders_of(folder)
    address = f"{url}experiment/defaultExperimentId/data/plugin/timeseries/tags"
    with urllib.request.urlopen(address) as page:
        known = json.load(page)["scalars"]["runTagInfo"]
    return len(known) == len(runs) and len({len(tags) for tags in known.values()}) == 1


CONTESTANTS = {
    "relume": Contestant(
        lambda folder, port: ["-m", "relume", "ui", "--root", str(folder), "--port", str(port), "--no-open"],
        answers,
        "#/charts",
        "document.querySelector(`figure.chart[data-drawn='${runs}']`) !== null",
    ),
    "TensorBoard": Contestant(
        lambda folder, port: ["-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", str(port)],
        has_read_all,
        "#timeseries",
        "[...document.querySelectorAll('scalar-card')].some((card) => !card.querySelector('mat-spinner')"
        " && card.querySelector('line-chart canvas, line-chart svg path') && /run-\\d+/.test(card.textContent))",
    ),
}  # fmt: skip


@contextlib.contextmanager
def server(name: str, folder: Path) -> Iterator[tuple[str, float, psutil.Process]]:
    """A contestant's server: its address, how long it took until it could answer in full, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    paths = [os.environ.get("PYTHONPATH"), str(harness.BENCH.parent / "src")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    begin = time.perf_counter()
    command = [sys.executable, *CONTESTANTS[name].command(folder, port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError, ValueError, KeyError):
                if CONTESTANTS[name].ready(url, folder):
                    break
            if time.perf_counter() - begin > LIMIT_SECONDS or process.poll() is not None:
                raise RuntimeError(f"{name}'s server does not answer")
            time.sleep(0.01)
        yield url, time.perf_counter() - begin, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


def new_page(opened: Any) -> Any:
    page = opened.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(LIMIT_SECONDS * 1000)
    return page


def until(page: Any, condition: str) -> None:
    """Wait for JavaScript to be true; the page's own policy forbids it to wait by itself."""
    begin = time.perf_counter()
    while not page.evaluate(condition):
        if time.perf_counter() - begin > LIMIT_SECONDS:
            raise RuntimeError(f"this did not happen in {LIMIT_SECONDS:.0f} s: {condition}")
        page.wait_for_timeout(20)


def megabytes(process: psutil.Process) -> float:
    """What a process and its children have for themselves."""
    return sum(one.memory_full_info().uss for one in (process, *process.children(recursive=True))) / 1e6


def page_megabytes(opened: Any) -> float:
    """What the browser's processes that draw pages have for themselves."""
    known = opened.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    return sum(psutil.Process(one["id"]).memory_full_info().uss for one in known if one["type"] == "renderer") / 1e6


# ---------------------------------------------------------------------------------------------------------- measurements

WATCH = """
((runs) => {
  const look = () => {
    if (%s) requestAnimationFrame(() => { window.drawnAfter = performance.now(); });
    else requestAnimationFrame(look);
  };
  look();
})(%d)
"""


def first_chart(key: str, data: dict[str, dict[str, Path]]) -> dict[str, float]:
    """From a server's start to its answers, and from the page's opening to the first chart with all its lines."""
    name, case = key.split(", ")
    folder = data[case][name]
    with server(name, folder) as (url, server_seconds, process), browser() as opened:
        page = new_page(opened)
        page.add_init_script(WATCH % (CONTESTANTS[name].drawn, len(folders_of(folder))))
        page.goto(url + CONTESTANTS[name].page)
        until(page, "window.drawnAfter > 0")
        return {
            "server_seconds": server_seconds,
            "page_seconds": page.evaluate("window.drawnAfter") / 1000,
            "server_megabytes": megabytes(process),
            "page_megabytes": page_megabytes(opened),
        }


ZOOM = """
() => {
  const chart = document.querySelector("figure.chart[data-drawn]");
  window.zooms = [];
  let released = 0;
  addEventListener("mouseup", () => { released = performance.now(); }, true);
  new MutationObserver(() => {
    if (chart.dataset.zoomed && released) { window.zooms.push(performance.now() - released); released = 0; }
  }).observe(chart, { attributeFilter: ["data-zoomed"] });
}
"""


def zoom(folder: Path, count: int) -> list[float]:
    """Milliseconds from the end of a drag over the long series to its finer picture, for drags of many widths."""
    rng = random.Random(0)
    with server("relume", folder) as (url, _, _), browser() as opened:
        page = new_page(opened)
        page.goto(f"{url}#/charts?runs=run-000")
        page.wait_for_selector("figure.chart[data-drawn='1']")
        page.evaluate(ZOOM)
        for number in range(count):
            box = page.locator("figure.chart .u-over").first.bounding_box()
            width, middle = box["width"] * rng.uniform(0.05, 0.3), box["y"] + box["height"] / 2
            left = box["x"] + rng.uniform(0.05, 0.6) * box["width"]
            page.mouse.move(left, middle)
            page.mouse.down()
            page.mouse.move(left + width / 2, middle)
            page.mouse.move(left + width, middle)
            page.mouse.up()
            until(page, f"window.zooms.length > {number}")
            page.locator("figure.chart .chart-body").first.press("0")
            page.wait_for_selector("figure.chart[data-drawn]:not([data-zoomed])")
        return list(page.evaluate("window.zooms"))


LOGGING = """
import sys, time, relume
with relume.Run("live", root=sys.argv[1], quiet=True) as run:
    for step in range(20):
        run.log({"train/loss": 1 / (step + 1)}, step=step)
    print("begun", flush=True)
    for line in sys.stdin:
        step += 1
        run.log({"train/loss": 1 / (step + 1)}, step=step)
        print(time.time() * 1000, flush=True)
"""
SEEN = """
() => {
  const chart = document.querySelector("figure.chart[data-drawn]");
  window.seen = {};
  const look = () => { window.seen[chart.dataset.points] ??= Date.now(); };
  new MutationObserver(look).observe(chart, { attributeFilter: ["data-points"] });
}
"""


def live(folder: Path, count: int) -> list[float]:
    """Milliseconds from ``run.log`` in another process to the point in the chart."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as root,
        beside(LOGGING, root) as child,
        server("relume", Path(root)) as (url, _, _),
        browser() as opened,
    ):
        page = new_page(opened)
        page.goto(f"{url}#/charts?runs=live")
        page.wait_for_selector("figure.chart[data-metric='train/loss'][data-drawn='1']")
        page.evaluate(SEEN.replace("figure.chart", "figure.chart[data-metric='train/loss']"))
        delays = []
        for number in range(count):
            page.wait_for_timeout(random.Random(number).uniform(500, 1500))
            logged = float(ask(child, "next"))
            until(page, f"window.seen['{21 + number}'] > 0")
            delays.append(page.evaluate(f"window.seen['{21 + number}']") - logged)
        return delays


TRAINING = """
import sys, time, torch, relume
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
optimizer = torch.optim.Adam(model.parameters())
x, y = torch.randn(64, 784), torch.randint(0, 10, (64,))
def train(run, seconds):
    steps, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        run.log({"train/loss": loss})
        time.sleep(0.001)  # as if a device computed
        steps += 1
    return steps / passed
with relume.Run("training", root=sys.argv[1], model=model, optimizer=optimizer, every=False, quiet=True) as run:
    train(run, 1.0)
    print("begun", flush=True)
    for line in sys.stdin:
        print(train(run, float(line)), flush=True)
"""


def training(folder: Path, turns: int) -> dict[str, list[float]]:
    """Steps a second of a training in another process, with three pages open on it and without, by turns."""
    found: dict[str, list[float]] = {"without": [], "with": []}
    with (
        tempfile.TemporaryDirectory(dir=folder) as root,
        beside(TRAINING, root) as child,
        server("relume", Path(root)) as (url, _, _),
        browser() as opened,
    ):
        for _ in range(turns):
            blocks = int(TURN_SECONDS / BLOCK_SECONDS)
            found["without"] += [float(ask(child, str(BLOCK_SECONDS))) for _ in range(blocks)]
            pages = [new_page(opened) for _ in range(PAGES)]
            for page, view in zip(pages, ("#/runs", "#/charts", "#/run/training"), strict=True):
                page.goto(url + view)
            pages[1].wait_for_selector("figure.chart[data-drawn='1']")
            found["with"] += [float(ask(child, str(BLOCK_SECONDS))) for _ in range(blocks)]
            for page in pages:
                page.close()
    return found


@contextlib.contextmanager
def beside(code: str, root: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, that has begun."""
    paths = [os.environ.get("PYTHONPATH"), str(harness.BENCH.parent / "src")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-c", code, root]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == "begun\n"
            yield child
        finally:
            child.stdin.close()  # type: ignore[union-attr]
            child.wait(30)


def ask(child: subprocess.Popen[str], line: str) -> str:
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()
    return child.stdout.readline()


# ---------------------------------------------------------------------------------------------------------------- tables


def table_of(found: dict[str, list[dict[str, float]]]) -> Table:
    """The least of the measurements: what the machine's other work adds is nobody's merit or fault."""
    table = Table(
        "", "server, s", "first chart, s", "both, s", "server, MB", "page, MB", title="From start to a first chart"
    )
    for key, results in found.items():
        least = {name: min(result[name] for result in results) for name in results[0]}
        both = min(result["server_seconds"] + result["page_seconds"] for result in results)
        seconds = [f"{least['server_seconds']:.2f}", f"{least['page_seconds']:.2f}", f"{both:.2f}"]
        table.add_row(key, *seconds, f"{least['server_megabytes']:.0f}", f"{least['page_megabytes']:.0f}")
    for case in (MANY, LONG):
        ours, theirs = found.get(f"relume, {case}"), found.get(f"TensorBoard, {case}")
        if ours and theirs:
            ratios = [f"{ratio(ours, theirs, name):.1f}×" for name in ("server_seconds", "page_seconds")]
            table.add_row(f"TensorBoard / relume, {case}", *ratios, "", "", "", style="bold")
    return table


def ratio(ours: list[dict[str, float]], theirs: list[dict[str, float]], name: str) -> float:
    return min(result[name] for result in theirs) / min(result[name] for result in ours)


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    for name, text in (("zoom", "a zoom into the long run"), ("live", "from run.log to the chart")):
        times = [one for result in found[name] for one in result]
        if times:
            yield f"{text}: {statistics.median(times):.0f} ms (median), {max(times):.0f} ms (most of {len(times)})"
    slow = {key: [rate for result in found["training"] for rate in result[key]] for key in ("without", "with")}
    if slow["with"]:
        medians = {key: statistics.median(rates) for key, rates in slow.items()}
        change = 100 * (medians["without"] / medians["with"] - 1)
        yield (
            f"a training with {PAGES} pages open: {medians['with']:.0f} steps/s, without {medians['without']:.0f} "
            f"({change:+.1f}% time a step)"
        )


if __name__ == "__main__":
    main()
