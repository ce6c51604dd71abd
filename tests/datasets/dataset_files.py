"""Files for the tests of the datasets."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import struct
import tempfile
import threading
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from PIL import Image

DEBIAN = Path("/usr/share/datasets/fashion-mnist")

needs_all_images = pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is missing")


def write_idx(path: Path, array: np.ndarray) -> Path:
    """An IDX file; gzipped when its name ends so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_part(folder: Path, part: str, count: int, suffix: str = "") -> tuple[Path, Path]:
    """Random images and labels of the ten classes, as the files of MNIST's part ``train`` or ``t10k``."""
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    return (
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images),
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels),
    )


def write_both_parts(folder: Path, suffix: str = "") -> Path:
    write_part(folder, "train", 30, suffix)
    write_part(folder, "t10k", 20, suffix)
    return folder


def write_image(path: Path, width: int = 40, height: int = 30, mode: str = "RGB") -> Path:
    """An image of random pixels that depend on its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


class Mirror:
    """A web server with the gzipped files of both parts of a small MNIST; the address counts for its last part only."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.files = {path.name: path.read_bytes() for path in write_both_parts(Path(folder), ".gz").iterdir()}
        self.cut: dict[str, int] = {}  # after so many bytes of a file the connection is closed
        self.asked: list[str] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def resources(self) -> list[tuple[str, str]]:
        """torchvision's list of files and MD5 sums."""
        return [(name, hashlib.md5(content).hexdigest()) for name, content in self.files.items()]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(mirror) -> type[http.server.BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, body: bool) -> None:
                name = self.path.rsplit("/")[-1]
                mirror.asked.append(f"{self.command} {name}")
                content = mirror.files.get(name)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if body and content is not None:
                    self.wfile.write(content[: mirror.cut.get(name)])

            def log_message(self, *_: object) -> None:
                pass

        return Handler
