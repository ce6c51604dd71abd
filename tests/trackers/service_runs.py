"""Real runs for the trackers of services, and the real process that feeds them."""

import contextlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.trackers.rebuilding import spec_of
from relume.trackers.state import State, state_path
from relume.trackers.tracker import Tracker

OFFLINE = {"WANDB_MODE": "offline"}


def deliver(folder: Path, tracker: Tracker, **environment: str) -> State:
    """Feed a tracker what a run's journal holds, in a process of its own; returns how it ended."""
    with worker(folder, tracker, **environment) as process:
        assert process.wait(100) == 0, (folder / "worker.log").read_text()[-3000:]
    return State.load(state_path(folder, tracker.name))


@contextlib.contextmanager
def worker(folder: Path, tracker: Tracker, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process that feeds a tracker; it is ended with the block."""
    (folder / "trackers").mkdir(exist_ok=True)
    with (folder / "worker.log").open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "relume.trackers.worker", str(folder), tracker.name],
            stdin=subprocess.PIPE,
            env={n: v for n, v in os.environ.items() if not n.startswith(("WANDB_", "MLFLOW_"))} | environment,
            stdout=file,
            stderr=file,
        )
    try:
        with process.stdin as pipe:
            pipe.write(json.dumps(spec_of(tracker)).encode())
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Look until it is so; the test's own limit of time ends a vain wait."""
    while not is_so():
        assert process.poll() is None, "the worker has ended"
        time.sleep(0.05)


def train(root: Path, epochs: int, name: str = "line", resume=None, **more) -> Path:
    """Train a line on eight points, two steps an epoch."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(torch.ones(8, 2), torch.ones(8, 1)), batch_size=4)
    keep = relume.Keep(last=10)
    with relume.Run(
        name, model=model, optimizer=optimizer, root=root, resume=resume, keep=keep, seed=1, quiet=True, **more
    ) as run:
        for _ in run.epochs(epochs):
            for x, y in run.batches(loader):
                loss = nn.functional.mse_loss(model(x), y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                run.log({"train/loss": loss})
            run.log({"val/loss": loss})
    return run.folder


def logged(root: Path, lines: list[dict], name: str = "logged", error: Exception | None = None, **more) -> Path:
    """A run whose journal holds these lines, besides its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", relume.RelumeWarning)
        raised = contextlib.nullcontext() if error is None else contextlib.suppress(type(error))
        with raised, relume.Run(name, root=root, quiet=True, seed=1, **more) as run:
            for line in lines:
                run.journal.write(line)
            if error is not None:
                raise error
    return run.folder


def values(step: int, /, **named: float) -> dict:
    return {"step": step, "epoch": 1, "time": 1_700_000_000.0 + step, "values": named}


def media(step: int, name: str, **content) -> dict:
    return {"step": step, "epoch": 1, "time": 1_700_000_000.0 + step, "media": {name: content}}


def write_media(folder: Path) -> list[dict]:
    """One line of each kind, with the files that they name below ``folder``."""
    import numpy as np
    from PIL import Image
    from safetensors.numpy import save_file

    (folder / "media").mkdir(parents=True)
    Image.new("RGB", (8, 6), (255, 0, 0)).save(folder / "media" / "a.png")
    (folder / "media" / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    save_file(
        {"vertices": vertices, "colors": colors, "faces": np.array([[0, 1, 2]], np.int32)},
        folder / "media/m.safetensors",
    )
    save_file({"vertices": vertices}, folder / "media/p.safetensors")
    nodes = [
        {"name": "x", "op": "input", "inputs": []},
        {"name": "y", "op": "Linear", "inputs": ["x"], "shape": [1, 2]},
    ]
    (folder / "media" / "g.json").write_text(json.dumps({"nodes": nodes}))
    (folder / "media" / "t.json").write_text(json.dumps({"columns": ["n"], "rows": [[1], [2]]}))
    counts = list(range(2000))
    return [
        media(1, "photo", kind="image", file="media/a.png", width=8, height=6, caption="a <b> \ud800"),
        media(2, "weights", kind="histogram", edges=[0.0, 0.5, 1.0], counts=[3, 4], count=7, min=0.0, max=1.0, sum=3.0,
              sum_squares=2.0, nan=0, infinite=0),
        media(2, "many bins", kind="histogram", edges=[float(i) for i in range(2001)], counts=counts, count=sum(counts),
              min=0.0, max=2000.0, sum=1.0, sum_squares=1.0, nan=0, infinite=0),
        media(3, "said", kind="text", text="<script>alert(1)</script> a | b"),
        media(4, "shape", kind="mesh", file="media/m.safetensors", count=1),
        media(4, "points", kind="mesh", file="media/p.safetensors", count=1),
        media(5, "model", kind="graph", file="media/g.json"),
        media(6, "rows", kind="table", columns=["a", "b"], rows=[[1, "x"], [None, "=1+1"]]),
        media(6, "stored rows", kind="table", file="media/t.json"),
        media(7, "drawn", kind="figure", file="media/a.png", svg="media/a.svg"),
        media(8, "curve", kind="pr_curve", thresholds=[0.0, 0.5], precision=[0.5, 1.0], recall=[1.0, 0.5], tp=[2, 1],
              fp=[2, 0], tn=[0, 2], fn=[0, 1]),
        media(9, "confusion", kind="confusion_matrix", classes=["cat", "dog"], counts=[[5, 1], [2, 4]]),
        media(10, "hparams", kind="hparams", values={"lr": 0.1}, metrics={"val/loss": 0.5}),
    ]  # fmt: skip
