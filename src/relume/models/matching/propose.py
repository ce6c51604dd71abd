"""Which tensor of a file is which of a model, when their names differ but the architecture is the same.

Evidence is what two people who wrote the same network share: shapes, roles (weight, bias, running mean), the order in which
layers were made, the tree of modules, and words and numbers in names. Where they leave a choice, or contradict each other,
nothing is chosen. A file that is sorted by name (as safetensors files are) has lost the order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

import torch

from relume.models.matching.segments import Roles, crossed, segments_of
from relume.models.matching.trees import Order, match_trees, untold

_COUNTER = "num_batches_tracked"
_DEEPEST = 100  # segments of a name; no module is nested so deep, but a file can say so
_WINDOW = 16  # how many tensors of the same shape each one is compared with, so that long models stay quick
_WITHOUT_ORDER = {"lost": "has not the order of the model", "contradicted": "has an order that its names contradict"}

_SPEAKS = {
    True: "the letters in their names speak for exchanging them",
    False: "nothing but their order speaks for it: they have the same shapes, and no name in common",
}


@dataclass(frozen=True)
class Ambiguity:
    """Tensors that nothing tells apart, or about which the evidence contradicts itself.

    Attributes:
        source: their names in the file.
        own: the names in the model that they could have.
        why: what is not known.
    """

    source: tuple[str, ...]
    own: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Proposal:
    """A mapping of names that was inferred.

    Attributes:
        mapping: name in the file to name in the model, only where they differ.
        ambiguous: what was left out because it would have been a guess.
        basis: what the mapping rests on, in words.
        is_ordered: whether the file's order said something; one that is sorted by name says nothing.
    """

    mapping: Mapping[str, str]
    ambiguous: tuple[Ambiguity, ...] = ()
    basis: str = ""
    is_ordered: bool = True


Pairs = dict[str, str]


def propose(source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> Proposal:
    """Names of the model for those tensors of ``source`` that have none.

    Args:
        source: the tensors of a file in its order; only their shapes and dtypes are looked at.
        own: those of the model, in its order. What both have by the same name is not mapped again.

    Returns:
        What is certain, and what is ambiguous. Shapes of a pair are the same, but for a first or last layer whose shape
        has no other partner (a head of another number of classes).

    Example:
        >>> old = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2)}
        >>> propose(old, torch.nn.ModuleDict({"head": torch.nn.Linear(3, 2)}).state_dict()).mapping
        {'fc.weight': 'head.weight', 'fc.bias': 'head.bias'}
    """
    source, own = _comparable(source, own)
    known = {name: name for name in source if name in own}
    rest_source = {name: value for name, value in source.items() if name not in known}
    rest_own = {name: value for name, value in own.items() if name not in known}
    if not rest_source or not rest_own or any(name.count(".") > _DEEPEST for name in (*rest_source, *rest_own)):
        return Proposal({})
    roles = Roles(source, own)
    place = {name: number for number, name in enumerate(own)}
    is_ordered = keeps_order(source) and _increases([place[name] for name in known])
    found = Proposal({})
    if is_ordered:
        found = _in_order(source, own, rest_source, rest_own, known, roles)
        if found.mapping and not found.ambiguous:
            return found
    # An order that would be that of the model has been found by now.
    order: Order = "contradicted" if found.ambiguous else "lost"
    by_tree = _by_tree(source, own, rest_source, rest_own, known, roles, order)
    by_tree = replace(by_tree, is_ordered=is_ordered)
    if found.ambiguous and (by_tree.ambiguous or len(by_tree.mapping) < len(found.mapping)):
        return found
    return by_tree


def keeps_order(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether tensors come in the order in which somebody made them, and not in that of their names.

    Layers have their weight before their bias, and layer 2 before layer 10: an order of construction goes back in the
    alphabet all the time. Writers of safetensors sort by dtype and name, and each of several files by itself. And a
    module's tensors stand together.

    Example:
        >>> keeps_order(torch.nn.Linear(2, 2).state_dict())
        True
    """
    by_dtype: dict[torch.dtype, list[str]] = defaultdict(list)
    for name, value in state.items():
        by_dtype[value.dtype].append(name)
    steps_back = sum(later < earlier for names in by_dtype.values() for earlier, later in pairwise(names))
    return steps_back > 0.05 * len(state) and _stand_together(list(state))


def _stand_together(names: Sequence[str]) -> bool:
    """Whether no module is left and entered again, as nothing that goes through a model would do."""
    left: set[str] = set()
    inside: list[str] = []
    for name in names:
        parts = name.split(".")[:-1]
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(inside, parts, strict=False)))
        left |= {".".join(inside[:end]) for end in range(common + 1, len(inside) + 1)}
        if any(".".join(parts[:end]) in left for end in range(common + 1, len(parts) + 1)):
            return False
        inside = parts
    return True


def _comparable(
    source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
    """Both without the counters of batch norms, where one of them is from a time before there were any."""
    sides = (source, own)
    if all(any(_is_count(value) for value in side.values()) for side in sides):
        return sides
    without = [{name: value for name, value in side.items() if not name.endswith(_COUNTER)} for side in sides]
    return without[0], without[1]


def _is_count(value: torch.Tensor) -> bool:
    return value.dim() == 0 and value.dtype == torch.int64


def _in_order(
    source: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    rest_source: Mapping[str, torch.Tensor],
    rest_own: Mapping[str, torch.Tensor],
    known: Pairs,
    roles: Roles,
) -> Proposal:
    """By position: all tensors, or those without a partner, or the layers that both sides have."""
    basis = "the same shapes in the same order"
    whole = _aligned(source, own, roles)
    if whole:
        moved = {name for name in known if whole[name] != name}
        if moved:
            targets = tuple(whole[name] for name in sorted(moved))
            return Proposal({}, (Ambiguity(tuple(sorted(moved)), targets, "names say one thing, their order another"),))
        pairs = {name: target for name, target in whole.items() if name not in known}
    else:
        pairs = _aligned(rest_source, rest_own, roles) or _layers_aligned(rest_source, rest_own, roles)
    pairs = _whole_modules(pairs, known, source, own)
    if not pairs:
        return Proposal({})
    doubts = _contradictions(pairs, known, source, own, roles, None) + _untold(pairs, known, source, own, roles)
    return Proposal(pairs, doubts, basis)


def _aligned(source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], roles: Roles) -> Pairs:
    """Position by position, if roles and shapes say that it can be; else empty."""
    if len(source) != len(own):
        return {}
    pairs = dict(zip(source, own, strict=True))
    if not all(roles.agree(name, target) for name, target in pairs.items()):
        return {}
    odd = [name for name, target in pairs.items() if source[name].shape != own[target].shape]
    return pairs if not odd or _are_ends(odd, pairs, source, own) else {}


def _are_ends(
    odd: Sequence[str], pairs: Pairs, source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> bool:
    """Whether shapes differ only in the first or last layer, and could have no other partner."""
    shapes_source, shapes_own = {v.shape for v in source.values()}, {v.shape for v in own.values()}
    if any(source[n].shape in shapes_own or own[pairs[n]].shape in shapes_source for n in odd):
        return False
    if any(source[n].dim() != own[pairs[n]].dim() for n in odd):
        return False
    names = list(pairs)
    ends = {_parent(names[0]), _parent(names[-1])}
    return len(odd) < len(names) / 2 and all(_parent(name) in ends for name in odd)


def _layers_aligned(source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], roles: Roles) -> Pairs:
    """Layers of a form that only one side has are left out; the others must follow each other in the same order."""
    layers = [_layers(side, roles) for side in (source, own)]
    forms = [[form for form, _ in side] for side in layers]
    both = set(forms[0]) & set(forms[1])
    shapes = [[sorted(shape for _, shape in form) for form in side] for side in forms]
    for here, there in ((0, 1), (1, 0)):
        alone = [shape for shape, form in zip(shapes[here], forms[here], strict=True) if form not in both]
        if any(shape in shapes[there] for shape in alone):  # it may be there, told otherwise
            return {}
    kept = [[(form, names) for form, names in side if form in both] for side in layers]
    if [form for form, _ in kept[0]] != [form for form, _ in kept[1]]:
        return {}
    return {
        name: target
        for (_, names), (_, targets) in zip(*kept, strict=True)
        for name, target in zip(names, targets, strict=True)
    }


_Form = tuple[tuple[str | None, tuple[int, ...]], ...]


def _layers(state: Mapping[str, torch.Tensor], roles: Roles) -> list[tuple[_Form, list[str]]]:
    names: dict[str, list[str]] = defaultdict(list)
    for name in state:
        names[_parent(name)].append(name)
    return [(tuple((roles.of(n), tuple(state[n].shape)) for n in layer), layer) for layer in names.values()]


def _by_tree(
    source: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    rest_source: Mapping[str, torch.Tensor],
    rest_own: Mapping[str, torch.Tensor],
    known: Pairs,
    roles: Roles,
    order: Order,
) -> Proposal:
    forms_source = {name: (roles.of(name), tuple(value.shape)) for name, value in rest_source.items()}
    forms_own = {name: (roles.of(name), tuple(value.shape)) for name, value in rest_own.items()}
    pairs, groups = match_trees(forms_source, forms_own, order)
    pairs = _whole_modules(pairs, known, source, own)
    why = {
        "lost": f"nothing tells them apart: the file {_WITHOUT_ORDER['lost']}",
        "contradicted": "their names speak against their order",
    }[order]
    ambiguous = [Ambiguity(tuple(names), tuple(targets), why) for names, targets in groups]
    ambiguous += _contradictions(pairs, known, source, own, roles, order)
    return Proposal(pairs, tuple(ambiguous), "the same tree of layers and shapes")


def _contradictions(
    pairs: Pairs,
    known: Pairs,
    source: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    roles: Roles,
    order: Order | None,
) -> tuple[Ambiguity, ...]:
    """Where the mapping goes against names or order, among tensors that could be exchanged."""
    everything = {**known, **pairs}
    place = {name: number for number, name in enumerate(own)}
    kinds: dict[object, list[str]] = defaultdict(list)
    for name in sorted(everything, key=lambda name: place[everything[name]]):
        kinds[tuple(source[name].shape), roles.of(name)].append(name)
    found = _torn(pairs, known, source, own)
    for names in kinds.values():
        for first, second in _near(names):
            if first in known and second in known:
                continue
            targets = everything[first], everything[second]
            if why := crossed(first, second, *targets):
                found.append(Ambiguity((first, second), targets, why))
            elif order is not None and _is_by_elimination(first, second, known, targets):
                why = f"only what is left over speaks for it, and the file {_WITHOUT_ORDER[order]}"
                found.append(Ambiguity((first, second), targets, why))
    if order is None and known and not found:
        found += _out_of_order(known, everything, source, place)
    return tuple(found)


def _untold(
    pairs: Pairs, known: Pairs, source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], roles: Roles
) -> tuple[Ambiguity, ...]:
    """Siblings of the same form that two people may have made in another order, and whose names do not tell them apart."""
    everything = {**known, **pairs}
    looks = [{name: (roles.of(name), tuple(v.shape)) for name, v in side.items()} for side in (source, own)]
    heavy = {name for name in everything if source[name].dim() > 1}
    return tuple(
        Ambiguity((first, second), (everything[first], everything[second]), _SPEAKS[is_against])
        for first, second, is_against in untold(looks[0], looks[1], everything, heavy)
        if first in pairs or second in pairs
    )


def _torn(
    pairs: Pairs, known: Pairs, source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> list[Ambiguity]:
    """What would leave a module that both sides know by its name, or enter one; unless no other tensor has its shape."""
    anchors = {module for name in known for module in _modules(name)}
    counts = [Counter(value.shape for value in side.values()) for side in (source, own)]
    why = "a module that both sides have by the same name would lose one and gain another"
    return [
        Ambiguity((name,), (target,), why)
        for name, target in pairs.items()
        if (anchors & _modules(name)) != (anchors & _modules(target))
        and any(count[source[name].shape] > 1 for count in counts)
    ]


def _modules(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


def _whole_modules(
    pairs: Pairs, known: Pairs, source: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> Pairs:
    """The pairs of modules all of whose tensors have one: half a layer would fit by chance."""
    while pairs:
        ours, theirs = {*known, *pairs.values()}, {*known, *pairs}
        halves = (
            {_parent(name) for name in own if name not in ours},
            {_parent(name) for name in source if name not in theirs},
        )
        kept = {n: t for n, t in pairs.items() if _parent(t) not in halves[0] and _parent(n) not in halves[1]}
        if len(kept) == len(pairs):
            break
        pairs = kept
    return pairs


def _near(names: Sequence[str]) -> Iterable[tuple[str, str]]:
    for position, first in enumerate(names):
        for second in names[position + 1 : position + 1 + _WINDOW]:
            yield first, second


def _is_by_elimination(first: str, second: str, known: Pairs, targets: tuple[str, str]) -> bool:
    """Whether one of two exchangeable neighbours has its name, and the other has nothing but what is left over."""
    if (first in known) == (second in known):
        return False
    new, target = (second, targets[1]) if first in known else (first, targets[0])
    return _are_beside(first, second) and _are_beside(*targets) and not _alike(new, target)


def _are_beside(first: str, second: str) -> bool:
    """Whether two names differ in one segment only."""
    one, other = first.split("."), second.split(".")
    return len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) == 1


def _alike(name: str, target: str) -> bool:
    return [segment.parts for segment in segments_of(name)] == [segment.parts for segment in segments_of(target)]


def _out_of_order(
    known: Pairs, everything: Pairs, source: Mapping[str, torch.Tensor], place: Mapping[str, int]
) -> list[Ambiguity]:
    """What both sides call by the same name comes in the same order; so must what was mapped between them."""
    names = [name for name in source if name in everything]
    backwards = [
        (first, second)
        for first, second in pairwise(names)
        if place[everything[first]] > place[everything[second]] and not (first in known and second in known)
    ]
    why = "their order in the file is not that in the model"
    return [Ambiguity(pair, (everything[pair[0]], everything[pair[1]]), why) for pair in backwards]


def _increases(numbers: Sequence[int]) -> bool:
    return all(earlier < later for earlier, later in pairwise(numbers))


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
