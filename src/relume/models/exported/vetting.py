"""The document of a graph, checked field by field before anything is made of it.

torch itself turns what stands there into Python source and compiles it: names of values and arguments become names in it,
names of parameters become attributes, expressions over sizes go through sympy to ``eval``, guards to ``exec``, the structure
of inputs names modules to import, and operators are looked up from ``torch`` downwards (``torch.hub.load`` is one step away).
relume runs graphs without it (see `relume.models.exported.running`), and refuses all the same what would run code there.
So every text has a rule by the field that it stands in, and a field without a rule may hold none.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from relume.errors import ModelFileError, UnsafeFileError
from relume.models.exported import expressions, operators, schema

_NAME = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]{0,300}\Z")
_PATH = re.compile(r"(?:[\w\-]+(?:\.[\w\-]+)*)?\Z", re.ASCII)
_TEXT = re.compile(r"[\w .,;:+*/()\[\]<>=|&%@#~^-]{0,1000}\Z", re.ASCII)
_QUOTED = re.compile(r"[ -~]{0,2000}\Z")  # torch writes these by repr(): messages of assertions have quotes in them
_DEVICES = {"cpu", "cuda", "mps", "xpu", "meta"}
_DIALECTS = {"ATEN", "TRAINING"}
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_MAX_INTEGER = 1 << 63
_NOT_FINITE = ("Infinity", "-Infinity", "NaN")


class _RefusedError(Exception):
    """What is wrong with a value."""


class _DamagedError(Exception):
    """What is missing, or of another version."""


def vetted_program(document: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same document with the fields that are known, each of them checked.

    What it says for people and for debuggers is left out (stack traces, guards as Python, metadata): nothing needs it.

    Args:
        document: the JSON of ``models/model.json``.
        where: what messages call the file.

    Raises:
        UnsafeFileError: it has what no graph needs; names the field and the value.
        ModelFileError: it is damaged, or of a version that is not understood; or it needs operators that are not there.
    """
    _check_version(document, where)
    try:
        checked: dict[str, Any] = _checked(document, "ExportedProgram", "ExportedProgram", None)
    except _RefusedError as error:
        raise UnsafeFileError(f"{where}: {error} Nothing of the file was run.") from None
    except (_DamagedError, RecursionError) as error:
        raise ModelFileError(f"{where}: its graph is damaged: {type(error).__name__} {error!s:.150}.") from error
    _check_operators(checked, where)
    return checked


def _check_version(document: Mapping[str, Any], where: str) -> None:
    version = document.get("schema_version")
    major = version.get("major") if isinstance(version, dict) else None
    if type(major) is not int or major != schema.MAJOR_VERSION:
        raise ModelFileError(
            f"{where}: its graph is of schema version {version!r:.60}, and this relume reads {schema.MAJOR_VERSION}. Export the "
            "model again with another version of torch, or update relume."
        )


def _check_operators(program: Mapping[str, Any], where: str) -> None:
    """All that this torch lacks at once, so that nobody finds them one by one."""
    missing = sorted(
        {target for target in _targets(program["graph_module"]["graph"]) if not operators.is_there(target)}
    )
    if missing:
        names = ", ".join(target.removeprefix("torch.ops.") for target in missing)
        made = str(program["torch_version"] or "")
        raise ModelFileError(
            f"{where}: torch {torch.__version__} has no such operator as its graph needs: {names:.600}. "
            f"The graph was made with torch {made or 'of an unknown version'}: install that version or a newer one."
        )


def _targets(graph: Mapping[str, Any]) -> Iterator[str]:
    for node in graph["nodes"]:
        yield node["target"]
        for one in node["inputs"]:
            if "as_graph" in one["arg"]:
                yield from _targets(one["arg"]["as_graph"]["graph"])


def _checked(value: Any, kind: str, where: str, rule: Callable[[Any], str] | None) -> Any:
    """A value of a type, and every text in it checked against the rule of its field."""
    if kind.endswith("?"):
        return None if value is None else _checked(value, kind[:-1], where, rule)
    if kind.startswith("["):
        _require(isinstance(value, list), value, where)
        return [_checked(one, kind[1:-1], where, rule) for one in value]
    if kind.startswith("{"):
        _require(isinstance(value, dict), value, where)
        for key in value:
            _check_text(key, f"a key of {where}", _KEYS.get(where))
        return {key: _checked(one, kind[1:-1], where, rule) for key, one in value.items()}
    if kind in schema.RECORDS:
        return _record(value, kind, where)
    if kind in schema.UNIONS:
        return _union(value, kind, where)
    return _plain(value, kind, where, rule)


def _record(value: Any, kind: str, where: str) -> dict[str, Any]:
    _require(isinstance(value, dict), value, where)
    fields = schema.RECORDS[kind]
    for name, one in value.items():
        if name not in fields and one and name not in schema.LEFT_OUT.get(kind, ()):
            raise _DamagedError(f"{kind} has a field {name!r:.60}, which is not known: a newer torch wrote it")
    made = {}
    for name, field in fields.items():
        if name not in value and not field.endswith("?") and field[0] not in "[{":
            raise _DamagedError(f"{kind} has no {name}")
        default: Any = None if field.endswith("?") else [] if field[0] == "[" else {}
        inside = f"{kind}.{name}"
        made[name] = _checked(value.get(name, default), field, inside, _RULES.get(inside))
    return made


def _union(value: Any, kind: str, where: str) -> dict[str, Any]:
    """Of a union one field is set."""
    _require(isinstance(value, dict) and len(value) == 1, value, where)
    name, one = next(iter(value.items()))
    _require(name in schema.UNIONS[kind], name, where)
    inside = f"{kind}.{name}"
    return {name: _checked(one, schema.UNIONS[kind][name], inside, _RULES.get(inside))}


def _plain(value: Any, kind: str, where: str, rule: Callable[[Any], str] | None) -> Any:
    if kind in schema.ENUMS:
        _require(type(value) is int and value in schema.ENUMS[kind], value, where)
    elif kind == "int":
        _require(type(value) is int and abs(value) <= _MAX_INTEGER, value, where)
    elif kind == "float":
        _require(type(value) in (float, int) or value in _NOT_FINITE, value, where)
        return float(value)
    elif kind == "bool":
        _require(type(value) is bool, value, where)
    else:
        _check_text(value, where, rule)
    return value


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
