"""A bundle is a function of its files, and no byte of it can change unseen."""

from __future__ import annotations

import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from relume.errors import BundleError, ModelFileError, UnsafeFileError
from relume.models.tensorfile import tensorfile_parts
from relume.share.archive import Layout, file_parts, write_archive
from relume.share.bundle import Bundle
from relume.share.manifest import Manifest, Member, check_paths


def contents() -> dict:
    state = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.ones(3), "tied": torch.zeros(0)}
    state["head"] = state["weight"]
    return {
        "README.md": lambda: [b"# A model\n"],
        "model.safetensors": lambda: tensorfile_parts(state),
        "code/train.py": lambda: [b"print(1)\n", b"print(2)\n"],
        "empty.txt": list,
        "bilder/gr\u00fcn.txt": lambda: [b"x" * 1000],
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_archive(tmp_path / "one.relume", "one", contents(), "0.1.0")
    return tmp_path / "one.relume"


def test_packing_twice_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write_archive(tmp_path / "two.relume", "one", dict(reversed(contents().items())), "0.1.0")
    assert path.read_bytes() == (tmp_path / "two.relume").read_bytes()


def test_any_tool_opens_it(path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[-1] == "manifest.json"
        assert archive.read("code/train.py") == b"print(1)\nprint(2)\n"
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        archive.extractall(tmp_path / "unpacked")
    assert Bundle.open(tmp_path / "unpacked").manifest == Bundle.open(path).manifest


def test_tensors_are_mapped_where_they_lie(path: Path) -> None:
    bundle = Bundle.open(path)
    state = bundle.tensors("model.safetensors").state
    assert list(state) == ["weight", "bias", "tied", "head"] and torch.equal(
        state["weight"], torch.arange(12.0).reshape(3, 4)
    )
    assert state["head"].data_ptr() == state["weight"].data_ptr() and state["weight"].data_ptr() % 64 == 0
    state["weight"].zero_()
    assert not Bundle(path).differences()


@pytest.mark.parametrize("tries", [300, pytest.param(6000, marks=pytest.mark.long)])
def test_no_byte_changes_unseen(path: Path, tries: int) -> None:
    whole, rng = path.read_bytes(), random.Random(1)
    places = range(len(whole)) if tries > len(whole) else rng.sample(range(len(whole)), tries)
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ModelFileError):
            Bundle.open(path)


@pytest.mark.parametrize("member", ["README.md", "model.safetensors", "code/train.py", "bilder/gr\u00fcn.txt"])
def test_a_file_with_a_changed_byte_is_named(path: Path, member: str) -> None:
    place, whole = Bundle(path).place(member), bytearray(path.read_bytes())
    whole[place.offset + place.size_bytes - 1] ^= 64
    path.write_bytes(whole)
    with pytest.raises(BundleError, match=rf"{member} was changed: its digest differs"):
        Bundle.open(path)


def test_a_folder_with_a_missing_an_additional_or_a_changed_file_is_refused(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    Bundle.open(folder)
    (folder / "code" / "train.py").unlink()
    (folder / "code" / "extra.py").write_text("x")
    (folder / "README.md").write_text("# B model\n")
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    for text in ("code/train.py is missing", "code/extra.py is not in the manifest", "README.md was changed"):
        assert text in str(caught.value)


def test_links_are_refused(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/hostname")
    with pytest.raises(UnsafeFileError, match="is a link"):
        Bundle(folder)


def test_what_was_packed_by_another_tool_is_named(path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "new.relume", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(BundleError, match="packed anew"):
        Bundle.open(tmp_path / "new.relume")


@pytest.mark.parametrize("change", ["missing", "additional"])
def test_a_missing_and_an_additional_file_of_an_archive_are_named(path: Path, tmp_path: Path, change: str) -> None:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "new.relume", "w") as new:
        for name in old.namelist():
            if not (change == "missing" and name == "README.md"):
                new.writestr(name, old.read(name))
        if change == "additional":
            new.writestr("code/more.py", "x")
    match = "README.md is missing" if change == "missing" else "code/more.py is not in the manifest"
    with pytest.raises(BundleError, match=match):
        Bundle.open(tmp_path / "new.relume")


@pytest.mark.parametrize(
    "bad",
    ["../x", "/etc/passwd", "a/../b", "a//b", "C:/x", "a\\b", "a/./b", "nul", "a/CON.txt", "x\n", "a. ", "", "manifest.json",
     "MANIFEST.json", "a\u202eb", "x" * 500, "\ud800"],
)  # fmt: skip
def test_paths_that_no_bundle_may_have(bad: str) -> None:
    with pytest.raises(UnsafeFileError):
        check_paths([bad])


def test_paths_that_clash() -> None:
    for several in (["a", "A"], ["a", "a"], ["a", "a/b"], ["\u00fc", "u\u0308"]):
        with pytest.raises(UnsafeFileError):
            check_paths(several)


def test_a_manifest_of_a_newer_format_says_so() -> None:
    text = Manifest.of("one", [], "9").text().replace(b'"format": 1', b'"format": 2')
    with pytest.raises(BundleError, match="newer"):
        Manifest.read(text, "x")


def test_files_of_many_gigabytes_have_the_form_that_zip_readers_expect(tmp_path: Path) -> None:
    """Sparse: 5 GB that nobody writes, read back by Python's reader and by unzip's rules."""
    big = Member(path="a.bin", size_bytes=5 << 30, blake3="0" * 64, crc32=0)
    small = Member(path="b.txt", size_bytes=3, blake3="0" * 64, crc32=0x352441C2)
    layout = Layout(Manifest.of("big", [big, small], ""))
    path = tmp_path / "big.zip"
    with path.open("wb") as file:
        for _, offset, frame in layout.frames():
            file.seek(offset)
            file.write(frame)
        file.seek(layout.offsets["b.txt"])
        file.write(b"abc")
    assert path.stat().st_size == layout.size_bytes
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("a.bin").file_size == 5 << 30 and archive.read("b.txt") == b"abc"


def test_a_killed_or_failed_packing_leaves_what_was_there(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()

    def fails() -> object:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        write_archive(path, "one", {**contents(), "z.bin": fails}, "0.1.0")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["one.relume"]


def test_files_of_the_disk_go_in(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 100)
    write_archive(tmp_path / "b.relume", "b", {"a.bin": file_parts(tmp_path / "a.bin")}, "")
    assert Bundle.open(tmp_path / "b.relume").read("a.bin") == (tmp_path / "a.bin").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "zipfile", "-t", tmp_path / "b.relume"], capture_output=True, check=True
    )
    assert b"Done" in done.stdout
