"""What one log call costs the training thread, and what is there afterwards: relume and its peers.

Each measurement is a process of its own; contestants take turns. Measured are the time of one call with 1 and with 10 numbers,
flat out and with 5 ms between calls (as in a training); how many of 20,000 calls can be read back when the process was killed
with SIGKILL right behind the last; and for a million points: points a second, memory, and the time to read them back.

    python bench/monitor.py --repeats 3
    python bench/monitor.py --only relume "relume + tensorboard" torch.tensorboard --cases call
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import sqlite3
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

STEPS, PACED_STEPS, PAUSE_SECONDS, POINTS = 20_000, 600, 0.005, 1_000_000
CAP_SECONDS = 20.0
SETTLE_SECONDS = 5.0
LIMIT_SECONDS = 300.0
Log = Callable[[dict[str, float], int], Any]


@dataclass(frozen=True)
class Contestant:
    """One way to log. ``begin`` returns the call for one step and the one that ends it; ``read`` counts values of ``m0``."""

    begin: Callable[[Path], tuple[Log, Callable[[], Any]]]
    read: Callable[[Path], int]
    needs: str = ""


def relume_with(*trackers: str) -> Contestant:
    def begin(folder: Path) -> tuple[Log, Callable[[], Any]]:
        import relume

        run = relume.Run("bench", root=folder, quiet=True, trackers=list(trackers))
        run.__enter__()
        return run.log, lambda: run.__exit__(None, None, None)

    def read(folder: Path) -> int:
        from relume.monitor import columns

        return len(columns(folder / "bench", ["m0"])["m0"])

    return Contestant(begin, read, trackers[0] if trackers else "")


def torch_tensorboard(folder: Path) -> tuple[Log, Callable[[], Any]]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tb"))
    return lambda values, step: [writer.add_scalar(name, value, step) for name, value in values.items()], writer.close


def read_tensorboard(folder: Path) -> int:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return len(EventAccumulator(str(folder / "tb"), size_guidance={"scalars": 0}).Reload().Scalars("m0"))


def wandb_offline(folder: Path) -> tuple[Log, Callable[[], Any]]:
    import wandb

    run = wandb.init(project="p", mode="offline", dir=str(folder), settings=wandb.Settings(console="off"))
    return lambda values, step: run.log(values, step=step), run.finish


def read_wandb(folder: Path) -> int:
    """LevelDB's log format, whose records are protocol buffers of W&B's own."""
    from wandb.proto import wandb_internal_pb2

    data = next(folder.glob("wandb/offline-run-*/*.wandb")).read_bytes()
    found, place, part = 0, 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        chunk = data[place + 7 : place + 7 + length]
        if kind == 0 or len(chunk) < length:
            break
        part = chunk if kind in (1, 2) else part + chunk
        place += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record.FromString(part)
            names = [item.key or ".".join(item.nested_key) for item in record.history.item]
            found += record.HasField("history") and "m0" in names
    return found


def mlflow_sqlite(folder: Path) -> tuple[Log, Callable[[], Any]]:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("bench", artifact_location=str(folder / "artifacts"))
    mlflow.set_experiment("bench")
    mlflow.start_run()
    return lambda values, step: mlflow.log_metrics(values, step=step), mlflow.end_run


def read_mlflow(folder: Path) -> int:
    found = sqlite3.connect(folder / "mlflow.db").execute("SELECT count(*) FROM metrics WHERE key='m0'").fetchone()
    return int(found[0])


def trackio_local(folder: Path) -> tuple[Log, Callable[[], Any]]:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    trackio.init(project="bench", auto_log_gpu=False, auto_log_cpu=False)
    return lambda values, step: trackio.log(values, step=step), trackio.finish


def read_trackio(folder: Path) -> int:
    files = folder.glob("bench*.db")
    return sum(sqlite3.connect(f).execute("SELECT count(*) FROM metrics").fetchone()[0] for f in files)


def aim_local(folder: Path) -> tuple[Log, Callable[[], Any]]:
    from aim import Run

    run = Run(repo=str(folder), log_system_params=False, system_tracking_interval=None, capture_terminal_logs=False)
    return lambda values, step: run.track(values, step=step), run.close


def read_aim(folder: Path) -> int:
    from aim import Run

    hashes = [path.name for path in (folder / ".aim" / "meta" / "chunks").iterdir()]
    runs = [Run(name, repo=str(folder), read_only=True) for name in hashes]
    return sum(len(m.values.values_list()) for run in runs for m in run.metrics() if m.name == "m0")


CONTESTANTS = {
    "relume": relume_with(),
    "relume + tensorboard": relume_with("tensorboard"),
    "relume + wandb": relume_with("wandb"),
    "relume + mlflow": relume_with("mlflow"),
    "torch.tensorboard": Contestant(torch_tensorboard, read_tensorboard, "tensorboard"),
    "wandb offline": Contestant(wandb_offline, read_wandb, "wandb"),
    "mlflow sqlite": Contestant(mlflow_sqlite, read_mlflow, "mlflow"),
    "trackio": Contestant(trackio_local, read_trackio, "trackio"),
    "aim": Contestant(aim_local, read_aim, "aim"),
}
CASES = {
    "1 value": ("call", 1, STEPS, 0.0),
    "10 values": ("call", 10, STEPS, 0.0),
    "10 values, 5 ms": ("call", 10, PACED_STEPS, PAUSE_SECONDS),
    "SIGKILL": ("kill", 10, STEPS, 0.0),
    "million": ("million", 10, POINTS // 10, 0.0),
}


def child(name: str, case: str, folder: Path, scale: float) -> None:
    """One measurement, in this process; prints it as JSON."""
    import psutil

    kind, count, steps, pause = CASES[case]
    steps = max(int(steps * scale), 20)
    log, close = CONTESTANTS[name].begin(folder)
    memory = psutil.Process().memory_info().rss
    taken, began, clock = [], time.perf_counter(), time.perf_counter
    for step in range(steps):
        values = {f"m{i}": step * 0.37 + i for i in range(count)}
        before = clock()
        log(values, step)
        taken.append(clock() - before)
        if pause:
            time.sleep(pause)
        if clock() - began > CAP_SECONDS:
            break
    seconds = clock() - began
    found: dict[str, Any] = {"logged": len(taken)}
    if kind == "kill":
        print("RESULT", json.dumps(found), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    grown = psutil.Process().memory_info().rss - memory - 8 * len(taken) * 4  # the floats of `taken`
    before = clock()
    close()
    taken.sort()
    found |= {
        "median_us": 1e6 * statistics.median(taken),
        "p99_us": 1e6 * taken[int(0.99 * len(taken))],
        "points_per_second": count * len(taken) / seconds,
        "memory_mb": max(grown, 0) / 1e6,
        "close_seconds": clock() - before,
    }
    print("RESULT", json.dumps(found), flush=True)
    os._exit(0)


def measure(name: str, case: str, scale: float) -> dict[str, Any]:
    """One measurement, in a process of its own; where it has left something to read, in another."""
    import harness

    with tempfile.TemporaryDirectory(prefix="relume-bench-", ignore_cleanup_errors=True) as scratch:
        os.environ |= {
            "WANDB_MODE": "offline",
            "WANDB_SILENT": "true",
            "WANDB_ERROR_REPORTING": "false",
            "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/relume-mlflow.db",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "AIM_UI_TELEMETRY_ENABLED": "0",
            "TRACKIO_DIR": scratch,
        }
        this = [sys.executable, Path(__file__).resolve()]
        spawn = partial(harness.spawn, cwd=Path(scratch), limit_seconds=LIMIT_SECONDS)
        try:
            done = spawn([*this, "--child", name, case, scratch, str(scale)])
            found = result_of(done)
            found["others"] = done.others
            if case in ("SIGKILL", "million") and "error" not in found:
                time.sleep(SETTLE_SECONDS if case == "SIGKILL" else 0)
                found |= result_of(spawn([*this, "--read", name, scratch]))
        finally:
            end_processes_of(scratch)
    return found


def end_processes_of(scratch: str) -> None:
    """What a contestant has left behind (servers, senders) must not run beside the next one."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("TRACKIO_DIR") == scratch:
                process.kill()


def result_of(done: Any) -> dict[str, Any]:
    import harness

    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if lines:
        return dict(json.loads(lines[-1][7:]))
    return {"error": harness.last_line(done.stderr) or f"it ended with status {done.returncode}"}


def why_not(package: str) -> str | None:
    """Why a contestant cannot take part, or None: being installed is not enough."""
    import harness

    if not package or package == "torch":
        return None
    if importlib.util.find_spec(package) is None:
        return "is not installed"
    done = harness.spawn([sys.executable, "-c", f"import {package}"], limit_seconds=LIMIT_SECONDS)
    return f"does not import: {harness.last_line(done.stderr)[:100]}" if done.returncode else None


def read(name: str, folder: Path) -> None:
    began = time.perf_counter()
    count = CONTESTANTS[name].read(folder)
    print("RESULT", json.dumps({"read": count, "read_seconds": time.perf_counter() - began}), flush=True)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each (3)")
    parser.add_argument("--only", nargs="*", choices=list(CONTESTANTS), help="these contestants")
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES), help="these measurements")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the calls: does it run?")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, case, folder, scale = options.child
        child(name, case, Path(folder), float(scale))
    elif options.read:
        read(options.read[0], Path(options.read[1]))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    import harness

    wanted = options.only or list(CONTESTANTS)
    reasons = {package: why_not(package) for package in {CONTESTANTS[name].needs for name in wanted}}
    left_out = {name: reason for name in wanted if (reason := reasons[CONTESTANTS[name].needs])}
    names = [name for name in wanted if name not in left_out]
    for name, reason in left_out.items():
        harness.console.print(f"{name} is left out: it {reason}", style="dim", highlight=False, markup=False)
    if not names:
        return
    facts = harness.machine()
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {case: [] for case in options.cases} for name in names}
    for case in options.cases:
        scale = 0.01 if options.quick else 1.0
        repeats = 1 if case == "million" else options.repeats
        for _, name, result in harness.rounds(
            names, repeats, lambda name, case=case, scale=scale: measure(name, case, scale)
        ):
            found[name][case].append(result)
    harness.console.print(table_of(found, options.cases))
    harness.console.print(f"{options.repeats} measurements of each. {harness.describe(facts)}", style="dim")
    packages = sorted({CONTESTANTS[name].needs for name in names} - {""})
    harness.console.print(", ".join(f"{package} {metadata.version(package)}" for package in packages), style="dim")
    others = [result["others"] for cases in found.values() for results in cases.values() for result in results]
    harness.console.print(harness.disturbance(others), style="dim")
    harness.write("monitor", {"machine": facts, "options": vars(options), "found": found})


def table_of(found: dict[str, dict[str, list[dict[str, Any]]]], cases: list[str]) -> Any:
    from rich.table import Table

    columns = [c for c in cases if c not in ("SIGKILL", "million")]
    more = ["kept after SIGKILL"] if "SIGKILL" in cases else []
    more += ["points", "points/s", "memory MB", "read s"] if "million" in cases else []
    table = Table(
        "",
        *columns,
        *more,
        title="One log call, microseconds: median / 99th percentile (the least of the measurements)",
    )
    for name, results in found.items():
        cells = [call(results[case]) for case in columns]
        if "SIGKILL" in cases:
            cells.append(", ".join(kept(r) for r in results["SIGKILL"]))
        if "million" in cases:
            (last,) = results["million"]
            cells += [
                shown(last, "logged", "{:,.0f}", CASES["million"][1]),
                shown(last, "points_per_second", "{:,.0f}"),
                shown(last, "memory_mb", "{:.0f}"),
                shown(last, "read_seconds", "{:.2f}"),
            ]
        table.add_row(name, *cells)
    return table


def call(results: list[dict[str, Any]]) -> str:
    good = [result for result in results if "median_us" in result]
    if not good:
        return results[0].get("error", "?")[:40] if results else "?"
    return f"{min(r['median_us'] for r in good):,.1f} / {min(r['p99_us'] for r in good):,.1f}"


def kept(result: dict[str, Any]) -> str:
    """How many of the calls are there. A slow contestant has not come to all of them in its time."""
    return (
        f"{shown(result, 'read', '{:,.0f}')} of {result['logged']:,}"
        if "logged" in result
        else shown(result, "read", "")
    )


def shown(result: dict[str, Any], key: str, form: str, times: int = 1) -> str:
    return form.format(result[key] * times) if key in result else result.get("error", "?")[:40]


if __name__ == "__main__":
    main()
