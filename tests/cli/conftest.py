"""What the tests of commands share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision

from relume import save_weights
from relume.cli import app
from relume.datasets import fashion_mnist


@pytest.fixture
def relume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The program in a folder of its own: its status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("warnings.showwarning", app._show_warning)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["relume", *arguments])
        status = app._status()
        captured = capsys.readouterr()
        return status, captured.out, " ".join(captured.err.replace("│", " ").split())

    return command


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images by class, pretrained weights of a ResNet-18, and one run that was fine-tuned with both."""
    folder = tmp_path_factory.mktemp("project")
    write_garments(folder / "garments", 20)
    torch.manual_seed(0)
    save_weights(torchvision.models.resnet18(), folder / "pretrained.safetensors")
    options = ("--model", "torchvision/resnet18", "--weights", "pretrained.safetensors", "--freeze", "backbone")
    small = ("--image-size", "32", "--epochs", "2", "--batch-size", "16")
    ended = subprocess.run(
        [sys.executable, "-m", "relume", "train", "garments", *options, *small],
        cwd=folder,
        env={**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (folder / "said.txt").write_text(ended.stdout + ended.stderr)
    return folder


def write_garments(folder: Path, count: int, classes: int = 3) -> None:
    """Real photographs of garments as PNG and JPEG, in a folder for each class."""
    missing = dict.fromkeys(range(classes), count)
    for image, label in fashion_mnist(train=False, transform=None, quiet=True):
        if missing.get(label, 0):
            missing[label] -= 1
            number = count - missing[label]
            place = folder / ("shirt", "trousers", "pullover", "dress")[label]
            place.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").save(place / f"{number}.{'jpg' if number % 2 else 'png'}", quality=95)
        if not any(missing.values()):
            return
