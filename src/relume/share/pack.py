"""One file of all that a run is: `relume.pack`."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from relume.errors import BundleError, ConfigurationError
from relume.models.tensorfile import tensorfile_parts
from relume.share import claims as recorded_claims
from relume.share import documents as named
from relume.share.ancestry import lineage
from relume.share.archive import Parts, write_archive
from relume.share.bundle import ENDING
from relume.share.gather import Source, environment_facts, model_facts, preprocessing_facts, run_facts

_NUMBERS = re.compile(r"\[\n([-+.\deE,\s]+?)\n\s*\]")
"""A list of nothing but numbers, which is written on one line. Texts in JSON hold no line ends."""


@dataclass(frozen=True)
class Packed:
    """A bundle that was written.

    Attributes:
        path: the file.
        name: what it is called inside.
        digest: of its manifest, which stands for all of it.
        size_bytes: of the file.
        files: size of each file in it, by path.
        claims: the numbers that it stands for.
        missing: what is not in it, in words, and how to have it there.
        notes: what else its author should know.
    """

    path: Path
    name: str
    digest: str
    size_bytes: int
    files: Mapping[str, int]
    claims: Sequence[named.Claim] = ()
    missing: Sequence[str] = field(default=())
    notes: Sequence[str] = field(default=())


def pack(
    run_or_checkpoint: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    root: str | os.PathLike[str] = "runs",
    data: Any = None,
    loss: Any = None,
    metrics: Mapping[str, Any] | None = None,
    evaluate: bool | None = None,
    examples: int = 4,
    graph: bool = True,
    code: bool = True,
    checkpoint: bool = False,
    sample: int = 0,
    title: str = "",
    authors: Sequence[str] = (),
    licence: str = "",
    citation: str = "",
    model: Any = None,
    force: bool = False,
) -> Packed:
    """Write a bundle."""
    from relume import __version__

    source = Source.find(run_or_checkpoint, root, model)
    facts = run_facts(source, title=title, authors=list(authors), licence=licence, citation=citation)
    target = check_target(out, facts.name, force=force)
    name = facts.name or "model"
    weights = list(tensorfile_parts(source.state, source.metadata()))
    contents: dict[str, Parts] = {named.WEIGHTS: lambda: weights}
    documents: dict[str, BaseModel] = {
        named.MODEL: model_facts(source),
        named.INPUT: preprocessing_facts(source),
        named.RUN: facts,
        named.CLAIMS: recorded_claims.recorded(source, None),
        named.DATA: named.Data(),
        named.ENVIRONMENT: environment_facts(source),
        named.LINEAGE: lineage(source),
    }
    contents |= {path: held(text(document)) for path, document in documents.items()}
    manifest = write_archive(target, name, contents, __version__)
    sizes = {member.path: member.size_bytes for member in manifest.members}
    return Packed(target, name, manifest.digest, target.stat().st_size, sizes)


def check_target(out: str | os.PathLike[str] | None, name: str, *, force: bool = False) -> Path:
    """Where the bundle is written, if it can be; by default ``NAME.relume`` here.

    Raises:
        ConfigurationError: another ending, no such folder, or there is a file and ``force`` was not given.
    """
    path = Path(f"{name or 'model'}{ENDING}" if out is None else out)
    if path.suffix != ENDING:
        raise ConfigurationError(
            f"{str(path)!r} ends in {path.suffix or 'nothing'!r}: a bundle is called NAME{ENDING}. For weights alone there "
            "is relume export RUN FILE.safetensors."
        )
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {path.parent} to write {path.name} to: make it first.")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder: choose another name.")
    if path.exists() and not force:
        raise ConfigurationError(f"{path} exists. Choose another name, or overwrite it with --force (force=True).")
    return path


def text(document: BaseModel) -> bytes:
    """A document as it stands in the bundle: one form for the same content."""
    content = _finite(document.model_dump(mode="json"))
    whole = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    short = _NUMBERS.sub(lambda match: "[" + " ".join(match[1].split()) + "]", whole)
    return short.encode(errors="backslashreplace")


def held(content: bytes) -> Parts:
    """A small file that is in memory."""
    return lambda: [content]


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they stand there as texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


__all__ = ["BundleError", "Packed", "pack"]
