from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import Mirror, write_both_parts
from torchvision import datasets

from relume.datasets import cifar10, mnist
from relume.errors import DataError, DownloadError, MissingPackageError

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


@pytest.fixture
def cifar_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's files with ten images each, and torchvision told to expect their MD5 sums."""
    folder = tmp_path / "user" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sums = {}
    for name in BATCHES:
        content = {"data": np.zeros((10, 3072), np.uint8), "labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {number}" for number in range(10)]}))
    meta_sum = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, sums[name]] for name in BATCHES[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [[BATCHES[5], sums[BATCHES[5]]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": meta_sum})
    return folder


def test_mnist_is_torchvisions_from_files_that_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_both_parts(tmp_path / "MNIST" / "raw")
    dataset = mnist(tmp_path, train=False)
    assert type(dataset) is datasets.MNIST and len(dataset) == 20
    assert dataset[0][0].shape == (1, 28, 28) and dataset[0][0].dtype == torch.float32
    assert dataset.source == str(raw)
    assert capsys.readouterr().err == f"mnist: 20 test images from {raw}\n"


def test_mnist_is_downloaded(tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(mnist()) == 30  # type: ignore[arg-type]
    assert (tmp_path / "user" / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()
    assert "downloading MNIST to" in capsys.readouterr().err
    assert len(mnist(train=False, quiet=True)) == 20  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_offline_the_error_says_where_to_put_the_files(tmp_path: Path) -> None:
    message = (
        f"MNIST is in none of data/MNIST/raw, {tmp_path}/user/MNIST/raw, and the network does not answer "
        r"\(ossci-datasets.s3.amazonaws.com\). Put train-images-idx3-ubyte, train-labels-idx1-ubyte, .* into "
        f"{tmp_path}/user/MNIST/raw, or start again"
    )
    with pytest.raises(DownloadError, match=message):
        mnist()
    with pytest.raises(DownloadError, match=rf"Put data_batch_1, .* into {tmp_path}/given/cifar-10-batches-py"):
        cifar10(tmp_path / "given")


def test_a_download_that_breaks_off_is_an_error(tmp_path: Path, mirror: Mirror) -> None:
    mirror.cut["train-images-idx3-ubyte.gz"] = 100
    with pytest.raises(DownloadError, match=r"MNIST is in none of .*, and the download broke off: .*Put train-images"):
        mnist(tmp_path / "given")
    assert not list((tmp_path / "given").iterdir())


def test_a_damaged_file_of_mnist_is_an_error(tmp_path: Path) -> None:
    labels = write_both_parts(tmp_path / "MNIST" / "raw") / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{labels} is damaged: .* Delete {labels.parent}, and it is downloaded again"):
        mnist(tmp_path)


def test_cifar10_is_torchvisions_from_files_that_are_there(
    cifar_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = cifar10()
    assert type(dataset) is datasets.CIFAR10 and len(dataset) == 50
    assert dataset[0][0].shape == (3, 32, 32) and dataset.classes[3] == "class 3"
    assert capsys.readouterr().err == f"cifar10: 50 training images from {cifar_files}\n"
    assert len(cifar10(train=False, quiet=True)) == 10  # type: ignore[arg-type]


def test_a_damaged_file_of_cifar10_is_an_error(cifar_files: Path) -> None:
    (cifar_files / "data_batch_3").write_bytes(b"")
    with pytest.raises(DataError, match=f"a file in {cifar_files} is damaged: its MD5 sum .* Delete {cifar_files}"):
        cifar10()


@pytest.mark.parametrize("make", [mnist, cifar10])
def test_without_torchvision_the_error_says_what_to_install(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(MissingPackageError, match=r'needs torchvision: pip install "relume\[vision\]"'):
        make()
