from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import DEBIAN, needs_all_images, write_idx, write_part
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchvision import datasets as vision
from torchvision import transforms

from relume.datasets import IdxImages, ToTensor
from relume.datasets.fashion import CLASSES
from relume.datasets.idx import check_pair, part_names, read_idx
from relume.errors import ConfigurationError, DataError

LONG = pytest.mark.long


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_part(tmp_path, "train", 30, ".gz")


def unpacked(source: Path, root: Path) -> Path:
    """torchvision's layout of the gzipped files in ``source``."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in [*part_names(True), *part_names(False)]:
        (raw / name).write_bytes(gzip.decompress((source / f"{name}.gz").read_bytes()))
    return root


@needs_all_images
@pytest.mark.parametrize(
    ("train", "every"), [(False, 5), (True, 30), pytest.param(False, 1, marks=LONG), pytest.param(True, 1, marks=LONG)]
)
def test_samples_of_the_whole_data_are_bit_equal_to_torchvisions(tmp_path: Path, train: bool, every: int) -> None:
    root = unpacked(DEBIAN, tmp_path)
    theirs = vision.FashionMNIST(root, train=train, transform=transforms.ToTensor())
    images, labels = (DEBIAN / f"{name}.gz" for name in part_names(train))
    ours = IdxImages(images, labels, CLASSES)

    assert len(ours) == len(theirs) == (60_000 if train else 10_000)
    assert torch.equal(ours.data, theirs.data) and ours.data.dtype == theirs.data.dtype
    assert torch.equal(ours.targets, theirs.targets) and ours.targets.dtype == theirs.targets.dtype
    assert ours.classes == theirs.classes and ours.class_to_idx == theirs.class_to_idx
    rows, row_labels = ours.relume_rows() or []
    for index in range(0, len(theirs), every):
        image, label = ours[index]
        expected, expected_label = theirs[index]
        assert image.dtype == expected.dtype and image.is_contiguous()
        assert torch.equal(image.view(torch.int32), expected.view(torch.int32))
        assert torch.equal(rows[index], expected)
        assert type(label) is type(expected_label) and label == expected_label == row_labels[index]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_transform_of_the_users_gets_the_same_pil_image_as_from_torchvision(tmp_path: Path, suffix: str) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    pair = write_part(raw, "train", 30, suffix)
    for part in ("train", "t10k"):
        write_part(raw, part, 30)
    theirs = vision.FashionMNIST(tmp_path, transform=None)
    ours = IdxImages(*pair, CLASSES, transform=None)
    image, label = ours[7]
    assert type(image) is type(theirs[7][0]) and image.mode == "L"
    assert image.tobytes() == theirs[7][0].tobytes() and label == theirs[7][1]
    ours.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    theirs.transform = ours.transform
    assert torch.equal(ours[-1][0], theirs[-1][0])
    assert ours.relume_rows() is None


def test_images_are_resized_by_the_transform(pair: tuple[Path, Path]) -> None:
    dataset = IdxImages(*pair, CLASSES, transform=ToTensor(32))
    assert dataset[0][0].shape == (1, 32, 32)
    assert dataset.relume_rows() is None


def test_it_works_in_loaders_with_workers_and_ends_when_iterated(pair: tuple[Path, Path]) -> None:
    dataset = IdxImages(*pair, CLASSES)
    assert len(list(dataset)) == 30
    images, labels = next(iter(DataLoader(dataset, batch_size=30, num_workers=1)))
    rows, row_labels = dataset.relume_rows() or []
    assert torch.equal(images, rows) and torch.equal(labels, row_labels)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3][0], dataset[3][0])


def test_it_says_what_it_is(pair: tuple[Path, Path]) -> None:
    dataset = IdxImages(*pair, CLASSES)
    assert dataset.source == str(pair[0])
    assert repr(dataset) == f"IdxImages(30 images from {pair[0]}, transform=ToTensor(size=None))"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(st.integers(0, 6), min_size=1, max_size=4), suffix=st.sampled_from(["", ".gz"]))
def test_whatever_is_written_is_read(tmp_path: Path, shape: list[int], suffix: str) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    read = read_idx(write_idx(tmp_path / f"array{suffix}", array), dimensions=len(shape))
    assert read.shape == tuple(shape) and np.array_equal(read.numpy(), array)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from(["", ".gz"]))
def test_a_file_cut_anywhere_is_an_error_that_names_it(tmp_path: Path, data: st.DataObject, suffix: str) -> None:
    images, labels = write_part(tmp_path, "train", 10, suffix)
    damaged = data.draw(st.sampled_from([images, labels]))
    content = damaged.read_bytes()
    damaged.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(DataError, match=f"{damaged.name} is damaged: .* Get it again"):
        IdxImages(images, labels, CLASSES, remedy="Get it again")


def test_a_file_of_another_kind_is_an_error(pair: tuple[Path, Path]) -> None:
    pair[0].write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="it starts with 3c 68 74 6d, an IDX file of this kind with 00 00 08 03"):
        IdxImages(*pair, CLASSES)


def test_images_and_labels_swapped_are_an_error(pair: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=r"labels-idx1-ubyte.gz is damaged: it starts with 00 00 08 01"):
        IdxImages(pair[1], pair[0], CLASSES)


def test_a_flipped_bit_in_a_gzipped_file_is_an_error(pair: tuple[Path, Path]) -> None:
    content = bytearray(pair[0].read_bytes())
    content[len(content) // 2] ^= 1
    pair[0].write_bytes(content)
    with pytest.raises(DataError, match=r"images-idx3-ubyte.gz is damaged"):
        IdxImages(*pair, CLASSES)


def test_bytes_too_many_are_an_error(tmp_path: Path) -> None:
    images, labels = write_part(tmp_path, "train", 10)
    images.write_bytes(images.read_bytes() + b"\0")
    with pytest.raises(DataError, match="it holds 7,857 bytes and its header promises 7,856"):
        IdxImages(images, labels, CLASSES)


def test_more_labels_than_images_are_an_error(tmp_path: Path) -> None:
    images, _ = write_part(tmp_path, "train", 10)
    _, labels = write_part(tmp_path, "t10k", 11)
    with pytest.raises(DataError, match="has 11 labels for 10 images"):
        IdxImages(images, labels, CLASSES)


def test_a_label_without_a_class_is_an_error(pair: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="has a label 9, the classes are 0 to 2"):
        IdxImages(*pair, ["a", "b", "c"])


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(DataError, match="folder cannot be read: Is a directory"):
        IdxImages(folder, pair[1], CLASSES)
    with pytest.raises(DataError, match="absent cannot be read: No such file"):
        check_pair(tmp_path / "absent", pair[1], 10, "")


def test_a_transform_that_is_none_is_an_error(pair: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigurationError, match="transform='tenser': it is \"tensor\", None"):
        IdxImages(*pair, CLASSES, transform="tenser")  # type: ignore[arg-type]
