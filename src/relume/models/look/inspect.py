"""What is in a file of weights, of a model or of a training, found without running anything of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from relume.errors import ClassicFileError
from relume.models.contents import Format, ModelFile
from relume.models.look.entries import Entry, state_table, totals_by_dtype
from relume.models.look.numbers import Stats, count_not_finite, stats_of

CHECKED_BYTES = 100_000_000
"""Up to this size every file is looked through for NaN and infinite values; larger ones on demand."""


@dataclass(frozen=True)
class Module:
    """A module of a pickled model: its place, its class as the pickle names it, and its own tensors."""

    path: str
    kind: str
    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspection:
    """What a file holds.

    Attributes:
        path, format, size_bytes: of the file, see `ModelFile`.
        tensors: the weights, in the file's order.
        stats: by name, if they were asked for.
        not_finite: how many NaN and infinite values a tensor has, for those that have any; None when they were not looked
            for, because the file is larger than 100 MB and ``stats`` was not asked for.
        metadata: what the file says of itself in words.
        modules: the tree of a pickled model.
        numbers: epoch, step, loss and other plain numbers that were saved beside the weights.
        states: what else was: optimizers, schedulers and scalers, each in a few words.
        unused: what was saved and is not understood.
        callables: what the pickle names to be called, with how often; nothing of it was.
        suspicious: what no weights need, in words.
    """

    path: Path
    format: Format
    size_bytes: int
    tensors: tuple[Entry, ...]
    stats: Mapping[str, Stats] | None = None
    not_finite: Mapping[str, int] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[Module, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    callables: Mapping[str, int] = field(default_factory=dict)
    suspicious: tuple[str, ...] = ()

    @property
    def elements(self) -> int:
        """Numbers in all tensors, tied ones counted once."""
        return sum(entry.elements for entry in self.tensors if entry.tied_to is None)

    @property
    def dtypes(self) -> dict[str, tuple[int, int]]:
        """``{dtype: (elements, bytes)}``."""
        return totals_by_dtype(self.tensors)

    @property
    def tied(self) -> dict[str, str]:
        """The names of tensors that share their memory with another, and that other's."""
        return {entry.name: entry.tied_to for entry in self.tensors if entry.tied_to is not None}

    @property
    def duplicates(self) -> list[list[str]]:
        """Names of tensors of equal values that the file holds more than once; known with ``stats`` only.

        Tensors of one value (zeros, ones) are left out: every new bias is equal to every other.
        """
        groups: dict[Any, list[str]] = defaultdict(list)
        for entry in self.tensors:
            found = (self.stats or {}).get(entry.name)
            if found is not None and entry.tied_to is None and not found.is_constant and entry.elements > 1:
                groups[entry.shape, entry.dtype, found.hash].append(entry.name)
        return [names for names in groups.values() if len(names) > 1]

    def __str__(self) -> str:
        from relume.models.look.render import inspection_page
        from relume.page import text_of

        return text_of(inspection_page(self))

    def _repr_html_(self) -> str:
        from relume.models.look.render import inspection_page
        from relume.page import html_of

        return html_of(inspection_page(self))


def inspect_file(path: str | Path, *, stats: bool = False, model: str | None = None) -> Inspection:
    """Look into a file of any format that relume reads, or into a checkpoint (``runs/fashion@best``).

    Only headers are read, and the values of files up to 100 MB, to find NaN and infinite ones. No code in the file runs,
    not even in one that would: what it names is listed in ``suspicious``.

    Args:
        stats: read all values, for minimum, maximum, mean, deviation, zeros, NaN and infinite values of each tensor, and for
            equal ones. Memory stays bounded: parts of 8 MB are looked at.
        model: which of several models.

    Raises:
        ModelFileError: there is no such file, or it is damaged or no file of weights; says what it is.
        CheckpointError: so is a checkpoint.

    Example:
        >>> from safetensors.torch import save_file
        >>> save_file({"weight": torch.ones(3, 2)}, tmp_path / "layer.safetensors")
        >>> found = inspect_file(tmp_path / "layer.safetensors", stats=True)
        >>> found.format, found.tensors[0].shape, found.stats["weight"].mean
        ('safetensors', (3, 2), 1.0)
    """
    from relume.models.files import open_model_file

    return inspect_opened(open_model_file(path, model=model, refuse=False), stats=stats)


def inspect_opened(file: ModelFile, *, stats: bool = False) -> Inspection:
    """`inspect_file` of a file that is open."""
    entries = state_table(file.state).entries
    found = {name: stats_of(file.state[name]) for name in _with_values(file, entries)} if stats else None
    extras = _extras(file)
    return Inspection(
        path=file.path,
        format=file.format,
        size_bytes=file.size_bytes,
        tensors=entries,
        stats=found,
        not_finite=_not_finite(file, entries, found),
        metadata=dict(file.metadata),
        modules=_modules(file),
        numbers=extras.numbers,
        states=extras.states,
        unused=extras.unused,
        callables=dict(file.callables),
        suspicious=tuple(file.suspicious),
    )


def _with_values(file: ModelFile, entries: Sequence[Entry]) -> list[str]:
    """Names of the tensors that can be looked at."""
    return [e.name for e in entries if not file.state[e.name].is_meta and file.state[e.name].layout is torch.strided]


def _not_finite(file: ModelFile, entries: Sequence[Entry], stats: Mapping[str, Stats] | None) -> dict[str, int] | None:
    if stats is not None:
        counts = {name: found.nan + found.infinite for name, found in stats.items()}
    elif sum(entry.size_bytes for entry in entries) <= CHECKED_BYTES:
        counts = {name: count_not_finite(file.state[name]) for name in _with_values(file, entries)}
    else:
        return None
    return {name: count for name, count in counts.items() if count}


# ----------------------------------------------------------------------------------------------- beside the weights


@dataclass(frozen=True)
class Extras:
    """What a file holds beside the weights."""

    numbers: dict[str, float] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


def _extras(file: ModelFile) -> Extras:
    if file.content is None:
        return Extras()
    from relume.models.classic import classic_of
    from relume.models.pickles.inert import describe

    if isinstance(file.content, Mapping):
        try:
            return extras_of(classic_of(file.content, file.path))
        except ClassicFileError:  # no weights in a form that is known; what there is is listed all the same
            return Extras(unused=tuple(f"{key} ({describe(value)})" for key, value in file.content.items()))
    return Extras() if file.state else Extras(unused=(describe(file.content),))


def extras_of(classic: Any) -> Extras:
    """The numbers and states of a `ClassicCheckpoint`, in words."""
    numbers = {"epoch": classic.epoch, "step": classic.step, "loss": classic.loss} | dict(classic.metrics)
    config = {f"config.{name}": value for name, value in classic.config.items() if _is_number(value)}
    states = {name: _optimizer_text(state) for name, state in classic.optimizers.items()}
    states |= {name: _keys_text(state) for name, state in classic.schedulers.items()}
    if classic.scaler is not None:
        states["scaler"] = _keys_text(classic.scaler)
    if len(classic.models) > 1:
        states |= {f"model {name!r}": f"{len(state)} tensors" for name, state in classic.models.items()}
    return Extras(
        {name: value for name, value in (numbers | config).items() if value is not None},
        {str(name): text for name, text in states.items()},
        tuple(classic.unused),
    )


def _optimizer_text(state: Any) -> str:
    groups = state.get("param_groups") if isinstance(state, Mapping) else None
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, Mapping) for group in groups):
        return "not in the form of an optimizer's state_dict"
    members = [group["params"] for group in groups if isinstance(group.get("params"), (list, tuple))]
    texts = [f"{len(groups)} groups" if len(groups) != 1 else "1 group", f"{sum(map(len, members))} parameters"]
    rates = [group["lr"] for group in groups if _is_number(group.get("lr"))]
    if rates:
        texts.append(f"lr {', '.join(format(rate, 'g') for rate in dict.fromkeys(rates))}"[:60])
    values = state.get("state")
    kept = values.values() if isinstance(values, Mapping) else ()
    names = dict.fromkeys(str(name) for one in kept if isinstance(one, Mapping) for name in one)
    return ", ".join([*texts, f"with {', '.join(list(names)[:6])}" if names else "without state"])


def _keys_text(state: Any) -> str:
    if not isinstance(state, Mapping):
        return type(state).__name__
    plain = {str(key): value for key, value in state.items() if _is_number(value)}
    return ", ".join(f"{key} {value:g}" for key, value in list(plain.items())[:4]) or f"{len(state)} entries"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _modules(file: ModelFile) -> tuple[Module, ...]:
    if file.content is None:
        return ()
    from relume.models.pickles import module_tree

    return tuple(Module(path, kind, dict(tensors)) for path, kind, tensors in module_tree(file.content))
