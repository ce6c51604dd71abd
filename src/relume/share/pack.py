"""One file of all that a run is: `relume.pack`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from relume.errors import ConfigurationError
from relume.share import documents as named
from relume.share.archive import write_archive
from relume.share.bundle import ENDING
from relume.share.contents import Contents
from relume.share.gather import Source, run_facts
from relume.share.measuring import Progress


@dataclass(frozen=True)
class Packed:
    """A bundle that was written.

    Attributes:
        path: the file.
        name: what it is called inside.
        digest: of its manifest, which stands for all of it.
        size_bytes: of the file.
        files: size of each file in it, by path.
        run: what is said of the run and its author.
        model: how the model is opened.
        claims: the numbers that it stands for.
        missing: what is not in it, in words, and how to have it there.
        notes: what else its author should know.
    """

    path: Path
    name: str
    digest: str
    size_bytes: int
    files: Mapping[str, int]
    run: named.RunFacts
    model: named.Model
    claims: named.Claims
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()


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
    report: bool = True,
    checkpoint: bool = False,
    sample: int = 0,
    title: str = "",
    authors: Sequence[str] = (),
    licence: str = "",
    citation: str = "",
    intended_use: str = "",
    limitations: str = "",
    ethics: str = "",
    model: Any = None,
    force: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
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
        report: the run as a page that any browser opens, with its curves and pictures; the card links to it.
        checkpoint: also the whole checkpoint, to train on: optimizer and all.
        sample: how many samples of the data, with numbers measured on them.
        title, authors, licence, citation: for the model card; ``licence`` as SPDX has it (``"MIT"``).
        intended_use, limitations, ethics: what only the author knows, for sections of the model card.
        model: which of several models; or a module of the right class where how it is built is not known. A Run or a Result
            has its own.
        force: overwrite ``out``.
        trust: where the model's class is not imported, run its definition out of the code that the run kept. It also finds
            how a model was built without `relume.build`, where the code calls its class with plain arguments, as ``Net(32)``.
        progress: called while numbers are measured, with the samples done and all of them.

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
    from relume.version import __version__

    _check_numbers(examples=examples, sample=sample)
    instance = model if isinstance(model, nn.Module) else None
    source = Source.find(run_or_checkpoint, root, None if instance is not None else model)
    if instance is None and source.document is None:
        instance = _held(run_or_checkpoint, source.model)
    words = {"intended_use": intended_use, "limitations": limitations, "ethics": ethics}
    _check_words(title=title, licence=licence, citation=citation, **words)
    facts = run_facts(source, title=title, authors=_texts(authors), licence=licence, citation=citation)
    facts = facts.model_copy(update=words)
    target = check_target(out, facts.name, force=force)
    whole = Contents(source, facts, instance, trust=trust, code=code, progress=progress)
    whole.add_weights()
    whole.add_data(data, evaluate)
    whole.measure(loss, metrics, evaluate)
    whole.add_examples(examples)
    whole.add_sample(sample)
    whole.add_graph(is_wanted=graph)
    whole.add_code()
    whole.add_report(is_wanted=report)
    if checkpoint:
        whole.add_checkpoint()
    name = facts.name or "model"
    whole.add_documents(name, __version__)
    manifest = write_archive(target, name, whole.files, __version__, whole.members)
    sizes = {member.path: member.size_bytes for member in manifest.members}
    size_bytes = target.stat().st_size
    return Packed(
        target,
        manifest.name,
        manifest.digest,
        size_bytes,
        sizes,
        facts,
        whole.model,
        whole.claims,
        whole.missing,
        whole.notes,
    )


def _held(run: Any, name: str) -> nn.Module | None:
    """The model itself, where a Run or a Result that was given has it."""
    held = getattr(run, "models", None)
    found = held.get(name) if isinstance(held, Mapping) else None
    return found if isinstance(found, nn.Module) else None


def _check_numbers(**numbers: Any) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigurationError(f"{name}={value!r:.40}: it is a whole number of at least 0.")


def _texts(authors: Any) -> list[str]:
    given = [authors] if isinstance(authors, str) else list(authors)
    if not all(isinstance(one, str) for one in given):
        raise ConfigurationError(f"authors={authors!r:.80}: give names, as texts.")
    return [one for one in given if one.strip()]


def _check_words(**words: Any) -> None:
    for name, text in words.items():
        if not isinstance(text, str):
            raise ConfigurationError(f"{name}={text!r:.80} is a {type(text).__name__}: give a text.")


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
