"""Which blocks of a model are trained, and how fast: for the journal, whenever that changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from relume.errors import RelumeError
from relume.run.schedulechecks import common_root
from relume.transfer.groups import blocks_of
from relume.transfer.selection import Anatomy


def trained_blocks(model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, Any] | None:
    """``blocks`` by name in the model's order, those of them that are ``trained``, and ``lr``, the largest rate in each.

    ``partly`` names those in which some is frozen. None where the model cannot be taken apart.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> frozen = model[0].requires_grad_(False)
        >>> trained_blocks(model, [torch.optim.SGD(model.parameters(), lr=0.5)])
        {'blocks': ['0', '1'], 'trained': ['1'], 'partly': [], 'lr': {'1': 0.5}}
    """
    try:
        return _trained_blocks(model, _rates(optimizers))
    except (RelumeError, RuntimeError, ValueError):  # such as parameters that have no shape yet
        return None


def frozen_from_the_start(
    models: Mapping[str, Any], optimizers: Iterable[torch.optim.Optimizer]
) -> dict[str, Any] | None:
    """As `trained_blocks`, for models of which a part is frozen; None where nothing is, or all."""
    modules = {name: model for name, model in models.items() if isinstance(model, nn.Module)}
    if {p.requires_grad for model in modules.values() for p in model.parameters()} != {True, False}:
        return None
    return trained_blocks(common_root(modules), optimizers)


def _trained_blocks(model: nn.Module, rates: Mapping[int, float]) -> dict[str, Any]:
    anatomy = Anatomy(model)
    found: dict[str, Any] = {"blocks": [], "trained": [], "partly": [], "lr": {}}
    for name, parts in blocks_of(model).items():
        parameters = list(anatomy.select(parts).parameters.values())
        trained = [p for p in parameters if p.requires_grad]
        found["blocks"].append(name)
        if trained:
            found["trained"].append(name)
            found["partly"] += [name] if len(trained) < len(parameters) else []
            known = [rates[id(p)] for p in trained if id(p) in rates]
            found["lr"] |= {name: max(known)} if known else {}
    return found


def _rates(optimizers: Iterable[torch.optim.Optimizer]) -> dict[int, float]:
    """The learning rate of each parameter, by its id."""
    return {
        id(parameter): float(group["lr"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        if "lr" in group
        for parameter in group["params"]
    }
