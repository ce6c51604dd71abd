"""Two trees of names matched by their form: what is beneath each branch, not what it is called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from relume.models.matching.segments import Segment, evidence, likeness, marks, preference, segment

Groups = list[tuple[list[str], list[str]]]
_FIRST_LETTER = 0.25
_WINDOW = 16  # how many siblings of the same form each one is compared with

Order = Literal["lost", "contradicted"]
"""Of a file's tensors: another than the model's, as that of the alphabet; or the same, but its own names speak against it."""


@dataclass(eq=False)
class _Node:
    """A branch or leaf; ``form`` is equal for what looks the same from above, whatever the names in it."""

    name: str
    leaf: str | None = None
    children: dict[str, _Node] = field(default_factory=dict)
    form: int = 0

    def leaves(self) -> Iterator[str]:
        if self.leaf is not None:
            yield self.leaf
        for child in self.children.values():
            yield from child.leaves()


def match_trees(source: Mapping[str, object], own: Mapping[str, object], order: Order) -> tuple[dict[str, str], Groups]:
    """Pair the leaves of two trees.

    Args:
        source, own: dotted names with what a leaf looks like (role and shape).
        order: what is known of that of ``source``.

    Returns:
        Name in ``source`` to name in ``own``, and groups of names that could be exchanged and that nothing tells apart.
    """
    forms: dict[object, int] = {}
    roots = [_tree(side, forms) for side in (source, own)]
    pairs: dict[str, str] = {}
    groups: Groups = []
    _match(roots[0], roots[1], order, pairs, groups)
    return pairs, groups


def _tree(leaves: Mapping[str, object], forms: dict[object, int]) -> _Node:
    root = _Node("")
    for name, look in leaves.items():
        node = root
        for text in name.split("."):
            node = node.children.setdefault(text, _Node(text))
        node.leaf = name
        node.form = forms.setdefault(("leaf", look), len(forms))
    _give_forms(root, forms)
    return root


def _give_forms(node: _Node, forms: dict[object, int]) -> None:
    for child in node.children.values():
        _give_forms(child, forms)
    beneath = sorted(child.form for child in node.children.values())
    if node.leaf is not None:
        beneath = [*beneath, -1, node.form] if beneath else []
    if len(beneath) == 1:  # a branch with one child is that child: sides may differ in how deep they nest
        node.form = beneath[0]
    elif beneath:
        node.form = forms.setdefault(tuple(beneath), len(forms))


def _match(source: _Node, own: _Node, order: Order, pairs: dict[str, str], groups: Groups) -> None:
    source, own = _down(source), _down(own)
    if source.leaf is not None and own.leaf is not None and source.form == own.form:
        pairs[source.leaf] = own.leaf
    left, right = _by_form(source), _by_form(own)
    for form in sorted(left.keys() & right.keys()):
        if len(left[form]) != len(right[form]):
            continue
        told = _tell_apart(left[form], right[form], order)
        if told is None:
            groups.append(([n for node in left[form] for n in node.leaves()], _leaves(right[form])))
            continue
        for one, other in told:
            _match(one, other, order, pairs, groups)
    _match_rest(left, right, order, pairs, groups)


def _match_rest(
    left: Mapping[int, Sequence[_Node]],
    right: Mapping[int, Sequence[_Node]],
    order: Order,
    pairs: dict[str, str],
    groups: Groups,
) -> None:
    """Branches of the same name, or the only ones left, may agree in parts."""
    rest = [node for form, nodes in left.items() if form not in right for node in nodes if node.children]
    others = [node for form, nodes in right.items() if form not in left for node in nodes if node.children]
    by_name = {node.name: node for node in others}
    named = [(node, by_name[node.name]) for node in rest if node.name in by_name]
    if not named and len(rest) == len(others) == 1:
        named = [(rest[0], others[0])]
    for one, other in named:
        _match(one, other, order, pairs, groups)


def _down(node: _Node) -> _Node:
    while node.leaf is None and len(node.children) == 1:
        node = next(iter(node.children.values()))
    return node


def _by_form(node: _Node) -> dict[int, list[_Node]]:
    groups: dict[int, list[_Node]] = defaultdict(list)
    for child in node.children.values():
        groups[child.form].append(child)
    return dict(groups)


def _leaves(nodes: Sequence[_Node]) -> list[str]:
    return [name for node in nodes for name in node.leaves()]


def _tell_apart(source: list[_Node], own: list[_Node], order: Order) -> list[tuple[_Node, _Node]] | None:
    """Pairs among branches of the same form: by their names, their numbers, their words; or None."""
    if len(source) == 1:
        return [(source[0], own[0])]
    names = {node.name: node for node in own}
    if names.keys() == {node.name for node in source}:
        return [(node, names[node.name]) for node in source]
    by_number, by_words = _by_number(source, own), _by_words(source, own)
    if order == "contradicted":
        in_order = list(zip(source, own, strict=True))
        return by_words or (by_number if _same_pairs(by_number, in_order) else None)
    return None if names.keys() & {node.name for node in source} else by_number or by_words


def _same_pairs(told: list[tuple[_Node, _Node]] | None, others: list[tuple[_Node, _Node]]) -> bool:
    return told is not None and {(a.name, b.name) for a, b in told} == {(a.name, b.name) for a, b in others}


def _by_number(source: list[_Node], own: list[_Node]) -> list[tuple[_Node, _Node]] | None:
    numbered = [_sorted_by_number(side) for side in (source, own)]
    if numbered[0] is None or numbered[1] is None:
        return None
    if source != numbered[0] and source != sorted(source, key=lambda node: node.name):
        return None  # it stands in an order that neither numbers nor the alphabet explain
    return list(zip(numbered[0], numbered[1], strict=True))


def _sorted_by_number(nodes: list[_Node]) -> list[_Node] | None:
    parts = [segment(node.name) for node in nodes]
    numbers = {part.numbers for part in parts}
    if len({part.words for part in parts}) > 1 or len(numbers) < len(nodes) or () in numbers:
        return None
    return sorted(nodes, key=lambda node: segment(node.name).numbers)


def _by_words(source: list[_Node], own: list[_Node]) -> list[tuple[_Node, _Node]] | None:
    """Each has one that is most like it, and is itself the most like to that one."""
    return _mutual(source, own, _alike_in_words(source, own)) or _mutual(source, own, _alike_in_letters(source, own))


def _mutual(source: list[_Node], own: list[_Node], scores: list[list[float]]) -> list[tuple[_Node, _Node]] | None:
    told = []
    for number, node in enumerate(source):
        best = _highest(scores[number])
        if best is None or _highest([row[best] for row in scores]) != number:
            return None
        told.append((node, own[best]))
    return told


def _highest(scores: list[float]) -> int | None:
    best = max(scores)
    return scores.index(best) if best > 0 and scores.count(best) == 1 else None


def _alike_in_words(source: list[_Node], own: list[_Node]) -> list[list[float]]:
    others = [segment(node.name) for node in own]
    return [[_in_words(segment(node.name), other) for other in others] for node in source]


def _in_words(one: Segment, other: Segment) -> float:
    score = likeness(one, other)
    return score + (0.25 if score and one.numbers and one.numbers == other.numbers else 0)


def _alike_in_letters(source: list[_Node], own: list[_Node]) -> list[list[float]]:
    """By abbreviations; a first letter alone is too little where no order confirms it."""
    theirs, ours = (marks([segment(node.name) for node in side]) for side in (source, own))
    scores = [[evidence(one, other) for other in ours] for one in theirs]
    return [[score if score > _FIRST_LETTER else 0 for score in row] for row in scores]


def untold(
    source: Mapping[str, object], own: Mapping[str, object], pairs: Mapping[str, str], heavy: Collection[str]
) -> Iterator[tuple[str, str, bool]]:
    """Pairs of exchangeable siblings for whose targets nothing but their order speaks, or against which their names do.

    Args:
        source, own: names with what a leaf looks like.
        pairs: from the first to the second, in the same order.
        heavy: names of ``source`` that anchor what stands before and after them: weights, and not scales or counters.

    Yields:
        The names of two leaves of the source, and whether the names speak for exchanging them.
    """
    back = {target: name for name, target in pairs.items()}
    seen = set()
    for side, partners, look in ((source, pairs, heavy), (own, back, {pairs[name] for name in heavy})):
        for first, second, is_anchored in _siblings(_tree({n: side[n] for n in side if n in partners}, {}), look):
            one, other = (first, second) if side is source else (back[first], back[second])
            said = preference(one, other, pairs[one], pairs[other])
            if said is None or said > 0 or (said == 0 and is_anchored) or (one, other) in seen:
                continue
            seen.add((one, other))
            yield one, other, said < 0


def _siblings(node: _Node, heavy: Collection[str]) -> Iterator[tuple[str, str, bool]]:
    """The first leaves of branches of the same form below the same node; and whether another form stands between them."""
    children = list(node.children.values())
    for form, group in _by_form(node).items():
        places = [place for place, child in enumerate(children) if child.form == form]
        for number, first in enumerate(group):
            for step, second in enumerate(group[number + 1 : number + 1 + _WINDOW], number + 1):
                between = [c for c in children[places[number] + 1 : places[step]] if c.form != form]
                is_anchored = any(name in heavy for child in between for name in child.leaves())
                yield next(first.leaves()), next(second.leaves()), is_anchored
    for child in children:
        yield from _siblings(child, heavy)
