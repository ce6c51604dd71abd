"""A bundle is unpacked whole or not at all, and nowhere else."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from made_bundles import packed

import relume
from relume.errors import BundleError, ConfigurationError, UnsafeFileError
from relume.share.bundle import Bundle
from relume.share.unpacking import unpack


@pytest.fixture
def path(tmp_path: Path) -> Path:
    code = {"deep/er/train.py": "print(1)\n", "run.sh": "#!/bin/sh\n", "empty.py": ""}
    return packed(tmp_path / "pets.relume", relume.models.MLP(classes=2), code=code)


def everything(folder: Path) -> set[str]:
    return {one.relative_to(folder).as_posix() for one in folder.rglob("*")}


def test_the_folder_is_the_bundle(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = unpack("pets.relume")
    assert folder == tmp_path / "pets" and Bundle.open(folder).manifest == Bundle.open(path).manifest
    assert {one.name for one in tmp_path.iterdir()} == {"pets", "pets.relume"}
    assert Bundle.open(unpack(folder, tmp_path / "copy")).manifest == Bundle.open(path).manifest


def test_files_are_plain(path: Path, tmp_path: Path) -> None:
    for file in unpack(path, tmp_path / "out").rglob("*"):
        if file.is_file():
            assert not file.stat().st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH | stat.S_ISUID)


def test_a_folder_that_holds_something_is_left_alone(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    unpack(path, out)  # an empty one is fine
    (out / "README.md").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"a bundle was unpacked there. --force \(force=True\) replaces it"):
        unpack(path, out)
    assert (out / "README.md").read_text() == "mine"
    unpack(path, out, force=True)
    assert not (out / "README.md").exists() and not Bundle(out).differences()
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigurationError, match="what is in it is no bundle"):
        unpack(path, home, force=True)
    assert everything(home) == {"thesis.tex"}


def test_places_that_cannot_be_are_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    wrong = {
        tmp_path / "file": "is there, and is no folder",
        tmp_path / "link": "is there, and is no folder",
        tmp_path / "no" / "such": "there is no folder .*no to unpack to",
        "": "is no path of a folder",
        "a\0b": "is no path of a folder",
        "/": "cannot be the folder of a bundle",
        tmp_path / "..": "cannot be the folder of a bundle",
        tmp_path / ("x" * 300): "cannot be the folder of a bundle",
    }
    before = everything(tmp_path)
    for place, message in wrong.items():
        with pytest.raises(ConfigurationError, match=message):
            unpack(path, place)
    folder = unpack(path, tmp_path / "own")
    with pytest.raises(ConfigurationError, match="is the bundle itself"):
        unpack(folder, folder, force=True)
    assert everything(tmp_path) == before | {"own"} | {f"own/{name}" for name in everything(folder)}


def test_a_changed_bundle_leaves_nothing(path: Path, tmp_path: Path) -> None:
    place, whole = Bundle(path).place("model.safetensors"), bytearray(path.read_bytes())
    whole[place.offset + 100_000] ^= 1
    path.write_bytes(whole)
    before = everything(tmp_path)
    with pytest.raises(BundleError, match="model.safetensors was changed"):
        unpack(path, tmp_path / "out")
    assert everything(tmp_path) == before


def test_a_full_disk_leaves_what_was_there(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real limit of the system on the size of files stands in for the disk."""
    out = unpack(path, tmp_path / "out")
    (out / "note.txt").write_text("mine")
    before = everything(tmp_path)
    script = (
        "import resource, signal, sys\n"
        "from relume.share.unpacking import unpack\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"unpack({str(path)!r}, {str(out)!r}, force=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "StoreWriteError: unpacking to out failed" in ended.stderr
    assert everything(tmp_path) == before and (out / "note.txt").read_text() == "mine"


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_killed_in_the_middle_it_leaves_no_half_folder_and_the_next_cleans_up(tmp_path: Path, kills: int) -> None:
    files = {f"code/{number:03}.txt": os.urandom(2000) for number in range(60)}
    path = packed(tmp_path / "many.relume", state={"a": torch.zeros(9)}, files=files)
    out = tmp_path / "out"
    script = (
        "from relume.share.unpacking import unpack\nimport sys\n"
        f"print('ready', flush=True)\nsys.stdin.readline()\nunpack({str(path)!r}, {str(out)!r})\nprint('done', flush=True)\n"
    )
    half = 0
    for kill in range(kills):
        child = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("\n")
        child.stdin.flush()
        wanted = 1 + kill * 19 % len(files)
        while child.poll() is None and not out.exists() and written(tmp_path) < wanted:
            time.sleep(0)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
        half += bool(list(tmp_path.glob(".out.*")))
        if out.exists():
            assert not Bundle(out).differences()
            unpack(path, out, force=True)
            assert not Bundle(out).differences()
            out.rename(tmp_path / f"done-{kill}")
    assert half
    unpack(path, out)
    assert not list(tmp_path.glob(".out.*")) and not Bundle(out).differences()


def written(folder: Path) -> int:
    return sum(len(files) for place, _, files in os.walk(folder) if "unpacking" in place)


def test_a_replacement_that_was_killed_between_its_two_renames_gives_the_old_folder_back(
    path: Path, tmp_path: Path
) -> None:
    out = unpack(path, tmp_path / "out")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()  # its number is nobody's
    out.rename(tmp_path / f".out.{child.pid}-0123abcd.replaced")
    (tmp_path / f".out.{child.pid}-0123abcd.unpacking").mkdir()
    unpack(path, out, force=True)
    assert not list(tmp_path.glob(".out.*")) and not Bundle(out).differences()


@pytest.mark.parametrize("name", [".bashrc", ".git/hooks/post-checkout", "code/.git/config", "code/.GIT/config"])
def test_files_that_programs_would_obey_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeFileError, match="hidden|git's own"):
        packed(tmp_path / "a.relume", state={"a": torch.zeros(1)}, files={name: b"x"})
