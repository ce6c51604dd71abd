"""One of each kind of media, in a journal, with its files; and a TensorBoard server that is asked over HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from relume.monitor.journal import Journal
from relume.trackers.tensorboard.server import command

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
CURVE = {
    "thresholds": [0.0, 0.5, 1.0],
    "precision": [0.5, 0.75, 1.0],
    "recall": [1.0, 0.6, 0.0],
    "tp": [10, 6, 0],
    "fp": [10, 2, 0],
    "tn": [0, 8, 10],
    "fn": [0, 4, 10],
}


def png(width: int, height: int, grey: int) -> bytes:
    rows = b"".join(b"\x00" + bytes([grey, grey, grey] * width) for _ in range(height))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def keep(folder: Path, name: str, data: bytes) -> str:
    place = folder / "media" / "ab" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return str(place.relative_to(folder))


def media(folder: Path, step: int) -> dict[str, dict[str, Any]]:
    """One of each kind, as the journal has it, different at each step."""
    mesh = folder / "media" / "ab" / f"mesh{step}.safetensors"
    mesh.parent.mkdir(parents=True, exist_ok=True)
    save_file({"vertices": VERTICES + step, "colors": COLORS, "faces": FACES}, mesh)
    nodes = [
        {"name": "input", "op": "Input", "inputs": [], "shape": [1, 4]},
        {"name": "net/linear", "op": "Linear", "inputs": ["input"], "shape": [1, step + 1]},
    ]
    return {
        "pictures/one": {
            "kind": "image",
            "file": keep(folder, f"image{step}.png", png(4, 3, step)),
            "width": 4,
            "height": 3,
            "caption": "a caption",
        },
        "plot": {"kind": "figure", "file": keep(folder, f"figure{step}.png", png(6, 5, step)), "svg": "media/ab/x.svg"},
        "weights": {
            "kind": "histogram",
            "edges": [0.0, 1.0, 2.0, 3.0],
            "counts": [step + 1, 0, 2],
            "count": step + 3,
            "min": 0.25,
            "max": 2.5,
            "sum": 5.0,
            "sum_squares": 7.5,
            "nan": 0,
            "infinite": 0,
        },
        "said": {"kind": "text", "text": f"**step** {step} | ü"},
        "long": {"kind": "text", "file": keep(folder, f"text{step}.txt", f"from a file {step}".encode())},
        "body": {"kind": "mesh", "file": str(mesh.relative_to(folder)), "count": 4},
        "model": {"kind": "graph", "file": keep(folder, f"graph{step}.json", json.dumps({"nodes": nodes}).encode())},
        "rows": {"kind": "table", "columns": ["a", "b|c"], "rows": [[1, "x\ny"], [step, None]]},
        "curve": {"kind": "pr_curve", **CURVE},
        "curves": {"kind": "pr_curve", "classes": ["cat", "dog"], **{n: [row, row] for n, row in CURVE.items()}},
        "confusion": {"kind": "confusion_matrix", "classes": ["cat", "dog"], "counts": [[8, 2], [1, step]]},
        "large": {
            "kind": "confusion_matrix",
            "classes": [str(n) for n in range(40)],
            "counts": np.eye(40, dtype=int).tolist(),
        },
    }


def log_media(journal: Journal, folder: Path, step: int) -> None:
    journal.write({"step": step, "epoch": 1, "time": 1.7e9 + step, "media": media(folder, step)})


class Server:
    """TensorBoard's own server on a folder, asked over HTTP."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **query: str) -> bytes:
        query_text = f"?{urllib.parse.urlencode(query)}" if query else ""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/data/{path}{query_text}", timeout=30) as answer:
            return answer.read()

    def ask(self, path: str, **query: str) -> Any:
        return json.loads(self.get(path, **query))

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/data/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


@contextlib.contextmanager
def serving(folder: Path, log: Path) -> Iterator[Server]:
    """The server, ended by its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen([*command(folder, port), "--reload_interval", "1"], stdout=output, stderr=output)
    try:
        server = Server(port)
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if server.ask("runs"):
                    break
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(30)
