"""What a phase makes of a model, worked out once, so that turns of few steps cost next to nothing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from relume.transfer.freezing import freeze, hold_modules, unfreeze
from relume.transfer.modes import hold, is_held, release
from relume.transfer.phases import Phase


@dataclass(frozen=True)
class Plan:
    """The mask and the modes of a phase in one model.

    Attributes:
        parameters: with whether each is trained.
        modules: with whether each stays in evaluation mode.
        trainable, total: how many numbers there are in the parameters.
    """

    parameters: list[tuple[nn.Parameter, bool]]
    modules: list[tuple[nn.Module, bool]]
    trainable: int
    total: int

    def fits(self, model: nn.Module) -> bool:
        """Whether the model still consists of the same modules and parameters."""
        return [id(m) for m, _ in self.modules] == [id(m) for m in model.modules()] and [
            id(p) for p, _ in self.parameters
        ] == [id(p) for p in model.parameters()]

    def apply(self) -> None:
        """Bring the model into this phase: 0.5 ms for a ResNet-50, where working it out takes 30."""
        for parameter, is_trained in self.parameters:
            if parameter.requires_grad is not is_trained:
                parameter.requires_grad = is_trained
            if not is_trained:
                parameter.grad = None
        for module, stays in self.modules:
            (hold if stays else release)(module)


def enter(model: nn.Module, phase: Phase) -> Plan:
    """Bring a model into a phase, whatever was frozen in it before; returns the plan with which it can be repeated.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> plan = enter(model, Phase("1"))
        >>> plan.trainable, plan.total, plan.fits(model)
        (3, 9, True)
    """
    hold_modules(model, [])
    report = freeze(model, trainable=phase.trainable)
    if phase.batchnorm == "eval":
        unfreeze(model, *phase.trainable, batchnorm="eval")
    return Plan(
        [(p, p.requires_grad) for p in model.parameters()],
        [(module, is_held(module)) for module in model.modules()],
        report.trainable,
        report.trainable + report.frozen,
    )
