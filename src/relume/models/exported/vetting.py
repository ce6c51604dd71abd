"""The document of a graph, checked field by field before torch makes a program of it.

torch turns what stands there into Python source and compiles it: names of values and arguments become names in it, names of
parameters become attributes, expressions over sizes go through sympy to ``eval``, guards to ``exec``, the structure of
inputs names modules to import, and operators are looked up from ``torch`` downwards (``torch.hub.load`` is one step away).
So every text has a rule by the field that it stands in, and a field without a rule may hold none.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import keyword
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from relume.errors import ModelFileError, UnsafeFileError
from relume.models.exported import expressions, operators

_NAME = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]{0,300}\Z")
_PATH = re.compile(r"(?:[\w\-]+(?:\.[\w\-]+)*)?\Z", re.ASCII)
_TEXT = re.compile(r"[\w .,;:+*/()\[\]<>=|&%@#~^-]{0,1000}\Z", re.ASCII)
_QUOTED = re.compile(r"[ -~]{0,2000}\Z")  # torch writes these by repr(): messages of assertions have quotes in them
_DEVICES = {"cpu", "cuda", "mps", "xpu", "meta"}
_DIALECTS = {"ATEN", "TRAINING"}
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_MAX_INTEGER = 1 << 63


class _RefusedError(Exception):
    """What is wrong with a value."""


def vetted_program(document: Mapping[str, Any], where: str) -> Any:
    """The program of a document, as torch's own ``schema.ExportedProgram``, for its deserializer.

    What it says for people and for debuggers is left out (stack traces, guards as Python, metadata): torch needs none of it.

    Args:
        document: the JSON of ``models/model.json``.
        where: what messages call the file.

    Raises:
        UnsafeFileError: it has what no graph needs; names the field and the value.
        ModelFileError: it is damaged, or of a version that is not understood.
    """
    from torch._export.serde import schema, serialize

    _check_version(document, schema.SCHEMA_VERSION, where)
    try:
        program = serialize._dict_to_dataclass(schema.ExportedProgram, document)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a damaged document makes of torch's reader
        raise ModelFileError(f"{where}: its graph is damaged: {type(error).__name__} {error!s:.150}.") from error
    program.guards_code = []
    program.graph_module.metadata = {}
    program.graph_module.treespec_namedtuple_fields = {}
    try:
        _check(program, schema.ExportedProgram, "graph", None)
    except _RefusedError as error:
        raise UnsafeFileError(f"{where}: {error} Nothing of the file was run.") from None
    except (RecursionError, AttributeError, RuntimeError) as error:
        raise ModelFileError(f"{where}: its graph is damaged: {type(error).__name__} {error!s:.150}.") from error
    return program


def _check_version(document: Mapping[str, Any], known: tuple[int, int], where: str) -> None:
    version = document.get("schema_version")
    major = version.get("major") if isinstance(version, dict) else None
    if type(major) is not int or major != known[0]:
        raise ModelFileError(
            f"{where}: its graph is of schema version {version!r:.60}, and this torch reads {known[0]}. Export the model again "
            "with this version of torch."
        )


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    from torch._export.serde import schema

    return typing.get_type_hints(kind, globalns=vars(schema))


def _check(value: Any, hint: Any, where: str, rule: Callable[[Any], str] | None) -> None:
    """Check a value against its type, and every text in it against the rule of its field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is not None:
            _check(value, arguments[0], where, rule)
    elif origin is list:
        _require(isinstance(value, list), value, where)
        for one in value:
            _check(one, arguments[0], where, rule)
    elif origin is dict:
        _require(isinstance(value, dict), value, where)
        for key, one in value.items():
            _check_text(key, f"a key of {where}", _KEYS.get(where))
            _check(one, arguments[1], where, rule)
    elif dataclasses.is_dataclass(hint):
        _require(isinstance(value, typing.cast(type, hint)), value, where)
        _check_fields(value)
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        _require(type(value) is int and value in {int(one.value) for one in hint}, value, where)
    elif hint is int:
        _require(type(value) is int and abs(value) <= _MAX_INTEGER, value, where)
    elif hint is float:
        _require(type(value) in (float, int), value, where)
    elif hint is bool:
        _require(type(value) is bool, value, where)
    else:
        _require(hint is str, value, where)
        _check_text(value, where, rule)


def _check_fields(value: Any) -> None:
    kind: Any = type(value)
    if kind.__name__ == "Node":
        value.metadata = {}
    active = value.type if hasattr(kind, "create") else None  # of a union only one field is set
    for field, hint in _fields(kind).items():
        if active is None or str(active) == field:
            where = f"{kind.__name__}.{field}"
            _check(getattr(value, field), hint, where, _RULES.get(where))


def _require(is_right: bool, value: Any, where: str) -> None:
    if not is_right:
        raise _RefusedError(f"{where} is {value!r:.100}, which it cannot be.")


def _check_text(value: Any, where: str, rule: Callable[[Any], str] | None) -> None:
    _require(isinstance(value, str), value, where)
    problem = "it is not understood" if rule is None else rule(value)
    if problem:
        raise _RefusedError(f"{where} is {value!r:.200}: {problem}.")


def _like(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def problem(text: str) -> str:
        return "" if pattern.match(text) else "it would become Python source"

    return problem


def _name(text: str) -> str:
    return "it would become Python source" if not _NAME.match(text) or keyword.iskeyword(text) else ""


def _argument_name(text: str) -> str:
    return "" if text == "" or _NAME.match(text) else "it would become Python source"


def _one_of(known: set[str]) -> Callable[[str], str]:
    return lambda text: "" if text in known else f"known are {', '.join(sorted(known))}"


def _expression(text: str) -> str:
    problem = expressions.problem_of(text)
    return f"it would be evaluated as Python, and arithmetic over sizes has not {problem}" if problem else ""


def _symbol(text: str) -> str:
    return "" if expressions.is_symbol(text) else "it is no name of a size"


def _inputs(text: str) -> str:
    return _structure(text, are_inputs=True)


def _outputs(text: str) -> str:
    return _structure(text, are_inputs=False)


def _structure(text: str, *, are_inputs: bool) -> str:
    """A tree of containers. Of those that torch knows, some are imported by the name that stands here."""
    try:
        protocol, tree = json.loads(text)
        problem = "" if protocol == 1 else f"protocol {protocol!r:.20} is unknown"
        return problem or _problem_of_tree(tree) or (_problem_of_keywords(tree) if are_inputs else "")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "it is no structure of containers"


def _problem_of_tree(tree: Mapping[str, Any]) -> str:
    kind, context, children = tree["type"], tree["context"], tree["children_spec"]
    if kind is None:
        return "" if context is None and children == [] else "a leaf with contents"
    if kind not in _CONTAINERS:
        return f"containers of type {kind!r:.60} are not among the known: tuple, list, dict, OrderedDict"
    keys = json.loads(context)
    are_plain = keys is None or (isinstance(keys, list) and all(type(key) is int or _is_key(key) for key in keys))
    if not are_plain:
        return f"the keys {context!r:.60} are not plain"
    return next(filter(None, map(_problem_of_tree, children)), "")


def _is_key(key: object) -> bool:
    return isinstance(key, str) and _TEXT.match(key) is not None


def _problem_of_keywords(tree: Mapping[str, Any]) -> str:
    """The names of keyword arguments become names in the source of ``forward``."""
    children = tree["children_spec"]
    if len(children) != 2 or children[1]["type"] != "builtins.dict":
        return "" if tree["type"] != "builtins.dict" else "inputs are positional ones and keywords"
    names = json.loads(children[1]["context"]) or []
    return next(filter(None, (_name(name) if isinstance(name, str) else "a name that is none" for name in names)), "")


_RULES: dict[str, Callable[[str], str]] = {
    "Device.type": _one_of(_DEVICES),
    "SymExpr.expr_str": _expression,
    "SymIntArgument.as_name": _name,
    "SymFloatArgument.as_name": _name,
    "SymBoolArgument.as_name": _name,
    "TensorArgument.name": _name,
    "GraphArgument.name": _name,
    "Argument.as_string": _like(_QUOTED),
    "Argument.as_strings": _like(_QUOTED),
    "Argument.as_operator": operators.problem_of,
    "NamedArgument.name": _argument_name,
    "Node.target": operators.problem_of,
    "Node.name": _name,
    "ConstantValue.as_string": _like(_TEXT),
    "InputToConstantInputSpec.name": _name,
    "InputToParameterSpec.parameter_name": _like(_PATH),
    "InputToBufferSpec.buffer_name": _like(_PATH),
    "InputToTensorConstantSpec.tensor_constant_name": _like(_PATH),
    "BufferMutationSpec.buffer_name": _like(_PATH),
    "ParameterMutationSpec.parameter_name": _like(_PATH),
    "UserInputMutationSpec.user_input_name": _name,
    "ModuleCallSignature.in_spec": _inputs,
    "ModuleCallSignature.out_spec": _outputs,
    "ModuleCallSignature.forward_arg_names": _name,
    "ModuleCallEntry.fqn": _like(_PATH),
    "ExportedProgram.verifiers": _one_of(_DIALECTS),
    "ExportedProgram.torch_version": _like(_TEXT),
}
_KEYS: dict[str, Callable[[str], str]] = {
    "Graph.tensor_values": _name,
    "Graph.sym_int_values": _name,
    "Graph.sym_bool_values": _name,
    "Graph.sym_float_values": _name,
    "Argument.as_string_to_argument": _name,
    "ExportedProgram.opset_version": _name,
    "ExportedProgram.range_constraints": _symbol,
}
