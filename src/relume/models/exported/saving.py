"""A model as a ``.pt2`` file, for programs that do not have its class."""

from __future__ import annotations

import copy
import inspect
import io
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.torch_version import TorchVersion

from relume.checkpoint import files
from relume.errors import ConfigurationError, ModelFileError
from relume.models.exported.package import open_package
from relume.models.exported.vetting import vetted_program

Inputs = torch.Tensor | tuple[Any, ...] | Mapping[str, Any]
_BATCH = "batch"
_MAX_BATCH = None if TorchVersion(torch.__version__) >= "2.9" else 1 << 31  # they guard against the largest integer


def save_exported(model: nn.Module, path: Path, example_inputs: Inputs) -> Path:
    """Write the graph of ``model`` in evaluation mode, for any batch size.

    Args:
        example_inputs: what the model is called with: a tensor, a tuple of positional or a dict of keyword arguments.
            Tensors whose first dimension is as long as that of the first of them have the batch there.

    The file has no example inputs and no stack traces, which would tell the folders of whoever wrote it. It takes its name
    when it is whole, and when `load_exported` would read it.

    Raises:
        ModelFileError: torch.export cannot make a graph of the model; the message has its reason.
        ConfigurationError: ``example_inputs`` is something else.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise ConfigurationError(f"{path} cannot be written: there is no such folder, or a folder has that name.")
    if TorchVersion(torch.__version__) < "2.9":
        raise ModelFileError(
            f"{path.name} is not written: torch {torch.__version__} puts the tensors of a graph into pickles. Use torch 2.9 or "
            "newer, or save the model as .safetensors."
        )
    program = exported_program(model, example_inputs)
    staged = path.with_name(f".{path.name}.{os.getpid()}.staged")
    with files.explained("Saving the model", path.parent):
        try:
            _write(program, staged)
            package = open_package(staged)
            vetted_program(package.program, str(path))
            files.publish(staged, path)
        except ModelFileError as error:
            raise ModelFileError(
                f"{path.name} is not written: what torch {torch.__version__} makes of it is not what relume loads. {error}"
            ) from error
        finally:
            staged.unlink(missing_ok=True)
    return path


def exported_program(model: nn.Module, example_inputs: Inputs) -> Any:
    """torch's program of ``model`` in evaluation mode for any batch size, without what tells where it was made.

    Raises:
        ModelFileError: torch.export cannot make a graph of the model; the message has its reason.
        ConfigurationError: ``example_inputs`` is something else.
    """
    args, kwargs = _call(example_inputs)
    with evaluating(model) as still:
        program = _exported(still, args, kwargs)
    _forget(program)
    return program


def _call(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, tuple) and example_inputs:
        return example_inputs, {}
    if isinstance(example_inputs, Mapping) and example_inputs and all(isinstance(key, str) for key in example_inputs):
        return (), dict(example_inputs)
    raise ConfigurationError(
        f"example_inputs is {example_inputs!r:.60}: give what the model is called with, a tensor, a tuple of positional "
        "arguments or a dict of keyword arguments."
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model on the CPU in evaluation mode; its own modes are put back."""
    modes = [(module, module.training) for module in model.modules()]
    elsewhere = any(value.device.type != "cpu" for value in (*model.parameters(), *model.buffers()))
    try:
        model.eval()
        yield copy.deepcopy(model).cpu() if elsewhere else model
    finally:
        for module, mode in modes:
            module.training = mode


def _exported(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tree = torch.utils._pytree
    leaves, spec = tree.tree_flatten((args, kwargs))
    batch = next((leaf.shape[0] for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.ndim), None)
    if batch is None:
        raise ConfigurationError("example_inputs has no tensor with a first dimension, which is the batch.")
    dimension = torch.export.Dim(_BATCH, max=_MAX_BATCH)
    is_batched = [isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and leaf.shape[0] == batch for leaf in leaves]
    shapes = [{0: dimension} if has else None for has in is_batched]
    # torch takes a batch of one for a constant.
    leaves = [
        _on_cpu(torch.cat([leaf, leaf]) if has and batch == 1 else leaf)
        for leaf, has in zip(leaves, is_batched, strict=True)
    ]
    args, kwargs = tree.tree_unflatten(leaves, spec)
    dynamic = tree.tree_unflatten(shapes, spec)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(model, args, kwargs, dynamic_shapes=_shapes(model, *dynamic), strict=False)
    except Exception as error:  # torch.export has no error of its own
        raise ModelFileError(
            f"torch.export cannot make a graph of {type(model).__name__} for any batch size: {type(error).__name__} "
            f"{_reason(error)}. Save it with its recipe as .safetensors (build it by relume.build), or change what is named here."
        ) from error


def _reason(error: Exception) -> str:
    """What torch says, without its advice on how to debug its own code."""
    text = str(error).strip().partition("\n\n")[0].partition("Caused by:")[0]
    text = re.sub(r"For more information, run with TORCH_LOGS\S*|\(Size-like symbols: none\)", "", text)
    return " ".join(text.split())[:300].rstrip(" .")


def _shapes(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As torch.export wants them: by the names of parameters where ``forward`` takes ``*args`` or ``**kwargs``."""
    signature = inspect.signature(model.forward)
    if any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in signature.parameters.values()):
        return dict(signature.bind(*args, **kwargs).arguments)
    return kwargs if kwargs else args


def _on_cpu(leaf: Any) -> Any:
    return leaf.detach().cpu() if isinstance(leaf, torch.Tensor) else leaf


def _forget(program: Any) -> None:
    """Take out of a program what tells where it was made: stack traces, and the inputs that it was made with."""
    program._example_inputs = None
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            module.meta.clear()
            for node in module.graph.nodes:
                for key in ("stack_trace", "from_node", "source_fn_stack", "torch_fn", "custom", "nn_module_stack"):
                    node.meta.pop(key, None)


def _write(program: Any, staged: Path) -> None:
    """By way of memory: where a disk is full, what torch writes to a file with ends the whole process."""
    made = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, made)
    with staged.open("xb") as file:
        file.write(made.getbuffer())
        file.flush()
        os.fsync(file.fileno())
