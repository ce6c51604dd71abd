"""Whether given values can come into a model's tensors, before any of them does."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from relume.checkpoint.tensors import as_bytes
from relume.models.filling import Copy
from relume.models.renames import is_meant
from relume.models.sides import Given, Target
from relume.names import is_uninitialized


def unusable(
    given: Given, target: Target, by_name: Mapping[str, str], copies: Mapping[str, Copy], wanted: list[str] | None
) -> dict[str, str]:
    """Names of the model whose values cannot be copied, other than by their shape, and why.

    Args:
        by_name: name in the model to name in the source.
        copies: what is planned.
        wanted: the patterns of ``only=``.
    """
    found = {name: _unusable(copy) or _lazy_misfit(target, name, copy) for name, copy in copies.items()}
    found |= _without_values(target, copies, wanted)
    found |= _contradicting_ties(given, target, by_name, copies)
    return {name: why for name, why in found.items() if why}


def _unusable(copy: Copy) -> str:
    """Why a value cannot be copied into its tensor, other than by its shape."""
    target, value = copy
    if value.is_meta:
        return "it has no values: it is on the meta device"
    if value.layout != target.layout or value.is_quantized != target.is_quantized:
        return f"it is {_kind(value)} where the model has {_kind(target)}"
    if value.dtype != target.dtype and not _converts(value.dtype, target.dtype):
        return f"{value.dtype} does not go into {target.dtype} without loss of meaning"
    if is_uninitialized(target):
        return ""
    if target.is_inference() and not torch.is_inference_mode_enabled():
        return "the model was made in torch.inference_mode, where alone its tensors can be written to"
    if any(step == 0 and size > 1 for step, size in zip(target.stride(), target.shape, strict=True)):
        return "the model's tensor is an expanded view, whose elements share memory"
    return ""


def _lazy_misfit(target: Target, name: str, copy: Copy) -> str:
    """A lazy module finds out its inputs by itself; its outputs were said."""
    owner, _, leaf = target.inner(name).rpartition(".")
    module = target.module.get_submodule(owner) if is_uninitialized(copy.target) else None
    outputs = getattr(module, "out_features", None) or getattr(module, "out_channels", None)
    shape = tuple(copy.value.shape)
    if outputs is None or (shape == (outputs,) if leaf == "bias" else outputs in shape[:2]):
        return ""
    return f"it has shape {shape} for a lazy module with {outputs} outputs"


def _without_values(target: Target, copies: Mapping[str, Copy], wanted: list[str] | None) -> dict[str, str]:
    """Tensors on the meta device that get no values, other than missing ones."""
    filled = {id(copy.target) for copy in copies.values()}
    module = target.module
    everything = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {
        name: "it has no values (meta device), and gets none here: build the model on a real device"
        for name, value in ((target.canonical(name), value) for name, value in everything)
        if value.is_meta and id(value) not in filled and name not in target.tensors and is_meant(name, wanted)
    }


def _kind(value: torch.Tensor) -> str:
    return "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.")


def _converts(source: torch.dtype, own: torch.dtype) -> bool:
    if not torch.can_cast(source, own):
        return False
    try:
        torch.empty(1, dtype=own).copy_(torch.empty(1, dtype=source))
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _contradicting_ties(
    given: Given, target: Target, by_name: Mapping[str, str], copies: Mapping[str, Copy]
) -> dict[str, str]:
    """Where the model has one tensor and the source has several for it, they must be the same."""
    found = {}
    for first, copy in copies.items():
        for name in target.groups[id(copy.target)]:
            value = given.tensors.get(by_name.get(name, ""))
            if value is not None and value is not copy.value and not _same(value, copy.value):
                found[first] = f"it is tied to {name} in the model, and their values differ in the source"
    return found


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype or first.layout != second.layout or first.is_meta:
        return False
    if first.layout != torch.strided or first.is_quantized:
        return bool(torch.equal(first, second))
    is_one = first.data_ptr() == second.data_ptr() and first.stride() == second.stride()
    return is_one or bool(torch.equal(as_bytes(first), as_bytes(second)))
