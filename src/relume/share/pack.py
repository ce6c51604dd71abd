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
    """Write a bundle: one file of all that a run is, which another person can open, check and reproduce.

    Args:
        run_or_checkpoint: ``RUN`` (its newest checkpoint), ``RUN@best``, ``RUN@12``, a manifest's path, a Run or a Result.
        out: ends in ``.relume``; by default ``RUN.relume`` here.
        root: the folder that holds the runs.
        data: what the numbers are measured on; by default what the run's configuration says (``config["dataset"]``). A name
            such as ``"fashion-mnist"``, a folder of images, a `relume.datasets.DataSplit`, a data set of (input, target), a
            DataLoader, or a tuple of tensors.
        loss: what the loss is: ``"cross entropy"``, ``"mse"``, ``"mae"``, a loss of torch, or a function
            ``loss(output, target)`` of a module of yours, giving the batch's mean. By default as the Trainer recorded it.
        metrics: names to such functions, or to ``"accuracy"`` and the like.
        evaluate: measure the numbers anew, with what is packed, on the CPU. None: where the data is here; True: it must be.
        examples: how many examples with their outputs.
        graph: the model as a graph, which opens without its class, where it can be had.
        code: the source code that the run kept.
        checkpoint: also the whole checkpoint, to train on: optimizer and all.
        sample: how many samples of the data, with numbers measured on them.
        title, authors, licence, citation: for the model card; ``licence`` as SPDX has it (``"MIT"``).
        model: which of several models; or a module of the right class where how it is built is not known.
        force: overwrite ``out``.

    Packing the same twice gives the same bytes. Nothing in it tells paths, host or user of this machine, but for what stands
    in the code itself.

    Raises:
        UnknownNameError, UnknownCheckpointError: there is no such run or checkpoint.
        ConfigurationError: arguments that make no sense, or ``out`` cannot be written.
        BundleError: nobody could open it: there is neither a recipe nor a graph.
        DataError: ``evaluate=True`` and the data is not here; or it cannot be used.
        CheckpointError: the checkpoint is damaged.
        StoreWriteError: the disk is full, read-only or fails; ``out`` is as it was.

    Cost: each byte of the weights is read, hashed and written once (VGG-19: see docs/measurements.md).
    """
    from relume import __version__

    _check_numbers(examples=examples, sample=sample)
    instance = model if isinstance(model, nn.Module) else None
    source = Source.find(run_or_checkpoint, root, None if instance is not None else model)
    facts = run_facts(
        source, title=title, authors=_texts(authors, "authors"), licence=licence, citation=citation
    )
    target = check_target(out, facts.name, force=force)
    work = _Work(source, Network(source, instance), progress)
    work.add_weights()
    work.add_data(data, evaluate)
    work.measure(loss, metrics, evaluate)
    work.add_examples(examples)
    work.add_sample(sample)
    work.add_graph(wanted=graph)
    work.add_code(wanted=code)
    work.add_checkpoint(wanted=checkpoint)
    work.add_documents(facts)
    work.add_card()
    manifest = write_archive(target, facts.name or "model", work.contents, __version__)
    sizes = {member.path: member.size_bytes for member in manifest.members}
    size_bytes = target.stat().st_size
    return Packed(
        target, manifest.name, manifest.digest, size_bytes, sizes, work.claims.claims, work.missing, work.notes
    )


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
