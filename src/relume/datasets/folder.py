"""A folder of images that has a folder for each class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from relume.datasets.pictures import EXTENSIONS, images_below, is_image, read_image
from relume.datasets.places import say_source
from relume.datasets.transform import ToTensor, Transform, chosen_transform
from relume.errors import ConfigurationError, DataError

_HELD_OUT = ("val", "valid", "validation", "test")
_HELD_OUT_SHARE = 0.1
_LARGEST_DEFAULT_SIZE = 224
_LAYOUT = "Expected: PATH/CLASS/IMAGE, or PATH/train/CLASS/IMAGE and PATH/val/CLASS/IMAGE."

Sample = tuple[str, int]


class FolderImages(Dataset[Any]):
    """Images of a folder with their classes, as torchvision's ``ImageFolder`` has them; :func:`image_folder` makes it.

    Attributes:
        samples: list of (path, label); ``targets`` is the list of the labels.
        classes, class_to_idx: names of the classes in alphabetical order, and the label of each.
        transform: a callable that takes a PIL image (RGB), or ``None``.
        source: where the images came from, in words.

    ``dataset[i]`` is (transformed image, int label). Fetching raises ``DataError`` for an image that cannot be read.
    """

    def __init__(
        self, samples: list[Sample], classes: list[str], transform: Callable[[Any], Any] | None, source: str
    ) -> None:
        self.samples = samples
        self.targets = [label for _, label in samples]
        self.classes = classes
        self.class_to_idx = {name: label for label, name in enumerate(classes)}
        self.transform = transform
        self.source = source

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        image = read_image(path)
        return (image if self.transform is None else self.transform(image)), label

    def __repr__(self) -> str:
        return f"FolderImages({len(self)} images from {self.source}, transform={self.transform!r})"


def image_folder(
    path: str | os.PathLike[str],
    train: bool = True,
    size: int | None = None,
    transform: Transform = "tensor",
    quiet: bool = False,
) -> FolderImages:
    """Images of a folder that has a folder for each class, as RGB squares of one size.

    Where ``path`` holds ``train/`` and one of ``val/``, ``valid/``, ``validation/``, ``test/`` (the first of these is
    taken), they are the two parts. Otherwise a tenth of each class is held out, at least one image: those whose paths
    below the folder have the smallest hashes, so that the same images are held out at any time and on any machine.
    Hidden files and folders are passed over.

    Args:
        path: the folder.
        train: the training part or the part held out.
        size: side of the images in pixels: the shorter side is resized to it and the middle is cut out. By default the
            shorter side of the first training image, at most 224.
        transform: ``"tensor"`` for float32 images of shape (3, size, size) in [0, 1]; ``None`` for PIL images as they
            are; or a callable that takes a PIL image. The last two leave ``size`` unused.
        quiet: do not say what was found.

    Raises:
        DataError: there is no such folder; it holds no folders of classes, one class only, a class without images, or a
            held-out class that is not trained on; an image cannot be read (those not needed for ``size``: when
            fetched).

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from relume.datasets import image_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat", "dog"):
        ...         Path(folder, name).mkdir()
        ...         for number in range(3):
        ...             Image.new("RGB", (40, 30)).save(Path(folder, name, f"{number}.png"))
        ...     dataset = image_folder(folder, quiet=True)
        ...     len(dataset), dataset.classes, dataset[0][0].shape
        (4, ['cat', 'dog'], torch.Size([3, 30, 30]))
    """
    parts = find_parts(path)
    dataset = parts.open(train, ToTensor(parts.side(size)) if transform == "tensor" else transform)
    say_source(str(path), dataset, train, quiet)
    return dataset


@dataclass(frozen=True)
class FolderParts:
    """What a folder of images holds."""

    classes: list[str]
    train: list[Sample]
    test: list[Sample]
    source: str

    def open(self, train: bool, transform: Transform) -> FolderImages:
        samples = self.train if train else self.test
        return FolderImages(samples, self.classes, chosen_transform(transform), self.source)

    def side(self, size: int | None) -> int:
        """The side of the images: the one asked for, or that of the first training image within a limit."""
        if size is not None:
            return size
        width, height = read_image(self.train[0][0]).size
        return int(min(width, height, _LARGEST_DEFAULT_SIZE))


def find_parts(path: str | os.PathLike[str], val_share: float | None = None, split_seed: int = 0) -> FolderParts:
    """The images of a folder, in their two parts; raises as :func:`image_folder` does.

    Args:
        val_share: the share of each class that is held out, between 0 and 1; by default a tenth. Only for a folder that
            has no part for it.
        split_seed: which images are held out.
    """
    if val_share is not None and not 0 < val_share < 1:
        raise ConfigurationError(f"the share held out for validation is {val_share}: it is above 0 and below 1.")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is {'not a folder' if root.exists() else 'not there'}. {_LAYOUT}")
    has_parts = (root / "train").is_dir() and bool(_folders(root / "train"))
    training = root / "train" if has_parts else root
    held_out = next((root / name for name in _HELD_OUT if has_parts and (root / name).is_dir()), None)
    classes = _classes(training)
    samples = _samples(training, classes)
    if held_out is not None and (val_share is not None or split_seed):
        raise ConfigurationError(
            f"{root} is split already: {held_out} is what is held out. Leave --val-share and --split-seed out."
        )
    if held_out is not None:
        test = _samples(held_out, _known_classes(held_out, classes, training), classes)
        return FolderParts(classes, samples, test, f"{training} and {held_out}")
    share = _HELD_OUT_SHARE if val_share is None else val_share
    train, test = _split(samples, training, share, split_seed)
    part = "a tenth" if share == _HELD_OUT_SHARE else f"{share:.3g}" if share < 0.001 else f"{100 * share:.3g}%"
    return FolderParts(classes, train, test, f"{training} ({part} of each class held out)")


def _classes(folder: Path) -> list[str]:
    classes = _folders(folder)
    if not classes:
        found = sum(is_image(entry.name) for entry in folder.iterdir())
        what = f"{found:,} images but no folders of classes" if found else "no folders of classes"
        raise DataError(f"{folder} holds {what}. {_LAYOUT}")
    if len(classes) == 1:
        raise DataError(f"{folder} holds one class only, {classes[0]!r}: there is nothing to tell apart. {_LAYOUT}")
    return classes


def _known_classes(folder: Path, known: list[str], training: Path) -> list[str]:
    """The classes in the folder held out. Some may be missing there; none may be new."""
    classes = _folders(folder)
    if new := [name for name in classes if name not in known]:
        raise DataError(f"{folder} holds classes that {training} lacks: {', '.join(new)}.")
    if not classes:
        raise DataError(f"{folder} holds no folders of classes. {_LAYOUT}")
    return classes


def _samples(folder: Path, classes: list[str], labelled: list[str] | None = None) -> list[Sample]:
    labels = {name: label for label, name in enumerate(labelled or classes)}
    samples: list[Sample] = []
    for name in classes:
        found = images_below(folder / name)
        if not found:
            raise DataError(f"{folder / name} holds no images ({', '.join(EXTENSIONS)}). Add some or delete it.")
        samples += [(path, labels[name]) for path in found]
    return samples


def _split(
    samples: list[Sample], root: Path, share: float = _HELD_OUT_SHARE, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """A share of each class apart, at least one of two images: those whose names have the smallest hashes."""
    of_class: dict[int, list[str]] = {}
    for path, label in samples:
        of_class.setdefault(label, []).append(path)
    held_out: set[str] = set()
    for paths in of_class.values():
        count = min(max(1, round(len(paths) * share)), len(paths) - 1)
        held_out.update(sorted(paths, key=lambda path: _name_hash(path, root, seed))[:count])
    if not held_out:
        raise DataError(f"{root} has one image a class: none can be held out for testing. Add some to each.")
    return [s for s in samples if s[0] not in held_out], [s for s in samples if s[0] in held_out]


def _name_hash(path: str, root: Path, seed: int) -> bytes:
    name = Path(path).relative_to(root).as_posix()
    key = seed.to_bytes(8, "little") if seed else b""
    return hashlib.blake2b(os.fsencode(name), key=key).digest()


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
