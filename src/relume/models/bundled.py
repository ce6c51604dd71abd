"""Bundles, as what reads files sees them. What is in one is known above, to `relume.share`, and is asked for by name."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from relume.models.contents import ModelFile

if TYPE_CHECKING:
    from torch import nn

ENDING = ".relume"
Through = Literal["recipe", "code", "graph"]
"""A way to the model of a bundle."""

_OPENING = "relume.share.opening"
"""The one arrow that goes up: all readers of files read bundles too, and only users of bundles pay for the import."""
_MANIFEST = "manifest.json"
_KIND = b'"kind": "relume bundle"'
_HEAD_BYTES = 200


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a bundle or of the folder that one was unpacked to, as far as it says so itself.

    Example:
        >>> is_bundle(tmp_path)
        False
    """
    place = Path(path)
    try:
        if place.is_dir():
            manifest = place / _MANIFEST
            return manifest.is_file() and _is_manifest(manifest)
        return place.is_file() and (place.suffix == ENDING or _is_zipped(place))
    except (OSError, ValueError):  # a name that is too long, or has a NUL in it
        return False


def open_bundle(path: str | os.PathLike[str], *, verify: bool = False) -> ModelFile:
    """The weights of a bundle, all of whose bytes were compared with its manifest; what it says of them is ``metadata``.

    Raises:
        BundleError, UnsafeFileError: it is damaged, was changed, or is made to deceive.
    """
    file: ModelFile = importlib.import_module(_OPENING).open_file(path, verify=verify)
    return file


def load_bundle(file: ModelFile, **options: Any) -> nn.Module:
    """The model of a bundle that `open_bundle` opened; the options are those of `relume.share.opening.open_model`."""
    model: nn.Module = importlib.import_module(_OPENING).open_model(file.bundle, **options)
    return model


def _is_manifest(path: Path) -> bool:
    with path.open("rb") as file:
        return _KIND in file.read(_HEAD_BYTES)


def _is_zipped(path: Path) -> bool:
    """A bundle by another name, such as ``.zip``."""
    if path.suffix in (".pt", ".pth", ".pt2"):
        return False
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    from relume.errors import ModelFileError
    from relume.models.archive import Archive

    try:
        archive = Archive(path)
        return _MANIFEST in archive.entries and _KIND in archive.read(_MANIFEST, 64 << 20)[:_HEAD_BYTES]
    except ModelFileError:
        return False
