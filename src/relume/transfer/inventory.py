"""Which parameters there are, in which models, and in which optimizers and groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from relume.names import is_uninitialized
from relume.transfer.findings import Gradient, Row
from relume.transfer.modes import is_held
from relume.transfer.selection import Anatomy


@dataclass(frozen=True)
class Place:
    """Where an optimizer holds a parameter."""

    optimizer: str
    group: int
    options: Mapping[str, Any]

    @property
    def lr(self) -> float | None:
        """Its learning rate; read from the device if it is a tensor there."""
        return _number(self.options.get("lr"))

    @property
    def weight_decay(self) -> float | None:
        return _number(self.options.get("weight_decay"))


class Inventory:
    """Models and optimizers at one moment.

    Attributes:
        anatomies: of each model, by its name.
        parameters: all of all models by name, each once; the name of the model comes first where there are several.
        names: the same by ``id``.
        places: by ``id`` of a parameter, where optimizers hold it; also of those that are in no model.
        strangers: for each optimizer, what it holds that is in no model.
    """

    def __init__(self, models: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self.optimizers = dict(optimizers)
        self.anatomies = {name: Anatomy(model) for name, model in models.items() if isinstance(model, nn.Module)}
        self._has_one = len(self.anatomies) == 1
        self.parameters: dict[str, nn.Parameter] = {}
        self.names: dict[int, str] = {}
        for owner, anatomy in self.anatomies.items():
            for name, parameter in anatomy.parameters.items():
                if id(parameter) not in self.names:
                    self.names[id(parameter)] = self.full(owner, name)
                    self.parameters[self.full(owner, name)] = parameter
        self.places: dict[int, list[Place]] = {}
        self.strangers: dict[str, list[torch.Tensor]] = {}
        for owner, optimizer in self.optimizers.items():
            for number, group in enumerate(optimizer.param_groups):
                for parameter in group["params"]:
                    self.places.setdefault(id(parameter), []).append(Place(owner, number, group))
                    if id(parameter) not in self.names:
                        self.strangers.setdefault(owner, []).append(parameter)

    def full(self, owner: str, name: str) -> str:
        """A name within a model as messages give it."""
        return name if self._has_one else f"{owner}.{name}" if name else owner

    def kind(self) -> str:
        """The model's class, or the names of the models."""
        return (
            ", ".join(type(anatomy.model).__name__ for anatomy in self.anatomies.values())
            if self._has_one
            else ", ".join(self.anatomies)
        )

    def is_in_optimizer(self, parameter: torch.Tensor) -> bool:
        return id(parameter) in self.places

    def held(self, optimizer: str) -> Iterator[torch.Tensor]:
        """What an optimizer holds."""
        for group in self.optimizers[optimizer].param_groups:
            yield from group["params"]

    def name_of(self, parameter: torch.Tensor) -> str:
        """Its name, or its shape where it is in no model."""
        return self.names.get(id(parameter)) or f"a tensor of shape {tuple(parameter.shape)}"

    def in_eval_for_good(self) -> set[int]:
        """The ``id`` of each parameter whose module stays in evaluation mode."""
        return {
            id(parameter)
            for anatomy in self.anatomies.values()
            for module in anatomy.modules.values()
            if is_held(module)
            for parameter in module.parameters(recurse=False)
        }


def rows_of(
    inventory: Inventory, gradients: Mapping[str, tuple[Gradient, float]], moved: Mapping[str, bool]
) -> Iterable[Row]:
    """One row for each parameter of the models."""
    held = inventory.in_eval_for_good()
    for name, p in inventory.parameters.items():
        place = next(iter(inventory.places.get(id(p), ())), None)
        kind, norm = gradients.get(name, ("", float("nan")))
        yield Row(
            name=name,
            count=0 if is_uninitialized(p) else p.numel(),
            trainable=p.requires_grad,
            optimizer=place.optimizer if place else "",
            group=place.group if place else None,
            lr=place.lr if place else None,
            weight_decay=place.weight_decay if place else None,
            gradient=kind,
            norm=norm,
            held=id(p) in held,
            moved=moved.get(name),
        )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float, torch.Tensor)) else None
