"""A folder as the place: what travels, what is made of it, and what is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.checkpoint import files
from relume.errors import (
    BundleError,
    ConfigurationError,
    ExchangeError,
    MissingPackageError,
    StorageError,
    UnsafeFileError,
)
from relume.share.archive import write_archive
from relume.share.bundle import Bundle
from relume.share.exchange import pull, push
from relume.share.exchange.index import CHUNK_BYTES, Index, Source
from relume.share.manifest import Manifest, Member


def test_what_is_pulled_is_what_was_pushed(bundle: Path, tmp_path: Path) -> None:
    pushed = push(bundle, tmp_path / "shared")
    assert pushed.place == str(tmp_path / "shared" / "fashion") and pushed.there_bytes == 0
    for source in ("fashion", "fashion.relume", "fashion.relume.json", ""):
        pulled = pull(tmp_path / "shared" / source, tmp_path / f"{source or 'only'}-back.relume")
        assert pulled.path.read_bytes() == bundle.read_bytes() and pulled.digest == pushed.digest
    assert not list(tmp_path.rglob(".*")), "nothing is left behind"


def test_twice_sends_nothing_the_second_time(bundle: Path, tmp_path: Path) -> None:
    push(bundle, tmp_path / "shared")
    again = push(bundle, tmp_path / "shared")
    assert again.sent_bytes == 0 and again.there_bytes > 4_000_000
    pull(tmp_path / "shared", tmp_path / "back.relume")
    assert pull(tmp_path / "shared", tmp_path / "back.relume").received_bytes == 0


def test_an_unpacked_folder_is_pushed_as_the_file_is(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "unpacked")
    push(bundle, tmp_path / "shared")
    assert push(tmp_path / "unpacked", tmp_path / "shared", name="fashion").sent_bytes == 0


@pytest.mark.parametrize("classes", [3, 11, 500])
def test_another_head_on_one_backbone_sends_the_head_only(make, tmp_path: Path, classes: int) -> None:
    push(make("one", 10), tmp_path / "shared")
    pushed = push(make("two", classes), tmp_path / "shared")
    print(f"a head of {classes} classes: {pushed.sent_bytes:,} bytes sent, {pushed.there_bytes:,} were there")
    assert pushed.sent_bytes < classes * 512 * 4 + 40_000
    pull(tmp_path / "shared" / "one", tmp_path / "mine.relume")
    pulled = pull(tmp_path / "shared" / "two", tmp_path / "mine.relume")
    assert pulled.received_bytes < classes * 512 * 4 + 40_000
    assert pulled.path.read_bytes() == make("two", classes).read_bytes()


def test_the_folder_that_it_was_unpacked_to_gives_its_bytes(bundle: Path, tmp_path: Path) -> None:
    push(bundle, tmp_path / "shared")
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "fashion")
    pulled = pull(tmp_path / "shared", tmp_path / "fashion")
    assert pulled.received_bytes == 0 and pulled.path == tmp_path / "fashion.relume"
    assert pulled.path.read_bytes() == bundle.read_bytes()


@settings(max_examples=8, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 63, 5000, 65535, 65536, 300_000, CHUNK_BYTES, CHUNK_BYTES + 1]), max_size=4)
)
def test_any_files_come_back(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    folder = tmp_path_factory.mktemp("any")
    content = {f"{n}.bin": random.Random(n).randbytes(size) for n, size in enumerate(sizes)}
    write_archive(folder / "a.relume", "a", {name: (lambda data=data: [data]) for name, data in content.items()}, "1")
    index = Source(Bundle(folder / "a.relume")).index
    assert Index.read(index.text(), "here").text() == index.text()
    assert all(0 < chunk.size_bytes <= CHUNK_BYTES for chunk in index.chunks)
    push(folder / "a.relume", folder / "shared")
    assert pull(folder / "shared", folder / "b.relume").path.read_bytes() == (folder / "a.relume").read_bytes()
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


def test_a_damaged_bundle_is_not_pushed(bundle: Path, tmp_path: Path) -> None:
    with bundle.open("r+b") as file:
        file.seek(500_000)
        file.write(b"changed")
    with pytest.raises(BundleError, match=r"model.safetensors was changed"):
        push(bundle, tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_a_changed_object_is_found_and_mended(bundle: Path, tmp_path: Path) -> None:
    push(bundle, tmp_path / "shared")
    victim = max(
        (tmp_path / "shared" / "objects").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0
    )
    content = bytearray(victim.read_bytes())
    content[1000] ^= 1
    victim.write_bytes(content)
    with pytest.raises(
        ExchangeError, match=rf"{victim.name} is not what was pushed.*push|Push the bundle again with --force"
    ):
        pull(tmp_path / "shared", tmp_path / "back.relume")
    assert not (tmp_path / "back.relume").exists()
    push(bundle, tmp_path / "shared", force=True)
    assert pull(tmp_path / "shared", tmp_path / "back.relume").path.read_bytes() == bundle.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-9], "has .* bytes where .* were pushed"),
        (lambda content: content + b"more", "has .* bytes where .* were pushed"),
        (None, "is not there, though the index names it"),
    ],
)
def test_a_missing_or_longer_object_is_named(bundle: Path, tmp_path: Path, change, message: str) -> None:
    push(bundle, tmp_path / "shared")
    victim = tmp_path / "shared" / Source(Bundle(bundle)).index.chunks[3].path
    if change is None:
        victim.unlink()
    else:
        victim.write_bytes(change(victim.read_bytes()))
    with pytest.raises(ExchangeError, match=message):
        pull(tmp_path / "shared", tmp_path / "back.relume")
    push(bundle, tmp_path / "shared")
    pull(tmp_path / "shared", tmp_path / "back.relume")


def rewritten(folder: Path, change) -> None:
    path = folder / "fashion.relume.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def hostile(*members: Member) -> str:
    made = Manifest(name="evil", members=list(members))
    body = made.model_dump()
    text = (json.dumps({**body, "digest": ""}, indent=1, ensure_ascii=False) + "\n").encode()
    return Manifest(**{**body, "digest": blake3(text).hexdigest()}).text().decode()


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "C:evil", "a\\b", "con"])
def test_an_index_that_names_files_outside_is_refused(bundle: Path, tmp_path: Path, path: str) -> None:
    push(bundle, tmp_path / "shared")
    member = Member(path=path, size_bytes=1, blake3="0" * 64, crc32=0)
    rewritten(tmp_path / "shared", lambda document: document.update(manifest=hostile(member), chunks=[["0" * 64, 1]]))
    with pytest.raises(UnsafeFileError, match="Nothing of it was used"):
        pull(tmp_path / "shared", tmp_path / "out" / "back.relume")
    assert not (tmp_path / "out").exists() and not (tmp_path / "evil").exists()


def absurd(document: dict) -> None:
    member = Member(path="model.safetensors", size_bytes=(1 << 61) + 5, blake3="0" * 64, crc32=0)
    document.update(manifest=hostile(member), chunks=[["0" * 64, (1 << 61) + 5]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (absurd, "damaged one"),
        (lambda document: document["chunks"].pop(), "contradicts itself"),
        (lambda document: document["chunks"].append(["0" * 64, 7]), "contradicts itself"),
        (lambda document: document["chunks"].append(["0" * 64, 0]), "damaged one"),
        (lambda document: document["chunks"].append(["../../x", 7]), "damaged one"),
        (lambda document: document["chunks"].append(["A" * 64, 7]), "damaged one"),
        (lambda document: document["chunks"].append(7), "damaged one"),
        (lambda document: document.update(chunks=None), "damaged one"),
        (lambda document: document.update(manifest=5), "damaged one"),
        (lambda document: document.update(manifest=document["manifest"].replace("README", "readme")), "own digest"),
        (lambda document: document.update(format=2), "a newer relume pushed it"),
        (lambda document: document.pop("kind"), "something else"),
    ],
)
def test_an_index_that_was_changed_is_refused(bundle: Path, tmp_path: Path, change, message: str) -> None:
    push(bundle, tmp_path / "shared")
    rewritten(tmp_path / "shared", change)
    with pytest.raises(BundleError, match=message):
        pull(tmp_path / "shared" / "fashion.relume.json", tmp_path / "back.relume")
    assert not (tmp_path / "back.relume").exists()


def test_swapped_chunks_are_found_at_the_end(bundle: Path, tmp_path: Path) -> None:
    push(bundle, tmp_path / "shared")
    rewritten(tmp_path / "shared", lambda document: document["chunks"].reverse())
    with pytest.raises(BundleError, match="is not what was packed"):
        pull(tmp_path / "shared", tmp_path / "back.relume")
    assert not (tmp_path / "back.relume").exists()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "is no place"),
        ("https://127.0.0.1/x", "http is for pulling only"),
        ("nosuch://bucket/x", "fsspec cannot open it"),
        ("hf://only-a-user", "is no repository of the hub"),
        ("hf://user/name@", "is no repository of the hub"),
    ],
)
def test_places_that_are_none(bundle: Path, place: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        push(bundle, place)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x?y", "new\nline", "con"])
def test_names_that_no_place_has(bundle: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="name="):
        push(bundle, tmp_path / "shared", name=name)


def test_a_file_name_that_no_place_has_needs_another(bundle: Path, tmp_path: Path) -> None:
    odd = shutil.copy(bundle, tmp_path / "100% done.relume")
    with pytest.raises(ConfigurationError, match="Give another one with --name"):
        push(odd, tmp_path / "shelf")
    assert push(odd, tmp_path / "shelf", name="done").sent_bytes


def test_what_is_not_there_is_said_with_what_is(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="there is no bundle at .*empty"):
        pull(tmp_path / "empty")
    push(bundle, tmp_path / "shared")
    with pytest.raises(ExchangeError, match="there is no other.relume.json in .*There are: 'fashion'"):
        pull(tmp_path / "shared" / "other.relume.json")
    with pytest.raises(ExchangeError, match="there is no bundle at .*other. Check the address. There are: 'fashion'"):
        pull(tmp_path / "shared" / "other")
    push(bundle, tmp_path / "shared", name="second")
    with pytest.raises(ExchangeError, match="several bundles: name one.*'fashion', 'second'"):
        pull(tmp_path / "shared", tmp_path / "back.relume")


def test_an_out_that_ends_like_a_folder_is_one(bundle: Path, tmp_path: Path) -> None:
    push(bundle, tmp_path / "shared")
    assert pull(tmp_path / "shared", f"{tmp_path}/new/").path == tmp_path / "new" / "fashion.relume"
    assert pull(tmp_path / "shared", tmp_path / "new").path == tmp_path / "new" / "fashion.relume"


def test_a_file_that_is_no_bundle_is_not_overwritten(bundle: Path, tmp_path: Path) -> None:
    push(bundle, tmp_path / "shared")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match=r"thesis.txt is there and is no bundle"):
        pull(tmp_path / "shared", tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_to(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(ExchangeError, match="Permission denied. Check the folder's owner"):
        push(bundle, tmp_path / "closed")


def test_a_file_in_the_way(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExchangeError, match="There is a file in the way"):
        push(bundle, tmp_path / "file" / "below")


class Full:
    """The system with a disk of so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __getattr__(self, name: str):
        return getattr(os, name)

    def write(self, fd: int, data) -> int:
        if len(data) > self.room:
            raise OSError(28, "No space left on device")
        self.room -= len(data)
        return os.write(fd, data)


def test_a_full_disk_stops_a_pull_that_goes_on_later(bundle: Path, tmp_path: Path, monkeypatch) -> None:
    push(bundle, tmp_path / "shared")
    monkeypatch.setattr(files, "system", Full(2_500_000))
    with pytest.raises(ExchangeError, match="No space left on device. Make room, and call it again"):
        pull(tmp_path / "shared", tmp_path / "back.relume")
    monkeypatch.setattr(files, "system", os)
    pulled = pull(tmp_path / "shared", tmp_path / "back.relume")
    assert 0 < pulled.received_bytes < 3_000_000 and pulled.there_bytes > 1_000_000
    assert pulled.path.read_bytes() == bundle.read_bytes()


def test_a_full_disk_stops_a_push_that_goes_on_later(bundle: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "system", Full(2_500_000))
    with pytest.raises(StorageError, match="The disk is full"):
        push(bundle, tmp_path / "shared")
    monkeypatch.setattr(files, "system", os)
    assert not (tmp_path / "shared" / "fashion.relume.json").exists(), "the index is last"
    assert push(bundle, tmp_path / "shared").there_bytes > 1_000_000


def test_a_disk_without_room_is_said_before(bundle: Path, tmp_path: Path, monkeypatch) -> None:
    push(bundle, tmp_path / "shared")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(ExchangeError, match=r"needs 4\.\d MB, and 1.0 kB are free"):
        pull(tmp_path / "shared", tmp_path / "back.relume")


def test_an_older_pull_that_was_stopped_gives_its_bytes(make, tmp_path: Path, monkeypatch) -> None:
    push(make("fashion", 10), tmp_path / "shared")
    monkeypatch.setattr(files, "system", Full(3_000_000))
    with pytest.raises(ExchangeError, match="Make room"):
        pull(tmp_path / "shared", tmp_path / "back.relume")
    monkeypatch.setattr(files, "system", os)
    newer = make("fashion", 77)
    push(newer, tmp_path / "shared")
    pulled = pull(tmp_path / "shared", tmp_path / "back.relume")
    assert pulled.there_bytes > 1_000_000 and pulled.path.read_bytes() == newer.read_bytes()


def test_without_its_packages_it_says_what_to_install(bundle: Path) -> None:
    script = """
import sys
for name in ("fsspec", "huggingface_hub"):
    sys.modules[name] = None
import relume.errors
from relume.share.exchange import push
for place in ("s3://bucket/x", "hf://user/name"):
    try:
        push(sys.argv[1], place)
    except relume.errors.MissingPackageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(bundle)], capture_output=True, text=True, check=True)
    assert done.stdout.count('pip install "relume[hub]"') == 2, done.stdout + done.stderr


def test_a_file_system_that_is_not_installed_is_named(bundle: Path) -> None:
    pytest.importorskip("fsspec")
    if any(__import__("importlib.util").util.find_spec(name) for name in ("paramiko",)):
        pytest.skip("paramiko is installed")
    with pytest.raises(MissingPackageError, match="paramiko"):
        push(bundle, "sftp://user:secret@127.0.0.1/x")
