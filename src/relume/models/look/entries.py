"""The tensors of a model or of a state_dict, by name: shape, dtype, size, and whether they are trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from relume.errors import ConfigurationError
from relume.names import is_uninitialized
from relume.page import Grid, Page, html_of, line, text_of
from relume.text import counted, size

_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
Kind = Literal["parameter", "buffer", "tensor"]


@dataclass(frozen=True)
class Entry:
    """One tensor.

    Attributes:
        shape: None for a parameter of a lazy module that has no shape yet.
        dtype: ``float32``.
        size_bytes: of its values, whether or not others share them.
        kind: ``"tensor"`` where no model says which it is.
        is_trainable: whether gradients are wanted; None where no model says.
        tied_to: the first tensor with which it shares its memory.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    elements: int
    size_bytes: int
    kind: Kind = "tensor"
    is_trainable: bool | None = None
    tied_to: str | None = None


@dataclass(frozen=True)
class StateTable:
    """The entries of a state_dict, in its order; it prints as a table. See `state_table`."""

    entries: tuple[Entry, ...]

    @property
    def parameters(self) -> int:
        """Elements of all parameters, tied ones counted once; of all tensors where no model says what they are."""
        kinds = ("parameter",) if any(entry.kind == "parameter" for entry in self.entries) else ("tensor",)
        return sum(entry.elements for entry in self.entries if entry.kind in kinds and entry.tied_to is None)

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors, tied ones counted once."""
        return sum(entry.size_bytes for entry in self.entries if entry.tied_to is None)

    def __str__(self) -> str:
        return text_of(self._page())

    def _repr_html_(self) -> str:
        return html_of(self._page())

    def _page(self) -> Page:
        grid = Grid(["tensor", "shape", "dtype", "elements", "size", "kind"])
        for entry in self.entries:
            grid.rows.append((*cells_of(entry), _kind(entry)))
        total = (
            f"{counted(len(self.entries), 'tensor')}: {counted(self.parameters, 'parameter')}, {size(self.size_bytes)}"
        )
        return [grid, line(total)]


def state_table(model_or_state: nn.Module | Mapping[str, Any]) -> StateTable:
    """List the tensors of a model, or of a state_dict: name, shape, dtype, size, trained or not.

    Nothing is computed and nothing is copied. What is no tensor in a state_dict is left out.

    Raises:
        ConfigurationError: it is neither.

    Example:
        >>> table = state_table(nn.Linear(2, 3).requires_grad_(False))
        >>> [(entry.name, entry.shape, entry.is_trainable) for entry in table.entries], table.parameters
        ([('weight', (3, 2), False), ('bias', (3,), False)], 9)
    """
    if isinstance(model_or_state, nn.Module):
        return StateTable(tuple(_entries(model_or_state.state_dict(keep_vars=True), of_model=True)))
    if isinstance(model_or_state, Mapping):
        return StateTable(tuple(_entries(model_or_state, of_model=False)))
    raise ConfigurationError(
        f"state_table takes a model or its state_dict, not a {type(model_or_state).__name__}. For a file: "
        "relume.inspect_file(path)."
    )


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def shape_text(shape: tuple[int, ...] | None) -> str:
    """``64 x 3 x 7 x 7``."""
    if shape is None:
        return "not known yet"
    return " x ".join(map(str, shape)) if shape else "scalar"


def totals_by_dtype(entries: tuple[Entry, ...]) -> dict[str, tuple[int, int]]:
    """``{dtype: (elements, bytes)}``, tied tensors counted once, the largest first."""
    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in entries:
        if entry.tied_to is None:
            elements[entry.dtype] += entry.elements
            sizes[entry.dtype] += entry.size_bytes
    return {dtype: (elements[dtype], total) for dtype, total in sizes.most_common()}


def cells_of(entry: Entry) -> tuple[str, str, str, str, str]:
    """Name, shape, dtype, elements and size."""
    tied = " " if entry.tied_to is None else "*"
    return (
        entry.name,
        shape_text(entry.shape),
        entry.dtype,
        f"{entry.elements:,}",
        f"{size(entry.size_bytes)}{tied}".rstrip(),
    )


def size_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's values; of a sparse one, of those that it has."""
    if tensor.layout is torch.sparse_coo:
        return tensor._indices().nbytes + tensor._values().nbytes
    if tensor.layout in _COMPRESSED:
        return tensor.values().nbytes
    if tensor.layout is not torch.strided:
        return 0
    return tensor.numel() * tensor.element_size()


def _entries(state: Mapping[str, Any], *, of_model: bool) -> list[Entry]:
    found = []
    first: dict[Any, str] = {}
    for key, value in state.items():
        name = str(key)
        if not isinstance(value, torch.Tensor):
            continue
        kind: Kind = "tensor"
        if of_model:
            kind = "parameter" if isinstance(value, nn.Parameter) or is_uninitialized(value) else "buffer"
        trainable = value.requires_grad if of_model else None
        dtype = dtype_name(value.dtype)
        if is_uninitialized(value):
            found.append(Entry(name, None, dtype, 0, 0, kind, trainable))
            continue
        owner = first.setdefault(_memory(value), name)
        tied_to = owner if owner != name else None
        found.append(Entry(name, tuple(value.shape), dtype, value.numel(), size_of(value), kind, trainable, tied_to))
    return found


def _memory(tensor: torch.Tensor) -> Any:
    """The same for tensors that are the same memory, seen in the same way."""
    if tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return id(tensor)
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _kind(entry: Entry) -> str:
    if entry.tied_to is not None:
        return f"tied to {entry.tied_to}"
    if entry.kind == "parameter" and entry.is_trainable is False:
        return "frozen parameter"
    return "" if entry.kind == "tensor" else entry.kind
