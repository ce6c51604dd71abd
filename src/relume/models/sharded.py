"""Weights in several safetensors files with an index, as Hugging Face writes large models.

The index (``model.safetensors.index.json``) maps each tensor's name to the file that holds it.
Format: https://huggingface.co/docs/huggingface_hub/package_reference/serialization
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from relume.checkpoint import files
from relume.errors import ConfigurationError, ModelFileError, UnsafeFileError
from relume.models.contents import ModelFile
from relume.models.header import unique
from relume.models.tensorfile import (
    OWN,
    Own,
    checked_metadata,
    parse_own,
    read_tensors,
    stage_tensors,
    tied,
    without_ties,
)
from relume.models.weights import check_dense, ties_in

INDEX_ENDING = ".safetensors.index.json"

_MAX_GROUPS = 10_000
_MAX_INDEX_BYTES = 100_000_000
_VERSION = 1
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Index:
    """An index, vetted: each tensor's file, and what the index says besides."""

    path: Path
    weight_map: Mapping[str, str]
    metadata: Mapping[str, str]

    @property
    def shards(self) -> list[str]:
        """The files, each once, in the order in which they are named."""
        return list(dict.fromkeys(self.weight_map.values()))


# ---------------------------------------------------------------------------------------------------------------- reading


def read_sharded(path: str | Path, *, verify: bool = False) -> ModelFile:
    """Open sharded weights by their index; the tensors are pages of the shards.

    Raises:
        ModelFileError: a shard is missing or damaged, lacks a tensor, has one that the index does not list, or is of
            another save; or ``verify`` and a tensor is not what was saved.
        UnsafeFileError: the index, or a shard, contradicts itself, or the index names a file outside of its folder.
    """
    index = read_index(Path(path))
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    parts: dict[str, str] = {}
    size_bytes = index.path.stat().st_size
    for shard in index.shards:
        found, metadata, own, shard_bytes = _shard(index, shard, verify)
        _check_listed(index, shard, found)
        tensors |= found
        aliases |= metadata
        parts[shard] = own.parts if own else ""
        size_bytes += shard_bytes
    own = parse_own(index.path, index.metadata[OWN], {}) if OWN in index.metadata else None
    _check_same_save(index, parts, own)
    in_order = {name: tensors[name] for name in index.weight_map}
    state = tied(index.path, in_order, {**aliases, **index.metadata}, own)
    metadata = {key: value for key, value in index.metadata.items() if key != OWN}
    return ModelFile(index.path, "sharded safetensors", state, without_ties(metadata, state), size_bytes=size_bytes)


def read_index(path: Path) -> Index:
    """Read and vet an index.

    Raises:
        ModelFileError: it cannot be read, or is no index of safetensors.
        UnsafeFileError: it names files outside of its folder, or contradicts itself.
    """
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise UnsafeFileError(f"{path} is larger than {_MAX_INDEX_BYTES} bytes: that is no index.")
        text = path.read_bytes()
        if text.count(b"[") + text.count(b"{") > _MAX_GROUPS:  # before they fill the memory
            raise ValueError("lists within lists")
        document = json.loads(text, object_pairs_hook=unique)
        json.dumps(document, ensure_ascii=False).encode()  # a ValueError where a name is no text
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged, or no index of weights: {error!s:.200}") from None
    except OSError as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ModelFileError(f"{path} is no index of weights: those have a weight_map of names and files.")
    for shard in dict.fromkeys(weight_map.values()):
        _check_shard_name(path, shard)
    metadata = document.get("metadata")
    texts = {k: v for k, v in metadata.items() if isinstance(v, str)} if isinstance(metadata, dict) else {}
    return Index(path, weight_map, texts)


def _check_shard_name(path: Path, shard: str) -> None:
    parts = PurePosixPath(shard).parts
    if not shard or "\0" in shard or "\\" in shard or _DRIVE.match(shard) or shard.startswith("/") or ".." in parts:
        raise UnsafeFileError(
            f"{path} names the file {shard!r:.200}, which is not in its folder. Nothing was read from it."
        )
    if not shard.endswith(".safetensors"):
        raise ModelFileError(
            f"{path} names the file {shard!r:.200}, and what is read in shards are .safetensors files. Open that file itself."
        )


def _shard(index: Index, shard: str, verify: bool) -> tuple[dict[str, torch.Tensor], dict[str, str], Own | None, int]:
    place = index.path.parent / shard
    try:
        is_there = place.is_file()
    except OSError:  # a name that is too long
        is_there = False
    if is_there:
        return read_tensors(place, verify=verify)
    raise ModelFileError(
        f"{index.path} needs {shard!r:.200}, which is not beside it: of {len(index.shards)} files, get all."
    )


def _check_listed(index: Index, shard: str, found: Mapping[str, torch.Tensor]) -> None:
    listed = {name for name, place in index.weight_map.items() if place == shard}
    if missing := sorted(listed - found.keys()):
        raise ModelFileError(f"{index.path}: {missing[0]!r:.80} is not in {shard!r:.200}, where it should be.")
    if unlisted := sorted(found.keys() - listed):
        raise ModelFileError(
            f"{index.path}: {shard!r:.200} has a tensor {unlisted[0]!r:.80} that is not listed for it: index and shards are not "
            "of one save. Get all of them anew."
        )


def _check_same_save(index: Index, parts: Mapping[str, str], own: Own | None) -> None:
    expected = own.parts if own else next(iter(parts.values()), "")
    if strange := [shard for shard, part in parts.items() if part != expected]:
        raise ModelFileError(
            f"{index.path}: {strange[0]!r:.200} is of another save than the index. Get all files of one save."
        )


# ---------------------------------------------------------------------------------------------------------------- writing


def write_sharded(
    state: Mapping[str, Any], path: Path, max_shard_bytes: int, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write ``DIR/model-00001-of-00003.safetensors`` and so on, and then their index, for ``path`` = ``DIR/model.safetensors``.

    A save is there when its index is: readers see the old weights until then, and those stay when anything fails. The old
    shards, or an old single file at ``path``, are deleted after that. A process that is killed between can leave shards
    that no index names.

    Args:
        max_shard_bytes: of the tensors in one shard; a larger tensor has a shard of its own.

    Returns:
        The path of the index.
    """
    check_dense(state)
    made = checked_metadata(metadata)
    ties = ties_in(state)
    stored = {name: value for name, value in state.items() if name not in ties}
    shards = _split(stored, max_shard_bytes) if stored else []
    index_path = path.with_name(path.stem + INDEX_ENDING)
    names = _free_names(path, len(shards))
    places = {name: place for place, name in enumerate(state)}
    own = Own(ties={name: (kept, places[name]) for name, kept in ties.items()}, parts=os.urandom(16).hex())
    document = _index(stored, dict(zip(names, shards, strict=True)), made, own)
    with files.explained(f"writing {index_path.name}", path.absolute().parent):
        old = [one for one in _old_files(index_path, path) if one.name not in names]
        with _removed_on_failure() as written:
            for name, tensors in zip(names, shards, strict=True):
                staged = path.with_name(f".{name[:40]}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
                written.append(staged)
                stage_tensors({n: stored[n] for n in tensors}, staged, {"format": "pt"}, Own(parts=own.parts))
                written.append(path.with_name(name))
                files.system.replace(staged, path.with_name(name))
            files.sync_folder(path.absolute().parent)
            staged = index_path.with_name(f".{index_path.name[:40]}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
            written.append(staged)
            files.write_new(staged, [json.dumps(document, indent=2).encode()])
            files.system.replace(staged, index_path)
        files.sync_folder(path.absolute().parent)
        for one in old:
            files.remove(one)
    return index_path


@contextlib.contextmanager
def _removed_on_failure() -> Iterator[list[Path]]:
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for one in written:
            files.remove(one)
        raise


def _split(tensors: Mapping[str, torch.Tensor], max_bytes: int) -> list[list[str]]:
    """Names for each shard, in the order of the state; at least one shard."""
    if type(max_bytes) is not int or max_bytes < 1:
        raise ConfigurationError(f"max_shard_bytes={max_bytes!r}: it is a number of bytes, such as 5_000_000_000.")
    shards: list[list[str]] = [[]]
    room = max_bytes
    for name, value in tensors.items():
        size = value.numel() * value.element_size()
        if size > room and shards[-1]:
            shards.append([])
            room = max_bytes
        shards[-1].append(name)
        room -= size
    return shards


def _free_names(path: Path, count: int) -> list[str]:
    """What Hugging Face calls shards; with a mark where such files exist, which the old index may still need."""
    for mark in ("", f"-{os.urandom(4).hex()}"):
        names = [f"{path.stem}{mark}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
        if not any(path.with_name(name).exists() for name in names):
            break
    return names


def _index(
    stored: Mapping[str, torch.Tensor], shards: Mapping[str, list[str]], metadata: Mapping[str, str], own: Own
) -> dict[str, Any]:
    document: dict[str, Any] = {"version": _VERSION, "parts": own.parts}
    if own.ties:
        document["ties"] = own.ties
    total = sum(value.numel() * value.element_size() for value in stored.values())
    return {
        "metadata": {name: kept for name, (kept, _) in own.ties.items()}
        | {**metadata, "total_size": total, OWN: json.dumps(document, separators=(",", ":"))},
        "weight_map": {name: shard for shard, names in shards.items() for name in names},
    }


def _old_files(index_path: Path, path: Path) -> list[Path]:
    """What the new save takes the place of: a single file, and the shards that the old index names, if they are its own."""
    old = [path] if path.is_file() else []
    shard = re.compile(re.escape(path.stem) + r"(-[0-9a-f]{8})?-\d{5}-of-\d{5}\.safetensors")
    with contextlib.suppress(ModelFileError):
        if index_path.is_file():
            old += [path.with_name(name) for name in read_index(index_path).shards if shard.fullmatch(name)]
    return old
