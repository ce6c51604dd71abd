"""Bundles of a few megabytes, and servers on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from exchange_servers import Static, serving

from relume.models.tensorfile import tensorfile_parts
from relume.share.archive import write_archive
from relume.share.exchange import remote

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A bundle of a backbone of 4 MB and a head of ``classes``."""

    def made(name: str = "fashion", classes: int = 10, seed: int = 0) -> Path:
        generator = torch.Generator().manual_seed(seed)
        state = {f"features.{n}.weight": torch.randn(250 + n, 512, generator=generator) for n in range(8)}
        state["features.bias"] = torch.randn(100, generator=generator)
        state["head.weight"] = torch.randn(classes, 512, generator=torch.Generator().manual_seed(classes))
        contents = {
            "README.md": lambda: [f"# Fashion with {classes} classes\n".encode()],
            "config.json": lambda: [b'{"model_type": "relume"}'],
            "code/train.py": lambda: [b"print(1)\n"],
            "empty.txt": list,
            "bilder/grün [1].txt": lambda: [b"x" * 1000],
            "model.safetensors": lambda: tensorfile_parts(state),
        }
        path = tmp_path / "made" / f"{name}.relume"
        path.parent.mkdir(exist_ok=True)
        write_archive(path, name, contents, "0.1.0")
        return path

    return made


@pytest.fixture
def bundle(make: Make) -> Path:
    return make()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Static]:
    """A static web server with ranges; what it hands out lies in ``web.root``."""
    (tmp_path / "www").mkdir()
    server = Static(tmp_path / "www")
    with serving(server):
        yield server
