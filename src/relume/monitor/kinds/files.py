"""Files of what is kept: named by the digest of their bytes, so that the same thing is stored once, and never in part."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

from blake3 import blake3

from relume.errors import RunError
from relume.text import printable

FOLDER = "media"
_NAME = re.compile(r"media/([0-9a-f]{2})/(\1[0-9a-f]{62})\.(png|svg|json|safetensors|txt)")


def keep(folder: Path, data: bytes, extension: str) -> str:
    """Store ``data`` below the run's ``folder``, whole or not at all; returns the file's place, relative to ``folder``."""
    digest = blake3(data).hexdigest()
    name = f"{FOLDER}/{digest[:2]}/{digest}.{extension}"
    path = folder / name
    if path.exists() and path.stat().st_size == len(data):
        return name
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return name


def kept(folder: Path, name: object) -> bytes:
    """The bytes of a file that a content names.

    Raises:
        RunError: the name is none that relume gives, the file is gone, or its bytes are not those that were stored.
    """
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise RunError(
            f"{printable(name)!r} in the journal of {folder} is no file of a run's media. It was not opened."
        )
    path = folder / match[0]
    if path.exists() and not path.is_file():
        raise RunError(f"{path} is no file.")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path} is gone. Copy the folder {FOLDER}/ of the run too, from where the run was.") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error
    if blake3(data).hexdigest() != match[2]:
        raise RunError(f"{path} is damaged: its bytes are not those that were stored.")
    return data
