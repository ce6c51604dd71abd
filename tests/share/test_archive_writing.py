"""An archive is what its manifest says, or it is not written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relume.errors import BundleError
from relume.share.archive import write_archive
from relume.share.bundle import Bundle


@pytest.mark.parametrize("second", [b"other", b"longer than it was", b""])
def test_content_that_changes_between_measuring_and_writing_is_found(tmp_path: Path, second: bytes) -> None:
    given = iter([b"first", second])
    path = tmp_path / "one.relume"
    path.write_bytes(b"what was there")
    with pytest.raises(BundleError, match=r"a\.txt changed while it was packed"):
        write_archive(path, "one", {"a.txt": lambda: [next(given)], "b.txt": lambda: [b"same"]}, "0")
    assert path.read_bytes() == b"what was there" and list(tmp_path.iterdir()) == [path]


_KILLED = """
import os, signal, sys
from pathlib import Path
from relume.share.archive import write_archive
reads = 0
def parts():
    global reads
    reads += 1
    yield b"a" * (4 << 20)
    if reads > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    yield b"b"
write_archive(Path(sys.argv[1]), "one", {"a.bin": parts}, "0")
"""


def test_killed_while_writing_leaves_what_was_there_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "one.relume"
    files: dict[str, Callable[[], list[bytes]]] = {"a.bin": lambda: [b"before"]}
    write_archive(path, "one", files, "0")
    done = subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert Bundle.open(path).read("a.bin") == b"before"
    [left] = tmp_path.glob(".one.relume.*.tmp")
    write_archive(path, "one", files, "0")
    assert left.exists(), "it could be another machine's that is writing now"
    os.utime(left, (0, 0))
    own = left.with_name(f".one.relume.{os.getpid()}-00000000.tmp")
    own.touch()
    os.utime(own, (0, 0))
    write_archive(path, "one", files, "0")
    own.unlink()
    assert list(tmp_path.iterdir()) == [path], "what the killed one left is removed"
