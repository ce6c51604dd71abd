"""The services' own readers, and a real MLflow server: one for all tests, on this machine alone."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Numbers = dict[str, list[tuple[int, float]]]
_OWN = ("step", "epoch")


def offline_folder(run_folder: Path) -> Path:
    (found,) = (run_folder / "wandb").glob("offline-run-*")
    return found


def wandb_records(run_folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What W&B's own reader finds in the offline files: by type, in order."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in _inspect(run_folder).splitlines():
        record = json.loads(line)
        found[record["type"]].append(record[record["type"]])
    return found


def wandb_state(run_folder: Path) -> dict[str, Any]:
    """What W&B's own reader makes of all of it together."""
    state: dict[str, Any] = json.loads(_inspect(run_folder, "--summary"))
    return state


def _inspect(run_folder: Path, *options: str) -> str:
    """``wandb leet inspect``, without the Python around it."""
    spec = find_spec("wandb")
    assert spec is not None and spec.origin is not None
    (file,) = offline_folder(run_folder).glob("*.wandb")
    core = Path(spec.origin).parent / "bin" / "wandb-core"
    command = [str(core), "leet", "inspect", "--no-observability", "--json", *options]
    command += ["--run-file", str(file), str(run_folder / "wandb")]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def wandb_numbers(run_folder: Path) -> Numbers:
    found: Numbers = {}
    for record in wandb_records(run_folder)["history"]:
        for name, value in record["item"].items():
            if not name.startswith("_") and name not in _OWN:
                found.setdefault(name, []).append((record["item"]["step"], float(value)))
    return found


def wandb_end(run_folder: Path) -> str:
    ends = wandb_records(run_folder)["exit"]
    return str(ends[-1].get("exit_code", 0)) if ends else ""


@cache
def mlflow_server() -> str:
    """The address of a server that is started when it is first asked for, and ended with this process."""
    folder = Path(tempfile.mkdtemp(prefix="relume-mlflow-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    atexit.register(_end, process, folder)
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.2)
    raise RuntimeError((folder / "server.log").read_text())


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    import shutil

    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def mlflow_client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server())


def mlflow_run(run_folder: Path) -> Any:
    remembered = json.loads((run_folder / "trackers" / "mlflow.json").read_text())["remembered"]
    return mlflow_client().get_run(remembered["id"])


def mlflow_history(run_id: str, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in mlflow_client().get_metric_history(run_id, name)]


def mlflow_numbers(run_folder: Path) -> Numbers:
    """Infinity is the largest number in MLflow's database: it is shown as infinity here."""
    largest = sys.float_info.max
    run = mlflow_run(run_folder)
    names = [name for name in run.data.metrics if not name.startswith("best/") and name not in _OWN]
    found = {name: mlflow_history(run.info.run_id, name) for name in names}
    return {
        name: [(step, value if abs(value) != largest else value * 10) for step, value in series]
        for name, series in found.items()
    }


def mlflow_end(run_folder: Path) -> str:
    return str(mlflow_run(run_folder).info.status)
