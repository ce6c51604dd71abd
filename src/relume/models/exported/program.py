"""A checked document of a graph as the steps that run it, and what its inputs and outputs are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from relume.models.exported import schema
from relume.models.exported.running import DEVICE, Graph, Part, Step, graph_runner, of_channels
from relume.models.exported.sizes import ARITHMETIC

_SYMBOL = re.compile(r"(?:Symbol\(')?([a-z]{1,3}[0-9]{1,5})(?:'[^()]*\))?\Z")
_SIZES_OF = ("as_sym_int", "as_sym_float", "as_sym_bool")


class DamagedError(Exception):
    """A document that makes no program; says why."""


@dataclass(frozen=True)
class Input:
    """What the graph is called with.

    Attributes:
        name: as the model calls it.
        place: None where the graph does not use it.
        sizes: of a tensor: numbers, names of sizes, None for any; None where nothing is known.
        constant: the graph was made for this value alone.
    """

    name: str
    place: int | None
    sizes: tuple[int | str | None, ...] | None = None
    constant: Any = None
    is_constant: bool = False


@dataclass
class Program:
    """A graph, and what its inputs and outputs are to whoever calls it.

    Attributes:
        tensors: places of parameters, buffers and constants, with their names.
        parameters: which of these are parameters.
        changes: names of buffers and parameters, or numbers of inputs, that take the value of an output.
        ranges: the smallest and the largest value of sizes.
        order: the names of all inputs, where the document has them.
    """

    graph: Graph
    inputs: list[Input]
    tensors: list[tuple[int, str]]
    parameters: set[str]
    constants: set[str]
    outputs: list[tuple[bool, Any]]
    changes: list[tuple[str | int, int]]
    takes: Mapping[str, Any]
    gives: Mapping[str, Any]
    ranges: Mapping[str, tuple[int | None, int | None]]
    order: list[str] | None


def program_of(document: Mapping[str, Any]) -> Program:
    """Turn a document that `vetted_program` gave into a program.

    Raises:
        DamagedError: it contradicts itself.
    """
    module = document["graph_module"]
    signature, root = module["signature"], module["module_call_graph"][:1]
    if not root or root[0]["signature"] is None:
        raise DamagedError("it does not say what it is called with")
    call = root[0]["signature"]
    graph = _graph(module["graph"], is_root=True)
    if len(signature["input_specs"]) != len(graph.inputs) or len(signature["output_specs"]) != len(graph.outputs):
        raise DamagedError("its signature is of another graph")
    made = Program(
        graph, [], [], set(), set(), [], [], _tree(call["in_spec"]), _tree(call["out_spec"]),
        {name: (one["min_val"], one["max_val"]) for name, one in document["range_constraints"].items()},
        call["forward_arg_names"],
    )  # fmt: skip
    values = module["graph"]["tensor_values"]
    for spec, place in zip(signature["input_specs"], graph.inputs, strict=True):
        _add_input(made, spec, place, values)
    for spec, output in zip(signature["output_specs"], graph.outputs, strict=True):
        _add_output(made, spec, output)
    if leaves(made.takes) != len(made.inputs) or leaves(made.gives) != len(made.outputs):
        raise DamagedError("the structure of its inputs or outputs is of another graph")
    if len(made.takes["children_spec"]) != 2:
        raise DamagedError("its inputs are no positional ones and keywords")
    kept = [place for is_value, place in made.outputs if is_value]
    _free(graph, {*kept, *(place for _, place in made.changes)})
    return made


def _add_input(made: Program, spec: Mapping[str, Any], place: int | None, values: Mapping[str, Any]) -> None:
    kind, one = next(iter(spec.items()))
    if kind == "user_input":
        name = next((v["name"] for k, v in one["arg"].items() if k == "as_tensor"), "")
        made.inputs.append(Input(name or f"input {len(made.inputs)}", place, _sizes(values.get(name))))
    elif kind == "constant_input":
        value_kind, value = next(iter(one["value"].items()))
        constant = None if value_kind == "as_none" else value
        made.inputs.append(Input(one["name"], place, constant=constant, is_constant=True))
    elif kind in ("parameter", "buffer", "tensor_constant") and place is not None:
        name = one[{"parameter": "parameter_name", "buffer": "buffer_name"}.get(kind, "tensor_constant_name")]
        made.tensors.append((place, name))
        if kind == "parameter":
            made.parameters.add(name)
        elif kind == "tensor_constant" or one["persistent"] is False:
            made.constants.add(name)
    else:
        raise DamagedError(f"it has an input that is a {kind}")


def _add_output(made: Program, spec: Mapping[str, Any], output: tuple[bool, Any]) -> None:
    kind, one = next(iter(spec.items()))
    if kind == "user_output":
        made.outputs.append(output)
    elif kind in ("buffer_mutation", "parameter_mutation", "user_input_mutation") and output[0]:
        target: str | int = one[{"user_input_mutation": "user_input_name"}.get(kind, kind.replace("mutation", "name"))]
        if kind == "user_input_mutation":
            target = next((i for i, known in enumerate(made.inputs) if known.name == target), -1)
        elif target not in {name for _, name in made.tensors}:
            target = -1
        if target == -1:
            raise DamagedError("it changes what it does not have")
        made.changes.append((target, output[1]))
    else:
        raise DamagedError(f"it has an output that is a {kind}")


def _sizes(meta: Mapping[str, Any] | None) -> tuple[int | str | None, ...] | None:
    if meta is None:
        return None
    return tuple(_size(one) for one in meta["sizes"])


def _size(one: Mapping[str, Any]) -> int | str | None:
    if "as_int" in one:
        return int(one["as_int"])
    symbol = _SYMBOL.match(one["as_expr"]["expr_str"])
    return symbol[1] if symbol else None


def _tree(text: str) -> Mapping[str, Any]:
    """A structure of containers; `vetting` has looked at it."""
    tree: Mapping[str, Any] = json.loads(text)[1]
    return tree


def leaves(tree: Mapping[str, Any]) -> int:
    """How many values there are in a structure."""
    if tree["type"] is None:
        return 1
    return sum(map(leaves, tree["children_spec"]))


# ------------------------------------------------------------------------------------------------------------------ graphs


class _Places:
    """The places of a graph's values by their names."""

    def __init__(self) -> None:
        self.by_name: dict[str, int] = {}
        self.size = 1

    def new(self, name: str | None) -> int:
        self.size += 1
        if name is not None:
            self.by_name[name] = self.size - 1
        return self.size - 1

    def of(self, name: str) -> int:
        if name not in self.by_name:
            raise DamagedError(f"it uses {name!r:.80}, which nothing gives")
        return self.by_name[name]


def _graph(document: Mapping[str, Any], *, is_root: bool) -> Graph:
    places = _Places()
    inputs = [_placeholder(one, places) for one in document["inputs"]]
    steps = [_step(node, places) for node in document["nodes"]]
    outputs = [_argument(one, places) for one in document["outputs"]]
    if any(kind == "list" for kind, _ in outputs):
        raise DamagedError("an output that is a list")
    graph = Graph(
        places.size, inputs, steps, [(kind == "place", value) for kind, value in outputs],
        bool(document["is_single_tensor_return"]),
    )  # fmt: skip
    if not is_root:
        _free(graph, {place for is_value, place in graph.outputs if is_value})
    return graph


def _placeholder(one: Mapping[str, Any], places: _Places) -> int | None:
    kind, value = next(iter(one.items()))
    if kind == "as_tensor":
        return places.new(value["name"])
    if kind in _SIZES_OF and "as_name" in value:
        return places.new(value["as_name"])
    if kind in ("as_int", "as_float", "as_bool", "as_none", "as_string"):
        return None
    raise DamagedError(f"it has an input {kind}")


def _step(node: Mapping[str, Any], places: _Places) -> Step:
    target = node["target"]
    function, schema_arguments = _function(target)
    given, names = _in_order(node["inputs"], schema_arguments)
    step = Step(
        target, function, [None] * len(given), [], [], names, None, target.startswith("torch.ops.higher_order.")
    )
    for position, one in enumerate(given):
        kind, value = _argument(one, places)
        if kind == "place":
            step.places.append((position, value))
        elif kind == "list":
            step.lists.append((position, value))
        else:
            step.arguments[position] = value
    step.gives = _gives(node["outputs"], places)
    return step


def _function(target: str) -> tuple[Callable[..., Any], list[Any] | None]:
    if target in ARITHMETIC:
        return ARITHMETIC[target], None
    if target.startswith("torch.ops.higher_order."):
        return graph_runner(target.rpartition(".")[2]), None
    _, _, namespace, name, overload = target.split(".")
    found = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    return of_channels(found) if "batch_norm" in name else found, list(found._schema.arguments)


def _in_order(inputs: Sequence[Mapping[str, Any]], schema_arguments: list[Any] | None) -> tuple[list[Any], list[str]]:
    """The arguments in the order of a call, and the names of those at its end that are keywords."""
    if schema_arguments is None:
        return [one["arg"] for one in inputs], []
    by_name = {one["name"]: one["arg"] for one in inputs}
    known = [one.name for one in schema_arguments]
    if len(by_name) != len(inputs) or not set(by_name) <= set(known):
        raise DamagedError(f"an operator has no argument {set(by_name) - set(known)!r:.80}")
    positional: list[Any] = []
    for one in schema_arguments:
        if one.kwarg_only or one.name not in by_name:
            break
        positional.append(by_name.pop(one.name))
    names = [name for name in known if name in by_name]
    return [*positional, *(by_name[name] for name in names)], names


def _argument(one: Mapping[str, Any], places: _Places) -> tuple[str, Any]:
    """``place``, ``list`` or ``constant``, and what stands there."""
    kind, value = next(iter(one.items()))
    match kind:
        case "as_tensor":
            return "place", places.of(value["name"])
        case "as_sym_int" | "as_sym_float" | "as_sym_bool":
            return _number(value, places)
        case "as_optional_tensor":
            return _optional(value, places)
        case "as_tensors":
            return "list", [(True, places.of(item["name"])) for item in value]
        case "as_optional_tensors":
            return _list(_optional(item, places) for item in value)
        case "as_sym_ints" | "as_sym_floats" | "as_sym_bools":
            return _list(_number(item, places) for item in value)
        case "as_device":
            return ("constant", torch.device("meta")) if value["type"] == "meta" else ("place", DEVICE)
        case "as_graph":
            return "constant", Part(_graph(value["graph"], is_root=False))
    return "constant", _constant(kind, value)


def _constant(kind: str, value: Any) -> Any:
    match kind:
        case "as_none":
            return None
        case "as_int" | "as_float" | "as_bool" | "as_string":
            return value
        case "as_ints" | "as_floats" | "as_bools" | "as_strings" | "as_int_lists" | "as_float_lists":
            return value
        case "as_complex":
            return complex(value["real"], value["imag"])
        case "as_scalar_type":
            return _known(getattr(torch, schema.DTYPES.get(value, ""), None), f"dtype number {value}")
        case "as_layout":
            return _known(schema.LAYOUTS.get(value), f"layout number {value}")
        case "as_memory_format":
            return _known(schema.MEMORY_FORMATS.get(value), f"memory format number {value}")
    raise DamagedError(f"an argument {kind}, which is not understood")


def _known(value: Any, what: str) -> Any:
    if value is None:
        raise DamagedError(f"torch {torch.__version__} has no {what}")
    return value


def _list(items: Iterator[tuple[str, Any]]) -> tuple[str, Any]:
    return "list", [(kind == "place", value) for kind, value in items]


def _number(value: Mapping[str, Any], places: _Places) -> tuple[str, Any]:
    kind, one = next(iter(value.items()))
    return ("place", places.of(one)) if kind == "as_name" else ("constant", one)


def _optional(value: Mapping[str, Any], places: _Places) -> tuple[str, Any]:
    return ("place", places.of(value["as_tensor"]["name"])) if "as_tensor" in value else ("constant", None)


def _gives(outputs: Sequence[Mapping[str, Any]], places: _Places) -> Any:
    """A place; a list of places, of None, and of lists; or None."""
    if len(outputs) == 1:
        kind, value = next(iter(outputs[0].items()))
        return _output(kind, value, places)
    return [_output(*next(iter(one.items())), places) for one in outputs] or None


def _output(kind: str, value: Any, places: _Places) -> Any:
    match kind:
        case "as_none":
            return None
        case "as_tensor":
            return places.new(value["name"])
        case "as_sym_int" | "as_sym_float" | "as_sym_bool" if "as_name" in value:
            return places.new(value["as_name"])
        case "as_tensors":
            return [places.new(item["name"]) for item in value]
    raise DamagedError(f"a step that gives {kind}")


def _free(graph: Graph, kept: set[int]) -> None:
    """Let each step forget the values that no later one needs."""
    seen = {DEVICE, *kept}
    for step in reversed(graph.steps):
        used = [place for _, place in step.places]
        used += [place for _, items in step.lists for is_value, place in items if is_value]
        used += list(_flat(step.gives))
        step.frees = [place for place in dict.fromkeys(used) if place not in seen]
        seen.update(used)


def _flat(gives: Any) -> Iterator[int]:
    if isinstance(gives, list):
        for one in gives:
            yield from _flat(one)
    elif gives is not None:
        yield gives
