"""One door to all datasets, for a name or a path as a command line gets them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from relume.datasets import fashion, folder, vision
from relume.datasets.places import Root, say
from relume.datasets.transform import ToTensor, Transform
from relume.errors import ConfigurationError, UnknownNameError, closest


@dataclass(frozen=True)
class DataSplit:
    """A dataset in its two parts, and what a model must know of it.

    Attributes:
        train, test: datasets of (float32 image of shape (channels, size, size) in [0, 1], int label).
        classes: the names of the classes; the label is the position.
        channels: 1 for grey images, 3 for RGB.
        size: side of the square images in pixels.
        source: where the data came from, in words.
    """

    train: Dataset[Any]
    test: Dataset[Any]
    classes: list[str]
    channels: int
    size: int
    source: str


def load(
    name_or_path: str | os.PathLike[str], root: Root = None, size: int | None = None, quiet: bool = False
) -> DataSplit:
    """The dataset of a name, or of a folder of images, in its two parts.

    Args:
        name_or_path: ``"fashion-mnist"``, ``"mnist"``, ``"cifar10"``, or the path of a folder as :func:`image_folder`
            takes it. A name goes before a folder of the same name: write ``./mnist`` for the folder.
        root: folder in which files of the named datasets are looked for first, and to which they are downloaded.
        size: side of the images in pixels, to which they are resized; by default as they are.
        quiet: do not say where the data came from.

    Raises:
        UnknownNameError: neither a dataset nor a folder; the message lists the closest names.
        ConfigurationError: a ``root`` for a folder of images.
        DataError, DownloadError, MissingPackageError: as the function for that dataset says.

    Example:
        >>> from relume.datasets import load
        >>> data = load("fashion-mnist", quiet=True)
        >>> len(data.classes), data.channels, data.size
        (10, 1, 28)
    """
    if isinstance(name_or_path, str) and name_or_path in _NAMED:
        split, hint = _NAMED[name_or_path](root, size, quiet)
    elif _is_path(name_or_path):
        if root is not None:
            raise ConfigurationError(
                f"{str(root)!r} was given as the folder of the data (--data, root=), and {str(name_or_path)!r} is a folder of "
                "images itself. Leave one of them out."
            )
        split, hint = _folder(name_or_path, size), ""
    else:
        problem = f"there is no dataset and no folder {str(name_or_path)!r}"
        raise UnknownNameError(f"{problem}: {closest(str(name_or_path), _NAMED)}")
    counts = f"{_length(split.train):,} training and {_length(split.test):,} test images"
    say(f"{name_or_path}: {counts} from {split.source}{hint}", quiet)
    return split


def _fashion_mnist(root: Root, size: int | None, quiet: bool) -> tuple[DataSplit, str]:
    found = fashion.find(root, [True, False], quiet)
    train, test = (found.open_idx(part, _resized(size, 28)) for part in (True, False))
    return DataSplit(train, test, list(train.classes), 1, size or 28, found.name), found.hint


def _mnist(root: Root, size: int | None, quiet: bool) -> tuple[DataSplit, str]:
    train, test = (vision.open_mnist(root, part, _resized(size, 28), quiet) for part in (True, False))
    return DataSplit(train, test, list(train.classes), 1, size or 28, train.source), ""


def _cifar10(root: Root, size: int | None, quiet: bool) -> tuple[DataSplit, str]:
    train, test = (vision.open_cifar10(root, part, _resized(size, 32), quiet) for part in (True, False))
    return DataSplit(train, test, list(train.classes), 3, size or 32, train.source), ""


_NAMED: dict[str, Callable[[Root, int | None, bool], tuple[DataSplit, str]]] = {
    "fashion-mnist": _fashion_mnist,
    "mnist": _mnist,
    "cifar10": _cifar10,
}


def _folder(path: str | os.PathLike[str], size: int | None) -> DataSplit:
    parts = folder.find_parts(path)
    side = parts.side(size)
    train, test = (parts.open(part, ToTensor(side)) for part in (True, False))
    return DataSplit(train, test, parts.classes, 3, side, parts.source)


def _resized(size: int | None, native: int) -> Transform:
    """The plain transform where nothing is to be resized: datasets with it are kept in memory as a whole."""
    return "tensor" if size in (None, native) else ToTensor(size)


def _is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """A path that is there, or that can be nothing but a path."""
    text = os.fspath(name_or_path)
    return not isinstance(name_or_path, str) or os.sep in text or Path(text).expanduser().exists()


def _length(dataset: Dataset[Any]) -> int:
    return len(dataset)  # type: ignore[arg-type]
