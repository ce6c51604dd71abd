from __future__ import annotations

import os
from pathlib import Path

import altered_bundles
import pytest

from relume.share.pack import pack


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 and 120 images of Fashion-MNIST, in torchvision's files."""
    return altered_bundles.make_data(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """An MLP that ``relume train`` trained on them, packed."""
    folder = tmp_path_factory.mktemp("author")
    options = ["--data", str(images), "--epochs", "2", "--batch-size", "60", "--device", "cpu", "--quiet"]
    done = altered_bundles.run_relume(folder, "train", "fashion-mnist", *options)
    assert done.returncode == 0, done.stderr
    here = Path.cwd()
    os.chdir(folder)
    try:
        return pack("fashion-mnist", folder / "fashion.relume", graph=False).path
    finally:
        os.chdir(here)
