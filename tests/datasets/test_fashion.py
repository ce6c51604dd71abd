from __future__ import annotations

import gc
import gzip
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import DEBIAN, Mirror, needs_all_images, write_both_parts, write_part
from torchvision import datasets, transforms

import relume.datasets
from relume.datasets import IdxImages, ToTensor, fashion_mnist
from relume.errors import DataError, RelumeWarning

SUBSET = Path(relume.datasets.__file__).parent / "fashion_mnist_subset"
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_fashion_mnist_subset.py"


def layout(root: Path) -> Path:
    return root / "FashionMNIST" / "raw"


def test_torchvisions_files_give_torchvisions_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_both_parts(layout(tmp_path / "given"))
    dataset = fashion_mnist(tmp_path / "given")
    assert type(dataset) is datasets.FashionMNIST
    assert type(dataset.transform) is transforms.ToTensor
    assert len(dataset) == 30 and dataset[0][0].shape == (1, 28, 28)
    assert dataset.source == str(raw)
    assert capsys.readouterr().err == f"fashion-mnist: 30 training images from {raw}\n"


def test_the_folders_are_searched_in_order(tmp_path: Path) -> None:
    def source() -> str:
        return fashion_mnist(tmp_path / "given", train=False, quiet=True).source  # type: ignore[attr-defined]

    assert source() == "the subset that comes with relume"
    packaged = write_both_parts(tmp_path / "system" / "datasets" / "fashion-mnist", ".gz")
    assert source() == f"Debian's package dataset-fashion-mnist ({packaged})"
    assert source() != (user := str(write_both_parts(layout(tmp_path / "user"))))
    assert source() == user
    write_both_parts(layout(Path("data")))
    assert source() == "data/FashionMNIST/raw"
    write_both_parts(layout(tmp_path / "given"))
    assert source() == str(layout(tmp_path / "given"))


def test_the_users_folder_is_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELUME_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    raw = write_both_parts(layout(tmp_path / "cache" / "relume" / "data"))
    assert fashion_mnist(quiet=True).source == str(raw)  # type: ignore[attr-defined]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    raw = write_both_parts(layout(tmp_path / "home" / ".cache" / "relume" / "data"))
    assert fashion_mnist(quiet=True).source == str(raw)  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_without_torchvision_its_files_are_read_all_the_same(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_both_parts(layout(tmp_path), suffix)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    dataset = fashion_mnist(tmp_path, quiet=True)
    assert type(dataset) is IdxImages and len(dataset) == 30


def test_one_part_is_enough_for_who_asks_for_no_more(tmp_path: Path) -> None:
    write_part(layout(tmp_path), "train", 30)
    assert len(fashion_mnist(tmp_path, quiet=True)) == 30  # type: ignore[arg-type]


def test_half_a_part_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    _, labels = write_part(layout(tmp_path), "train", 30)
    labels.unlink()
    with pytest.warns(RelumeWarning, match="FashionMNIST/raw lacks train-labels-idx1-ubyte and is passed over"):
        assert len(fashion_mnist(tmp_path, quiet=True)) == 5_000  # type: ignore[arg-type]


def test_a_damaged_file_is_an_error_and_no_step_to_the_next_source(tmp_path: Path) -> None:
    images = layout(tmp_path) / "train-images-idx3-ubyte"
    write_both_parts(images.parent)
    images.write_bytes(images.read_bytes()[:-1])
    message = f"{images} is damaged: it holds 23,535 bytes .* promises 23,536. Delete {images.parent}, and the data is"
    with pytest.raises(DataError, match=message):
        fashion_mnist(tmp_path)
    packaged = write_both_parts(tmp_path / "system" / "datasets" / "fashion-mnist", ".gz")
    (packaged / "train-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"it starts with nothing, .* apt-get install --reinstall dataset-fashion-mnist"
    ):
        fashion_mnist()


def test_quiet_says_nothing_and_a_transform_is_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_both_parts(layout(tmp_path))
    for root in (tmp_path, None):
        assert fashion_mnist(root, transform=ToTensor(8), quiet=True)[0][0].shape == (1, 8, 8)
        assert fashion_mnist(root, transform=None, quiet=True)[0][0].size == (28, 28)
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------ download


def test_what_the_network_has_is_downloaded_once(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = fashion_mnist(tmp_path / "given", train=False)
    raw = layout(tmp_path / "given")
    assert type(dataset) is datasets.FashionMNIST and len(dataset) == 20
    said = capsys.readouterr().err
    assert said.startswith(f"downloading FashionMNIST to {tmp_path / 'given'}\n")
    assert said.endswith(f"fashion-mnist: 20 test images from {raw}\n")
    assert {path.name for path in raw.iterdir()} == {name.removesuffix(".gz") for name in mirror.files}
    assert [path.name for path in (tmp_path / "given").iterdir()] == ["FashionMNIST"]
    mirror.asked.clear()
    fashion_mnist(tmp_path / "given", quiet=True)
    assert mirror.asked == []


def test_a_download_goes_to_the_users_folder_and_quiet_is_quiet(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fashion_mnist(quiet=True).source == str(layout(tmp_path / "user"))  # type: ignore[attr-defined]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("fault", ["cut", "changed", "absent"])
def test_a_download_that_breaks_off_leaves_nothing_and_the_subset_is_used(
    tmp_path: Path, mirror: Mirror, fault: str
) -> None:
    name = "t10k-images-idx3-ubyte.gz"
    if fault == "cut":
        mirror.cut[name] = 1000
    elif fault == "changed":
        mirror.files[name] = gzip.compress(b"something else")
    else:
        del mirror.files[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # torchvision leaves the answer to a refused request open
        with pytest.warns(RelumeWarning, match="Fashion-MNIST: the download broke off: .* Nothing of it was kept"):
            dataset = fashion_mnist(tmp_path / "given", quiet=True)
        gc.collect()
    assert dataset.source == "the subset that comes with relume"  # type: ignore[attr-defined]
    assert not list((tmp_path / "given").iterdir())


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, mirror: Mirror) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(RelumeWarning, match="the download broke off: .*File exists"):
        fashion_mnist(tmp_path / "file", quiet=True)


# ------------------------------------------------------------------------------------------------ subset


def test_the_subset_says_why_it_is_used_and_how_to_get_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fashion_mnist()
    assert capsys.readouterr().err == (
        "fashion-mnist: 5,000 training images from the subset that comes with relume (the network does not answer "
        "(fashion-mnist.s3-website.eu-central-1.amazonaws.com)). All 70,000: apt-get install dataset-fashion-mnist, "
        "or start again when the network answers.\n"
    )
    monkeypatch.setitem(sys.modules, "torchvision", None)
    fashion_mnist(train=False)
    assert 'relume (downloading needs torchvision: pip install "relume[vision]")' in capsys.readouterr().err


def test_the_subset_is_stratified_licensed_and_small() -> None:
    for train, per_class in ((True, 500), (False, 150)):
        dataset = fashion_mnist(train=train, quiet=True)
        assert isinstance(dataset, IdxImages)
        assert torch.bincount(dataset.targets).tolist() == [per_class] * 10
        assert dataset.targets[:50].unique().numel() > 5  # mixed, not one class after the other
    assert sum(path.stat().st_size for path in SUBSET.iterdir()) <= 3_000_000
    assert "Copyright (c) 2017 Zalando SE" in (SUBSET / "LICENSE").read_text()


@needs_all_images
def test_the_subset_is_what_its_script_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SCRIPT, DEBIAN, tmp_path], check=True, capture_output=True)
    for path in SUBSET.glob("*.gz"):
        assert gzip.decompress((tmp_path / path.name).read_bytes()) == gzip.decompress(path.read_bytes())


def test_the_subset_can_be_learned() -> None:
    train, test = (fashion_mnist(train=part, quiet=True).relume_rows() for part in (True, False))  # type: ignore[attr-defined]
    means = torch.stack([train[0][train[1] == label].mean(0) for label in range(10)])
    nearest = torch.cdist(test[0].flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == test[1]).float().mean() > 0.6


@pytest.mark.parametrize("source", ["subset", pytest.param("debian", marks=needs_all_images)])
def test_torchvision_is_not_imported_for_files_that_need_none(tmp_path: Path, source: str) -> None:
    if source == "debian":
        shutil.copytree(DEBIAN, tmp_path / "system" / "datasets" / "fashion-mnist")
    code = (
        "import sys; from relume.datasets import fashion_mnist, load; d = fashion_mnist(); d[0]; load('fashion-mnist');"
        "print(len(d), [m for m in ('torchvision', 'PIL', 'timm') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(SUBSET.parents[2])}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split(maxsplit=1) == ["60000" if source == "debian" else "5000", "[]\n"]
    assert len(done.stderr.splitlines()) == 2


def test_all_sources_speak_of_the_same_classes() -> None:
    dataset = fashion_mnist(quiet=True)
    assert isinstance(dataset, IdxImages)
    assert dataset.classes == datasets.FashionMNIST.classes
    assert np.array_equal(dataset.data[0].numpy(), np.asarray(fashion_mnist(transform=None, quiet=True)[0][0]))
