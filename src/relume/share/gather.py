"""What a run knows of itself, as the files of a bundle say it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from relume.checkpoint import Checkpoint, Store
from relume.errors import ConfigurationError, RelumeError, RunError, UnknownCheckpointError, UnknownNameError
from relume.models.checkpointfile import checkpoint_metadata, checkpoint_state, chosen_model, model_metadata
from relume.models.contents import RECIPE
from relume.monitor import RunRecord, status_of
from relume.provenance import Provenance
from relume.provenance.portable import Portable
from relume.provenance.record import Segment
from relume.saved import find_checkpoint
from relume.share import documents
from relume.share.weights import weights_digest

_LIBRARIES = ("torch", "torchvision", "timm", "relume")
"""What a recipe may name without the author's code."""


@dataclass(frozen=True)
class Source:
    """A checkpoint of a run that is packed, and what is known beside it.

    Attributes:
        folder: of the run; None for a checkpoint without one.
        model: the name of the model in the checkpoint.
        state: its tensors, mapped from the store, each verified.
        meta: of the checkpoint.
        odd: entries of the state_dict that are no tensors, and are not packed.
        found: how the model is built, where the run did not know it and its code tells it.
    """

    store: Store
    checkpoint: Checkpoint
    folder: Path | None
    model: str
    state: Mapping[str, torch.Tensor]
    meta: Mapping[str, Any]
    odd: tuple[str, ...] = ()
    found: Mapping[str, Any] | None = None

    @classmethod
    def find(cls, run: Any, root: str | os.PathLike[str] = "runs", model: str | None = None) -> Source:
        """The checkpoint that is meant: ``RUN``, ``RUN@best``, ``RUN@12``, a manifest, or a Run or a Result.

        Raises:
            UnknownNameError, UnknownCheckpointError: there is none.
            ConfigurationError: there are several models, and ``model`` was not given; lists them.
            ClassicFileError: the checkpoint has no models.
            CheckpointError: it is damaged.
        """
        store, checkpoint = _found(run, root)
        chosen = chosen_model(store, checkpoint, model)
        state = checkpoint_state(store, checkpoint, model=chosen)
        meta = store.meta(checkpoint)
        above = checkpoint.path.parent.parent
        return cls(
            store,
            checkpoint,
            above if (above / "run.json").is_file() else None,
            chosen,
            {name: value.detach() for name, value in state.items() if isinstance(value, torch.Tensor)},
            meta if isinstance(meta, Mapping) else {},
            tuple(name for name, value in state.items() if not isinstance(value, torch.Tensor)),
        )

    @cached_property
    def record(self) -> RunRecord | None:
        """run.json of the run."""
        try:
            return None if self.folder is None else RunRecord.load(self.folder)
        except RunError:
            return None

    @cached_property
    def segments(self) -> list[Segment]:
        """The starts of the run that provenance knows, oldest first."""
        try:
            return [] if self.folder is None else Provenance.load(self.folder).segments
        except RunError:
            return []

    @cached_property
    def segment(self) -> Segment | None:
        """The start during which the checkpoint was made."""
        journal = self.meta.get("journal")
        number = journal.get("segment") if isinstance(journal, Mapping) else None
        exact = [one for one in self.segments if one.segment == number]
        known = exact or self.segments
        return known[-1] if known else None

    @property
    def config(self) -> Mapping[str, Any]:
        config = self.meta.get("config")
        return config if isinstance(config, Mapping) else self.record.config if self.record is not None else {}

    @property
    def metrics(self) -> dict[str, float]:
        """What the run had measured when it made the checkpoint."""
        found = self.meta.get("metrics")
        found = found if isinstance(found, Mapping) else {}
        return {str(name): float(value) for name, value in found.items() if isinstance(value, (int, float))}

    @property
    def directory(self) -> Path:
        """Where the run was started: what its relative paths are from."""
        known = self.record.directory if self.record is not None else ""
        return Path(known) if known else Path.cwd()

    @property
    def arguments(self) -> list[str]:
        """What the script, or ``relume``, was called with."""
        if self.segment is not None and self.segment.argv:
            return self.segment.argv[1:]
        return self.record.argv[1:] if self.record is not None else []

    @cached_property
    def portable(self) -> Portable:
        """What takes the machine out of texts."""
        folders: list[str | os.PathLike[str]] = [self.directory, self.store.root.absolute()]
        for segment in self.segments:
            folders.append(segment.directory)
            folders += [tree.path for tree in segment.code.trees] if segment.code is not None else []
        return Portable([*folders, Path.cwd()])

    @cached_property
    def document(self) -> dict[str, Any] | None:
        """How the model is built, as `relume.models.whole.model_document` has it."""
        text = model_metadata(self.meta, self.model).get(RECIPE)
        if text is None and self.found is not None:
            return dict(self.found)
        return None if text is None else json.loads(text)

    @property
    def trainable(self) -> dict[str, bool]:
        """Which parameters were trained when the checkpoint was made, by name; empty where it does not say."""
        tree = self.store.manifest(self.checkpoint).tree
        known: Any = tree.get("trainable", {}) if isinstance(tree, dict) else {}
        names = known.get(self.model, {}).get("now", {}) if isinstance(known, dict) else {}
        return {str(name): value is not False for name, value in names.items()} if isinstance(names, dict) else {}

    @property
    def hashes(self) -> dict[str, str]:
        """blake3 of the tensors' bytes, by name: that is what the store calls them."""
        begin = f"models.{self.model}."
        entries = {entry.name.removeprefix(begin): entry for entry in self.store.manifest(self.checkpoint).entries}
        return {
            name: entries[name].pieces[0].hash
            for name, value in self.state.items()
            if name in entries and len(entries[name].pieces) == 1 and entries[name].pieces[0].size_bytes == value.nbytes
        }

    def metadata(self) -> dict[str, str]:
        """Of the file of weights: it can be used by itself."""
        found = checkpoint_metadata(self.checkpoint, self.meta)
        found |= {} if self.document is None else {RECIPE: json.dumps(self.document, default=str)}
        return {key: value for key, value in found.items() if key != "checkpoint"}


def _found(run: Any, root: str | os.PathLike[str]) -> tuple[Store, Checkpoint]:
    place = getattr(run, "folder", None) if not isinstance(run, (str, os.PathLike, Checkpoint)) else run
    place = run.path if isinstance(run, Checkpoint) else place
    if not isinstance(place, (str, os.PathLike)) or not str(place):
        raise ConfigurationError(
            f"{run!r:.80} is a {type(run).__name__}: pack takes RUN, RUN@best, RUN@12, a checkpoint's path, or a Run."
        )
    name = os.fspath(place)
    before, at, which = name.rpartition("@")
    name = before if at and before and which == "last" else name
    try:
        return find_checkpoint(name, Path(root))
    except UnknownNameError as error:
        if os.sep in name or Path(name).exists():
            raise UnknownNameError(
                f"{error} A run is a folder with run.json below {root} (--root, root=); a checkpoint is named by its "
                "manifest, runs/RUN/checkpoints/….json."
            ) from None
        raise
    except UnknownCheckpointError as error:
        raise UnknownCheckpointError(
            f"{error} A bundle is made from a checkpoint: relume checkpoints RUN lists them, and a Run saves one at its end."
        ) from None


# --------------------------------------------------------------------------------------------------------- the documents


def model_facts(source: Source) -> documents.Model:
    """config.json, but for the graph."""
    document, config = source.document, source.config
    names = sorted(set(named_builders(document.get("recipe")))) if document is not None else []
    own = [name for name in names if name.partition(".")[0] not in _LIBRARIES]
    recipe = document.get("recipe", {}).get("builder", "") if document is not None else ""
    kind = str(recipe).rpartition(":")[2] if recipe else str(config.get("model") or "").rpartition("/")[2]
    classes = _classes(config)
    return documents.Model(
        architectures=[kind] if kind else [],
        document=document,
        why_no_document="" if document is not None else _WHY_NO_RECIPE,
        needs_code=", ".join(name.replace(":", ".") for name in own),
        parameters=_parameters(source, document),
        weights_digest=weights_digest(source.state, source.hashes),
        id2label={str(label): name for label, name in enumerate(classes)} if classes else None,
        label2id={name: label for label, name in enumerate(classes)} if classes else None,
    )


_WHY_NO_RECIPE = (
    "how the model is built was not known when the checkpoint was made: build it with relume.build(Class, …), or make it of "
    "arguments that a recipe can hold (numbers, texts, modules)"
)


def named_builders(recipe: Any) -> Iterator[str]:
    """All classes and functions that a recipe names, as ``MODULE:NAME``."""
    if isinstance(recipe, list):
        for one in recipe:
            yield from named_builders(one)
    elif isinstance(recipe, dict):
        for key, one in recipe.items():
            if key in ("builder", "class") and isinstance(one, str):
                yield one
            yield from named_builders(one)


def _parameters(source: Source, document: Mapping[str, Any] | None) -> int:
    """How many numbers are trained or could be: buffers are told by the optimizer's side of the checkpoint, where it has one."""
    chosen = [name for name in source.state if name in source.trainable] or [
        name for name, value in source.state.items() if value.is_floating_point() and "running_" not in name
    ]
    counted = {source.state[name].data_ptr(): source.state[name].numel() for name in chosen}
    return sum(counted.values())


def _classes(config: Mapping[str, Any]) -> list[str]:
    classes = config.get("classes")
    if isinstance(classes, (list, tuple)) and classes and all(isinstance(name, str) for name in classes):
        return list(classes)
    return []


def preprocessing_facts(source: Source) -> documents.Preprocessing:
    """preprocessor_config.json, from what the run says of its inputs."""
    from relume.datasets import ToTensor

    given, classes = source.config.get("input"), _classes(source.config)
    if given is None:
        return documents.Preprocessing(classes=classes)
    try:
        prepare = ToTensor.of_config(given)
    except RelumeError:
        return documents.Preprocessing(classes=classes)
    return image_preprocessing(prepare, classes)


def image_preprocessing(prepare: Any, classes: list[str]) -> documents.Preprocessing:
    """That of images which a `relume.datasets.ToTensor` makes to inputs."""
    size = prepare.size
    return documents.Preprocessing(
        kind="image",
        settings=prepare.as_config(),
        classes=classes,
        image_mean=None if prepare.mean is None else list(prepare.mean),
        image_std=None if prepare.std is None else list(prepare.std),
        size=None if size is None else {"height": size, "width": size},
    )


def run_facts(
    source: Source, *, title: str = "", authors: list[str] | None = None, licence: str = "", citation: str = ""
) -> documents.RunFacts:
    """run.json of the bundle."""
    record, cursor, clean = source.record, source.meta.get("cursor"), source.portable
    cursor = cursor if isinstance(cursor, Mapping) else {}
    status, seconds = _ending(source)
    return documents.RunFacts(
        name=record.name if record is not None else str(source.meta.get("run", "")),
        id=record.id if record is not None else str(source.meta.get("run_id", "")),
        checkpoint=source.checkpoint.name,
        epoch=_whole(cursor.get("epoch")),
        step=_whole(cursor.get("step")),
        created=record.created if record is not None else None,
        seconds=seconds,
        status=status,
        seed=record.seed if record is not None else _whole(source.meta.get("seed")),
        command=command_of(source),
        config=clean.value(dict(source.config)),
        tags=list(record.tags) if record is not None else [],
        notes=clean.text(record.notes) if record is not None and record.notes else "",
        title=title,
        authors=authors or [],
        licence=licence,
        citation=citation,
    )


def command_of(source: Source) -> list[str]:
    """How the run was started, as it is said anywhere: ``python train.py --lr 0.1``, ``relume train fashion-mnist``."""
    segment, record = source.segment, source.record
    words = segment.command if segment is not None else record.command if record is not None else []
    argv = segment.argv if segment is not None else record.argv if record is not None else []
    if is_relume_command(argv):
        return ["relume", *source.portable.arguments(argv[1:])]
    if not words:
        return source.portable.arguments(argv)
    return ["python", *source.portable.arguments(words[1:])]


def is_relume_command(argv: list[str]) -> bool:
    """Whether the program itself was started: ``relume train`` or ``python -m relume train``."""
    program = Path(argv[0].replace("\\", "/")) if argv else Path()
    return program.stem == "relume" or program.parts[-2:] == ("relume", "__main__.py")


def _ending(source: Source) -> tuple[str, float | None]:
    if source.folder is None:
        return "", None
    try:
        status, line = status_of(source.folder)
    except RelumeError:
        return "", None
    seconds = line.get("seconds")
    return status, float(seconds) if isinstance(seconds, (int, float)) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def environment_facts(source: Source) -> documents.Environment:
    """environment.json: where the training ran; versions alone where provenance was switched off."""
    machine = source.segment.machine if source.segment is not None else None
    packages = dict(source.segment.packages) if source.segment is not None else {}
    versions: Any = source.meta.get("versions")
    versions = dict(versions) if isinstance(versions, Mapping) else {}
    python = str(versions.pop("python", "") or (machine.python if machine is not None else ""))
    known = packages or {str(name): str(version) for name, version in versions.items()}
    deterministic = (source.meta.get("numerics") or {}).get("deterministic")
    found = documents.Environment(
        python=python,
        packages={name: source.portable.text(known[name]) for name in sorted(known, key=str.lower)},
        device=str(source.meta.get("device", "")),
        threads=_whole(source.meta.get("threads")),
        deterministic=None if deterministic is None else bool(deterministic),
    )
    if machine is None:
        return found
    gpus = [str(gpu.get("name", "")) for gpu in machine.gpus]
    more = {
        "system": source.portable.text(machine.system),
        "cpu": machine.cpu,
        "gpus": gpus,
        "cuda": machine.cuda,
        "cudnn": machine.cudnn,
    }
    return found.model_copy(update=more)
