"""A model's graph without its weights, for files that hold those already.

``graph/program.json`` is torch's document of the graph (what a ``.pt2`` file has in ``models/model.json``) with what running it
needs: no stack traces, no shapes between the steps, no names of files. ``graph/constants.safetensors`` has the tensors that the
graph uses and the state_dict has not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from relume.errors import ModelFileError
from relume.models.contents import ModelFile
from relume.models.exported.model import ExportedModel
from relume.models.exported.saving import Inputs, exported_program
from relume.models.exported.schema import RECORDS
from relume.models.exported.vetting import vetted_program
from relume.models.header import unique
from relume.models.tensorfile import tensorfile_parts

PROGRAM = "graph/program.json"
CONSTANTS = "graph/constants.safetensors"
_FORMAT = 1


class Files(Protocol):
    """What has files by their names, such as a bundle."""

    def __contains__(self, member: str) -> bool: ...
    def read(self, member: str) -> bytes: ...
    def tensors(self, member: str) -> ModelFile: ...


def graph_files(model: nn.Module, example_inputs: Inputs) -> dict[str, bytes]:
    """The files of a model's graph in evaluation mode, for any batch size, without the tensors of its state_dict.

    Args:
        example_inputs: what the model is called with: a tensor, a tuple of positional or a dict of keyword arguments.
            Tensors whose first dimension is as long as that of the first of them have the batch there.

    The same model gives the same bytes. Works with every torch that relume does, not only with those that write ``.pt2``.

    Raises:
        ModelFileError: torch.export cannot make a graph of the model; the message has its reason.
        ConfigurationError: ``example_inputs`` is something else.
    """
    name = type(model).__name__
    program = exported_program(model, example_inputs)
    constants = dict(program.constants)
    if strange := [key for key, value in constants.items() if not isinstance(value, torch.Tensor)]:
        raise ModelFileError(
            f"the graph of {name} holds {strange[0]!r:.100}, which is no tensor: no file has a place for it."
        )
    document = _document(program, name)
    vetted_program(document, f"the graph of {name}")
    whole = {"format": _FORMAT, "parameters": _parameters(model), "program": document}
    text = json.dumps(whole, separators=(",", ":"), allow_nan=False) + "\n"
    files = {PROGRAM: text.encode()}
    if constants:
        held = {key: value.detach().cpu().contiguous() for key, value in sorted(constants.items())}
        files[CONSTANTS] = b"".join(bytes(piece) for piece in tensorfile_parts(held))
    return files


def load_graph(
    files: Files, state: Mapping[str, torch.Tensor], device: str | torch.device = "cpu", *, where: str = ""
) -> ExportedModel:
    """The model of the files that `graph_files` made; called like the model, in evaluation mode.

    Args:
        files: has ``read``, ``tensors`` and ``in``, as a `relume.share.bundle.Bundle` does.
        state: the model's state_dict. Its tensors are used as they are, not copied.
        device: where the tensors, and those that the graph makes, shall be.
        where: what messages call the file; by default its ``path``, if it has one.

    Raises:
        ModelFileError: the graph is damaged, does not fit ``state``, or needs operators that this torch does not have.
        UnsafeFileError: it has what no graph needs. Nothing of it was run.
    """
    where = where or str(getattr(files, "path", "the model"))
    try:
        whole = json.loads(files.read(PROGRAM), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{where}: {PROGRAM} is no JSON ({error!s:.100}): it is damaged.") from None
    match whole:
        case {"format": 1, "parameters": dict(parameters), "program": dict(document)}:
            pass
        case _:
            raise ModelFileError(f"{where}: {PROGRAM} is not of a form that this relume knows. Update relume.")
    program = vetted_program(document, where)
    constants = files.tensors(CONSTANTS).state if CONSTANTS in files else {}
    wants = {name: bool(wanted) for name, wanted in parameters.items()}
    return ExportedModel(program, dict(state), dict(constants), wants, where).to(device)


def _parameters(model: nn.Module) -> dict[str, bool]:
    return {name: value.requires_grad for name, value in model.named_parameters(remove_duplicate=False)}


def _document(program: Any, name: str) -> dict[str, Any]:
    """torch's own document of a graph, without what only people and torch's loader read."""
    from torch._export.serde import schema, serialize

    try:
        serializer = serialize.GraphModuleSerializer(program.graph_signature, program.module_call_graph)
        made = serialize._dataclass_to_dict(serializer.serialize(program.graph_module))  # type: ignore[no-untyped-call]
        ranges = serialize._dataclass_to_dict(serialize.serialize_range_constraints(program.range_constraints))  # type: ignore[no-untyped-call]
    except Exception as error:  # torch's serializer has no error of its own
        reason = " ".join(str(error).strip().splitlines()[-1:])
        raise ModelFileError(
            f"torch {torch.__version__} cannot write the graph of {name} down: {type(error).__name__} {reason:.300}"
        ) from error
    whole = {
        "graph_module": made,
        "opset_version": {},
        "range_constraints": ranges,
        "schema_version": {"major": schema.SCHEMA_VERSION[0], "minor": schema.SCHEMA_VERSION[1]},
        "verifiers": [],
        "torch_version": str(torch.__version__).partition("+")[0],
    }
    plain: dict[str, Any] = json.loads(json.dumps(whole, cls=serialize.EnumEncoder))
    graph = plain["graph_module"]["graph"]
    plain["graph_module"]["module_call_graph"] = plain["graph_module"]["module_call_graph"][:1]
    inputs = {
        one["as_tensor"]["name"] for one in _user_inputs(plain["graph_module"]["signature"]) if "as_tensor" in one
    }
    graph["tensor_values"] = {key: value for key, value in graph["tensor_values"].items() if key in inputs}
    for key in ("sym_int_values", "sym_bool_values", "sym_float_values", "custom_obj_values"):
        graph[key] = {}
    plain["range_constraints"] = _used(plain["range_constraints"], graph["tensor_values"])
    return dict(_without_extras(plain))


def _user_inputs(signature: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [spec["user_input"]["arg"] for spec in signature["input_specs"] if "user_input" in spec]


def _used(ranges: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(values)
    return {name: one for name, one in ranges.items() if f"'{name}'" in text or f'"{name}"' in text}


_EXTRAS = {"metadata", "guards_code", "treespec_namedtuple_fields", "hint"}
_KNOWN = {name for fields in RECORDS.values() for name in fields}


def _without_extras(value: Any) -> Any:
    """Without metadata and without fields that are empty."""
    if isinstance(value, dict):
        return {
            key: _without_extras(one)
            for key, one in value.items()
            if key not in _EXTRAS and (one is not None or key not in _KNOWN)
        }
    if isinstance(value, list):
        return [_without_extras(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"  # as newer versions of torch
    return value
