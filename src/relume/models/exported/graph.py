"""A ``.pt2`` file as a module that can be called, and its weights alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.models.contents import ModelFile
from relume.models.exported.model import ExportedModel
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

    Its class is `ExportedModel` and not the model's own, its submodules hold parameters and no code. A graph has one mode:
    ``eval()`` does nothing, and ``train()`` is a `ConfigurationError`. torch's own loader has no part in it, so that any
    version of torch that has the operators reads what any other wrote.

    Args:
        device: where the tensors, and those that the graph makes, shall be.
        mmap: leave the weights in the file until they are used; otherwise they are read now.

    Raises:
        ModelFileError, UnsafeFileError: see `read_pt2_state`; also for what stands in the graph.
    """
    package = open_package(path)
    program = vetted_program(package.program, str(package.path))
    state, constants = _values(package, mmap=mmap)
    made = ExportedModel(program, state, constants, package.parameters, str(package.path))
    return made.to(device)


def _values(package: Package, *, mmap: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors, those that share memory still doing so."""
    values: dict[str, dict[str, torch.Tensor]] = {"state": dict(package.state), "constants": dict(package.constants)}
    if not mmap:
        values = copy.deepcopy(values)
    return values["state"], values["constants"]
