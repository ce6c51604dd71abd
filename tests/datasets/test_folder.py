from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from dataset_files import write_image
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from relume.datasets import image_folder
from relume.datasets.folder import _split, find_parts
from relume.errors import ConfigurationError, DataError


def test_it_is_bit_equal_to_torchvisions_image_folder(pets: Path) -> None:
    write_image(pets / "cat" / "deeper" / "grey.bmp", mode="L")
    write_image(pets / "dog" / "LOUD.JPEG", width=30, height=50)
    (pets / "dog" / "notes.txt").write_text("not an image")
    shutil.copytree(pets, pets.parent / "parts" / "train")
    shutil.copytree(pets, pets.parent / "parts" / "val")
    steps = [transforms.Resize(16), transforms.CenterCrop(16), transforms.ToTensor()]
    theirs = datasets.ImageFolder(pets.parent / "parts" / "train", transforms.Compose(steps))
    ours = image_folder(pets.parent / "parts", size=16, quiet=True)
    assert ours.samples == theirs.samples and ours.targets == theirs.targets
    assert ours.classes == theirs.classes and ours.class_to_idx == theirs.class_to_idx
    for (image, label), (expected, expected_label) in zip(ours, theirs, strict=True):
        assert torch.equal(image, expected) and label == expected_label


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_subfolders_for_the_parts_are_recognised(pets: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    photos = pets.parent / "photos"
    shutil.copytree(pets, photos / "train")
    write_image(photos / name / "dog" / "rex.png")  # no cat here: labels are those of the training part
    assert len(image_folder(photos)) == 30
    held_out = image_folder(photos, train=False)
    assert held_out.samples == [(str(photos / name / "dog" / "rex.png"), 1)]
    source = f"{photos}/train and {photos}/{name}"
    assert (
        capsys.readouterr().err
        == f"{photos}: 30 training images from {source}\n{photos}: 1 test images from {source}\n"
    )


def test_of_several_held_out_parts_the_one_for_validation_is_taken(pets: Path) -> None:
    photos = pets.parent / "photos"
    for name in ("train", "test", "val"):
        shutil.copytree(pets, photos / name)
    assert image_folder(photos, train=False).source.endswith("photos/val")


def test_a_training_folder_alone_is_split(pets: Path) -> None:
    shutil.copytree(pets, pets.parent / "photos" / "train")
    assert len(image_folder(pets.parent / "photos", quiet=True)) == 27


def test_a_class_may_be_called_train(pets: Path) -> None:
    (pets / "cat").rename(pets / "train")
    assert image_folder(pets, quiet=True).classes == ["dog", "train"]


def test_a_tenth_of_each_class_is_held_out_and_always_the_same(pets: Path) -> None:
    train, test = (image_folder(pets, train=part, quiet=True) for part in (True, False))
    assert [test.targets.count(label) for label in (0, 1)] == [2, 1]
    assert [train.targets.count(label) for label in (0, 1)] == [18, 9]
    assert not set(train.samples) & set(test.samples)
    moved = pets.parent / "elsewhere" / "pets"
    shutil.copytree(pets, moved)
    names = [Path(path).relative_to(pets).as_posix() for path, _ in test.samples]
    again = image_folder(os.path.relpath(moved), train=False, quiet=True)  # another place, and a relative path
    assert [Path(path).relative_to(os.path.relpath(moved)).as_posix() for path, _ in again.samples] == names
    assert names == ["cat/1.png", "cat/7.png", "dog/4.png"]  # pinned: another hash would mix the parts


@given(st.lists(st.integers(1, 60), min_size=2, max_size=5).filter(lambda counts: max(counts) > 1))
def test_a_split_loses_nothing_and_takes_from_each_class(counts: list[int]) -> None:
    samples = [(f"/x/{label}/{number}.png", label) for label, count in enumerate(counts) for number in range(count)]
    train, test = _split(samples, Path("/x"))
    assert sorted(train + test) == sorted(samples)
    for label, count in enumerate(counts):
        held_out = sum(of == label for _, of in test)
        assert held_out == (max(1, round(count / 10)) if count > 1 else 0)


def test_one_more_image_moves_at_most_one_other(pets: Path) -> None:
    before = {path for path, _ in image_folder(pets, train=False, quiet=True).samples}
    for number in range(20, 25):
        write_image(pets / "cat" / f"{number}.png")
        after = {path for path, _ in image_folder(pets, train=False, quiet=True).samples}
        assert len(before - after) <= 1
        before = after


def test_images_have_one_size_and_three_channels(pets: Path) -> None:
    write_image(pets / "cat" / "grey.png", width=500, height=400, mode="L")
    dataset = image_folder(pets, quiet=True)
    assert {image.shape for image, _ in dataset} == {(3, 30, 30)}
    images, labels = next(iter(DataLoader(dataset, batch_size=4, num_workers=1)))
    assert images.shape == (4, 3, 30, 30) and labels.dtype == torch.int64
    assert {image.shape for image, _ in image_folder(pets, size=12, quiet=True)} == {(3, 12, 12)}


def test_large_images_are_made_224_by_default(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        write_image(tmp_path / "large" / name, width=300, height=400)
    assert image_folder(tmp_path / "large", quiet=True)[0][0].shape == (3, 224, 224)


def test_a_transform_of_the_users_gets_the_whole_image(pets: Path) -> None:
    assert image_folder(pets, transform=None, quiet=True)[0][0].size == (40, 30)
    assert image_folder(pets, transform=lambda image: image.size, quiet=True)[0][0] == (40, 30)


def test_hidden_files_and_folders_are_passed_over(pets: Path) -> None:
    (pets / ".ipynb_checkpoints").mkdir()
    (pets / "cat" / "._1.png").write_bytes(b"left by a Mac")
    dataset = image_folder(pets, quiet=True)
    assert dataset.classes == ["cat", "dog"] and len(dataset) == 27


def test_it_says_what_it_is_and_travels(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = image_folder(pets)
    source = f"{pets} (a tenth of each class held out)"
    assert capsys.readouterr().err == f"{pets}: 27 training images from {source}\n"
    assert repr(dataset) == f"FolderImages(27 images from {source}, transform=ToTensor(size=30))"
    assert pickle.loads(pickle.dumps(dataset)).samples == dataset.samples


# -------------------------------------------------------------------------------------------------- errors


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent is not there. Expected: PATH/CLASS/IMAGE"):
        image_folder(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is not a folder"):
        image_folder(tmp_path / "file")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no folders of classes. Expected: PATH/CLASS/IMAGE"):
        image_folder(tmp_path / "empty")


def test_images_without_folders_of_classes(pets: Path) -> None:
    with pytest.raises(DataError, match=r"cat holds 20 images but no folders of classes. Expected: PATH/CLASS/IMAGE"):
        image_folder(pets / "cat")


def test_a_single_class(pets: Path) -> None:
    shutil.rmtree(pets / "dog")
    with pytest.raises(DataError, match="pets holds one class only, 'cat': there is nothing to tell apart"):
        image_folder(pets)


def test_a_class_without_images(pets: Path) -> None:
    (pets / "bird").mkdir()
    with pytest.raises(DataError, match=r"pets/bird holds no images \(.jpg, .* Add some or delete it"):
        image_folder(pets)


def test_a_held_out_class_that_is_not_trained_on(pets: Path) -> None:
    shutil.copytree(pets, pets.parent / "photos" / "train")
    write_image(pets.parent / "photos" / "val" / "bird" / "1.png")
    with pytest.raises(DataError, match=r"photos/val holds classes that .*photos/train lacks: bird"):
        image_folder(pets.parent / "photos")


def test_a_held_out_part_without_classes(pets: Path) -> None:
    shutil.copytree(pets, pets.parent / "photos" / "train")
    write_image(pets.parent / "photos" / "val" / "1.png")
    with pytest.raises(DataError, match="photos/val holds no folders of classes"):
        image_folder(pets.parent / "photos")


def test_too_few_images_to_hold_any_out(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_image(tmp_path / "few" / name / "1.png")
    with pytest.raises(DataError, match="few has one image a class: none can be held out"):
        image_folder(tmp_path / "few")


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"text", lambda _: b""]
)
def test_an_image_that_cannot_be_read_is_named(pets: Path, damage) -> None:
    path = Path(image_folder(pets, quiet=True).samples[5][0])
    path.write_bytes(damage(path.read_bytes()))
    dataset = image_folder(pets, quiet=True)
    with pytest.raises(DataError, match=f"{path} cannot be read as an image: .*Replace it or delete it"):
        dataset[5]


def test_a_size_below_one(pets: Path) -> None:
    with pytest.raises(ConfigurationError, match="size=0"):
        image_folder(pets, size=0)


def test_a_share_of_each_class_is_held_out_by_seed(pets: Path) -> None:
    half = find_parts(pets, val_share=0.5)
    assert [sum(label == one for _, label in half.test) for one in (0, 1)] == [10, 5]
    assert half.source == f"{pets} (50% of each class held out)"
    other = find_parts(pets, val_share=0.5, split_seed=1)
    assert half.test == find_parts(pets, val_share=0.5).test != other.test
    assert len(other.test) == 15 and not set(other.train) & set(other.test)


def test_a_class_keeps_at_least_one_image_to_train_on(pets: Path) -> None:
    write_image(pets / "newt" / "only.png")
    write_image(pets / "owl" / "1.png")
    write_image(pets / "owl" / "2.png")
    parts = find_parts(pets, val_share=0.99)
    assert [sum(label == one for _, label in parts.train) for one in range(4)] == [1, 1, 1, 1]
    assert [sum(label == one for _, label in parts.test) for one in range(4)] == [19, 9, 0, 1]


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_that_makes_no_sense(pets: Path, share: float) -> None:
    with pytest.raises(ConfigurationError, match="the share held out for validation is"):
        find_parts(pets, val_share=share)


def test_what_is_split_already_is_not_split_again(pets: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(pets, pets.parent / "photos" / part)
    with pytest.raises(ConfigurationError, match="photos is split already: .*photos/val is what is held out"):
        find_parts(pets.parent / "photos", val_share=0.2)
