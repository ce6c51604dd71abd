"""From what a user types to a place, and to what is there."""

from __future__ import annotations

import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relume.errors import BundleError, ConfigurationError, ExchangeError
from relume.share.bundle import ENDING as BUNDLE_ENDING
from relume.share.exchange.folder import Folder
from relume.share.exchange.index import ENDING, MAX_INDEX_BYTES, Index
from relume.share.exchange.remote import Remote, read_whole
from relume.share.exchange.web import ForbiddenError, Web
from relume.share.manifest import check_paths

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


@dataclass(frozen=True)
class Found:
    """A bundle at a place: as chunks where it has an index, else as one file at ``path``."""

    remote: Remote
    path: str
    name: str
    index: Index | None


def is_hub(place: str) -> bool:
    """Whether it names a repository of the Hugging Face Hub."""
    return place.lower().startswith("hf://")


def open_place(place: str, options: Mapping[str, Any] | None = None) -> Remote:
    """The folder, the file system or the web server that ``place`` names.

    Raises:
        ConfigurationError: it names none.
        MissingPackageError: what this kind of place needs.
    """
    if not place.strip() or "\0" in place:
        raise ConfigurationError(f"{place!r} is no place: give a folder, s3://bucket/folder, hf://user/name, …")
    match = _SCHEME.match(place)
    scheme = match[1].lower() if match else ""
    if scheme in ("http", "https"):
        if not urllib.parse.urlsplit(place).hostname:
            raise ConfigurationError(f"{place!r:.100} names no host.")
        return Web(place)
    if scheme in ("", "file"):
        if options:
            raise ConfigurationError(
                f"options={sorted(options)} are for addresses that fsspec opens; this is a folder."
            )
        return Folder(_local(place))
    from relume.share.exchange.filesystem import FileSystem

    return FileSystem(place, options)


def find(source: str, options: Mapping[str, Any] | None = None) -> Found:
    """The bundle that ``source`` names: its index, the name it was pushed under, a file, or a folder with one index.

    Raises:
        ExchangeError: there is none, or several.
        BundleError: its index is damaged.
    """
    parent, last = _divided(source)
    stem = without_ending(last)
    remote = open_place(parent, options)
    if last.endswith(ENDING):
        index = _index(remote, last, is_guess=False)
        if index is None:
            raise ExchangeError(f"there is no {last} in {remote.name}. {_known(remote)}".rstrip())
        return Found(remote, last, stem, index)
    if (index := _index(remote, stem + ENDING)) is not None:
        return Found(remote, stem + ENDING, stem, index)
    if isinstance(remote, Web) or remote.size(last) is not None:
        return Found(remote, last, stem, None)  # a web server is not asked twice: it answers with all of the file
    return _only_one(open_place(source, options), remote)


def without_ending(name: str) -> str:
    """The name of a bundle from that of its file."""
    for ending in (ENDING, BUNDLE_ENDING):
        if name.endswith(ending) and len(name) > len(ending):
            return name.removesuffix(ending)
    return name


def check_name(name: str) -> None:
    """Raises ConfigurationError where a bundle cannot be called this at every place."""
    try:
        check_paths([name])
    except OSError:
        raise ConfigurationError(f"name={name!r:.100}: a bundle cannot be called this at every place.") from None
    if "/" in name or name.startswith(".") or not name.isprintable() or set(name) & set('?#%*<>|"'):
        raise ConfigurationError(
            f"name={name!r:.100}: letters, digits, spaces, '-', '_' and '.' make a name. Give another one with --name (name=)."
        )


def _only_one(remote: Remote, above: Remote) -> Found:
    names = [name for name in remote.names() or [] if name.endswith(ENDING)]
    if not names:
        raise ExchangeError(f"there is no bundle at {remote.name}. Check the address. {_known(above)}".rstrip())
    if len(names) > 1:
        raise ExchangeError(f"there are several bundles: name one, as {remote.name}/NAME. {_known(remote)}")
    index = _index(remote, names[0], is_guess=False)
    if index is None:
        raise ExchangeError(f"{remote.name}: {names[0]} went away.")
    return Found(remote, names[0], without_ending(names[0]), index)


def _index(remote: Remote, path: str, is_guess: bool = True) -> Index | None:
    try:
        content = read_whole(remote, path, MAX_INDEX_BYTES)
    except ForbiddenError:
        if is_guess:  # a signed address opens one file
            return None
        raise
    if content is None or (is_guess and b'"relume index"' not in content[:200]):
        return None  # some servers answer everything with a page
    try:
        return Index.read(content, f"{remote.name}/{path}")
    except RecursionError:
        raise BundleError(f"{remote.name}/{path} is no index of a bundle.") from None


def _known(remote: Remote) -> str:
    try:
        names = [without_ending(name) for name in remote.names() or [] if name.endswith(ENDING)]
    except ExchangeError:
        return ""
    return (
        f"There are: {', '.join(f'{name!r:.60}' for name in names[:12])}{', …' if len(names) > 12 else ''}."
        if names
        else ""
    )


def _divided(source: str) -> tuple[str, str]:
    """The place and the last part of its path."""
    match = _SCHEME.match(source)
    if match is None or match[1].lower() == "file":
        path = _local(source)
        path = path if path.name else path.resolve()
        return str(path.parent), path.name or "."
    if match[1].lower() in ("http", "https"):
        parts = urllib.parse.urlsplit(source)
        above, _, last = parts.path.rstrip("/").rpartition("/")
        if not last:
            raise ConfigurationError(f"{parts.hostname}: give the address of a bundle, https://host/…/NAME.relume")
        return urllib.parse.urlunsplit((parts.scheme, parts.netloc, above, parts.query, "")), urllib.parse.unquote(last)
    parent, _, last = source.rstrip("/").rpartition("/")
    if parent.endswith(":/"):  # s3://bucket, memory://name
        return source.rstrip("/"), last
    return parent, last


def _local(place: str) -> Path:
    if place.lower().startswith("file://"):
        place = urllib.request.url2pathname(urllib.parse.urlsplit(place).path)
    return Path(place).expanduser()
