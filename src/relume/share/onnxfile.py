"""A model as ONNX, the format that other runtimes read (https://onnx.ai, https://onnxruntime.ai)."""

from __future__ import annotations

import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from relume.errors import MissingPackageError, ModelFileError

MAX_BYTES = (1 << 31) - (1 << 22)
"""What protocol buffers, and so one file of ONNX, can hold."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_BATCH = "batch"


def check_packages() -> None:
    """Raise MissingPackageError where what writes and runs ONNX is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f'{", ".join(missing)} {"is" if len(missing) == 1 else "are"} not installed: pip install "relume[onnx]"'
        )


def onnx_model(
    program: Any, inputs: Sequence[str], outputs: Sequence[str], metadata: Mapping[str, str], opset: int | None
) -> Any:
    """The protocol buffer of a program that torch exported, without what tells where it was made.

    Args:
        program: a ``torch.export.ExportedProgram``.
        inputs, outputs: their names.
        metadata: text by text, for ``metadata_props``.
        opset: the version of ONNX's operators; None takes what torch recommends.

    Raises:
        ModelFileError: torch's exporter cannot translate it; the message has its reason.
    """
    options: dict[str, Any] = {} if opset is None else {"opset_version": opset}
    try:
        with _quiet():
            made = torch.onnx.export(
                program, (), dynamo=True, verbose=False, input_names=[*inputs], output_names=[*outputs], **options
            )
        if made is None:
            raise ModelFileError(f"torch {torch.__version__} gave no ONNX program.")
        model = made.model_proto
    except ModelFileError:
        raise
    except Exception as error:  # the exporter has many of its own
        reason = " ".join(str(_first(error)).split())
        raise ModelFileError(
            f"torch {torch.__version__} cannot translate the model to ONNX: {type(_first(error)).__name__} {reason:.400}. Newer "
            "versions translate more operators; .pt2 needs no translation."
        ) from error
    _clean(model)
    _name_the_batch(model.graph)
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=key, value=value)
    model.graph.name = "model"
    return model


def write_onnx(model: Any, path: Path, *, is_apart: bool) -> list[Path]:
    """Write a model; the weights to a second file if they shall be apart. Returns the files, that of the model last."""
    import onnx

    if not is_apart:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return [path]
    beside = path.with_name(f"{path.name}.data")
    onnx.save_model(
        model, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=beside.name,
        size_threshold=1024,
    )  # fmt: skip
    return [beside, path] if beside.exists() else [path]


def run_onnx(path: Path) -> Any:
    """A function from arrays by name to the list of outputs, by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no class of its own for them
        raise ModelFileError(
            f"onnxruntime cannot load what torch wrote: {' '.join(str(error).split()):.300}"
        ) from error
    names = [one.name for one in session.get_inputs()]

    def call(values: Mapping[str, Any]) -> list[Any]:
        try:
            return list(session.run(None, {name: values[name] for name in names}))
        except Exception as error:
            raise ModelFileError(f"onnxruntime cannot run it: {' '.join(str(error).split()):.300}") from error

    return call


def _first(error: BaseException) -> BaseException:
    """torch wraps what went wrong in advice on how to debug its exporter."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _clean(model: Any) -> None:
    """Take out names of files, stack traces and what else is for those who debug the exporter."""
    model.doc_string = ""
    del model.metadata_props[:]
    for graph in [model.graph, *model.functions]:
        _clean_graph(graph)


def _clean_graph(graph: Any) -> None:
    from onnx import AttributeProto

    for part in (graph, *graph.node, *_values(graph)):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            attribute.doc_string = ""
            for inner in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
                _clean_graph(inner)


def _values(graph: Any) -> Iterator[Any]:
    if hasattr(graph, "initializer"):  # a graph, and not a function
        yield from (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    else:
        yield from graph.value_info


def _name_the_batch(graph: Any) -> None:
    """torch names sizes ``s77``; the first of the inputs' is the batch."""
    dims = (one.type.tensor_type.shape.dim[:1] for one in graph.input)
    symbol = next((dim[0].dim_param for dim in dims if dim and dim[0].dim_param), "")
    if not symbol:
        return
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", _BATCH, dim.dim_param)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter prints and logs: what matters of it is in relume's error."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
