"""A file of weights, of a model or of a training, written in another format."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from relume.errors import ClassicFileError, ConfigurationError
from relume.models.contents import ModelFile, checked_state
from relume.models.look.entries import state_table
from relume.models.look.inspect import Extras, extras_of
from relume.models.sharded import INDEX_ENDING

ENDINGS = (".safetensors", ".pt", ".pth", ".pt2")
_ENDINGS_TEXT = (
    ".safetensors: weights. .pt or .pth: weights, and what was saved beside them. .pt2: a model that is called without its "
    "class."
)
_TORCH = (".pt", ".pth")
_PLAIN = (str, int, float, complex, bool, bytes, torch.Size, torch.dtype, torch.device)


@dataclass(frozen=True)
class Conversion:
    """What was found in the old file, and what became of it.

    Attributes:
        source_format: of the old file, see `ModelFile`.
        target: the new file; of several, their index.
        tensors, elements: the weights.
        kind: the class of a whole model that was pickled.
        numbers: epoch, step, loss and other plain numbers.
        states: optimizers, schedulers and scalers, in words.
        suspicious: what the old file would have run, in words; nothing was.
        left_out: what the new file does not hold, with the way to keep it where there is one.
    """

    source: Path
    source_format: str
    target: Path
    size_bytes: int
    tensors: int
    elements: int
    kind: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    suspicious: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        from relume.models.look.render import conversion_page
        from relume.page import text_of

        return text_of(conversion_page(self))

    def _repr_html_(self) -> str:
        from relume.models.look.render import conversion_page
        from relume.page import html_of

        return html_of(conversion_page(self))


def convert(
    source: str | Path,
    target: str | Path,
    *,
    model: str | None = None,
    force: bool = False,
    refuse: bool = True,
    max_shard_bytes: int | None = None,
    example_inputs: Any = None,
) -> Conversion:
    """Write the weights of any file that relume reads as another format, whole or not at all. No code in it runs.

    Args:
        source: a file, the index or folder of a sharded one, or a checkpoint (``"runs/fashion@best"``).
        target: its ending says what is written: ``.safetensors``; ``.pt`` or ``.pth``, which holds epoch, loss and optimizer of a
            classic checkpoint too, under the same keys; ``.pt2``, for what `load_model` can build.
        model: which of several models; that one alone is written.
        force: overwrite ``target``.
        refuse: refuse a file with suspicious contents. False takes the tensors and plain values out of it, and leaves the rest.
        max_shard_bytes: write several files of at most this size, and their index (``.safetensors``).
        example_inputs: what the model is called with, for ``.pt2``.

    Raises:
        ConfigurationError: ``target`` has another ending, exists, is the source itself, or lies in no folder.
        ModelFileError: the source is missing, damaged, suspicious, or has no weights.
        StoreWriteError: the disk is full, read-only or fails; ``target`` is as it was.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> torch.save({"epoch": 3, "model_state_dict": layer.state_dict()}, tmp_path / "old.pt")
        >>> done = convert(tmp_path / "old.pt", tmp_path / "new.safetensors")
        >>> done.tensors, done.numbers["epoch"], done.left_out
        (2, 3, ())
    """
    from relume.models.files import open_model_file, save_weights

    target = check_target(source, target, force=force, is_sharded=max_shard_bytes is not None)
    ending = target.suffix.lower()
    if max_shard_bytes is not None and ending != ".safetensors":
        raise ConfigurationError(f"max_shard_bytes is for .safetensors; {target.name} is one file.")
    if (example_inputs is not None) != (ending == ".pt2"):
        raise ConfigurationError(
            f"{target.name} needs an input to be traced with: example_inputs=torch.zeros(1, 3, 224, 224) (--input 3x224x224)."
            if ending == ".pt2"
            else f"example_inputs are for a .pt2; {target.name} holds weights."
        )
    file = open_model_file(source, model=model, refuse=refuse)
    _check_is_apart(file, target)
    if not checked_state(file):
        raise ClassicFileError(f"{file.path} has no weights: relume inspect shows what it has.")
    found = _classic(file)
    extras = extras_of(found) if found is not None else Extras()
    taken = f"model {model or 'model'!r}"  # as state_dict_in chooses
    extras = replace(extras, states={name: text for name, text in extras.states.items() if name != taken})
    if ending == ".pt2":
        left_out = _write_exported(source, target, example_inputs, extras, model)
    elif ending in _TORCH:
        left_out = _write_torch(file, target, whole=model is None)
    else:
        tensors = {name: value for name, value in file.state.items() if isinstance(value, torch.Tensor)}
        target = save_weights(tensors, target, metadata=_metadata(file, extras), max_shard_bytes=max_shard_bytes)
        left_out = (*extras.states, *extras.unused, *(name for name in file.state if name not in tensors))
    return _conversion(file, target, extras, (*left_out, *_beside(file, ending)))


def _beside(file: ModelFile, ending: str) -> list[str]:
    """What a checkpoint holds and the new file does not; a .safetensors takes what it says of itself, such as its epoch."""
    said = [] if ending == ".safetensors" else [name for name in ("epoch", "step", "metrics") if name in file.metadata]
    return [f"{name} (relume export keeps it)" for name in (*file.beside, *said)]


def check_target(source: str | Path, target: str | Path, *, force: bool = False, is_sharded: bool = False) -> Path:
    """The path, if a conversion can be written there; raises ConfigurationError."""
    target = Path(target)
    if _is_folder(target):
        raise ConfigurationError(f"{target} is a folder. Give the name of a file: {target / 'model.safetensors'}.")
    if target.suffix.lower() not in ENDINGS:
        raise ConfigurationError(
            f"{str(target)!r:.200} ends in {target.suffix or 'nothing'!r:.40}. The ending says what is written. {_ENDINGS_TEXT}"
        )
    try:
        return _free(Path(source), target, force, is_sharded)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{str(target)!r:.200} is no path that can be written to: {reason}.") from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no path at all, which `_free` says
        return False


def _free(source: Path, target: Path, force: bool, is_sharded: bool) -> Path:
    if "\0" in str(target):  # which some of Python's calls take for a file that is not there
        raise ValueError("it has a NUL in it")
    if not target.parent.is_dir():
        raise ConfigurationError(f"there is no folder {target.parent} to write {target.name} to.")
    if target.exists() and source.exists() and target.samefile(source):
        raise ConfigurationError(f"{target} is the file that is to be converted. Give the new one another name.")
    written = target.with_name(f"{target.name}.index.json") if is_sharded else target
    if written.exists() and not force:
        raise ConfigurationError(f"{written} exists. Choose another name, or overwrite it with --force (force=True).")
    return target


def _check_is_apart(file: ModelFile, target: Path) -> None:
    if file.format == "sharded safetensors" and target.exists() and target.parent.samefile(file.path.parent):
        raise ConfigurationError(
            f"{target} may be a part of {file.path}, which is to be converted. Write to another folder."
        )


# --------------------------------------------------------------------------------------------------------- what is written


def _classic(file: ModelFile) -> Any:
    """The classic checkpoint in a file of ``torch.save``; None for a bare state_dict, or another format."""
    if not isinstance(file.content, Mapping):
        return None
    from relume.models.classic import classic_of

    try:
        return classic_of(file.content, file.path)
    except ClassicFileError:
        return None


def _metadata(file: ModelFile, extras: Extras) -> dict[str, str]:
    """What the old file says of itself, and its plain numbers, as the text that safetensors holds."""
    return {**file.metadata, **{name: json.dumps(value) for name, value in extras.numbers.items()}}


def _write_torch(file: ModelFile, target: Path, *, whole: bool) -> tuple[str, ...]:
    """The dictionary that the old file holds, or the weights alone."""
    from relume.models.files import save_weights
    from relume.models.torchfile import write_torchfile

    if not whole or not isinstance(file.content, Mapping):
        save_weights(_Kept().plain(file.state, ""), target)
        return ()
    kept = _Kept()
    write_torchfile(kept.plain(file.content, ""), target)
    return tuple(kept.left_out)


class _Kept:
    """The part of a content that ``torch.load(weights_only=True)`` builds: tensors and plain Python."""

    def __init__(self) -> None:
        self.left_out: list[str] = []
        self._made: dict[int, Any] = {}

    def plain(self, value: Any, path: str) -> Any:
        """``value`` without what is neither; that is in ``left_out`` by its place."""
        if isinstance(value, torch.Tensor):
            return value.detach()
        if value is None or type(value) in _PLAIN:
            return value
        if id(value) not in self._made:
            self._made[id(value)] = None  # what contains itself is cut there
            self._made[id(value)] = self._container(value, path)
        return self._made[id(value)]

    def _container(self, value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            made: dict[Any, Any] = OrderedDict() if isinstance(value, OrderedDict) else {}
            for key, item in value.items():
                place = f"{path}.{key}" if path else str(key)
                if type(key) in (str, int, float, bool, bytes, tuple) and not self._is_left_out(item, place):
                    made[key] = self.plain(item, place)
            if hasattr(value, "_metadata") and isinstance(made, OrderedDict):
                made._metadata = self.plain(value._metadata, path)  # type: ignore[attr-defined]
            return made
        if isinstance(value, (list, tuple, set, frozenset)):
            items = [
                self.plain(item, f"{path}.{number}")
                for number, item in enumerate(value)
                if not self._is_left_out(item, f"{path}.{number}")
            ]
            kind = next(kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))
            return set(items) if kind is frozenset else kind(items)
        return _weights_of(value) if _weights_of(value) is not None else _number(value)

    def _is_left_out(self, value: Any, place: str) -> bool:
        known = (*_PLAIN, torch.Tensor, Mapping, list, tuple, set, frozenset, type(None))
        if isinstance(value, known) or _number(value) is not None or _weights_of(value) is not None:
            return False
        self.left_out.append(f"{place} ({getattr(value, 'class_name', type(value).__name__)})")
        return True


def _weights_of(value: Any) -> dict[str, torch.Tensor] | None:
    """The state_dict of a pickled model; None for anything else."""
    from relume.models.pickles import Inert, state_dict_in

    if not isinstance(value, Inert):
        return None
    try:
        return dict(state_dict_in(value))
    except ClassicFileError:
        return None


def _number(value: Any) -> Any:
    """A number or list of numbers of numpy as Python has it; None for anything else."""
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    return torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "iufcb" else None


def _write_exported(
    source: str | Path, target: Path, example_inputs: Any, extras: Extras, model: str | None
) -> tuple[str, ...]:
    from relume.models.whole import load_model, save_model

    save_model(load_model(source, model=model), target, example_inputs=example_inputs)
    return (*extras.numbers, *extras.states, *extras.unused)


# --------------------------------------------------------------------------------------------------------------- the report


def _conversion(file: ModelFile, target: Path, extras: Extras, left_out: tuple[str, ...]) -> Conversion:
    table = state_table(file.state)
    return Conversion(
        source=file.path,
        source_format=file.format,
        target=target,
        size_bytes=_size_on_disk(target),
        tensors=len(table.entries),
        elements=table.parameters,
        kind=str(getattr(file.content, "class_name", "")),
        numbers=extras.numbers,
        states=extras.states,
        suspicious=tuple(file.suspicious),
        left_out=left_out,
    )


def _size_on_disk(target: Path) -> int:
    """Of the file, or of all shards with their index."""
    if not target.name.endswith(INDEX_ENDING):
        return target.stat().st_size
    shards = target.parent.glob(f"{target.name.removesuffix(INDEX_ENDING)}-*-of-*.safetensors")
    return sum(path.stat().st_size for path in (target, *shards))
