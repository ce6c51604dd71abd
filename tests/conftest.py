"""Shared fixtures: tiny real models and data."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.torch_version import TorchVersion
from torch.utils.data import DataLoader, TensorDataset

from relume.data import memory

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell put into the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

# torch starts threads of autograd at the first backward pass, for all devices that it knows by then. torch.compile makes more
# known; a process that compiled before its first backward pass cannot fork one that goes on training, as some tests do.
torch.ones(1, requires_grad=True).backward()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("pt2") and TorchVersion(torch.__version__) < (2, 9):
        pytest.skip("needs torch 2.9 or newer")
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _fixed_seed() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _plain_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("COLUMNS", "120")


_OF_PROVENANCE = (
    "provenance",
    "trackers",
    "notebook",
    "cli",
    "recorded",
    "test_run_provenance.py",
    "test_documents.py",
)


@pytest.fixture(autouse=True)
def _keep_no_code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of runs need not read this repository each; what keeping code is about has tests of its own."""
    if not set(_OF_PROVENANCE) & set(request.path.parts):
        monkeypatch.setenv("RELUME_PROVENANCE", "off")


@pytest.fixture(autouse=True)
def _own_tables() -> None:
    memory._tables.clear()


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def loader() -> DataLoader:
    """50 samples in 4 batches, the last one short."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(50, 4, generator=generator)
    return DataLoader(TensorDataset(inputs, inputs.abs().argmax(1).clamp(max=2)), batch_size=16, shuffle=True)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of checkpoints, empty, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request._opener", None)  # it remembers the proxies of its first use
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"
