"""Which values of a traced forward pass are rows: one entry a sample, that depends on this sample alone.

The constant part is run on two batches of the same samples, in another order and number. Where a value's rows do not
follow their samples, the operation mixes samples; where the generators' states move, it is random.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from relume import tree
from relume.transfer.features.constant import Constancy
from relume.transfer.features.plans import identity, plans
from relume.transfer.features.random import apart, state

if TYPE_CHECKING:
    from torch import fx

    from relume.transfer.features.cut import Holder

ORDERS = ((0, 1, 2), (1, 0))
"""The samples of the two batches, of three."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""How far rows may differ between batches, relative to the largest: kernels add up in another order for other sizes."""


_LITERALS = (int, float, bool, str, type(None), torch.dtype, torch.device)


class Nodes:
    """The nodes of a graph by what they are.

    Attributes:
        constant: depend on the sample, or on nothing, and on nothing that is trained.
        fixed: of these, those that depend on no input at all, such as a positional embedding.
        sizes: whole numbers that are the number of samples in the batch.
        literals: numbers and the like that are the same for each batch, such as the height of an image.
        reasons: why a node is not constant; for those that begin it.
        frontier: constant nodes that others need: what the lower part gives.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.constant: set[fx.Node] = set()
        self.fixed: set[fx.Node] = set()
        self.sizes: set[fx.Node] = set()
        self.literals: dict[fx.Node, Any] = {}
        self.reasons: dict[fx.Node, str] = {}
        self.limit: set[fx.Node] | None = None

    @property
    def frontier(self) -> list[fx.Node]:
        return [
            node
            for node in self.graph.nodes
            if node in self.constant
            and node not in self.fixed
            and node not in self.sizes
            and node not in self.literals
            and any(user not in self.constant for user in node.users)
        ]

    def why(self, node: fx.Node) -> str:
        """The reason nearest to the beginning of those that a node depends on."""
        from relume.transfer.features.cut import ancestors

        before = ancestors([node])
        return next(self.reasons[one] for one in self.graph.nodes if one in before and one in self.reasons)

    def settle(self, own: Mapping[fx.Node, str]) -> None:
        """Which nodes are constant, when these are not of themselves."""
        self.reasons = dict(own)
        self.constant, self.fixed = set(), set()
        for node in self.graph.nodes:
            if node.op == "output" or node in own or (self.limit is not None and node not in self.limit):
                continue
            sources = node.all_input_nodes
            if all(source in self.constant for source in sources):
                self.constant.add(node)
                if node.op != "placeholder" and all(source in self.fixed for source in sources):
                    self.fixed.add(node)


def constant_nodes(
    constancy: Constancy,
    holder: Holder,
    graph: fx.Graph,
    inputs: tuple[Any, ...],
    named: Mapping[str, Any],
    limit: fx.Node | None = None,
) -> Nodes:
    """Sort the nodes of a graph; ``inputs`` and ``named`` are a batch of three samples.

    ``limit``: only what this node is computed from counts as constant, and what depends on nothing.
    """
    from relume.transfer.features.cut import ancestors

    own = {node: reason for node in graph.nodes if (reason := _own_reason(constancy, holder, node)) is not None}
    nodes = Nodes(graph)
    nodes.settle(own)
    if limit is not None and limit in nodes.constant:
        nodes.limit = ancestors([limit]) | nodes.fixed | {n for n in graph.nodes if n.op == "placeholder"}
        nodes.settle(own)
    seen = plans.once(lambda: _key(holder, nodes, inputs, named), lambda: _observed(holder, nodes, inputs, named))
    for node in graph.nodes:
        if node in nodes.constant and node not in nodes.fixed and node.op != "placeholder":
            if seen[node.name].is_random:
                own[node] = f"{node.name} draws random numbers"
            elif seen[node.name].is_tensor and not seen[node.name].follows:
                own[node] = f"{node.name} mixes samples, or its first axis is not that of the samples"
    nodes.settle(own)
    _find_sizes(nodes, seen)
    _prefer_small(nodes, holder, own, seen)
    while bad := [node for node in nodes.frontier if not seen[node.name].is_tensor]:
        own |= {node: f"{node.name} is no tensor" for node in bad}
        nodes.settle(own)
    return nodes


def _prefer_small(nodes: Nodes, holder: Holder, own: dict[fx.Node, str], seen: dict[str, _Seen]) -> None:
    """Leave operations without weights that only make the features larger, such as a repeating pool, to the upper part."""
    for node in nodes.frontier:
        least, here = seen[node.name].count, node
        while (source := _only_source(nodes, holder, here)) is not None:
            count = seen[source.name].count
            if 0 < count < least:
                own[here] = f"{here.name} only makes the features larger"
                least = count
            here = source
    nodes.settle(own)


def _only_source(nodes: Nodes, holder: Holder, node: fx.Node) -> fx.Node | None:
    """What a node without weights is computed from, where that is one value and not the model's input."""
    if node.op == "placeholder" or (
        node.op == "call_module" and any(True for _ in holder.get(str(node.target)).parameters())
    ):
        return None
    sources = [one for one in node.all_input_nodes if one not in nodes.fixed and one not in nodes.literals]
    return sources[0] if len(sources) == 1 and sources[0].op != "placeholder" else None


@dataclass(frozen=True)
class _Seen:
    """What two runs have shown of a constant node.

    Attributes:
        is_random: it was drawn.
        is_tensor, count: whether it is a tensor, and of how many elements.
        follows: whether its rows are those of the samples.
        values: what both runs gave, if that is a number or the like.
    """

    is_random: bool
    is_tensor: bool
    count: int
    follows: bool
    values: tuple[Any, ...]


def _observed(holder: Holder, nodes: Nodes, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, _Seen]:
    runs = [_run(holder, nodes, *(_taken(part, order) for part in (inputs, named))) for order in ORDERS]
    found = {}
    for node in nodes.constant:
        one, other = (run.get(node) for run in runs)
        is_tensor = isinstance(one, torch.Tensor)
        found[node.name] = _Seen(
            is_random=isinstance(one, _Random) or isinstance(other, _Random),
            is_tensor=is_tensor,
            count=one.numel() if is_tensor else 0,  # type: ignore[union-attr]
            follows=node not in nodes.fixed and follows_rows(one, other),
            values=() if is_tensor else (one, other),
        )
    return found


def _key(holder: Holder, nodes: Nodes, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Hashable:
    """The same for graphs of the same text whose constant nodes are of the same modules and tensors."""
    held = [
        (node.name, identity(holder.get(str(node.target))) if node.op in ("call_module", "get_attr") else None)
        for node in nodes.graph.nodes
        if node in nodes.constant
    ]
    batch = [(tuple(tensor.shape), tensor.dtype, tensor.device) for tensor in tree.tensors((inputs, dict(named)))]
    return str(nodes.graph), holder.model.training, torch.is_autocast_enabled(), tuple(held), tuple(batch)


def follows_rows(first: Any, second: Any) -> bool:
    """Whether the rows of two batches in `ORDERS` are those of their samples."""
    counts = tuple(len(order) for order in ORDERS)
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return False
    if first.dim() == 0 or (first.shape[0], second.shape[0]) != counts or first.shape[1:] != second.shape[1:]:
        return False
    return agree(first[list(ORDERS[1])], second)


def agree(first: torch.Tensor, second: torch.Tensor, tolerance: float | None = None) -> bool:
    """Whether two tensors are equal, or within the tolerance of their dtype."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if torch.equal(first, second) or not first.numel():
        return True
    if not first.is_floating_point():
        return False
    if tolerance is None:
        tolerance = TOLERANCE.get(first.dtype, 0.0)
    one, other = first.detach().double(), second.detach().double()
    is_same = (one == other) | (one.isnan() & other.isnan())
    finite = one[one.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return bool((is_same | ((one - other).abs() <= tolerance * scale)).all())


class _Random:
    """In the place of a value that was drawn."""


def _find_sizes(nodes: Nodes, seen: dict[str, _Seen]) -> None:
    counts = tuple(len(order) for order in ORDERS)
    for node in nodes.constant - nodes.fixed:
        values = seen[node.name].values or (None, _Random())
        if all(type(value) is int for value in values) and values == counts:
            nodes.sizes.add(node)
        elif all(type(value) in _LITERALS for value in values) and values[0] == values[1]:
            nodes.literals[node] = values[0]


def _own_reason(constancy: Constancy, holder: Holder, node: fx.Node) -> str | None:
    if node.op == "call_module":
        return constancy.reason(holder.get(str(node.target)), str(node.target))
    if node.op == "get_attr" and constancy.may_change(holder.get(str(node.target))):
        return f"{node.target} is trained"
    return None


def _run(holder: Holder, nodes: Nodes, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> dict[fx.Node, Any]:
    """The values of the constant nodes for one batch."""
    from torch import fx

    found: dict[fx.Node, Any] = {}

    class Probe(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            if n not in nodes.constant:
                return None
            if n.op == "placeholder":
                value = super().run_node(n)
                found[n] = value
                return value
            before = state()
            value = super().run_node(n)
            found[n] = value if state() == before else _Random()
            return value

    graph_module = holder.module_of(nodes.graph, "Probe")
    places = [node for node in nodes.graph.nodes if node.op == "placeholder"]
    arguments = list(inputs)
    for place in places[len(inputs) :]:
        if place.target in named:
            arguments.append(named[str(place.target)])
        elif place.args:
            arguments.append(place.args[0])
        else:
            break
    with apart(), torch.no_grad():
        Probe(graph_module, garbage_collect_values=False).run(*arguments, enable_io_processing=False)
    return found


def _taken(part: Any, order: tuple[int, ...]) -> Any:
    return tree.map_tensors(lambda t: t[list(order)] if t.dim() else t, part)
