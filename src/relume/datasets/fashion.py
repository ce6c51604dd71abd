"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, https://arxiv.org/abs/1708.07747) from the best source there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from relume.datasets.fetch import download, has_torchvision, obstacle, open_torchvision
from relume.datasets.idx import IdxImages, check_pair, part_names
from relume.datasets.places import Root, download_folder, folders, say_source, system_folders
from relume.datasets.transform import Transform
from relume.errors import DownloadError, warn

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

_PROBE_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz"
_SUBSET = Path(__file__).parent / "fashion_mnist_subset"


def fashion_mnist(
    root: Root = None, train: bool = True, transform: Transform = "tensor", quiet: bool = False
) -> Dataset[Any]:
    """Fashion-MNIST: 28 x 28 grey images of clothes in ten classes, 60,000 to train and 10,000 to test.

    The first of these that is there is used, and one line on standard error says which:

    1. torchvision's files, ``FashionMNIST/raw/*-ubyte`` below ``root``, ``./data`` or the user's folder
       (``$RELUME_DATA``, else ``~/.cache/relume/data``): torchvision's own dataset is returned;
    2. the files of Debian's package ``dataset-fashion-mnist``;
    3. a download by torchvision, to ``root`` or the user's folder, when the network answers within three seconds;
    4. a subset of 5,000 and 1,500 of the images, in the same proportions, that comes with relume.

    2 and 4 (and 1, when torchvision is not installed) give :class:`IdxImages`, which behaves as torchvision's dataset
    does.

    Args:
        root: folder to look in first, and to download to.
        train: the training part or the test part.
        transform: ``"tensor"`` for float32 images of shape (1, 28, 28) in [0, 1]; ``None`` for PIL images; or a
            callable that takes a PIL image.
        quiet: do not say which source was used; the dataset's attribute ``source`` tells it in any case.

    Raises:
        DataError: the files of the first source found are damaged. A damaged file is never passed over, because
            training on other data than the data at hand would go unnoticed; the message says how to mend it.

    Example:
        >>> from relume.datasets import fashion_mnist
        >>> dataset = fashion_mnist(train=False, quiet=True)
        >>> image, label = dataset[0]
        >>> image.shape, label
        (torch.Size([1, 28, 28]), 9)
    """
    found = find(root, [train], quiet)
    dataset: Dataset[Any] = found.open(train, transform)
    say_source("fashion-mnist", dataset, train, quiet, found.hint)
    return dataset


@dataclass(frozen=True)
class Source:
    """A folder that holds IDX files of Fashion-MNIST, and how to speak of it."""

    folder: Path
    name: str
    remedy: str
    hint: str = ""

    def open(self, train: bool, transform: Transform) -> Any:
        """torchvision's dataset where its files are, else :class:`IdxImages`, which gives the same bits."""
        if not self._is_torchvision_layout():
            return self.open_idx(train, transform)
        check_pair(*self._files(train), len(CLASSES), self.remedy)
        return open_torchvision("FashionMNIST", self.folder.parents[1], train, transform, self.name)

    def open_idx(self, train: bool, transform: Transform) -> IdxImages:
        """The same without torchvision, whose import takes 0.7 s."""
        return IdxImages(*self._files(train), CLASSES, transform, source=self.name, remedy=self.remedy)

    def _files(self, train: bool) -> tuple[Path, Path]:
        images, labels = (_file(self.folder, name) for name in part_names(train))
        assert images is not None and labels is not None  # `find` saw them
        return images, labels

    def _is_torchvision_layout(self) -> bool:
        if self.folder.parts[-2:] != ("FashionMNIST", "raw") or not has_torchvision():
            return False
        return all((self.folder / name).is_file() for train in (True, False) for name in part_names(train))


def find(root: Root, parts: Sequence[bool], quiet: bool) -> Source:
    """The first source that has the parts asked for (True: training, False: test), downloaded if need be."""
    for folder in folders(root):
        raw = folder / "FashionMNIST" / "raw"
        if _has(raw, parts):
            return _in_folder(raw)
    for folder in system_folders():
        packaged = folder / "datasets" / "fashion-mnist"
        if _has(packaged, parts):
            remedy = "Get it again with: apt-get install --reinstall dataset-fashion-mnist"
            return Source(packaged, f"Debian's package dataset-fashion-mnist ({packaged})", remedy)
    reason = obstacle(_PROBE_URL)
    if reason is None:
        target = download_folder(root)
        try:
            download("FashionMNIST", target, quiet)
            return _in_folder(target / "FashionMNIST" / "raw")
        except DownloadError as error:
            reason = str(error)
            warn(f"Fashion-MNIST: {reason}. Nothing of it was kept.")
    return _subset(reason)


def _in_folder(raw: Path) -> Source:
    return Source(raw, str(raw), f"Delete {raw}, and the data is looked for elsewhere or downloaded again.")


def _subset(reason: str) -> Source:
    hint = f" ({reason}). All 70,000: apt-get install dataset-fashion-mnist, or start again when the network answers."
    return Source(_SUBSET, "the subset that comes with relume", "Install relume again.", hint)


def _has(folder: Path, parts: Sequence[bool]) -> bool:
    names = [name for train in parts for name in part_names(train)]
    missing = [name for name in names if _file(folder, name) is None]
    if 0 < len(missing) < len(names):
        text = f"{folder} lacks {', '.join(missing)} and is passed over."
        warn(text)
    return not missing


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
