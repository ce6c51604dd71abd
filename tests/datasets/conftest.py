"""Every test looks for data in folders of its own, and finds no network unless it brings one."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from dataset_files import Mirror, write_image
from torchvision import datasets


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder, the user's folder and the system's are empty; every proxy is a closed port."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("RELUME_DATA", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "system"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server, the proxy for every address, with the small MNIST files that torchvision is told to expect."""
    with Mirror() as server:
        monkeypatch.setenv("http_proxy", server.url)
        for kind in (datasets.FashionMNIST, datasets.MNIST):
            monkeypatch.setattr(kind, "mirrors", ["http://mirror.invalid/"])
            monkeypatch.setattr(kind, "resources", server.resources())
        yield server


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder of two classes with twenty and ten images."""
    for name, count in (("cat", 20), ("dog", 10)):
        for number in range(count):
            write_image(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path / "pets"
