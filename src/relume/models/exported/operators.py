"""Which functions a graph may call: operators of torch that compute with tensors, and arithmetic over sizes."""

from __future__ import annotations

import importlib.util
import re
import sys

import torch

from relume.models.exported.sizes import ARITHMETIC

_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)\Z", re.ASCII)
_GRAPH_RUNNER = re.compile(r"torch\.ops\.higher_order\.(\w+)\Z", re.ASCII)

_GRAPH_RUNNERS = {
    "cond", "while_loop", "map_impl", "scan", "associative_scan", "wrap_with_set_grad_enabled", "wrap_with_autocast",
}  # fmt: skip
_NAMESPACES = {"aten", "prims"}
_ON_IMPORT = {"torchvision"}
_REFUSED = {
    "from_file",
    "set_",
    "set",
    "resize_",
    "resize",
    "save",
    "load",
    "set_data",
    "manual_seed",
    "warn",
    "device_put",
    "segment_reduce",
    "batch_norm_update_stats",
}
"""Of the public ones: those that open files, take memory that no tensor of the graph owns, or change the process."""
_UNCHECKED = re.compile(r"sparse|backward|ctc_loss|nested|mkldnn|miopen|fbgemm|quantized")
"""Kinds that trust the sizes and indices that they are given: torch reads and writes beyond their tensors. No model that
computes in evaluation mode has them as a step."""

_PRIVATE = re.compile(
    r"__(?:and|or|xor|lshift|rshift|iand|ior|ixor|ilshift|irshift)__\Z|_(?:to_copy|assert_async|assert_scalar|"
    r"assert_tensor_metadata|unsafe_view|unsafe_index|unsafe_index_put|softmax|log_softmax|local_scalar_dense|"
    r"native_batch_norm_legit\w*|batch_norm_with_update\w*|scaled_dot_product\w+|weight_norm\w*|embedding_bag\w*|"
    r"transformer_encoder_layer_fwd|native_multi_head_attention|fft_\w+|linalg_\w+|upsample_\w+|adaptive_avg_pool\w+|"
    r"cdist_forward|pdist_forward|conj\w*|neg_view|trilinear|convolution\w*|unique2?|cummax_helper|cummin_helper|"
    r"thnn_fused_\w+|stack|cat|chunk_cat|prelu_kernel|addmm_activation|grid_sampler_2d_cpu_fallback|euclidean_dist|"
    r"is_all_true|is_any_true|logcumsumexp|make_per_\w+)\Z"
)


def problem_of(target: str) -> str:
    """Why a graph may not call ``target``; empty where it may.

    Example:
        >>> problem_of("torch.ops.aten.relu.default")
        ''
        >>> problem_of("torch.hub.load")
        'it is no operator that computes with tensors'
    """
    if target in ARITHMETIC:
        return ""
    if (runner := _GRAPH_RUNNER.match(target)) is not None:
        return "" if runner[1] in _GRAPH_RUNNERS else "it is no operator that only runs a part of the graph"
    parts = _OPERATOR.match(target)
    if parts is None:
        return "it is no operator that computes with tensors"
    namespace, name, _ = parts.groups()
    if namespace not in _NAMESPACES | _ON_IMPORT:
        return f"the operators of {namespace!r:.40} are not among those that are known"
    if name in _REFUSED or (name.startswith("_") and not _PRIVATE.match(name)):
        return "it does more than to compute with tensors"
    if _UNCHECKED.search(name):
        return "it does not check where its tensors end"
    return ""


def is_there(target: str) -> bool:
    """Whether this torch has an operator that a graph may call; those of torchvision are there once it is imported.

    Example:
        >>> is_there("torch.ops.aten.relu.default"), is_there("torch.ops.aten.relu.twice")
        (True, False)
    """
    parts = _OPERATOR.match(target)
    if parts is None:
        return target in ARITHMETIC or hasattr(torch.ops.higher_order, target.rpartition(".")[2])
    if parts[1] in _ON_IMPORT and parts[1] not in sys.modules and importlib.util.find_spec(parts[1]):
        importlib.import_module(parts[1])
    return _is_dispatched(*parts.groups())


def _is_dispatched(namespace: str, name: str, overload: str) -> bool:
    """Whether it is an operator of torch's dispatcher: TorchScript has others under the same names, that open files."""
    qualified = f"{namespace}::{name}" + ("" if overload == "default" else f".{overload}")
    if not torch._C._dispatch_has_kernel(qualified):
        return False
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except (AttributeError, RuntimeError):
        return False
    return isinstance(found, torch._ops.OpOverload)
