"""Bring a bundle from another place: only what is not here yet, every byte verified."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from relume.checkpoint import files
from relume.errors import BundleError, ConfigurationError, ExchangeError, UnsafeFileError
from relume.models.tensorfile import staged
from relume.share.bundle import ENDING, Bundle
from relume.share.exchange.index import MAX_INDEX_BYTES, Chunk, Index
from relume.share.exchange.places import Found, find, is_hub
from relume.share.exchange.progress import Meter, in_parallel
from relume.share.exchange.remote import PassingError, Remote, retried
from relume.share.exchange.staging import Arriving, Local, arrived, check_room, check_size, staging
from relume.share.exchange.wholefile import bring_file
from relume.share.manifest import MANIFEST
from relume.text import printable, size


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    Attributes:
        path: the bundle, verified.
        digest: of its manifest.
        received_bytes: what travelled; ``there_bytes`` what was here already.
        seconds: how long it took.
    """

    path: Path
    digest: str
    received_bytes: int
    there_bytes: int
    seconds: float

    @property
    def text(self) -> str:
        """One line for people."""
        rate = f" at {size(self.received_bytes / self.seconds)}/s" if self.received_bytes and self.seconds > 0.2 else ""
        there = f", {size(self.there_bytes)} were here already" if self.there_bytes else ""
        return f"{printable(self.path, 400)}: {size(self.received_bytes)} received{rate}{there}; every byte verified"


def pull(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Pulled:
    """Pull a bundle from a folder, a web server, any place that fsspec can read, or the Hugging Face Hub.

    What arrives is compared with the bundle's manifest, and is the same file to the last byte as the one that was pushed.
    Stopped in between, the next call goes on where it was. Bytes of an older bundle at ``out``, or of the folder that
    it was unpacked to, need not travel again.

    Args:
        source: what `push` was given and the name (``s3://bucket/folder/fashion``, ``https://host/models/fashion.relume``),
            the index (``….relume.json``), a ``.relume`` file that somebody put there, or ``hf://user/name[@revision]``.
        out: the file, or a folder for it; by default the bundle's name here. An older bundle there is replaced at the end.
        options: for fsspec's file system.
        progress: show a bar on stderr; by default on a terminal.

    Raises:
        ExchangeError: there is no such bundle, the place refused or failed, or the disk has no room.
        BundleError, UnsafeFileError: what is there is damaged, or made to deceive. Nothing of it was used.
        ConfigurationError: ``source`` is no address, or ``out`` is a file that is no bundle.
        MissingPackageError: ``pip install "relume[hub]"``.
    """
    source = os.fspath(source)
    if is_hub(source):
        from relume.share.exchange.hub import pull_from_hub

        if options:
            raise ConfigurationError("options= are not for the hub.")
        return pull_from_hub(source, out, progress=progress)
    found = find(source, options)
    target, older = target_of(out, found.name)
    if found.index is not None:
        return _pull_chunks(found.remote, found.index, target, older, progress)
    return _pull_file(found, target, progress)


def target_of(out: str | os.PathLike[str] | None, name: str) -> tuple[Path, list[Path]]:
    """Where the file goes, and where older ones may be.

    Raises:
        ConfigurationError: a file is there that is no bundle.
    """
    file_name = _safe(name) + ENDING
    target = Path(file_name) if out is None else Path(out).expanduser()
    if out is not None and os.fspath(out).endswith(("/", os.sep)) and not target.exists():
        target = target / file_name
    if target.is_dir():
        target = target.with_name(target.name + ENDING) if (target / MANIFEST).exists() else target / file_name
    target = target.absolute()
    if target.is_dir():
        raise ConfigurationError(f"{target} is a folder: choose another name with -o.")
    if target.exists() and not _is_bundle(target):
        raise ConfigurationError(f"{target} is there and is no bundle: delete it, or choose another name with -o.")
    return target, [target, target.with_name(target.name.removesuffix(ENDING))]


def _safe(name: str) -> str:
    """A name from an address as a file's."""
    kept = "".join(c if c.isalnum() or c in " ._-()+=@," else "_" for c in name).lstrip(". ")
    return kept[:120] or "bundle"


def _is_bundle(path: Path) -> bool:
    try:
        Bundle(path)
    except UnsafeFileError:
        return False
    except BundleError:
        with path.open("rb") as file:  # a damaged one may be replaced
            return file.read(4) == b"PK\x03\x04" and path.suffix == ENDING
    return True


def _pull_file(found: Found, target: Path, progress: bool | None) -> Pulled:
    with staging(target) as folder, Meter("pulling", 0, progress) as meter:
        path = bring_file(found.remote, found.path, folder, meter)
        digest = Bundle(path).manifest.digest
        files.publish(path, target)
    return Pulled(target, digest, meter.moved_bytes, meter.there_bytes, meter.seconds)


def _pull_chunks(remote: Remote, index: Index, target: Path, older: list[Path], progress: bool | None) -> Pulled:
    check_size(index, remote.name)
    digest = index.manifest.digest
    with Meter("pulling", index.size_bytes, progress) as meter:
        if is_there(target, digest):
            return Pulled(target, digest, 0, index.layout.size_bytes, meter.seconds)
        with staging(target) as folder:
            local = Local()
            _remember(folder, index, local)
            for path in older:
                local.add_bundle(path)
            path = folder / f"{digest[:32]}.relume"
            taken = path.stat().st_blocks * 512 if path.exists() and hasattr(path.stat(), "st_blocks") else 0
            check_room(folder, max(index.layout.size_bytes - taken, 0), f"{index.manifest.name!r:.80}")
            with Arriving(folder, index) as arriving:
                _fill(remote, arriving, local, meter)
                arriving.finish()
            Bundle.open(path)
            files.publish(path, target)
    return Pulled(target, digest, meter.moved_bytes, meter.there_bytes, meter.seconds)


def is_there(target: Path, digest: str) -> bool:
    try:
        return Bundle(target).manifest.digest == digest and bool(Bundle.open(target))
    except (BundleError, UnsafeFileError):
        return False


def _remember(folder: Path, index: Index, local: Local) -> None:
    """Note what is arriving, so that a later version of it can use its bytes; look for such notes."""
    own = folder / f"{index.manifest.digest[:32]}.json"
    for note in folder.glob("*.json"):
        try:
            if note != own and note.stat().st_size <= MAX_INDEX_BYTES:
                local.add_arriving(note.with_suffix(ENDING), Index.read(note.read_bytes(), str(note)))
        except (BundleError, UnsafeFileError):
            files.remove(note)
    if not own.exists():
        with staged(own) as beside:
            files.write_new(beside, [index.text()])
            files.publish(beside, own)


def _fill(remote: Remote, arriving: Arriving, local: Local, meter: Meter) -> None:
    """Bring all chunks that are not here."""
    stop = threading.Event()
    same: dict[str, list[Chunk]] = {}
    for chunk in arriving.index.chunks:
        same.setdefault(chunk.hash, []).append(chunk)

    def bring(chunks: list[Chunk]) -> None:
        if stop.is_set():
            return
        first, *others = chunks
        content = arriving.read(first)
        if _hashed(content) == first.hash:
            meter.there(first.size_bytes)
        elif (known := local.content(first.hash)) is not None:
            arriving.write(first, 0, known)
            meter.there(first.size_bytes)
        else:
            begin = arrived(content)
            if begin == first.size_bytes:
                arriving.clear(first)
                begin = 0
            meter.there(begin)
            retried(lambda: _bring(remote, first, arriving, meter, stop))
        if others:
            content = arriving.read(first)
        for other in others:
            arriving.write(other, 0, content)
            meter.there(other.size_bytes)

    in_parallel(bring, same.values(), stop)


def _bring(remote: Remote, chunk: Chunk, arriving: Arriving, meter: Meter, stop: threading.Event) -> None:
    """The rest of a chunk, to its place as it comes."""
    where = f"{remote.name}: {chunk.path}"
    before = arriving.read(chunk)
    begin = arrived(before)
    opened = remote.open(chunk.path, begin)
    if opened is None:
        raise ExchangeError(f"{where} is not there, though the index names it. Push the bundle again, and pull again.")
    with closing(opened):
        if opened.total is not None and opened.total != chunk.size_bytes:
            raise _wrong(where, f"has {opened.total:,} bytes where {chunk.size_bytes:,} were pushed")
        position = opened.start
        hasher = blake3(before[:position], max_threads=1)
        for piece in opened.pieces:
            if stop.is_set():
                return
            meter.moved(len(piece))
            if position + len(piece) > chunk.size_bytes:
                arriving.clear(chunk)
                raise _wrong(where, f"goes on after its {chunk.size_bytes:,} bytes")
            arriving.write(chunk, position, piece)
            hasher.update(piece)
            position += len(piece)
    if position < chunk.size_bytes:
        raise PassingError(f"{where} ended after {position:,} of {chunk.size_bytes:,} bytes.")
    if hasher.hexdigest() != chunk.hash:
        arriving.clear(chunk)
        if opened.start:
            raise PassingError(f"{where} is not what was pushed, from byte {opened.start:,}.")
        raise _wrong(where, "is not what was pushed: its hash differs")


def _wrong(where: str, problem: str) -> ExchangeError:
    return ExchangeError(
        f"{where} {problem}. Nothing of it was used. Push the bundle again with --force, and pull again."
    )


def _hashed(content: bytes) -> str:
    return blake3(content, max_threads=1).hexdigest()
