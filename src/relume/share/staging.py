"""Folders in which something is made before it takes its name, and what is left of them where a process was killed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil


def staged_name(name: str, ending: str) -> str:
    """A hidden name that tells whose it is: ``.fashion.4711-0123abcd.unpacking``."""
    return f".{name}.{os.getpid()}-{os.urandom(4).hex()}.{ending}"


def abandoned(folder: Path, name: str, *endings: str) -> Iterator[tuple[Path, str]]:
    """The staged folders of this name, with their endings, whose process is gone."""
    pattern = re.compile(re.escape(f".{name}.") + rf"(\d+)-[0-9a-f]{{8}}\.({'|'.join(endings)})\Z")
    for place in list(folder.iterdir()):
        found = pattern.match(place.name)
        if found is not None and not place.is_symlink() and not psutil.pid_exists(int(found[1])):
            yield place, found[2]
