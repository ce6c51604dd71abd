"""One door to all datasets, for a name or a path as a command line gets them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from relume.datasets import fashion, vision
from relume.datasets.folder import FolderParts, find_parts
from relume.datasets.places import Root, say
from relume.datasets.transform import Augmented, ToTensor, Transform
from relume.errors import ConfigurationError, UnknownNameError, closest


@dataclass(frozen=True)
class DataSplit:
    """A dataset in its two parts, and what a model must know of it.

    Attributes:
        train, test: datasets of (float32 image of shape (channels, size, size) in [0, 1], or normalised, int label).
        classes: the names of the classes; the label is the position.
        channels: 1 for grey images, 3 for RGB.
        size: side of the square images in pixels.
        source: where the data came from, in words.
        prepare: how a PIL image becomes an input of the model, without augmentation.
    """

    train: Dataset[Any]
    test: Dataset[Any]
    classes: list[str]
    channels: int
    size: int
    source: str
    prepare: ToTensor = field(default_factory=ToTensor)


def load(
    name_or_path: str | os.PathLike[str],
    root: Root = None,
    size: int | None = None,
    quiet: bool = False,
    *,
    expected: ToTensor | None = None,
    augment: bool = False,
    val_share: float | None = None,
    split_seed: int = 0,
) -> DataSplit:
    """The dataset of a name, or of a folder of images, in its two parts.

    Args:
        name_or_path: ``"fashion-mnist"``, ``"mnist"``, ``"cifar10"``, or the path of a folder as :func:`image_folder`
            takes it. A name goes before a folder of the same name: write ``./mnist`` for the folder.
        root: folder in which files of the named datasets are looked for first, and to which they are downloaded.
        size: side of the images in pixels, to which they are resized; by default as they are.
        quiet: do not say where the data came from.
        expected: what a pretrained model takes: its normalisation, its channels, and its size where none is given.
        augment: flip and crop the training images at random.
        val_share, split_seed: how much of each class of a folder is held out (a tenth), and which images.

    Raises:
        UnknownNameError: neither a dataset nor a folder; the message lists the closest names.
        ConfigurationError: a ``root`` for a folder of images; a share to hold out of what is split already.
        DataError, DownloadError, MissingPackageError: as the function for that dataset says.

    Example:
        >>> from relume.datasets import load
        >>> data = load("fashion-mnist", quiet=True)
        >>> len(data.classes), data.channels, data.size
        (10, 1, 28)
    """
    wanted = expected or ToTensor()
    if size is not None:
        wanted = replace(wanted, size=size)
    if isinstance(name_or_path, str) and name_or_path in _NAMED:
        if val_share is not None or split_seed:
            raise ConfigurationError(
                f"{name_or_path} has its own test images: --val-share and --split-seed are for folders."
            )
        split, hint = _NAMED[name_or_path](root, wanted, augment, quiet)
    elif _is_path(name_or_path):
        if root is not None:
            raise ConfigurationError(
                f"{str(root)!r} was given as the folder of the data (--data, root=), and {str(name_or_path)!r} is a folder of "
                "images itself. Leave one of them out."
            )
        split, hint = _folder(find_parts(name_or_path, val_share, split_seed), wanted, augment), ""
    else:
        problem = f"there is no dataset and no folder {str(name_or_path)!r}"
        raise UnknownNameError(f"{problem}: {closest(str(name_or_path), _NAMED)}")
    counts = f"{_length(split.train):,} training and {_length(split.test):,} test images"
    say(f"{name_or_path}: {counts} from {split.source}{hint}", quiet)
    return split


_Opener = Callable[[bool, Transform], Any]


def _fashion_mnist(root: Root, wanted: ToTensor, augment: bool, quiet: bool) -> tuple[DataSplit, str]:
    found = fashion.find(root, [True, False], quiet)
    return _own(found.open_idx, wanted, augment, 1, 28, found.name), found.hint


def _mnist(root: Root, wanted: ToTensor, augment: bool, quiet: bool) -> tuple[DataSplit, str]:
    return _own(lambda part, how: vision.open_mnist(root, part, how, quiet), wanted, augment, 1, 28), ""


def _cifar10(root: Root, wanted: ToTensor, augment: bool, quiet: bool) -> tuple[DataSplit, str]:
    return _own(lambda part, how: vision.open_cifar10(root, part, how, quiet), wanted, augment, 3, 32), ""


_NAMED: dict[str, Callable[[Root, ToTensor, bool, bool], tuple[DataSplit, str]]] = {
    "fashion-mnist": _fashion_mnist,
    "mnist": _mnist,
    "cifar10": _cifar10,
}


def _own(
    opened: _Opener, wanted: ToTensor, augment: bool, channels: int, size: int, source: str | None = None
) -> DataSplit:
    """A dataset whose images have a size of their own.

    Where nothing is to be changed the transform is the plain one: datasets with it are kept in memory as a whole.
    """
    prepare = replace(wanted, size=wanted.size or size, channels=wanted.channels or channels)
    is_plain = prepare == ToTensor(size, channels)
    how: Transform = "tensor" if is_plain else prepare
    train, test = opened(True, Augmented(prepare) if augment else how), opened(False, how)
    assert prepare.size is not None and prepare.channels is not None
    return DataSplit(train, test, list(train.classes), prepare.channels, prepare.size, source or train.source, prepare)


def _folder(parts: FolderParts, wanted: ToTensor, augment: bool) -> DataSplit:
    prepare = replace(wanted, size=parts.side(wanted.size), channels=3)
    train = parts.open(True, Augmented(prepare) if augment else prepare)
    assert prepare.size is not None
    return DataSplit(train, parts.open(False, prepare), parts.classes, 3, prepare.size, parts.source, prepare)


def _is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """A path that is there, or that can be nothing but a path."""
    text = os.fspath(name_or_path)
    return not isinstance(name_or_path, str) or os.sep in text or Path(text).expanduser().exists()


def _length(dataset: Dataset[Any]) -> int:
    return len(dataset)  # type: ignore[arg-type]
