"""What is said of gradients and movements once the steps have shown them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from relume.text import counted
from relume.transfer.findings import Problem, listed
from relume.transfer.inventory import Inventory


def no_gradient(names: Iterable[str], when: str, lively: set[str]) -> list[Problem]:
    """Trainable parameters that the loss does not reach."""
    names = list(names)
    if not names:
        return []
    inside = [name for name in names if name.rpartition(".")[0] in lively]
    hint = (
        "a part of the model that its forward does not use, or that stands before a detach(), .data or torch.no_grad()"
    )
    if len(inside) == len(names):
        hint = "tensors that the forward of their modules does not use, or uses detached"
    return [
        Problem(
            "no gradient",
            "warning",
            f"{counted(len(names), 'trainable parameter')} got no gradient {when}: {listed(names)}. That is {hint}. Freeze "
            "what is not meant to train (relume.freeze), or let the loss depend on it.",
            tuple(names),
        )
    ]


def zero_gradient(names: Iterable[str], when: str) -> list[Problem]:
    """Parameters whose gradient is there and is zero in every element."""
    names = list(names)
    if not names:
        return []
    return [
        Problem(
            "zero gradient",
            "warning",
            f"the gradient of {counted(len(names), 'parameter')} was zero in every element {when}: {listed(names)}. "
            "Dead units (ReLU after a large step), a factor of zero, saturation, or float16 without a GradScaler give that; "
            "behind layers that begin at zero, as some residual branches do, it is so at the first step alone.",
            tuple(names),
        )
    ]


def not_finite(names: Iterable[str]) -> list[Problem]:
    """Parameters with NaN or infinity in their first gradient."""
    names = list(names)
    if not names:
        return []
    return [
        Problem(
            "not finite",
            "warning",
            f"the gradient of {counted(len(names), 'parameter')} is NaN or infinite at the first step: {listed(names)}. "
            "A smaller learning rate does not help here: look for log(0), a division by 0 or NaN in the data "
            "(torch.autograd.set_detect_anomaly(True) names the operation).",
            tuple(names),
        )
    ]


def still_rates(
    name: str, optimizer: torch.optim.Optimizer, groups: Iterable[int], inventory: Inventory
) -> list[Problem]:
    """Groups of an optimizer whose learning rate is zero."""
    found = []
    for number in sorted(groups):
        held = [p for p in optimizer.param_groups[number]["params"] if p.requires_grad]
        if held:
            names = [inventory.name_of(p) for p in held]
            found.append(
                Problem(
                    "lr is zero",
                    "warning",
                    f"the learning rate of group {number} of {name} is 0, so {counted(len(held), 'parameter')} cannot move: "
                    f"{listed(names)}. Set it, or freeze them (relume.freeze), which saves their gradients and pins "
                    "their statistics.",
                    tuple(names),
                )
            )
    return found


def unmoved(names: list[str], steps: int, live: Mapping[str, torch.Tensor]) -> list[Problem]:
    """Parameters with a gradient and a learning rate that stay as they are."""
    if not names:
        return []
    kinds = sorted({str(live[name].dtype).removeprefix("torch.") for name in names})
    return [
        Problem(
            "did not move",
            "warning",
            f"{counted(len(names), 'parameter')} got gradients and did not change in {steps} steps: {listed(names)}. The "
            f"updates are smaller than {' and '.join(kinds)} can hold beside their values: keep the weights in float32 "
            "(autocast), or use a larger learning rate.",
            tuple(names),
        )
    ]


def frozen_changed(changed: Mapping[str, torch.Tensor], inventory: Inventory) -> list[Problem]:
    """Frozen parameters that are not what they were."""
    if not changed:
        return []
    held = [name for name, p in changed.items() if inventory.is_in_optimizer(p)]
    stale = [name for name in held if changed[name].grad is not None]
    reason = (
        "They are in an optimizer and have a gradient from before they were frozen, which it goes on using: relume.freeze "
        "drops it."
        if stale
        else "Something writes to them: weight decay or a copy made by hand, .data, or an optimizer outside of this run. "
        "Leave out what has requires_grad=False there."
    )
    return [
        Problem(
            "frozen changed",
            "warning",
            f"{counted(len(changed), 'frozen parameter')} changed in training: {listed(changed)}. {reason}",
            tuple(changed),
        )
    ]
