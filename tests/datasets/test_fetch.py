from __future__ import annotations

import socket
from pathlib import Path

import pytest
from dataset_files import Mirror

from relume.datasets import fetch


def test_a_server_that_answers_is_heard(mirror: Mirror) -> None:
    assert fetch.answers("http://anywhere.invalid/t10k-labels-idx1-ubyte.gz")
    assert not fetch.answers("http://anywhere.invalid/absent")


def test_a_server_that_stays_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert not fetch.answers("http://anywhere.invalid/file", timeout_seconds=0.05)


def test_a_download_that_falls_silent_ends(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(fetch, "_STALL_SECONDS", 0.05)
        with pytest.raises(fetch.DownloadError, match=r"the download broke off: .*timed out"):
            fetch.download("FashionMNIST", tmp_path, quiet=True)
    assert socket.getdefaulttimeout() is None
