"""A ``.pt2`` file as a module that can be called, and its weights alone."""

from __future__ import annotations

import copy
import logging
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.errors import ConfigurationError, ModelFileError
from relume.models.contents import ModelFile
from relume.models.exported.package import Package, open_package
from relume.models.exported.vetting import vetted_program


def read_pt2_state(path: str | Path) -> ModelFile:
    """The weights of a ``.pt2`` file, mapped from it; its graph is not looked at.

    Raises:
        ModelFileError: it is missing, damaged, or of a version that is not understood.
        UnsafeFileError: it holds pickles, native code or whatever no graph needs, or claims more than it holds.
    """
    package = open_package(path)
    return ModelFile(package.path, "pt2", package.state, size_bytes=package.size_bytes)


def load_exported(path: str | Path, *, device: str | torch.device = "cpu", mmap: bool = True) -> nn.Module:
    """The graph of a ``.pt2`` file as a module: it is called like the model that was exported, in evaluation mode.

    Its class is torch's ``GraphModule`` and not the model's own, its submodules hold parameters and no code. A graph has
    one mode: ``eval()`` does nothing, and ``train()`` is a `ConfigurationError`.

    Args:
        device: where the tensors, and those that the graph makes, shall be.
        mmap: leave the weights in the file until they are used; otherwise they are read now.

    Raises:
        ModelFileError, UnsafeFileError: see `read_pt2_state`; also for what stands in the graph.
    """
    package = open_package(path)
    program = vetted_program(package.program, str(package.path))
    state, constants = _values(package, mmap=mmap)
    from torch._export.serde.serialize import ExportedProgramDeserializer

    with _quiet():
        try:
            exported = ExportedProgramDeserializer().deserialize(program, state, constants, None)
            if torch.device(device).type != "cpu":
                from torch.export.passes import move_to_device_pass

                exported = move_to_device_pass(exported, device)
            module: nn.Module = exported.module()
        except Exception as error:  # whatever a damaged graph makes of torch
            reason = str(error).strip().splitlines()[-1:] or [""]
            raise ModelFileError(
                f"{package.path}: torch {torch.__version__} makes no program of its graph: {type(error).__name__} "
                f"{reason[0][:200]}. The file is damaged, or from a version of torch that is too different."
            ) from error
    for part in module.modules():
        part.training = False
    module.train = types.MethodType(_train, module)  # type: ignore[method-assign]
    module.eval = types.MethodType(_eval, module)  # type: ignore[method-assign]
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(package.parameters.get(name, True) and _can_train(parameter))
    return module


def _train(module: nn.Module, mode: bool = True) -> nn.Module:
    if mode:
        raise ConfigurationError(
            "a model from a .pt2 file has no training mode: its graph is what the model does in evaluation mode. To train, "
            "save the model with its recipe, as .safetensors, and load that."
        )
    return module


def _eval(module: nn.Module) -> nn.Module:
    return module


def _values(package: Package, *, mmap: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors, those that share memory still doing so, parameters as such."""
    values: dict[str, dict[str, torch.Tensor]] = {"state": dict(package.state), "constants": dict(package.constants)}
    if not mmap:
        values = copy.deepcopy(values)
    for name, wants_grad in package.parameters.items():
        for tensors in values.values():
            if name in tensors:
                value = tensors[name]
                tensors[name] = nn.Parameter(value, requires_grad=wants_grad and _can_train(value))
    return values["state"], values["constants"]


def _can_train(value: torch.Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch logs of a file that it cannot read: relume's error says it."""
    logger = logging.getLogger("torch._export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
