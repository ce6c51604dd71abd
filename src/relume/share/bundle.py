"""A bundle, opened: every byte compared with the manifest before anything of it is used."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from relume.checkpoint.files import Buffer
from relume.checkpoint.hashing import hash_bytes
from relume.errors import BundleError, ModelFileError, UnsafeFileError
from relume.models.archive import Archive, map_file
from relume.models.contents import ModelFile
from relume.models.header import unique
from relume.models.tensorfile import read_tensorfile
from relume.share.archive import Layout
from relume.share.manifest import MANIFEST, MAX_BYTES, Manifest

ENDING = ".relume"
_MAX_DOCUMENT_BYTES = 64 << 20
_Document = TypeVar("_Document", bound=BaseModel)


@dataclass(frozen=True)
class Place:
    """Where the bytes of a member lie."""

    path: Path
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Difference:
    """What is not as it was packed. ``member`` is a path in the bundle, empty for the archive around the files."""

    member: str
    problem: str


class Bundle:
    """A ``.relume`` file, or the folder that it was unpacked to.

    Opening reads the manifest and the structure. Use :meth:`open`, which compares every byte, wherever content is used.

    Args:
        path: the file or the folder.

    Attributes:
        manifest: names and digests of the files in it.
        name: what it is called.

    Raises:
        BundleError: there is no such file, it is no bundle, or it is damaged.
        UnsafeFileError: it is made to deceive: names that lead out of it, links, files that overlap.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._seen: dict[Path, tuple[int, ...]] = {}
        self._memory = memoryview(b"")
        self._structure: list[Difference] = []
        self.manifest, self._places = _opened_folder(self) if self.path.is_dir() else _opened_file(self)
        self.name = self.manifest.name

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle and compare all of its bytes with its manifest.

        Raises:
            BundleError: as the constructor; or something differs: names the files.
        """
        bundle = cls(path)
        if found := bundle.differences():
            shown = "; ".join(f"{one.member or 'the archive'} {one.problem}" for one in found[:6])
            more = f", and {len(found) - 6} others" if len(found) > 6 else ""
            raise BundleError(f"{path} is not what was packed: {shown}{more}. Nothing of it was used; get it again.")
        return bundle

    def differences(self) -> list[Difference]:
        """Everything that is not as it was packed. Reads the whole bundle (575 MB: about 0.2 s)."""
        found = list(self._structure)
        for member in self.manifest.members:
            place = self._places.get(member.path)
            if place is None:
                found.append(Difference(member.path, "is missing"))
            elif place.size_bytes != member.size_bytes:
                found.append(
                    Difference(member.path, f"has {place.size_bytes:,} bytes where {member.size_bytes:,} were packed")
                )
            elif hash_bytes(self._buffer(place)) != member.blake3:
                found.append(Difference(member.path, "was changed: its digest differs"))
        known = {member.path for member in self.manifest.members}
        found += [Difference(path, "is not in the manifest") for path in self._places if path not in known]
        return found

    def __contains__(self, member: str) -> bool:
        return member in self._places

    def members(self, folder: str = "") -> Iterator[str]:
        """The paths of all files, or of those below a folder (``"code/"``)."""
        return (member.path for member in self.manifest.members if member.path.startswith(folder))

    def place(self, member: str) -> Place:
        """Where the bytes of a file lie."""
        try:
            return self._places[member]
        except KeyError:
            raise BundleError(f"{self.path} holds no {member}.") from None

    def buffer(self, member: str) -> Buffer:
        """The bytes of a file, mapped: read when they are used."""
        return self._buffer(self.place(member))

    def read(self, member: str, limit_bytes: int = _MAX_DOCUMENT_BYTES) -> bytes:
        """The bytes of a file.

        Raises:
            BundleError: there is no such file in it, or it is longer than ``limit_bytes``.
        """
        place = self.place(member)
        if place.size_bytes > limit_bytes:
            raise BundleError(f"{self.path}: {member} has {place.size_bytes:,} bytes; {limit_bytes:,} are the most.")
        return bytes(self._buffer(place))

    def document(self, member: str, kind: type[_Document]) -> _Document:
        """A JSON file as what it holds.

        Raises:
            BundleError: there is none, or it is not of this form.
        """
        try:
            return kind.model_validate(json.loads(self.read(member), object_pairs_hook=unique))
        except (ValidationError, ValueError, RecursionError) as error:
            raise BundleError(f"{self.path}: {member} is not understood: {str(error).splitlines()[0]:.200}") from None

    def tensors(self, member: str) -> ModelFile:
        """A safetensors file in it; its tensors are pages of the bundle, read when they are used.

        Raises:
            BundleError: there is none. ModelFileError, UnsafeFileError: it is damaged, or contradicts itself.
        """
        place = self.place(member)
        self._check_same(place.path)
        try:
            return read_tensorfile(place.path, start=place.offset, size_bytes=place.size_bytes)
        finally:
            self._check_same(place.path)

    def _buffer(self, place: Place) -> Buffer:
        if not place.size_bytes:
            return b""
        return self._mapped(place.path)[place.offset : place.offset + place.size_bytes]

    def _mapped(self, path: Path) -> memoryview:
        if path == self.path:
            return self._memory
        self._check_same(path)
        memory = memoryview(map_file(path))
        self._check_same(path)
        return memory

    def _check_same(self, path: Path) -> None:
        """What is opened by its name again is the file that was compared with the manifest."""
        try:
            status = path.stat()
        except OSError as error:
            raise BundleError(f"{path} is gone, or cannot be read any more: {error.strerror}.") from None
        now = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if self._seen.setdefault(path, now) != now:
            raise BundleError(
                f"{path} was replaced or written to while it was open. Nothing of it was used; open it again."
            )


def _opened_file(bundle: Bundle) -> tuple[Manifest, Mapping[str, Place]]:
    try:
        if bundle.path.is_file():
            bundle._check_same(bundle.path)
        archive = Archive(bundle.path, writer="relume")
        bundle._memory = memoryview(archive.content)
        bundle._check_same(bundle.path)
        if MANIFEST not in archive.entries:
            raise BundleError(f"{bundle.path} is no bundle: it is an archive without a {MANIFEST}.")
        manifest = Manifest.read(archive.read(MANIFEST, MAX_BYTES), str(bundle.path))
    except (BundleError, UnsafeFileError):
        raise
    except ModelFileError as error:
        raise BundleError(str(error)) from error
    places = {
        name: Place(bundle.path, entry.offset, entry.size_bytes)
        for name, entry in archive.entries.items()
        if name != MANIFEST
    }
    bundle._structure = list(_structure(archive, manifest))
    return manifest, places


def _structure(archive: Archive, manifest: Manifest) -> Iterator[Difference]:
    layout, content = Layout(manifest), memoryview(archive.content)
    same_files = {name: entry.size_bytes for name, entry in archive.entries.items()} == {
        member.path: member.size_bytes for member in layout.members
    }
    if not same_files:
        return  # what is missing or additional is named one by one
    if layout.size_bytes != len(content):
        yield Difference("", f"has {len(content):,} bytes where {layout.size_bytes:,} were packed: it was packed anew")
        return
    for what, offset, expected in layout.frames():
        if content[offset : offset + len(expected)] != expected:
            yield Difference("", f"was changed in {what}")


def _opened_folder(bundle: Bundle) -> tuple[Manifest, Mapping[str, Place]]:
    root = bundle.path
    path = root / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{root} is no bundle: it is a folder without a {MANIFEST}.")
    if path.stat().st_size > MAX_BYTES:
        raise BundleError(f"{path} is longer than any manifest.")
    manifest = Manifest.read(path.read_bytes(), str(root))
    places: dict[str, Place] = {}
    for folder, folders, names in os.walk(root):
        inner = Path(folder)
        if inner == root:  # what git and others keep beside it
            folders[:] = [name for name in folders if not name.startswith(".")]
            names = [name for name in names if not name.startswith(".") and name != MANIFEST]
        for name in [*names, *(name for name in folders if (inner / name).is_symlink())]:
            file = inner / name
            if file.is_symlink() or not file.is_file():
                raise UnsafeFileError(f"{file} is a link or no file: a bundle holds files only.")
            places[file.relative_to(root).as_posix()] = Place(file, 0, file.stat().st_size)
    return manifest, places
