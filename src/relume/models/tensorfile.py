"""Safetensors files, read and written: mapped, aligned, checksummed, every dtype that torch has.

What plain safetensors cannot say stands beside what it can, as JSON under the key ``relume`` of the metadata: the dtype
of tensors that are stored as bytes, which names are one tensor and where they stood, and a checksum of each tensor. Any
reader of safetensors opens these files, and the ties stand there as ``safetensors.torch.save_model`` writes them too.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from relume.checkpoint import files
from relume.checkpoint.files import Buffer
from relume.checkpoint.hashing import digest
from relume.checkpoint.pack import MAX_HEADER_BYTES, Pack, Span, framed, placement
from relume.checkpoint.reader import digests, map_pack
from relume.checkpoint.tensors import as_buffer, as_bytes, torch_dtype
from relume.errors import ConfigurationError, ModelFileError, PackError, UnsafeFileError, UnstorableError
from relume.models.contents import ModelFile
from relume.models.header import DTYPES, FLOAT4, METADATA, Header, TensorEntry, read_header, unique
from relume.models.weights import check_dense, ties_in

OWN = "relume"
"""The key of the metadata under which we say what the format cannot."""

_LEFT_SECONDS = 600
_VERSION = 1


@dataclass(frozen=True)
class Own:
    """What a file written by relume says besides what its format has.

    Attributes:
        checksums: of each tensor, by name.
        dtypes: dtype and shape of tensors that are stored as bytes.
        ties: for a name that is not stored: the one whose tensor it has, and its place in the order of all.
        parts: what all files of one sharded model have in common, and no others.
    """

    checksums: Mapping[str, str] = field(default_factory=dict)
    dtypes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]] = field(default_factory=dict)
    ties: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    parts: str = ""


# ---------------------------------------------------------------------------------------------------------------- reading


def read_tensorfile(
    path: str | Path, *, verify: bool = False, start: int = 0, size_bytes: int | None = None
) -> ModelFile:
    """Open a safetensors file: its tensors are pages of the file, read when they are used.

    Writing to a tensor changes this process's memory and never the file. Nothing may overwrite the file in place while the
    tensors are in use; a file that is replaced, as `save_weights` does, is no danger.

    Args:
        verify: read every tensor now and compare it with its checksum.
        start, size_bytes: where the safetensors lie within the file; by default they are all of it.

    Raises:
        ModelFileError: the file is missing, damaged or not understood; or ``verify`` and it has no checksums, or a tensor
            is not what was saved.
        UnsafeFileError: it contradicts itself.

    Cost: 0.7 ms for the 38 tensors of a VGG-19 (575 MB; with ``verify`` 117 ms), 3.9 ms for the 296 of an EfficientNet.
    """
    path = Path(path)
    tensors, metadata, own, size = read_tensors(path, verify=verify, start=start, size_bytes=size_bytes)
    state = tied(path, tensors, metadata, own)
    return ModelFile(path, "safetensors", state, without_ties(metadata, state), size_bytes=size)


def read_tensors(
    path: Path, *, verify: bool = False, start: int = 0, size_bytes: int | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, str], Own | None, int]:
    """The tensors as they are stored, the metadata, what relume wrote into it if it did, and the file's size in bytes."""
    header = read_header(path, start, size_bytes)
    own = _own(header)
    try:
        if verify:
            _verify(header, own)
        memory = map_pack(_as_pack(header))
    except ModelFileError:
        raise
    except PackError as error:
        raise ModelFileError(str(error)) from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be mapped into memory: {error}.") from error
    tensors = {name: _tensor(memory, entry) for name, entry in header.entries.items()}
    for name, (dtype, shape) in own.dtypes.items() if own else ():
        flat = tensors[name]
        # Reading elements that are not aligned ends some processors' patience, and with it the process.
        flat = flat.clone() if flat.data_ptr() % dtype.itemsize else flat
        tensors[name] = flat.view(dtype).view(shape)
    return tensors, {k: v for k, v in header.metadata.items() if k != OWN}, own, header.size_bytes


def tied(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], own: Own | None
) -> dict[str, torch.Tensor]:
    """The state_dict: the tensors, and those names that share one of them, each in its place."""
    if own is None:  # safetensors.torch.save_model and Hugging Face write ties into the metadata itself
        pairs = [(name, kept) for name, kept in metadata.items() if name not in tensors and name != "format"]
        return {**tensors, **{name: tensors[kept] for name, kept in pairs if kept in tensors}}
    ties = own.ties
    if wrong := [name for name, (kept, _) in ties.items() if kept not in tensors or name in tensors]:
        raise UnsafeFileError(
            f"{path}: {wrong[0]!r:.80} is said to be another's tensor, and the file contradicts that."
        )
    waiting = sorted(ties.items(), key=lambda item: item[1][1], reverse=True)
    state: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        while waiting and waiting[-1][1][1] <= len(state):
            alias, (kept, _) = waiting.pop()
            state[alias] = tensors[kept]
        state[name] = tensor
    return state | {alias: tensors[kept] for alias, (kept, _) in reversed(waiting)}


def without_ties(metadata: Mapping[str, str], state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The metadata that is about the file and not about which names are one tensor."""
    return {key: value for key, value in metadata.items() if not (key in state and value in state)}


def _tensor(memory: mmap.mmap, entry: TensorEntry) -> torch.Tensor:
    if not entry.size_bytes:
        return torch.empty(0, dtype=torch.uint8).view(entry.dtype).view(entry.shape)
    size = entry.dtype.itemsize
    if entry.offset % size:  # another writer's: an element that is not aligned is slow, or an error of the processor
        flat = torch.frombuffer(memory, dtype=torch.uint8, count=entry.size_bytes, offset=entry.offset).clone()
        return flat.view(entry.dtype).view(entry.shape)
    flat = torch.frombuffer(memory, dtype=entry.dtype, count=entry.size_bytes // size, offset=entry.offset)
    return flat.view(entry.shape)


def _verify(header: Header, own: Own | None) -> None:
    checksums = own.checksums if own else {}
    if missing := [name for name in header.entries if name not in checksums]:
        raise ModelFileError(
            f"{header.path} has no checksum of {missing[0]!r:.80}, so that nothing tells whether it is whole: relume did not "
            "write it. Read it with verify=False; files that save_weights writes have checksums."
        )
    pack = _as_pack(header)
    found = digests(pack, list(pack.spans.values()))
    bad = [name for name, value in zip(pack.spans, found, strict=True) if value != checksums[name]]
    if bad:
        raise ModelFileError(
            f"{header.path} is damaged: {', '.join(map(repr, bad[:8]))}{' and others' if len(bad) > 8 else ''} "
            f"{'is' if len(bad) == 1 else 'are'} not what was saved. Get the file anew, or from a copy."
        )


def _as_pack(header: Header) -> Pack:
    spans = {name: Span(entry.offset, entry.size_bytes, "") for name, entry in header.entries.items()}
    return Pack("", header.path, spans, header.file_bytes)


def _own(header: Header) -> Own | None:
    text = header.metadata.get(OWN)
    return None if text is None else parse_own(header.path, text, header.entries)


def parse_own(path: Path, text: str, entries: Mapping[str, TensorEntry]) -> Own:
    """Take apart what relume wrote into the metadata of ``path``; raises UnsafeFileError where it did not."""
    try:
        return _parsed(text, entries)
    except (ValueError, RecursionError) as error:
        raise UnsafeFileError(
            f"{path}: what relume wrote into its metadata was changed: {error!s:.200}. Get the file anew."
        ) from None


def _parsed(text: str, entries: Mapping[str, TensorEntry]) -> Own:
    if text.count("[") + text.count("{") > 16 + 8 * len(entries) + len(text) // 16:  # before it fills the memory
        raise ValueError("lists of nothing")
    document = json.loads(text, object_pairs_hook=unique)
    if not isinstance(document, dict) or type(document.get("version")) is not int:
        raise ValueError("no version")
    if document["version"] > _VERSION:
        raise ValueError(f"it has version {document['version']}, and this relume reads up to {_VERSION}: update relume")
    checksums, dtypes, ties = (_mapping(document, key) for key in ("checksums", "dtypes", "ties"))
    if not all(isinstance(value, str) for value in checksums.values()):
        raise ValueError("a checksum that is no text")
    return Own(
        checksums,
        {name: _stored_as_bytes(name, value, entries) for name, value in dtypes.items()},
        {name: _tie(name, value) for name, value in ties.items()},
        str(document.get("parts", ""))[:64],
    )


def _mapping(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{key} that are {value!r:.40}")
    return value


def _tie(name: str, value: Any) -> tuple[str, int]:
    match value:
        case [str(kept), int(place)] if place >= 0:
            name.encode()  # a ValueError where it is no text
            return kept, place
    raise ValueError(f"{name!r:.80} tied to {value!r:.80}")


def _stored_as_bytes(name: str, value: Any, entries: Mapping[str, TensorEntry]) -> tuple[torch.dtype, tuple[int, ...]]:
    match value:
        case [str(dtype), list(shape)] if len(shape) <= 64 and all(type(n) is int and 0 <= n < 2**48 for n in shape):
            kind, entry = torch_dtype(dtype), entries.get(name)
            count = 1
            for size in shape:
                count *= size or 1
            has_elements = all(shape)
            if entry is None or entry.dtype != torch.uint8 or len(entry.shape) != 1 or count >= 2**60:
                raise ValueError(f"a dtype of {name!r:.80}, which is not stored as bytes")
            if entry.size_bytes != (kind.itemsize * count if has_elements else 0):
                raise ValueError(f"{name!r:.80} with the shape {shape!r:.80}, which is not that of its bytes")
            return kind, tuple(shape)
    raise ValueError(f"{name!r:.80} with the dtype {value!r:.80}")


# ---------------------------------------------------------------------------------------------------------------- writing


def write_tensorfile(state: Mapping[str, Any], path: Path, metadata: Mapping[str, str] | None = None) -> int:
    """Write a state_dict as one safetensors file, whole or not at all; returns its size in bytes.

    Tied tensors are stored once. Tensors on other devices come to the CPU one by one.

    Raises:
        UnstorableError: it holds something that is no ordinary tensor; names it.
        ConfigurationError: ``metadata`` is not text by text.
        StoreWriteError: the disk is full, read-only or fails. The file that was there is untouched.
    """
    stored, own = _untied(state)
    with files.explained(f"writing {path.name}", path.absolute().parent), staged(path) as beside:
        size_bytes = stage_tensors(stored, beside, checked_metadata(metadata), own)
        files.publish(beside, path)
    return size_bytes


def tensorfile_parts(state: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> Iterator[Buffer]:
    """The bytes of the file that `write_tensorfile` writes, in order."""
    stored, own = _untied(state)
    return _parts(stored, checked_metadata(metadata), own)


def _untied(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], Own]:
    """The tensors that are stored, and what says which names share them."""
    check_dense(state)
    ties = ties_in(state)
    places = {name: place for place, name in enumerate(state)}
    stored = {name: value for name, value in state.items() if name not in ties}
    return stored, Own(ties={name: (kept, places[name]) for name, kept in ties.items()})


def stage_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str], own: Own) -> int:
    """Write tensors that are not tied to each other to a new file; returns its size in bytes."""
    return files.write_new(path, _parts(tensors, metadata, own))


def _parts(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], own: Own) -> Iterator[Buffer]:
    if METADATA in tensors or METADATA in own.ties:
        raise UnstorableError(f"a safetensors file cannot hold a tensor that is called {METADATA!r}: rename it.")
    sizes = {name: value.numel() * value.element_size() for name, value in tensors.items()}
    order = sorted(tensors, key=lambda name: placement(sizes[name]))
    header = framed({METADATA: _metadata(tensors, metadata, own), **_entries(tensors, sizes, order)})
    if len(header) > MAX_HEADER_BYTES:
        raise UnstorableError(
            f"the names of {len(tensors)} tensors and the metadata come to {len(header)} bytes; a safetensors file has room for "
            f"{MAX_HEADER_BYTES}. Save to a .pt, or in shards (max_shard_bytes=)."
        )
    return _chunks(header, tensors, order)


def checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """What stands beside the tensors, with ``format``, which Hugging Face's readers ask for; raises ConfigurationError."""
    made = {"format": "pt"} if metadata is None else {"format": "pt", **metadata}
    for key, value in made.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ConfigurationError(
                f"metadata[{key!r:.80}]={value!r:.80}: metadata is text by text. Numbers and the like: json.dumps(value)."
            )
        try:
            (key + value).encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"metadata[{key!r:.80}]={value!r:.80} is not text that a file can hold.") from None
    if OWN in made:
        raise ConfigurationError(f"metadata[{OWN!r}] is what relume itself writes: choose another key.")
    return made


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A name beside ``path`` for what is being written; whatever still has it at the end is removed.

    So is what an earlier process left that was killed while it wrote ``path``.
    """
    _remove_left(path)
    beside = path.with_name(f".{path.name[:40]}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        yield beside
    except BaseException:
        files.remove(beside)
        raise


def _remove_left(path: Path) -> None:
    """Only what nobody wrote to for some minutes: on a network drive a writer may be on another machine."""
    import psutil

    wanted = re.compile(re.escape(f".{path.name[:40]}.") + r"(\d{1,9})-[0-9a-f]{8}\.tmp")
    with contextlib.suppress(OSError), os.scandir(path.parent) as found:
        for entry in found:
            own = wanted.fullmatch(entry.name)
            is_old = own is not None and time.time() - entry.stat(follow_symlinks=False).st_mtime > _LEFT_SECONDS
            if own is not None and is_old and not psutil.pid_exists(int(own[1])):
                files.remove(Path(entry.path))


def _metadata(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], own: Own) -> dict[str, str]:
    document: dict[str, Any] = {
        "version": _VERSION,
        "checksums": {name: digest(as_buffer(as_bytes(value))) for name, value in tensors.items()},
    }
    if named := {name: value for name, value in tensors.items() if not _has_name(value)}:
        document["dtypes"] = {n: [str(v.dtype).removeprefix("torch."), list(v.shape)] for n, v in named.items()}
    if own.ties:
        document["ties"] = own.ties
    if own.parts:
        document["parts"] = own.parts
    text = json.dumps(document, separators=(",", ":"))
    return {name: kept for name, (kept, _) in own.ties.items()} | dict(metadata) | {OWN: text}


def _has_name(value: torch.Tensor) -> bool:
    name = DTYPES.get(str(value.dtype).removeprefix("torch."))
    return name is not None and (name != FLOAT4 or value.ndim > 0)


def _entries(
    tensors: Mapping[str, torch.Tensor], sizes: Mapping[str, int], order: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The header's entries, in the order of the state; the bytes stand in ``order``."""
    starts: dict[str, int] = {}
    end = 0
    for name in order:
        starts[name] = end
        end += sizes[name]
    return {
        name: {**_form(value, sizes[name]), "data_offsets": [starts[name], starts[name] + sizes[name]]}
        for name, value in tensors.items()
    }


def _form(value: torch.Tensor, size_bytes: int) -> dict[str, Any]:
    if not _has_name(value):
        return {"dtype": "U8", "shape": [size_bytes]}
    name, shape = DTYPES[str(value.dtype).removeprefix("torch.")], list(value.shape)
    return {"dtype": name, "shape": [*shape[:-1], shape[-1] * 2] if name == FLOAT4 else shape}


def _chunks(header: bytes, tensors: Mapping[str, torch.Tensor], order: Sequence[str]) -> Iterator[Buffer]:
    yield header
    for name in order:
        yield as_buffer(as_bytes(tensors[name]))
