"""Cutting a model in two: a lower part that is a function of the sample alone, and the upper part that is trained.

The forward pass is traced with torch.fx. Modules that are constant as a whole stay whole, and so do those of which
nothing is constant; only what is mixed is traced into, which keeps control flow, hooks and modes of most modules live.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from relume import tree
from relume.names import is_uninitialized
from relume.transfer.features.constant import Constancy, NoCut, NothingConstant, said
from relume.transfer.features.random import drawing

if TYPE_CHECKING:
    from torch import fx

_MOST_RETRIES = 32


@dataclass(frozen=True)
class Cut:
    """A model in two parts.

    Attributes:
        lower: takes what the model takes and gives a tuple of features; run it without gradients.
        upper: takes the features and gives what the model gives; its modules and parameters are the model's own.
        after: what the features are the output of, in words.
        way: how the parts were found: ``"traced"``, or ``"the head"`` where a model cannot be traced.
        code: the lower part as text, for its fingerprint.
        trace, traced: what traces the model again, and what that gave: the whole forward pass as text.
        tensors: parameters and buffers of the lower part, and constants of its code, by name.
    """

    lower: nn.Module
    upper: nn.Module
    after: str
    way: str
    code: str
    tensors: tuple[tuple[str, torch.Tensor], ...] = field(default=(), repr=False)
    trace: Callable[[], str] | None = field(default=None, repr=False)
    traced: str = field(default="", repr=False)

    def is_current(self) -> bool:
        """Whether tracing the model again gives the same: a number in its code may be another one now."""
        return self.trace is None or self.trace() == self.traced


def find_cut(
    model: nn.Module,
    inputs: tuple[Any, ...],
    named: Mapping[str, Any],
    *,
    trainable: Collection[int] = (),
    after: str | None = None,
) -> Cut:
    """Cut a model where what is constant ends, in the modes that its modules have now.

    Args:
        inputs, named: a batch of at least two samples, as the model is called with.
        trainable: ids of parameters that may be trained though they are frozen now.
        after: the name of a module to cut behind; by default as late as can be.

    Raises:
        NoCut: nothing, or nothing worth the name, is constant; says which module is in the way.
    """
    constancy = Constancy(model, trainable)
    if any(map(is_uninitialized, (*model.parameters(), *model.buffers()))):
        raise NoCut("a lazy module has no shape yet: run the model once before")
    if model._forward_hooks or model._forward_pre_hooks:
        raise NoCut(f"{type(model).__name__} has a forward hook, which would not be called")
    if constancy.reason(model, "") is None:
        raise NoCut("nothing is trained: all of the model is frozen")
    if not constancy.has_constant_part(model, ""):
        raise NothingConstant(f"nothing is constant: {_first_reason(constancy)}")
    try:
        traced = trace(constancy, named if named else None, len(inputs), after)
    except Untraceable as reason:
        if after is not None:
            raise NoCut(f"the model cannot be traced, so it is not cut after {after}: {reason}") from None
        from relume.transfer.features.intercept import cut_before_head

        return cut_before_head(constancy, inputs, named, str(reason))

    def again() -> str:
        try:
            return str(trace(Constancy(model, trainable), named if named else None, len(inputs), after))
        except (Untraceable, NoCut) as reason:
            return str(reason)

    return replace(_split(constancy, traced, inputs, named, after), trace=again, traced=str(traced))


# ------------------------------------------------------------------------------------------------------------- tracing


class Untraceable(Exception):  # noqa: N818 - a decision, not an error
    """Why torch.fx cannot follow the forward pass."""


def trace(constancy: Constancy, named: Mapping[str, Any] | None, positional: int, after: str | None = None) -> fx.Graph:
    """The forward pass as a graph whose nodes are modules, as large as can be, and what happens between them.

    A module whose own code cannot be followed stays whole, and is then not constant as a whole either.
    """
    from torch import fx

    model = constancy.model
    whole: set[str] = set()

    class Tracer(fx.Tracer):
        proxy_buffer_attributes = True

        def __init__(self) -> None:
            super().__init__()
            self.inside: list[str] = []
            self.failed: str | None = None

        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            path = module_qualified_name
            if path in whole or isinstance(m, torch.jit.ScriptModule) or path == after:
                return True
            if m._forward_hooks or m._forward_pre_hooks or not m._modules:
                return True
            if after is not None and after.startswith(f"{path}."):
                return False
            return constancy.reason(m, path) is None or not constancy.has_constant_part(m, path)

        def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
            self.inside.append(self.path_of_module(m))
            try:
                return super().call_module(m, forward, args, kwargs)
            except Exception:
                self.failed = self.failed or self.inside[-1]
                raise
            finally:
                self.inside.pop()

    attributes = set(vars(model))
    concrete = _unused_arguments(model, named, positional)
    for _ in range(_MOST_RETRIES):
        tracer = Tracer()
        with drawing() as is_drawn:
            try:
                graph = tracer.trace(model, concrete_args=concrete or None)
            except Exception as error:  # whatever the user's code raises when it meets a proxy
                _tidy(model, attributes)
                if tracer.failed is None or tracer.failed in whole or tracer.failed == after:
                    line = (str(error).splitlines() or [""])[0]
                    raise Untraceable(
                        f"its forward pass cannot be traced ({type(error).__name__}: {line:.120})"
                    ) from None
                whole.add(tracer.failed)
                continue
            if is_drawn():
                _tidy(model, attributes)
                raise NoCut("its forward pass draws random numbers that do not depend on the input's shape alone")
        graph._relume_constants = {n: v for n, v in vars(model).items() if n not in attributes}  # type: ignore[attr-defined]
        _tidy(model, attributes)
        return graph
    raise Untraceable("too many of its modules cannot be traced")


def _tidy(model: nn.Module, attributes: set[str]) -> None:
    """torch.fx leaves constants that it met as attributes of the model."""
    for name in set(vars(model)) - attributes:
        delattr(model, name)


def _unused_arguments(model: nn.Module, named: Mapping[str, Any] | None, positional: int) -> dict[str, Any]:
    """The arguments of ``forward`` that keep their defaults."""
    import inspect

    found = {}
    for number, parameter in enumerate(inspect.signature(model.forward).parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        is_given = parameter.name in named if named else number < positional
        if not is_given and parameter.default is not parameter.empty:
            found[parameter.name] = parameter.default
    return found


# ----------------------------------------------------------------------------------------------------------- splitting


def _split(
    constancy: Constancy, graph: fx.Graph, inputs: tuple[Any, ...], named: Mapping[str, Any], after: str | None
) -> Cut:
    from relume.transfer.features.rows import constant_nodes

    holder = Holder(constancy.model, graph._relume_constants)  # type: ignore[attr-defined]
    limit = _node_of(graph, after) if after is not None else None
    nodes = constant_nodes(constancy, holder, graph, inputs, named, limit)
    frontier = nodes.frontier
    if limit is not None and limit not in nodes.constant:
        raise NoCut(f"what comes up to {after} is not constant: {nodes.why(limit)}")
    if not frontier or all(node.op == "placeholder" for node in frontier):
        first = next(node for node in graph.nodes if node in nodes.reasons)
        raise NothingConstant(f"nothing is constant: {nodes.reasons[first]}")
    lower = _lower(holder, graph, nodes.constant, frontier)
    upper = _upper(holder, graph, nodes, frontier)
    said_nodes = " and ".join(_in_words(holder.model, node) for node in frontier[:3])
    return Cut(lower, upper, said_nodes, "traced", str(lower.code), tensors_in(lower))


class Holder:
    """Gives graph modules what their nodes name: the model's own modules and parameters, and the tracer's constants."""

    def __init__(self, model: nn.Module, constants: Mapping[str, Any]) -> None:
        self.model = model
        self.constants = dict(constants)

    def get(self, path: str) -> Any:
        if path in self.constants:
            return self.constants[path]
        return operator.attrgetter(path)(self.model)

    def module_of(self, graph: fx.Graph, name: str) -> fx.GraphModule:
        from torch import fx

        wanted = {
            node.target: self.get(str(node.target)) for node in graph.nodes if node.op in ("get_attr", "call_module")
        }
        made = fx.GraphModule(wanted, graph, class_name=name)
        made.training = self.model.training
        return made


def _node_of(graph: fx.Graph, path: str) -> fx.Node:
    found = [node for node in graph.nodes if node.op == "call_module" and node.target == path]
    if not found:
        raise NoCut(f"the forward pass does not call a module {path!r} that could be followed")
    last: fx.Node = found[-1]
    return last


def _lower(holder: Holder, graph: fx.Graph, constant: Collection[fx.Node], frontier: list[fx.Node]) -> fx.GraphModule:
    from torch import fx

    needed = ancestors(frontier)
    mutating = {node for node in constant if not node.users and _may_mutate(node)}
    needed |= ancestors(mutating)
    new = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op == "placeholder" or node in needed:
            made[node] = new.node_copy(node, made.__getitem__)
    new.output(tuple(made[node] for node in frontier))
    return holder.module_of(new, "Lower")


def _upper(holder: Holder, graph: fx.Graph, nodes: Any, frontier: list[fx.Node]) -> fx.GraphModule:
    from torch import fx

    new = fx.Graph()
    made: dict[fx.Node, Any] = {node: new.placeholder(f"feature_{n}") for n, node in enumerate(frontier)}
    for node in graph.nodes:
        if node in made or node.op == "placeholder":
            continue
        if node in nodes.literals and node in nodes.constant:
            made[node] = nodes.literals[node]
        elif node in nodes.sizes and node in nodes.constant:
            if any(user not in nodes.constant for user in node.users):
                made[node] = new.call_method("size", (made[frontier[0]], 0))
        elif node not in nodes.constant or node in nodes.fixed:
            made[node] = new.node_copy(node, made.__getitem__)
    for node in reversed(list(new.nodes)):
        if not node.users and node.op in ("get_attr", "call_method") and not _may_mutate(node):
            new.erase_node(node)
    return holder.module_of(new, "Upper")


def ancestors(nodes: Collection[fx.Node]) -> set[fx.Node]:
    """The nodes themselves and all that they are computed from."""
    found: set[fx.Node] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += node.all_input_nodes
    return found


def _may_mutate(node: fx.Node) -> bool:
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        return name.endswith("_") or bool(node.kwargs.get("inplace")) or name == "setitem" or "out" in node.kwargs
    return node.op == "call_module"


def _in_words(model: nn.Module, node: fx.Node) -> str:
    if node.op == "call_module":
        return f"{node.target} ({type(model.get_submodule(str(node.target))).__name__})"
    if node.op == "placeholder":
        return f"the input {node.name}"
    before = next((one for one in node.all_input_nodes if one.op == "call_module"), None)
    name = str(node.target) if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"{name} of {_in_words(model, before)}" if before is not None else name


def _first_reason(constancy: Constancy) -> str:
    for path, module in constancy.model.named_modules():
        if not module._modules and (reason := constancy.reason(module, path)) is not None:
            return reason
    return constancy.reason(constancy.model, "") or said("", constancy.model)


def tensors_in(module: nn.Module) -> tuple[tuple[str, torch.Tensor], ...]:
    """Parameters and buffers of a module by name, tied ones once."""
    return (*module.named_parameters(), *module.named_buffers())


def tensors_of(value: Any) -> list[torch.Tensor]:
    """The tensors of an output, in order."""
    return list(tree.tensors(value))
