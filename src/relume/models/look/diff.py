"""Two files, checkpoints, models or state_dicts compared tensor by tensor, with bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from relume.checkpoint.tensors import as_bytes
from relume.errors import ConfigurationError, UnknownNameError
from relume.models.contents import checked_state
from relume.models.look.entries import dtype_name
from relume.models.look.numbers import PART_ELEMENTS, as_float64, parts
from relume.text import printable

Status = Literal["same", "changed", "dtype", "shape", "added", "removed"]


@dataclass(frozen=True)
class Change:
    """How the values of one tensor differ.

    Attributes:
        different: how many values differ by more than the tolerance.
        norm: of the difference (L2); infinite where one side is NaN or infinite and the other is not.
        relative: ``norm`` by the norm of the first tensor; infinite where that is 0.
        largest: the largest absolute difference, and the index where it is, in ``at``.
    """

    different: int
    norm: float
    relative: float
    largest: float
    at: tuple[int, ...]


@dataclass(frozen=True)
class TensorDiff:
    """One tensor of the two.

    Attributes:
        status: ``"dtype"`` where the dtypes differ, whether or not the values do; ``"shape"`` where they cannot be compared.
        name, other_name: in the first and in the second; None where it is not there.
        shapes, dtypes: in the first and in the second.
        change: how the values differ; None where they do not, or cannot be compared.
        same_bits: False where equal values are other bits: -0 and 0, or two kinds of NaN.
    """

    status: Status
    name: str | None
    other_name: str | None
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    dtypes: tuple[str | None, str | None]
    change: Change | None = None
    same_bits: bool = True


@dataclass(frozen=True)
class Diff:
    """All tensors of two state_dicts, paired by name; in the order of the first, then what only the second has.

    Attributes:
        first, second: what was compared, in words.
        prefixes: what the names of the first, and of the second, begin with where those of the other do not.
        tolerance: absolute differences up to this count as none.
    """

    first: str
    second: str
    tensors: tuple[TensorDiff, ...]
    prefixes: tuple[str, str] = ("", "")
    tolerance: float = 0.0

    @property
    def is_same(self) -> bool:
        """Whether every tensor is in both, with the same shape, dtype and values."""
        return all(one.status == "same" for one in self.tensors)

    def having(self, status: Status) -> list[TensorDiff]:
        """The tensors with that status."""
        return [one for one in self.tensors if one.status == status]

    def __str__(self) -> str:
        from relume.models.look.render import diff_page
        from relume.page import text_of

        return text_of(diff_page(self))

    def _repr_html_(self) -> str:
        from relume.models.look.render import diff_page
        from relume.page import html_of

        return html_of(diff_page(self))


def diff(first: Any, second: Any, *, tolerance: float = 0.0, model: str | None = None) -> Diff:
    """Compare two sets of weights tensor by tensor.

    Args:
        first, second: files of any format that relume reads, checkpoints (``"runs/fashion@best"``), models or state_dicts.
        tolerance: absolute differences up to this count as none. NaN is equal to NaN, and -0 to 0.
        model: which of several models in a file or a checkpoint; the other may hold a single one, of any name.

    Files are mapped and read in parts: memory stays at some 100 MB, however large they are. Names that differ by a prefix
    of a wrapper or trainer (``module.``, ``model.``...) are paired; `Diff.prefixes` says so.

    Raises:
        ModelFileError: a file is missing, damaged, or would run code.
        ConfigurationError: a tolerance that is no number from 0 on, or something that has no weights.

    Example:
        >>> before = {"weight": torch.zeros(3), "bias": torch.zeros(1)}
        >>> after = {"module.weight": torch.tensor([0.0, 0.5, 0.0]), "module.bias": torch.zeros(1)}
        >>> found = diff(before, after)
        >>> [one.status for one in found.tensors], found.tensors[0].change.at, found.prefixes
        (['changed', 'same'], (1,), ('', 'module.'))
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < math.inf:
        raise ConfigurationError(f"tolerance={tolerance!r}: it is a number from 0 on.")
    (name, mine, is_chosen), (other_name, theirs, other_is_chosen) = _state(first, model), _state(second, model)
    if model is not None and not is_chosen and not other_is_chosen:
        raise UnknownNameError(f"model={model!r}: neither {name} nor {other_name} has several models. Leave it out.")
    prefixes, partners = _partners(mine, theirs)
    pairs = [(one, partners.pop(one, None)) for one in mine]
    paired = {other for _, other in pairs}
    pairs_and_rest = [*pairs, *((None, other) for other in theirs if other not in paired)]
    tensors = tuple(_compared(one, mine, other, theirs, tolerance) for one, other in pairs_and_rest)
    return Diff(name, other_name, tensors, prefixes, tolerance)


# ------------------------------------------------------------------------------------------------------- what to compare


def _state(source: Any, model: str | None) -> tuple[str, dict[str, torch.Tensor], bool]:
    """What it is called, its tensors, and whether they are those of ``model``."""
    is_chosen = False
    if isinstance(source, nn.Module):
        title, state = type(source).__name__, source.state_dict()
    elif isinstance(source, (str, Path)):
        from relume.models.files import open_for

        file, is_chosen = open_for(source, model)
        title, state = str(source), dict(checked_state(file))
    elif isinstance(source, Mapping):
        title, state = "state_dict", dict(source)
    else:
        raise ConfigurationError(
            f"what is compared are files, checkpoints, models and state_dicts, not a {type(source).__name__}."
        )
    tensors = {str(name): value.detach() for name, value in state.items() if isinstance(value, torch.Tensor)}
    return title, tensors, is_chosen


def _partners(
    mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]
) -> tuple[tuple[str, str], dict[str, str]]:
    """What is before the names of either side alone, and for each name of the first that of the second."""
    from relume.models.matching import find_prefix

    found = find_prefix(theirs, mine)
    partners = {target: name for name, target in found.names.items() if target in mine}
    return (found.best.added, found.best.removed), partners


# ------------------------------------------------------------------------------------------------------- one tensor


def _compared(
    name: str | None,
    mine: Mapping[str, torch.Tensor],
    other_name: str | None,
    theirs: Mapping[str, torch.Tensor],
    tolerance: float,
) -> TensorDiff:
    a = mine[name] if name is not None else None
    b = theirs[other_name] if other_name is not None else None
    shapes = (None if a is None else tuple(a.shape), None if b is None else tuple(b.shape))
    dtypes = (None if a is None else dtype_name(a.dtype), None if b is None else dtype_name(b.dtype))

    def result(status: Status, change: Change | None = None, same_bits: bool = True) -> TensorDiff:
        return TensorDiff(status, name, other_name, shapes, dtypes, change, same_bits)

    if a is None or b is None:
        return result("added" if a is None else "removed")
    if shapes[0] != shapes[1]:
        return result("shape")
    _check_has_values(a, b, name, other_name)
    places = None
    if a.layout is not torch.strided and b.layout is not torch.strided:
        places, a, b = _aligned(a, b)
    a, b = _plain(a), _plain(b)
    if a.dtype == b.dtype and _have_same_bits(a, b):
        return result("same")
    change = _change(a, b, tolerance)
    if change is not None and places is not None and change.at:
        change = replace(change, at=(*places[:, change.at[0]].tolist(), *change.at[1:]))
    if a.dtype != b.dtype:
        return result("dtype", change, same_bits=False)
    return result("same" if change is None else "changed", change, same_bits=False)


def _check_has_values(a: torch.Tensor, b: torch.Tensor, name: str | None, other_name: str | None) -> None:
    for value, which in ((a, name), (b, other_name)):
        if value.is_meta:
            raise ConfigurationError(f"{printable(which)} is on the meta device: it has no values to compare.")


def _aligned(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The places of two sparse tensors where either has an element, and their values there: they are never made dense."""
    one, other = (value.cpu().to_sparse(layout=torch.sparse_coo).coalesce() for value in (a, b))
    if one.sparse_dim() != other.sparse_dim():
        raise ConfigurationError(
            f"two sparse tensors of {one.sparse_dim()} and {other.sparse_dim()} sparse dimensions are not compared."
        )
    if not torch.equal(one.indices(), other.indices()):
        one, other = _with_places_of(one, other), _with_places_of(other, one)
    return one.indices(), one.values(), other.values()


def _with_places_of(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros_like(other.values(), dtype=one.dtype)
    indices, values = torch.cat([one.indices(), other.indices()], 1), torch.cat([one.values(), zeros])
    return torch.sparse_coo_tensor(indices, values, one.shape, check_invariants=True).coalesce()


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """On the CPU, in row-major order. What is read from a file is both already and is not copied."""
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    return tensor.cpu().resolve_conj().resolve_neg().contiguous()


def _have_same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.data_ptr() == b.data_ptr():
        return True
    return torch.equal(as_bytes(a), as_bytes(b))


def _change(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> Change | None:
    """How the values differ, or None where no difference is larger than the tolerance."""
    if a.is_complex() != b.is_complex():
        a, b = (value if value.is_complex() else torch.complex(value.double(), value.double() * 0) for value in (a, b))
    width = 2 if a.is_complex() else 1
    different, squares, own, largest, place, start = 0, 0.0, 0.0, -1.0, 0, 0
    try:
        for one, other in zip(parts(a), parts(b), strict=True):
            x = as_float64(one)
            own += _square(x)
            if one.dtype != other.dtype or not torch.equal(one, other):
                delta = _delta(one, other, x)
                top, index = delta.max(0)
                different += int((delta > tolerance).sum())
                squares += float(torch.dot(delta, delta))
                if float(top) > largest:
                    largest, place = float(top), start + int(index)
            start += one.numel()
    except (NotImplementedError, RuntimeError):  # a dtype that torch does not calculate with
        return Change(a.numel(), math.inf, math.inf, math.inf, ())
    if not different:
        return None
    norm, length = math.sqrt(squares), math.sqrt(own)
    at = tuple(int(index) for index in torch.unravel_index(torch.tensor(place // width), a.shape))
    return Change(different, norm, norm / length if length else math.inf, largest, at)


def _square(values: torch.Tensor) -> float:
    """The squared norm of the finite values."""
    found = float(torch.dot(values, values))
    if math.isfinite(found):
        return found
    finite = values[values.isfinite()]
    return float(torch.dot(finite, finite))


def _delta(one: torch.Tensor, other: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Absolute differences; infinite where one value is NaN or infinite and the other is not the same."""
    y = as_float64(other)
    are_whole = not one.is_floating_point() and not other.is_floating_point()
    delta = (x - y).abs_()
    if not are_whole and math.isfinite(float(delta.max())):  # nearly always; the rest takes four times as long
        return delta
    is_same = one == other if are_whole and one.dtype == other.dtype else x == y
    is_same |= x.isnan() & y.isnan()
    delta = delta.nan_to_num_(nan=math.inf, posinf=math.inf)
    if are_whole:  # beyond 2**53 they may differ by less than float64 can tell
        delta = delta.clamp_(min=1.0)
    return torch.where(is_same, 0.0, delta)


assert PART_ELEMENTS % 2 == 0  # a complex number is never cut in two
