"""A prefix that all names of a file have and the model's have not, or the other way round, found by evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch

_CANDIDATES = 32
_PARTNERS = 24  # how many names with the same ending each one is compared with


@dataclass(frozen=True)
class Prefix:
    """What is taken from the front of a file's names, and put there instead.

    Attributes:
        removed, added: both end with a dot, or are empty.
        fits: how many tensors of the model find one of their name and shape this way.
    """

    removed: str = ""
    added: str = ""
    fits: int = 0


@dataclass(frozen=True)
class Prefixes:
    """The names of a file as the model would call them.

    Attributes:
        best: the prefix that is taken away or added; nothing where the names are better as they are.
        names: name in the file to name in the model.
        rivals: other prefixes that fit as well; then none was taken.
    """

    best: Prefix
    names: Mapping[str, str]
    rivals: tuple[Prefix, ...] = ()


def find_prefix(source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> Prefixes:
    """The prefix with which more names of ``source`` are those of ``own``, with the same shapes, than without.

    At least half of the smaller side must fit, and more by the prefix than without: a single layer inside of a model
    does not speak for the whole of it.
    Names that fit as they are stay. Lazy parameters without a shape fit by name.

    Example:
        >>> layer = torch.nn.Linear(2, 2).state_dict()
        >>> find_prefix({f"module.{name}": value for name, value in layer.items()}, layer).best.removed
        'module.'
    """
    plain = {name: name for name in source}
    here = sum(_fits(source[name], own.get(name)) for name in source)
    if here == len(own) or here == len(source):
        return Prefixes(Prefix(fits=here), plain)
    counted = [
        Prefix(removed, added, _count(source, own, removed, added))
        for removed, added in _candidates(source, own)
        if not (here and removed and added)  # a layer that was renamed beside others that were not has no prefix
    ]
    most = max((prefix.fits for prefix in counted), default=0)
    if most <= 2 * here or 2 * most < min(len(source), len(own)):
        return Prefixes(Prefix(fits=here), plain)
    best = [prefix for prefix in counted if prefix.fits == most]
    if len(best) > 1:
        return Prefixes(Prefix(fits=here), plain, tuple(best))
    return Prefixes(best[0], _renamed(source, own, best[0].removed, best[0].added))


def _candidates(source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[tuple[str, str]]:
    """Pairs of what stands in front of a common ending, those of most tensors first."""
    by_ending: dict[tuple[str, ...], list[str]] = {}
    for name in own:
        by_ending.setdefault(tuple(name.split(".")[-2:]), []).append(name)
        if "." in name:
            by_ending.setdefault((name.rpartition(".")[2],), []).append(name)
    votes: Counter[tuple[str, str]] = Counter()
    for name, value in source.items():
        ending = tuple(name.split(".")[-2:])
        partners = by_ending.get(ending) or by_ending.get(ending[-1:], [])
        for other in partners[:_PARTNERS]:
            if _fits(value, own[other]):
                heads = _heads(name, other)
                if heads != ("", ""):
                    votes[heads] += 1
    return [heads for heads, _ in votes.most_common(_CANDIDATES)]


def _heads(name: str, other: str) -> tuple[str, str]:
    """Both names without the ending that they share."""
    one, two = name.split("."), other.split(".")
    while one and two and one[-1] == two[-1]:
        one.pop()
        two.pop()
    return "".join(f"{part}." for part in one), "".join(f"{part}." for part in two)


def _count(source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], removed: str, added: str) -> int:
    names = _renamed(source, own, removed, added)
    return len({target for name, target in names.items() if _fits(source[name], own.get(target))})


def _renamed(
    source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], removed: str, added: str
) -> dict[str, str]:
    names = {name: name for name in source}
    taken = {name for name in source if _fits(source[name], own.get(name))}
    for name in source:
        target = added + name[len(removed) :]
        if name in taken or not name.startswith(removed) or target in taken or name == removed:
            continue
        if not removed and target not in own:
            continue  # a head beside the backbone to whose names the prefix is added
        if target in source and not target.startswith(removed):
            continue  # a name that is there already is not covered by another
        names[name] = target
    while twice := {target for target, count in Counter(names.values()).items() if count > 1}:
        names = {name: name if target in twice else target for name, target in names.items()}
    return names


def _fits(value: torch.Tensor, own: torch.Tensor | None) -> bool:
    if own is None:
        return False
    return torch.nn.parameter.is_lazy(own) or value.shape == own.shape
