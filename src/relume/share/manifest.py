"""manifest.json: every file of a bundle with its size and digest, and a digest of the list itself."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, Literal

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from relume.errors import BundleError, UnsafeFileError
from relume.models.header import unique

MANIFEST = "manifest.json"
FORMAT = 1
MAX_BYTES = 16 << 20
_MAX_MEMBERS = 20_000
_MAX_PATH_BYTES = 400
_RESERVED = re.compile(r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?\Z")


class Member(BaseModel):
    """One file of a bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    """Below the bundle, with slashes."""
    size_bytes: int = Field(ge=0, lt=1 << 62)
    blake3: str = Field(pattern=r"^[0-9a-f]{64}$")
    crc32: int = Field(ge=0, lt=1 << 32)
    """As the archive has it."""


class Manifest(BaseModel):
    """What a bundle holds. ``digest`` is that of the text with an empty digest, and stands for the whole bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Literal["relume bundle"] = "relume bundle"
    name: str = Field(min_length=1, max_length=200)
    relume: str = ""
    """The version that packed it."""
    members: list[Member]
    """Sorted by path; the manifest itself is not among them."""
    digest: str = ""

    @classmethod
    def of(cls, name: str, members: Iterable[Member], relume: str) -> Manifest:
        """A manifest with its digest."""
        made = cls(name=name, relume=relume, members=sorted(members, key=lambda member: member.path))
        check_paths([member.path for member in made.members])
        return made.model_copy(update={"digest": _digest(made.model_dump())})

    def text(self) -> bytes:
        """The one form in which it is written."""
        return _text(self.model_dump())

    @classmethod
    def read(cls, content: bytes, where: str) -> Manifest:
        """Take a manifest apart, and compare it with its own digest.

        Raises:
            BundleError: it is damaged, changed, or of a newer format.
            UnsafeFileError: it names files that no bundle may hold.
        """
        try:
            data = json.loads(content, object_pairs_hook=unique)
            newer = isinstance(data, dict) and type(data.get("format")) is int and data["format"] > FORMAT
            if newer:
                raise BundleError(
                    f"{where}: {MANIFEST} has the format {data['format']}, and this relume knows {FORMAT}: a newer one packed "
                    "it. Update relume to open it."
                )
            made = cls.model_validate(data)
        except (ValidationError, ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise BundleError(f"{where}: {MANIFEST} is damaged ({reason:.200}). Get the bundle again.") from None
        if made.text() != content or made.digest != _digest(made.model_dump()):
            raise BundleError(
                f"{where}: {MANIFEST} is not what was packed: it does not match its own digest. Get the bundle again."
            )
        check_paths([member.path for member in made.members])
        return made


def check_paths(paths: list[str]) -> None:
    """Every path stays below the bundle, means one thing on every system, and is there once.

    Raises:
        UnsafeFileError: one does not; names it.
    """
    if len(paths) > _MAX_MEMBERS:
        raise UnsafeFileError(f"{len(paths):,} files in a bundle; at most {_MAX_MEMBERS:,} are read.")
    seen: dict[str, str] = {}
    for path in paths:
        if problem := _problem(path):
            raise UnsafeFileError(f"the bundle has a file {path!r:.200}, which {problem}. Nothing of it was used.")
        key = unicodedata.normalize("NFC", path).casefold()
        if key in seen or key == MANIFEST:
            raise UnsafeFileError(f"the bundle has {path!r:.200} twice, or names that differ by case only.")
        seen[key] = path
    for key in seen:
        for parent in PurePosixPath(key).parents:
            if str(parent) in seen:
                raise UnsafeFileError(f"the bundle has {seen[str(parent)]!r:.200} as a file and as a folder.")


def _problem(path: str) -> str:
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "is no text"
    if not path or size > _MAX_PATH_BYTES:
        return "has no name, or a very long one"
    if path.startswith("/") or "\\" in path or ":" in path or not path.isprintable():
        return "has a backslash, a colon or a control character in it, or leads out of the bundle"
    if path.startswith("."):
        return "is hidden, and no folder of a bundle would show it"
    for part in path.split("/"):
        if part.casefold().rstrip(" .") == ".git":
            return "is one of git's own, which git would obey"
        if part in ("", ".", "..") or part.endswith((" ", ".")) or part.startswith(" "):
            return "leads out of the bundle, or has no one meaning"
        if _RESERVED.match(part):
            return "is the name of a device on Windows"
    return ""


def _text(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def _digest(data: dict[str, Any]) -> str:
    return blake3(_text({**data, "digest": ""})).hexdigest()
