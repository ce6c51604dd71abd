"""Zip archives: those that torch writes are read, and those that could mean two things are refused."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pickle_files import Entry, zip_of

from relume.errors import ModelFileError, UnsafeFileError
from relume.models.archive import Archive

SYMLINK = 0o120777 << 16


def zip64(*values: int) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)


HOSTILE: dict[str, tuple[list[Entry], str]] = {
    "out of the archive": ([Entry("../../evil")], "leads out of the archive"),
    "within, and out": ([Entry("a/../../evil")], "leads out of the archive"),
    "absolute": ([Entry("/etc/passwd")], "leads out of the archive"),
    "drive": ([Entry("C:/evil")], "leads out of the archive"),
    "backslash": ([Entry("a\\..\\evil")], "backslash"),
    "NUL": ([Entry(b"a\0.txt")], "control character"),
    "newline": ([Entry("a\nb")], "control character"),
    "empty name": ([Entry("")], "leads out of the archive, or has no one meaning"),
    "no name twice": ([Entry("a//b")], "has no one meaning"),
    "dot": ([Entry("a/./b")], "has no one meaning"),
    "not UTF-8": ([Entry(b"\xff\xfe")], "is not UTF-8"),
    "twice": ([Entry("a"), Entry("a")], "is in it twice"),
    "twice but for case": ([Entry("archive/data.pkl"), Entry("archive/DATA.pkl")], "by case only"),
    "twice but for spelling": ([Entry("é"), Entry("e\u0301")], "is in it twice"),
    "file and folder": ([Entry("a"), Entry("a/", b"")], "is in it twice"),
    "folder with content": ([Entry("a/", b"data")], "claims 4 bytes"),
    "overlapping": ([Entry("a", b"x" * 100), Entry("b").lie(offset=0)], "contradicts the directory|overlaps"),
    "same bytes twice": ([Entry("a", b"x"), Entry("b", b"x").lie(offset=0).header(name=b"a")], "contradicts|overlaps"),
    "link": ([Entry("a").lie(made_by=3, external=SYMLINK)], "is a link"),
    "device": ([Entry("a").lie(made_by=3, external=0o020666 << 16)], "is a link or another special file"),
    "encrypted": ([Entry("a").lie(flags=1)], "is encrypted"),
    "strongly encrypted": ([Entry("a").lie(flags=1 << 6)], "is encrypted"),
    "unknown method": ([Entry("a").lie(method=14)], "by method 14"),
    "elsewhere": ([Entry("a").lie(disk=3)], "another part"),
    "other name in its header": ([Entry("a").header(name=b"b")], "contradicts"),
    "other method in its header": ([Entry("a").header(method=8)], "contradicts"),
    "other size in its header": ([Entry("a").header(size=5)], "contradicts"),
    "other stored size in its header": ([Entry("a").header(stored=5)], "contradicts"),
    "other checksum in its header": ([Entry("a").header(crc=5)], "contradicts"),
    "encrypted in its header": ([Entry("a").header(flags=1)], "contradicts"),
    "sizes unset in its header": ([Entry("a").header(size=0, stored=0)], "contradicts"),
    "other wide size in its header": (
        [Entry("a").lie(flags=8).header(extra=zip64(5, 5), size=0xFFFFFFFF, stored=0xFFFFFFFF)],
        "contradicts",
    ),
    "beyond the end": ([Entry("a").lie(stored=10**9, size=10**9)], "beyond where the entries end"),
    "into the directory": ([Entry("a").lie(stored=50, size=50)], "beyond where the entries end"),
    "wide and beyond": ([Entry("a").lie(stored=2**32 - 1, size=2**32 - 1, extra=zip64(2**62, 2**62))], "beyond"),
    "begins beyond the end": ([Entry("a").lie(offset=2**32 - 2)], "beyond the end"),
    "two sizes": ([Entry("a").lie(size=400)], "claims 400 bytes and takes 4"),
    "bomb": ([Entry("a", bytes(200 << 20), deflate=True)], "a compression bomb"),
    "many small bombs": ([Entry(f"a{n}", bytes(8 << 20), deflate=True) for n in range(10)], "a compression bomb"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_archives_that_torch_never_writes_are_refused(name: str, tmp_path: Path) -> None:
    entries, message = HOSTILE[name]
    path = zip_of(tmp_path / "a.pt", *entries)
    with pytest.raises(UnsafeFileError, match=message):
        Archive(path)


def test_a_longer_directory_than_it_counts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match="more than the entries that it counts"):
        Archive(zip_of(tmp_path / "a.pt", Entry("a"), Entry("b"), count=1))
    with pytest.raises(ModelFileError, match="directory"):
        Archive(zip_of(tmp_path / "a.pt", Entry("a"), count=2))
    with pytest.raises(ModelFileError, match="directory is not where it should be"):
        Archive(zip_of(tmp_path / "a.pt", Entry("a"), gap=b"x"))
    with pytest.raises(ModelFileError, match="does not end with a zip archive's directory"):
        Archive(zip_of(tmp_path / "a.pt", Entry("a"), comment=b"hello"))


def test_a_bomb_with_a_small_claim_is_refused_when_it_is_read(tmp_path: Path) -> None:
    entry = Entry("a", bytes(10 << 20), deflate=True).lie(size=100, crc=zlib.crc32(bytes(100)))
    archive = Archive(zip_of(tmp_path / "a.pt", entry))
    with pytest.raises(UnsafeFileError, match="inflates to more than the 100 bytes"):
        archive.read("a", 1000)
    short = Archive(zip_of(tmp_path / "b.pt", Entry("a", bytes(100), deflate=True).lie(size=1000)))
    with pytest.raises(ModelFileError, match="inflates to less"):
        short.read("a", 1000)
    broken = Archive(zip_of(tmp_path / "c.pt", Entry("a", b"\xff" * 100).lie(method=8)))
    with pytest.raises(ModelFileError, match="cannot be inflated"):
        broken.read("a", 1000)


def test_entries_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    archive = Archive(
        zip_of(tmp_path / "a.pt", Entry("a/b", b"hello" * 10, deflate=True), Entry("c"), Entry("d/", b""))
    )
    assert list(archive.entries) == ["a/b", "c"]
    assert archive.read("a/b", 50) == b"hello" * 10 and archive.read("c", 4) == b"data"
    with pytest.raises(UnsafeFileError, match="has 50 bytes, where at most 49 are expected"):
        archive.read("a/b", 49)
    with pytest.raises(UnsafeFileError, match="is compressed, which torch never does"):
        archive.mapped("a/b")
    with pytest.raises(ModelFileError, match="there is no 'e' in it"):
        archive.read("e", 1)
    wrong = Archive(zip_of(tmp_path / "b.pt", Entry("a").lie(crc=1)))
    assert wrong.damaged() == ["a"] and not archive.damaged()
    for read in (lambda: wrong.read("a", 10), lambda: wrong.mapped("a")):
        with pytest.raises(ModelFileError, match="the bytes of 'a' are not those that were written"):
            read()


def test_mapped_memory_is_private(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.pt", Entry("a", b"x" * 5000), Entry("b", b""))
    flat = Archive(path).mapped("a")
    flat.fill_(0)
    assert flat.count_nonzero() == 0 and Archive(path).mapped("a").eq(ord("x")).all()
    assert Archive(path).mapped("b").shape == (0,)


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(ModelFileError, match="there is no file"):
        Archive(path)
    with pytest.raises(ModelFileError, match="is a folder"):
        Archive(tmp_path)
    with pytest.raises(ModelFileError, match="there is no file"):
        Archive("a\0b")
    for content, message in {b"": "is empty", b"hello": "does not begin as", b"PK\x03\x04": "is damaged"}.items():
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            Archive(path)
    torch.save({"a": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 100):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="cut short"):
            Archive(path)
    path.write_bytes(b"PK\x03\x04" + bytes(100) + whole)
    with pytest.raises(ModelFileError, match="is not where it should be"):
        Archive(path)


def test_more_entries_than_16_bits_count(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        for number in range(70_000):
            file.writestr(zipfile.ZipInfo(f"a/{number}"), b"")
    assert len(Archive(tmp_path / "a.pt").entries) == 70_000


_NAMES = st.lists(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8), max_size=6)


@given(names=_NAMES, data=st.binary(max_size=300), deflate=st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_zipfile_writes_is_read(
    names: list[str], data: bytes, deflate: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    contents = {f"{number}-{name}": data[number:] for number, name in enumerate(names)}
    path = tmp_path_factory.mktemp("zip") / "a.pt"
    contents["last"] = b"x"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    archive = Archive(path)
    assert {name: archive.read(name, 300) for name in archive.entries} == contents


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(40.0), "b": torch.ones(3)}, buffer)
    return buffer.getvalue(), tmp_path_factory.mktemp("mutated") / "a.pt"


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_archive_gives_only_relumes_errors(data: st.DataObject, real: tuple[bytes, Path]) -> None:
    whole, path = real
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        changed[at] = data.draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
    path.write_bytes(bytes(changed[: data.draw(st.integers(len(whole) - 40, len(whole)))]))
    try:
        archive = Archive(path)
        for name in archive.entries:
            archive.read(name, 1 << 20)
            archive.mapped(name)
    except ModelFileError:
        pass
