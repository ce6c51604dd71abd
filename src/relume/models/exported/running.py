"""Graphs that run: each step calls an operator of torch on the values of those before it.

No source is made and none compiled, so that nothing of a file can become code. The result is that of torch's own module to the
last bit: it calls the same operators in the same order. Values live in numbered places of one list: the device is the first,
and the graph's inputs are the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

DEVICE = 0
"""The place of the device that new tensors are made on."""


@dataclass
class Step:
    """One call.

    Attributes:
        places: where an argument is a value: its position, and the value's place.
        lists: where an argument is a list with values in it: its position, and for each element a place or a constant.
        names: those of the last arguments, which are given by keyword.
        gives: the place of what comes back, or those of its parts; None for what nobody uses.
        frees: places of values that nobody needs afterwards.
        is_graph_runner: it may give one value alone or in a tuple.
    """

    target: str
    function: Callable[..., Any]
    arguments: list[Any]
    places: list[tuple[int, int]]
    lists: list[tuple[int, list[tuple[bool, Any]]]]
    names: list[str]
    gives: Any
    is_graph_runner: bool = False
    frees: list[int] = field(default_factory=list)


@dataclass
class Graph:
    """Steps in order.

    Attributes:
        size: how many places there are.
        inputs: their places, in order.
        outputs: for each, whether it is a value, and its place, or what else it is.
    """

    size: int
    inputs: list[int | None]
    steps: list[Step]
    outputs: list[tuple[bool, Any]]
    is_single: bool


def run(graph: Graph, values: list[Any]) -> None:
    """Run all steps; ``values`` has the device and the inputs in their places, and takes what the steps give.

    Hot path: 0.9 microseconds a step, beside some of the operator itself.
    """
    for step in graph.steps:
        arguments = step.arguments.copy()
        for position, place in step.places:
            arguments[position] = values[place]
        for position, items in step.lists:
            arguments[position] = [values[item] if is_value else item for is_value, item in items]
        if step.names:
            count = len(arguments) - len(step.names)
            keywords = dict(zip(step.names, arguments[count:], strict=True))
            result = step.function(*arguments[:count], **keywords)
        else:
            result = step.function(*arguments)
        gives = step.gives
        if type(gives) is int:
            values[gives] = _alone(result) if step.is_graph_runner else result
        elif gives is not None:
            _put(gives, result, values, step)
        for place in step.frees:
            values[place] = None


def _alone(result: Any) -> Any:
    return result[0] if isinstance(result, (tuple, list)) and len(result) == 1 else result


def _put(gives: list[Any], result: Any, values: list[Any], step: Step) -> None:
    if len(gives) != len(result):
        raise RuntimeError(f"{step.target} gives {len(result)} values, and the graph takes {len(gives)}")
    for place, value in zip(gives, result, strict=True):
        if type(place) is int:
            values[place] = value
        elif place is not None:
            _put(place, value, values, step)


class Part:
    """A graph within a graph, as the function that it is."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __call__(self, *arguments: Any) -> Any:
        graph = self.graph
        values: list[Any] = [None] * graph.size
        values[DEVICE] = next((one.device for one in arguments if isinstance(one, torch.Tensor)), torch.device("cpu"))
        if len(arguments) != len(graph.inputs):
            raise RuntimeError(f"a part of the graph takes {len(graph.inputs)} values, and was given {len(arguments)}")
        for place, value in zip(graph.inputs, arguments, strict=True):
            if place is not None:
                values[place] = value
        run(graph, values)
        outputs = tuple(values[value] if is_value else value for is_value, value in graph.outputs)
        return outputs[0] if graph.is_single and len(outputs) == 1 else outputs


def graph_runner(name: str) -> Callable[..., Any]:
    """What runs a part of a graph; those that only choose or surround do it themselves here."""
    own: dict[str, Callable[..., Any]] = {
        "cond": _cond,
        "wrap_with_set_grad_enabled": _with_grad,
        "wrap_with_autocast": _with_autocast,
    }
    found: Callable[..., Any] = own.get(name) or getattr(torch.ops.higher_order, name)
    return found


def of_channels(function: Callable[..., Any]) -> Callable[..., Any]:
    """A batch norm whose statistics and weights are as many as the channels: torch does not look beyond its own layers."""

    def call(images: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
        for one in (*arguments, *keywords.values()):
            if isinstance(one, torch.Tensor) and (images.ndim < 2 or one.numel() != images.shape[1]):
                raise RuntimeError(
                    f"a batch norm of the graph takes {one.numel()} numbers for an input of shape {tuple(images.shape)}"
                )
        return function(images, *arguments, **keywords)

    return call


def _cond(predicate: Any, if_true: Part, if_false: Part, operands: Sequence[Any]) -> Any:
    return if_true(*operands) if predicate else if_false(*operands)


def _with_grad(is_enabled: bool, part: Part, *arguments: Any) -> Any:
    with torch.set_grad_enabled(is_enabled):
        return part(*arguments)


def _with_autocast(
    device_type: str, dtype: torch.dtype | None, is_enabled: bool, caches: bool | None, part: Part, *arguments: Any
) -> Any:
    with torch.autocast(device_type, dtype=dtype, enabled=is_enabled, cache_enabled=caches):
        return part(*arguments)
