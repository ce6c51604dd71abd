"""Datasets of torchvision by name: from files that are there, else downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from relume.datasets.fetch import download, obstacle, open_torchvision, torchvision_datasets
from relume.datasets.idx import check_pair, part_names
from relume.datasets.places import Root, download_folder, folders, say_source
from relume.datasets.transform import Transform
from relume.errors import DataError, DownloadError

_MNIST_FILES = [*part_names(True), *part_names(False)]
_CIFAR10_FOLDER = "cifar-10-batches-py"
_CIFAR10_FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]


def mnist(root: Root = None, train: bool = True, transform: Transform = "tensor", quiet: bool = False) -> Dataset[Any]:
    """MNIST: 28 x 28 grey images of handwritten digits, 60,000 to train and 10,000 to test (LeCun et al. 1998).

    torchvision's dataset, from the files ``MNIST/raw/*-ubyte`` below ``root``, ``./data`` or the user's folder
    (``$RELUME_DATA``, else ``~/.cache/relume/data``); where they are not, they are downloaded to ``root`` or the user's
    folder.

    Args:
        root: folder to look in first, and to download to.
        train: the training part or the test part.
        transform: ``"tensor"`` for float32 images of shape (1, 28, 28) in [0, 1]; ``None`` for PIL images; or a
            callable that takes a PIL image.
        quiet: do not say where the files are; the dataset's attribute ``source`` tells it in any case.

    Raises:
        MissingPackageError: torchvision is not installed.
        DownloadError: there are no files and they cannot be downloaded; the message says where to put them.
        DataError: a file is damaged.
    """
    dataset: Dataset[Any] = open_mnist(root, train, transform, quiet)
    say_source("mnist", dataset, train, quiet)
    return dataset


def cifar10(
    root: Root = None, train: bool = True, transform: Transform = "tensor", quiet: bool = False
) -> Dataset[Any]:
    """CIFAR-10: 32 x 32 colour photographs in ten classes, 50,000 to train and 10,000 to test (Krizhevsky 2009).

    torchvision's dataset, found and downloaded as :func:`mnist` does it, in ``cifar-10-batches-py``. torchvision checks
    the MD5 sums of the files before it unpickles them.

    Args:
        root: folder to look in first, and to download to.
        train: the training part or the test part.
        transform: ``"tensor"`` for float32 images of shape (3, 32, 32) in [0, 1]; ``None`` for PIL images; or a
            callable that takes a PIL image.
        quiet: do not say where the files are; the dataset's attribute ``source`` tells it in any case.

    Raises:
        MissingPackageError: torchvision is not installed.
        DownloadError: there are no files and they cannot be downloaded; the message says where to put them.
        DataError: a file is damaged.
    """
    dataset: Dataset[Any] = open_cifar10(root, train, transform, quiet)
    say_source("cifar10", dataset, train, quiet)
    return dataset


def open_mnist(root: Root, train: bool, transform: Transform, quiet: bool) -> Any:
    """:func:`mnist` without its closing line."""
    probe_url = torchvision_datasets("mnist").MNIST.mirrors[0] + f"{part_names(False)[1]}.gz"
    place = _folder(root, "MNIST", "MNIST/raw", _MNIST_FILES, probe_url, quiet)
    raw = place / "MNIST" / "raw"
    images, labels = (raw / file for file in part_names(train))
    check_pair(images, labels, 10, f"Delete {raw}, and it is downloaded again.")
    return open_torchvision("MNIST", place, train, transform, str(raw))


def open_cifar10(root: Root, train: bool, transform: Transform, quiet: bool) -> Any:
    """:func:`cifar10` without its closing line."""
    probe_url = torchvision_datasets("cifar10").CIFAR10.url
    place = _folder(root, "CIFAR10", _CIFAR10_FOLDER, _CIFAR10_FILES, probe_url, quiet)
    batches = place / _CIFAR10_FOLDER
    try:
        return open_torchvision("CIFAR10", place, train, transform, str(batches))
    except RuntimeError as error:
        problem = f"a file in {batches} is damaged: its MD5 sum is not the published one"
        raise DataError(f"{problem}. Delete {batches}, and it is downloaded again.") from error


def _folder(root: Root, name: str, inner: str, files: list[str], probe_url: str, quiet: bool) -> Path:
    """The first folder that has the files, or the one they were downloaded to."""
    for folder in folders(root):
        if all((folder / inner / file).is_file() for file in files):
            return folder
    target = download_folder(root)
    reason = obstacle(probe_url)
    try:
        if reason is None:
            download(name, target, quiet)
            return target
    except DownloadError as error:
        reason = str(error)
    looked = ", ".join(str(folder / inner) for folder in folders(root))
    remedy = f"Put {', '.join(files)} into {target / inner}, or start again when the network answers."
    raise DownloadError(f"{name} is in none of {looked}, and {reason}. {remedy}")
