"""Bring a bundle to another place: only what is not there yet, and the index at last."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relume.errors import ConfigurationError
from relume.share.bundle import Bundle
from relume.share.exchange.index import ENDING, MAX_INDEX_BYTES, Chunk, Source
from relume.share.exchange.places import check_name, is_hub, open_place, without_ending
from relume.share.exchange.progress import Meter, in_parallel
from relume.share.exchange.remote import Remote, read_whole, retried
from relume.text import printable, size


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        place: what `pull` takes to get the bundle back.
        digest: of the bundle's manifest.
        sent_bytes: what travelled; ``there_bytes`` what was there already.
        seconds: how long it took, without reading the bundle.
    """

    place: str
    digest: str
    sent_bytes: int
    there_bytes: int
    seconds: float

    @property
    def text(self) -> str:
        """One line for people."""
        rate = f" at {size(self.sent_bytes / self.seconds)}/s" if self.sent_bytes and self.seconds > 0.2 else ""
        there = f", {size(self.there_bytes)} were there already" if self.there_bytes else ""
        return f"{printable(self.place, 400)}: {size(self.sent_bytes)} sent{rate}{there}"


def push(
    bundle: str | os.PathLike[str],
    place: str | os.PathLike[str],
    *,
    name: str | None = None,
    private: bool | None = None,
    force: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Pushed:
    """Push a bundle to a folder, to any place that fsspec can write to, or to the Hugging Face Hub.

    Only chunks that are not there travel, so that a push that was killed goes on where it was, and a second fine-tuning of
    one backbone sends its head. All bytes are compared with the bundle's manifest first. Nothing at the place is deleted;
    an older bundle of the same name stops being listed once the new one is complete.

    Args:
        bundle: the ``.relume`` file, or the folder that it was unpacked to.
        place: a folder, ``s3://bucket/folder``, ``gs://…``, ``sftp://…``, or ``hf://user/name[@branch]``.
        name: what it is called there; by default as the file. Not for the hub.
        private: whether a repository that the hub makes is private; by default as the account says.
        force: send everything, whatever is there (a damaged object is mended so); on the hub also replace a repository that
            holds something else.
        options: for fsspec's file system, such as ``{"profile": "work"}``; by default it finds out itself.
        progress: show a bar on stderr; by default on a terminal.

    Raises:
        BundleError: it is no bundle, or damaged. Nothing was sent.
        ConfigurationError: nothing can be pushed to such a place.
        ExchangeError: the place refused or failed: says how to go on. What arrived stays and is used the next time.
        MissingPackageError: ``pip install "relume[hub]"``.

    Example:
        >>> import tempfile
        >>> from relume.share.archive import write_archive
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = write_archive(folder / "one.relume", "one", {"README.md": lambda: [b"# One"]}, "0.1.0")
        >>> push(folder / "one.relume", folder / "shared").sent_bytes > 0
        True
        >>> push(folder / "one.relume", folder / "shared").sent_bytes
        0
    """
    place = os.fspath(place)
    if is_hub(place):
        from relume.share.exchange.hub import push_to_hub

        if name is not None or options:
            raise ConfigurationError("name= and options= are not for the hub: the repository's name is the bundle's.")
        return push_to_hub(Path(bundle), place, private=private, force=force, progress=progress)
    if private is not None:
        raise ConfigurationError("private= is for hf:// only: who may read another place is decided there.")
    name = without_ending(Path(bundle).resolve().name) if name is None else name
    check_name(name)
    remote = open_place(place, options)
    if not remote.is_writable:
        raise ConfigurationError(
            f"{remote.name}: http is for pulling only. Push to the folder that the server hands out."
        )
    return _pushed(Source(Bundle.open(bundle)), remote, name, force, progress)


def _pushed(source: Source, remote: Remote, name: str, force: bool, progress: bool | None) -> Pushed:
    stop = threading.Event()
    chunks = list({chunk.hash: chunk for chunk in source.index.chunks}.values())
    with Meter("pushing", sum(chunk.size_bytes for chunk in chunks), progress) as meter:

        def send(chunk: Chunk) -> None:
            if stop.is_set():
                return
            if not force and retried(lambda: remote.size(chunk.path)) == chunk.size_bytes:
                meter.there(chunk.size_bytes)
                return
            content = source.content(chunk)
            retried(lambda: remote.write(chunk.path, content))
            meter.moved(chunk.size_bytes)

        in_parallel(send, chunks, stop)
        text, path = source.index.text(), name + ENDING
        if force or read_whole(remote, path, MAX_INDEX_BYTES) != text:
            retried(lambda: remote.write(path, text))
            meter.moved(len(text))
        else:
            meter.there(len(text))
    place = f"{remote.name.rstrip('/')}/{name}"
    return Pushed(place, source.index.manifest.digest, meter.moved_bytes, meter.there_bytes, meter.seconds)
