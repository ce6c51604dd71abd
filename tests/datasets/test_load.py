from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dataset_files import write_both_parts, write_image
from torch.utils.data import DataLoader
from torchvision import datasets

from relume.datasets import FolderImages, IdxImages, load
from relume.errors import ConfigurationError, DataError, DownloadError, RelumeWarning, UnknownNameError


def test_fashion_mnist_comes_in_two_parts_of_one_source(capsys: pytest.CaptureFixture[str]) -> None:
    data = load("fashion-mnist")
    assert (len(data.train), len(data.test)) == (5_000, 1_500)  # type: ignore[arg-type]
    assert (data.channels, data.size, data.classes[9]) == (1, 28, "Ankle boot")
    assert data.source == "the subset that comes with relume"
    said = capsys.readouterr().err
    assert said.startswith(
        "fashion-mnist: 5,000 training and 1,500 test images from the subset that comes with relume ("
    )
    assert said.count("\n") == 1
    assert isinstance(data.train, IdxImages) and data.train.relume_rows() is not None


def test_a_source_with_one_part_only_is_passed_over(tmp_path: Path) -> None:
    raw = write_both_parts(tmp_path / "FashionMNIST" / "raw")
    assert load("fashion-mnist", root=tmp_path, quiet=True).source == str(raw)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.warns(RelumeWarning, match="lacks t10k-labels-idx1-ubyte and is passed over"):
        assert load("fashion-mnist", root=tmp_path, quiet=True).source == "the subset that comes with relume"


def test_mnist_comes_in_two_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_both_parts(tmp_path / "MNIST" / "raw")
    data = load("mnist", root=tmp_path)
    assert type(data.train) is datasets.MNIST
    assert (len(data.classes), data.channels, data.size, data.source) == (10, 1, 28, str(raw))
    assert capsys.readouterr().err == f"mnist: 30 training and 20 test images from {raw}\n"


def test_a_folder_is_a_dataset(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (pets, str(pets)):
        data = load(path)
        assert isinstance(data.train, FolderImages) and isinstance(data.test, FolderImages)
        assert (data.classes, data.channels, data.size) == (["cat", "dog"], 3, 30)
        source = f"{pets} (a tenth of each class held out)"
        assert capsys.readouterr().err == f"{pets}: 27 training and 3 test images from {source}\n"


def test_a_name_goes_before_a_folder_and_a_path_is_always_a_folder() -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        write_image(Path("fashion-mnist", name))
        write_image(Path("mine", name))
    assert load("fashion-mnist", quiet=True).channels == 1
    assert load("./fashion-mnist", quiet=True).channels == 3
    assert load(Path("fashion-mnist"), quiet=True).channels == 3
    assert load("mine", quiet=True).channels == 3


@pytest.mark.parametrize("name", ["fashion-mnist", "mnist", "folder"])
def test_images_are_made_the_size_asked_for(tmp_path: Path, pets: Path, name: str) -> None:
    write_both_parts(tmp_path / "MNIST" / "raw")
    data = load(pets, size=16, quiet=True) if name == "folder" else load(name, root=tmp_path, size=16, quiet=True)
    for part in (data.train, data.test):
        images, _ = next(iter(DataLoader(part, batch_size=2)))
        assert images.shape == (2, data.channels, 16, 16) and images.dtype == torch.float32
    assert data.size == 16


def test_an_unknown_name_lists_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="no dataset and no folder 'fashon-mnist': did you mean 'fashion-mnist'"):
        load("fashon-mnist")
    with pytest.raises(UnknownNameError, match="known: cifar10, fashion-mnist, mnist"):
        load("xyz")


def test_a_folder_of_images_takes_no_other_root(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Leave one of them out"):
        load(pets, root=tmp_path)


def test_a_path_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DataError, match="here/photos is not there"):
        load("here/photos")


def test_what_cannot_be_had_is_an_error() -> None:
    with pytest.raises(DownloadError, match="CIFAR10 is in none of"):
        load("cifar10")
    with pytest.raises(ConfigurationError, match="size=0"):
        load("fashion-mnist", size=0)
