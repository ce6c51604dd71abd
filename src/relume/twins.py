"""What it takes to run a copy of a model without anybody noticing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from relume.generators import isolated


def without_users_hooks(model: nn.Module) -> dict[int, Any]:
    """A memo for ``copy.deepcopy`` that leaves out users' hooks, which may hold anything and are not to see the copy."""
    return {
        id(hooks): OrderedDict((key, hook) for key, hook in hooks.items() if _is_librarys(hook))
        for part in model.modules()
        for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)
    }


@contextmanager
def on_own_numbers(device: torch.device) -> Iterator[None]:
    """On random numbers of its own, those of the device included."""
    devices = [device] if device.type == "cuda" else []
    with isolated(0), torch.random.fork_rng(devices=devices):
        yield


def _is_librarys(hook: Any) -> bool:
    """Such as that of spectral_norm, which computes a weight."""
    place = getattr(hook, "__module__", None) or type(hook).__module__
    return place.partition(".")[0] in ("torch", "timm", "torchvision")
