"""One number for all weights of a model: the same weights have it in any file, and others do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from blake3 import blake3

from relume.checkpoint.hashing import hash_bytes
from relume.checkpoint.tensors import as_buffer, as_bytes


def weights_digest(state: Mapping[str, Any], known: Mapping[str, str] | None = None) -> str:
    """blake3 over the names, dtypes, shapes and bytes of a state_dict, whatever its order; 64 hexadecimal digits.

    Args:
        known: blake3 of the bytes of some of the tensors, by name: they are not read.

    Example:
        >>> one = {"a": torch.ones(2), "b": torch.zeros(1)}
        >>> weights_digest(one) == weights_digest(dict(reversed(one.items())))
        True
    """
    whole = blake3(max_threads=1)
    for name in sorted(name for name, value in state.items() if isinstance(value, torch.Tensor)):
        value = state[name].detach()
        dtype = str(value.dtype).removeprefix("torch.")
        content = (known or {}).get(name) or hash_bytes(as_buffer(as_bytes(value)))
        line = f"{name}\0{dtype}\0{tuple(value.shape)}\0{content}\n"
        whole.update(line.encode(errors="surrogatepass"))
    return whole.hexdigest()
