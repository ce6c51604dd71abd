"""What the benchmarks share: child processes, rounds, facts about the machine, tables and JSON."""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import psutil
from rich.console import Console

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "results"
PACKAGES = ("torch", "torchvision", "numpy", "relume", "lightning", "pytorch-ignite", "accelerate")
console = Console(width=None if sys.stdout.isatty() else 140)
status = Console(stderr=True)
BUSY = 0.1
Found = TypeVar("Found")


@dataclass(frozen=True)
class Finished:
    """A child process that ended.

    ``seconds`` from before its start to its end; its own peak of resident memory; ``others``, the share of all
    processors that other programs (or other guests of the same host) used meanwhile.
    """

    returncode: int
    seconds: float
    peak_bytes: int
    others: float
    stdout: str
    stderr: str


def spawn(command: Sequence[str | Path], cwd: Path | None = None, limit_seconds: float | None = None) -> Finished:
    """Run a command to its end, or kill it at its limit. This checkout's relume is found unless PYTHONPATH names another."""
    paths = [os.environ.get("PYTHONPATH"), str(BENCH.parent / "src")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        busy, begin = _busy_seconds(), time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=environment
        )
        limit = threading.Timer(limit_seconds or 0.0, os.kill, (process.pid, signal.SIGKILL))
        try:
            if limit_seconds is not None:
                limit.start()
            _, wait_status, usage = os.wait4(process.pid, 0)  # unlike wait(), it tells this child's memory
        except BaseException:
            process.kill()
            raise
        finally:
            limit.cancel()
        seconds = time.perf_counter() - begin
        used = _busy_seconds() - busy - usage.ru_utime - usage.ru_stime
        process.returncode = os.waitstatus_to_exitcode(wait_status)
        texts = [(file.seek(0), file.read().decode(errors="replace"))[1] for file in (out, err)]
    unit = 1 if sys.platform == "darwin" else 1024
    others = min(max(used / seconds / (os.cpu_count() or 1), 0.0), 1.0)
    return Finished(process.returncode, seconds, usage.ru_maxrss * unit, others, *texts)


def rounds(keys: Sequence[str], repeats: int, measure: Callable[[str], Found]) -> Iterator[tuple[int, str, Found]]:
    """Measure each key once a round, so that a slow phase of the machine meets all of them alike.

    Each round starts with another key: none is always the one after a heavy neighbour.
    """
    with status.status("") as line:
        for number in range(repeats):
            first = number % len(keys)
            for key in (*keys[first:], *keys[:first]):
                line.update(f"round {number + 1} of {repeats}: {key}")
                yield number, key, measure(key)


def machine() -> dict[str, Any]:
    """The facts a reader needs to place the figures; nothing that names the machine or its user."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": os.getloadavg(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def write(name: str, results: dict[str, Any]) -> None:
    """Put the results below bench/results, which git ignores, and say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{datetime.now():%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(results, indent=1))
    console.print(f"\nWritten to {path.relative_to(BENCH.parent)}", style="dim")


def describe(facts: dict[str, Any]) -> str:
    """The machine in one line, for under a table."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return f"{facts['cpu']}, {facts['cores']} cores; Python {facts['python']}; {versions}"


def disturbance(others: Sequence[float]) -> str:
    """How much the machine had to do besides the measurements, and whether that spoils them."""
    if not others:
        return ""
    middle = statistics.median(others)
    text = f"Other programs used {middle:.0%} of the processors (median over the measurements)."
    return text if middle < BUSY else f"[yellow]{text} Measure again on a quiet machine: ratios may be far off.[/]"


def last_line(text: str) -> str:
    """The line of a traceback that says what happened."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "system", "irq", "softirq", "steal"))


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
