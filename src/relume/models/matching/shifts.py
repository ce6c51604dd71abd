"""Layers that are counted from another number in a file than in a model: names that fit, and mean the layer beside."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch

_NUMBERED = re.compile(r"(?:[^.]*[^.\d])?(0|[1-9]\d{0,5})$")
_PLAIN = re.compile(r"[\w.-]{0,200}")
_COUNTER = "num_batches_tracked"
_DEEPEST = 100  # segments of a name, as for `propose`


@dataclass(frozen=True)
class Shift:
    """A run of layers whose names differ by the same number everywhere.

    Attributes:
        stem: what stands before the number in the model: ``"blocks."``.
        numbers: those of the source.
        by: what is added to each of them to have the model's.
        source_stem: what stands before the number in the source.
    """

    stem: str
    numbers: tuple[int, ...]
    by: int
    source_stem: str

    def __str__(self) -> str:
        runs = [f"{stem}{numbers[0]} to {stem}{numbers[-1]}" for stem, numbers in self._sides()]
        return f"{runs[0]} in the source, {runs[1]} in the model: each name would mean the layer beside it"

    @property
    def remedy(self) -> str:
        """The argument that takes the numbers as they are meant."""
        first, last = self.numbers[0], self.numbers[-1]
        is_range = self.numbers == tuple(range(first, last + 1))
        numbers = f"range({first}, {last + 1})" if is_range else repr(self.numbers)
        moved = f"i {'+' if self.by > 0 else '-'} {abs(self.by)}"
        stem = self.source_stem
        if not _PLAIN.fullmatch(stem):  # names come from files
            return f"rename= with a function that gives the names with {self.by:+} to these numbers"
        return f"rename={{f'{stem}{{i}}': f'{stem}{{{moved}}}' for i in {numbers}}}"

    def _sides(self) -> tuple[tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]:
        return (self.source_stem, self.numbers), (self.stem, tuple(number + self.by for number in self.numbers))


_Layers = dict[str, dict[int, dict[str, str]]]  # stem, number, the rest of the name, the whole name


def find_shifts(
    names: Mapping[str, str], source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> tuple[Shift, ...]:
    """Runs of layers that fit the model's only when all their numbers change by the same amount.

    Args:
        names: name in the source to the name that it would have in the model.
        source, own: tensors of the file and of the model, of which only the shapes are looked at.

    Example:
        >>> layer = torch.ones(2, 2)
        >>> file, own = {"layer1.w": layer, "layer2.w": layer}, {"layer0.w": layer, "layer1.w": layer}
        >>> find_shifts({name: name for name in file}, file, own)[0].remedy
        "rename={f'layer{i}': f'layer{i - 1}' for i in range(1, 3)}"
    """
    back = {new: old for old, new in names.items()}
    if own.keys() <= back.keys():  # nothing is missing, so nothing is shifted: most loads end here
        return ()
    theirs, ours = _layers(back), _layers(own)
    found = []
    for stem in theirs.keys() & ours.keys():
        here, there = theirs[stem], ours[stem]
        by = min(there) - min(here)
        # Without a number of both sides nothing would be loaded into the wrong layer.
        if not by or {number + by for number in here} != there.keys() or not here.keys() & there.keys():
            continue
        if all(_same_layer(here[number], there[number + by], back, source, own) for number in here):
            found.append(Shift(stem, tuple(sorted(here)), by, _stem_in_source(stem, here, back)))
    return tuple(sorted(found, key=lambda shift: shift.stem))


def _layers(names: Mapping[str, object]) -> _Layers:
    layers: _Layers = defaultdict(lambda: defaultdict(dict))
    for name in names:
        if name.endswith(_COUNTER) or name.count(".") > _DEEPEST:
            continue
        end = 0
        for part in name.split("."):
            start, end = end, end + len(part)
            if numbered := _NUMBERED.match(part):
                stem = name[: start + numbered.start(1)]
                layers[stem][int(numbered[1])][name[end:]] = name
            end += 1
    return layers


def _same_layer(
    here: Mapping[str, str],
    there: Mapping[str, str],
    back: Mapping[str, str],
    source: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
) -> bool:
    return here.keys() == there.keys() and all(
        torch.nn.parameter.is_lazy(own[there[rest]]) or source[back[here[rest]]].shape == own[there[rest]].shape
        for rest in here
    )


def _stem_in_source(stem: str, here: Mapping[int, Mapping[str, str]], back: Mapping[str, str]) -> str:
    name = next(iter(here[min(here)].values()))
    ending = name[len(stem) :]
    old = back[name]
    return old.removesuffix(ending) if old.endswith(ending) else stem
