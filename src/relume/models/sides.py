"""The two sides of loading: the tensors that are given, and the model that takes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from relume.errors import ConfigurationError, MismatchError, UnstorableError
from relume.models.contents import ModelFile, checked_state
from relume.models.filling import names_of, own_tensors
from relume.models.state import is_extra, named_state
from relume.models.weights import from_numpy
from relume.names import canonical_in, is_uninitialized, unwrap

Source = str | os.PathLike[str] | Mapping[str, Any] | nn.Module | ModelFile


@dataclass
class Given:
    """Tensors by name, and what else is known of them.

    Attributes:
        tensors: by the names that the source has.
        extras: ``_extra_state`` entries, whatever they are.
        label: the source in words.
        versions: torch's ``_metadata`` of the state_dict.
        is_owned: nobody else has the tensors.
    """

    tensors: dict[str, torch.Tensor]
    extras: dict[str, Any]
    label: str
    versions: Mapping[str, Any] | None
    is_owned: bool


def read_source(source: Source, model: str | None = None) -> Given:
    """The given tensors; ``model`` is which of several in a file."""
    if model is not None and not isinstance(source, (str, os.PathLike)):
        raise ConfigurationError(f"source_model={model!r:.80} is for a file or a checkpoint with several models.")
    if isinstance(source, (str, os.PathLike)):
        from relume.models.files import open_model_file

        return _given(checked_state(open_model_file(source, model=model)), os.fspath(source), is_owned=True)
    if isinstance(source, ModelFile):
        return _given(checked_state(source), str(source.path), is_owned=False)
    if isinstance(source, nn.Module):
        return _given(named_state(source), f"another {type(unwrap(source)).__name__}", is_owned=False)
    if isinstance(source, Mapping):
        return _given(source, "the given tensors", is_owned=False)
    raise ConfigurationError(f"the source is a {type(source).__name__}: give a path, tensors by name, or a model.")


def _given(state: Mapping[str, Any], label: str, is_owned: bool) -> Given:
    tensors, extras = {}, {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise MismatchError(f"{label} is no state_dict: it has the key {name!r:.60}, which is no text.")
        if is_extra(name):
            extras[name] = value
        elif is_uninitialized(value):
            raise MismatchError(
                f"{label}: {name} has no shape yet: it is of a lazy module that was never called. Call it once before."
            )
        elif isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, (np.ndarray, np.generic)):
            tensors[name] = _tensor(name, value, label)
        else:
            raise MismatchError(_no_tensor(state, name, label))
    versions = getattr(state, "_metadata", None)
    return Given(tensors, extras, label, versions if isinstance(versions, Mapping) else None, is_owned)


def _tensor(name: str, value: Any, label: str) -> torch.Tensor:
    try:
        return from_numpy(name, np.asarray(value))
    except UnstorableError as error:
        raise MismatchError(f"{label}: {error}") from None


def _no_tensor(state: Mapping[str, Any], name: str, label: str) -> str:
    inner = [key for key, value in state.items() if isinstance(value, Mapping) and "state" in str(key)]
    remedy = f"Give what is under {inner[0]!r}." if inner else "Give a dict from names to tensors."
    return f"{label} is no state_dict: {name!r:.80} is a {type(state[name]).__name__}. {remedy}"


class Target:
    """A model without wrappers, and its tensors by the names that a user knows."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.live = own_tensors(module)
        self.canonical = canonical_in(module)
        self.inner_name = {self.canonical(name): name for name in module.state_dict(keep_vars=True)}
        self.tensors = {self.canonical(name): value for name, value in self.live.items()}
        self.groups = {key: [self.canonical(name) for name in names] for key, names in names_of(self.live).items()}

    def inner(self, name: str) -> str:
        """The name that the module itself uses."""
        return self.inner_name.get(name, name)
