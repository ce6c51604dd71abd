"""A bundle's files as a folder: whole or not at all, and nothing outside of it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from relume.checkpoint import files
from relume.errors import BundleError, ConfigurationError
from relume.models.bundled import ENDING, is_bundle
from relume.share.bundle import Bundle
from relume.share.manifest import MANIFEST
from relume.share.staging import abandoned, staged_name

_MAX_NAME_BYTES = 150


def unpack(bundle: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, *, force: bool = False) -> Path:
    """Write the files of a bundle to a folder, which `relume.load_model` and the other readers take like the bundle.

    All bytes are compared with the manifest before anything is written, and once more as they were written. Files are
    plain ones: none is made executable. The folder has its name when everything is in it and on the disk, and not before.

    Args:
        bundle: the ``.relume`` file, or a folder that one was unpacked to.
        out: the folder. By default the bundle's name without its ending, where you are.
        force: replace a folder that a bundle was unpacked to. Any other that holds something is refused all the same.

    Returns:
        The folder.

    Raises:
        BundleError, UnsafeFileError: the bundle is damaged, was changed, or is made to deceive. Nothing was written.
        ConfigurationError: the folder holds something, or cannot be one.
        StoreWriteError: the disk is full, read-only or fails. What was there is as it was.

    Example:
        >>> from relume.share.archive import write_archive
        >>> _ = write_archive(tmp_path / "small.relume", "small", {"README.md": lambda: [b"# Small"]}, "0")
        >>> sorted(file.name for file in unpack(tmp_path / "small.relume", tmp_path / "small").iterdir())
        ['README.md', 'manifest.json']
    """
    target = _target(Path(bundle), out)
    _check(target, force)
    opened = Bundle.open(bundle)
    if target.exists() and opened.path.is_dir() and target.samefile(opened.path):
        raise ConfigurationError(f"{target} is the bundle itself.")
    _sweep(target)
    with files.explained(f"unpacking to {target.name}", target.parent), _staged(target) as beside:
        for path in opened.members():
            place = beside / path
            place.parent.mkdir(parents=True, exist_ok=True)
            files.write_new(place, [opened.buffer(path)])
        files.write_new(beside / MANIFEST, [opened.manifest.text()])
        if differences := Bundle(beside).differences():
            raise BundleError(
                f"{differences[0].member} reads otherwise than it was written to {beside.parent}: the disk fails, or the bundle "
                "was overwritten meanwhile. Nothing was kept."
            )
        _publish(beside, target)
    return target


def _target(bundle: Path, out: str | os.PathLike[str] | None) -> Path:
    if out is None:
        name = bundle.name.removesuffix(ENDING) if bundle.name.endswith(ENDING) else f"{bundle.name}-unpacked"
        out = name or "unpacked"
    text = os.fspath(out)
    if not text.strip() or "\0" in text:
        raise ConfigurationError(f"{out!r:.80} is no path of a folder.")
    target = Path(text).absolute()
    if not target.name or target.name == ".." or len(os.fsencode(target.name)) > _MAX_NAME_BYTES:
        raise ConfigurationError(f"{text:.80} cannot be the folder of a bundle: give a new name, such as fashion.")
    return target


def _check(target: Path, force: bool) -> None:
    if not target.parent.is_dir():
        raise ConfigurationError(f"there is no folder {target.parent} to unpack to.")
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ConfigurationError(f"{target} is there, and is no folder. Choose another with -o (out=).")
    if target.is_dir() and any(target.iterdir()):
        if not is_bundle(target):
            raise ConfigurationError(
                f"{target} is not empty, and what is in it is no bundle: nothing is put among it, and it is not replaced. "
                "Choose a new folder with -o (out=)."
            )
        if not force:
            raise ConfigurationError(
                f"{target} is not empty: a bundle was unpacked there. --force (force=True) replaces it with all that is in it; "
                "or choose a new folder with -o (out=)."
            )


@contextlib.contextmanager
def _staged(target: Path) -> Iterator[Path]:
    beside = target.with_name(staged_name(target.name, "unpacking"))
    beside.mkdir()
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _publish(beside: Path, target: Path) -> None:
    for folder, _, _ in os.walk(beside):
        files.sync_folder(Path(folder))
    old = beside.with_suffix(".replaced")
    if target.is_dir() and any(target.iterdir()):
        target.rename(old)
    try:
        beside.rename(target)  # fails where somebody else has put something there meanwhile
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    files.sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Remove what an unpacking to this folder left behind whose process was killed.

    Where it was killed between taking the old folder away and giving the new one its name, the old one gets its name back.
    """
    for place, ending in abandoned(target.parent, target.name, "unpacking", "replaced"):
        if ending == "replaced" and not target.exists():
            place.rename(target)
        else:
            shutil.rmtree(place, ignore_errors=True)
