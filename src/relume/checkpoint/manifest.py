"""Manifests: the JSON documents that commit checkpoints.

The file begins with the digest of all that follows, so that any flipped bit and any cut contradicts it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from relume.errors import FutureFormatError, ManifestError, warn

FORMAT = "relume checkpoint"
VERSION = 1
MAX_BYTES = 256_000_000

_OPENING = b'{"blake3":"'
_DIGEST_BYTES = 64
_FILE_NAME = re.compile(r"(?P<sequence>\d{6,18})(?:-(?P<label>.+))?\.json\Z", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z0-9._=,+@ ~-]{0,180}\Z")

Natural = Annotated[int, Field(ge=0, lt=2**63)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow", protected_namespaces=())


class Piece(_Record):
    """A part of a tensor's bytes, and the pack that holds it.

    Attributes:
        hash: blake3 of the part.
        pack: the number of the pack in the manifest's list; the piece may have moved to another since.
        offset: where the part begins in the tensor's row-major bytes.
        size_bytes: its length.
    """

    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    pack: Natural
    offset: Natural
    size_bytes: Natural


class Entry(_Record):
    """One tensor, array or long bytes of the state."""

    name: str
    dtype: str
    shape: Annotated[list[Natural], Field(max_length=64)]
    pieces: list[Piece]
    is_parameter: bool = False
    requires_grad: bool = False


class Manifest(_Record):
    """What one checkpoint holds.

    Attributes:
        version: of the format; a newer one than this relume knows is an error.
        sequence: the checkpoint's number in its folder.
        label: the part of the file's name after the number.
        time: when it was committed, UTC, ISO 8601.
        meta: the caller's own description, as JSON (see codec).
        stored_bytes: what this save added to the store.
        total_bytes: what the state comes to; the difference is shared with other checkpoints.
        packs: ids of the packs that the pieces count into.
        entries: the table of tensors.
        tree: the state as JSON, its tensors as places in the table.
    """

    format: Literal["relume checkpoint"]
    version: Natural
    sequence: Natural
    label: str
    time: str
    meta: Any
    stored_bytes: Natural
    total_bytes: Natural
    packs: list[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]]
    entries: list[Entry]
    tree: Any

    @property
    def unknown_fields(self) -> list[str]:
        """Fields that this version of relume does not know and has not used."""
        found = list(self.model_extra or {})
        for entry in self.entries:
            found += [f"entries.{name}" for name in entry.model_extra or {}]
            for piece in entry.pieces:
                found += [f"entries.pieces.{name}" for name in piece.model_extra or {}]
        return sorted(set(found))


class FileName(NamedTuple):
    """The number and the label that a manifest's file name carries."""

    sequence: int
    label: str


def file_name(sequence: int, label: str) -> str:
    """``000012-epoch=3.json``; raises ManifestError when the label cannot be part of a file name everywhere."""
    if not _LABEL.match(label):
        raise ManifestError(
            f"the label {label!r:.200} cannot be part of a file name: at most 180 letters, digits and ._=,+@~- are."
        )
    return f"{sequence:06d}-{label}.json" if label else f"{sequence:06d}.json"


def parse_file_name(name: str) -> FileName | None:
    """The number and label in the name of a manifest; None for any other file."""
    match = _FILE_NAME.match(name)
    return FileName(int(match["sequence"]), match["label"] or "") if match else None


def to_bytes(manifest: Manifest) -> bytes:
    """The file's content. Unknown fields are kept out."""
    fields = manifest.model_dump(include=set(Manifest.model_fields) - {"entries"})
    fields["entries"] = [_entry_json(entry) for entry in manifest.entries]
    order = ("format", "version", "sequence", "label", "time", "meta", "stored_bytes", "total_bytes", "packs", "tree")
    lines = [f'"{key}": {_json(fields[key])}' for key in order]
    lines.append('"entries": [\n' + ",\n".join(map(_json, fields["entries"])) + "\n]")
    body = ('",\n' + ",\n".join(lines) + "\n}\n").encode("ascii")
    return _OPENING + blake3(body).hexdigest().encode() + body


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check it.

    Raises:
        ManifestError: it is damaged, or not understood.
        FutureFormatError: a newer relume wrote it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}.") from error
    manifest = parse(content, path)
    if parse_file_name(path.name) != (manifest.sequence, manifest.label):
        raise ManifestError(
            f"{path} holds checkpoint {file_name(manifest.sequence, manifest.label)}: it was renamed. Name it so again."
        )
    if manifest.unknown_fields:
        warn(
            f"{path} has fields that this version of relume does not know and leaves alone: "
            f"{', '.join(manifest.unknown_fields)}."
        )
    return manifest


def parse(content: bytes, path: Path) -> Manifest:
    """The manifest in ``content``; ``path`` is for messages."""
    _check_digest(content, path)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is not JSON: {error!s:.200}.") from error
    _check_version(document, path)
    document.pop("blake3", None)
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ManifestError(
            f"{path} is not understood: {where} is {first['input']!r:.80} ({first['msg']})"
            + (f", and {error.error_count() - 1} more." if error.error_count() > 1 else ".")
        ) from error


def _check_digest(content: bytes, path: Path) -> None:
    start = len(_OPENING) + _DIGEST_BYTES
    if not content.startswith(_OPENING) or len(content) < start:
        raise ManifestError(f"{path} is not a manifest of relume: it does not begin with its digest.")
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{path} is longer than the {MAX_BYTES} bytes that a manifest may have.")
    if blake3(content[start:]).hexdigest().encode() != content[len(_OPENING) : start]:
        raise ManifestError(f"{path} does not match its own digest: it was changed or cut short after it was written.")


def _check_version(document: object, path: Path) -> None:
    if not isinstance(document, dict):
        raise ManifestError(f"{path} is not a manifest: it holds a {type(document).__name__}.")
    version = document.get("version")
    if document.get("format") == FORMAT and type(version) is int and version > VERSION:
        raise FutureFormatError(
            f"{path} has format version {version!r:.20}, and this relume reads up to {VERSION}: a newer one wrote it. "
            "Update with: pip install -U relume"
        )


def _entry_json(entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": entry.name, "dtype": entry.dtype, "shape": entry.shape}
    fields["pieces"] = [piece.model_dump(include=set(Piece.model_fields)) for piece in entry.pieces]
    flags = {"is_parameter": entry.is_parameter, "requires_grad": entry.requires_grad}
    return fields | {name: True for name, is_set in flags.items() if is_set}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
