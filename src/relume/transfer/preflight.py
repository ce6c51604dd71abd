"""One forward and backward pass before a training, to see what would go wrong in it. Everything is put back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from relume import tree
from relume.data.calls import Loss, call_loss, call_model, device_of, inputs_and_target, loss_arity
from relume.errors import BatchError, ConfigurationError, LossError, OptimizerError
from relume.generators import isolated
from relume.names import is_uninitialized, unwrap
from relume.transfer import measures, mistakes
from relume.transfer.findings import PreflightReport, Problem
from relume.transfer.inventory import Inventory, rows_of
from relume.transfer.membership import holding_only_frozen, membership, shared, two_optimizers
from relume.transfer.modes import StaysInEval
from relume.transfer.verdicts import no_gradient, not_finite, still_rates, zero_gradient

_MOST_NODES = 1_000_000


def preflight(model: nn.Module, optimizer: Any, batch: Any, loss: Loss) -> PreflightReport:
    """Look for contradictions between a model, its frozen parts and its optimizer, with one batch.

    Args:
        model: in any mode and on any device; looked at in training mode.
        optimizer: one, or several as a mapping or list.
        batch: what the loader gives: ``(input, target)``, ``(input, …, target)``, a dict, or inputs alone.
        loss: ``loss(output, target)``, or ``loss(output)``, as for :class:`relume.Trainer`.

    One forward and backward pass is made and no step. Gradients, buffers, statistics, modes, attributes of modules and random
    numbers of all devices are as they were afterwards.

    Returns:
        A row for each parameter, and the problems; ``report.raise_for_errors()`` raises those that are errors.

    Raises:
        BatchError, LossError, TargetError: the batch or the loss cannot be used.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
        >>> report = preflight(model, optimizer, (torch.ones(4, 2), torch.ones(4, 1)), nn.MSELoss())
        >>> [problem.code for problem in report.problems], report.rows[0].gradient, report.rows[0].optimizer
        (['left out'], 'finite', '')
    """
    if not isinstance(model, nn.Module):
        raise ConfigurationError(f"model must be an nn.Module, not a {type(model).__name__}.")
    if not callable(loss):
        raise ConfigurationError(f"loss must be a function of (output, target), not a {type(loss).__name__}.")
    if batch is None or isinstance(batch, (DataLoader, Iterator, str)):
        raise BatchError(
            f"batch must be one batch, not a {type(batch).__name__}: give next(iter(loader)), or what the loader gives."
        )
    inner = unwrap(model)
    inventory = Inventory({"model": inner}, _named(optimizer))
    lazy = [name for name, p in inventory.parameters.items() if is_uninitialized(p)]
    if lazy:
        raise ConfigurationError(
            f"{lazy[0]} has no shape yet: give the model one batch first, and then make the optimizer."
        )
    problems = [*mistakes.misspelt(inventory), *membership(inventory), *mistakes.tied_apart(inventory)]
    if not any(problem.code == "holds none" for problem in problems):
        problems += holding_only_frozen(inventory, inventory.optimizers)
    problems += [two_optimizers(owners, names) for owners, names in shared(inventory).items()]
    for owner, one in inventory.optimizers.items():
        still = [n for n, group in enumerate(one.param_groups) if "lr" in group and float(group["lr"]) == 0.0]
        problems += still_rates(owner, one, still, inventory)
    gradients, found = _one_pass(inner, inventory, batch, loss)
    kinds = dict(zip(gradients, measures.gradients(list(gradients.values())), strict=True))
    problems += found
    if not any(problem.code in ("detached", "nothing to train") for problem in problems):
        lively = {name.rpartition(".")[0] for name, (kind, _) in kinds.items() if kind != "none"}
        problems += no_gradient((n for n, (kind, _) in kinds.items() if kind == "none"), "from this batch", lively)
    problems += zero_gradient((n for n, (kind, _) in kinds.items() if kind == "zero"), "for this batch")
    problems += not_finite(n for n, (kind, _) in kinds.items() if kind == "not finite")
    problems.sort(key=lambda problem: problem.severity != "error")
    return PreflightReport(type(inner).__name__, tuple(rows_of(inventory, kinds, {})), tuple(problems))


def _one_pass(
    model: nn.Module, inventory: Inventory, batch: Any, loss: Loss
) -> tuple[dict[str, torch.Tensor | None], list[Problem]]:
    """The gradient of each trainable parameter by name, and what the pass itself has shown."""
    device = device_of(model)
    with _untouched(model, device):
        model.train()
        suspects = mistakes.statistics(inventory)
        before = measures.sums(list(suspects.values()))
        batch = tree.move(batch, device)
        inputs, named, target = inputs_and_target(batch)
        with torch.enable_grad():
            output = call_model(model, inputs, named, batch)
            value = call_loss(loss, loss_arity(loss), output, target, batch)
            _check_loss(value)
            found = _gradients(value.reshape(()), model) if value.requires_grad else {}
        after = measures.sums(list(suspects.values()))
        problems = list(mistakes.unregistered(inventory, lambda tensor: id(tensor) in found))
    moving = [name for name, one, other in zip(suspects, before, after, strict=True) if one != other]
    moving = [name for name in moving if not mistakes.has_twin(inventory, f"{name}.weight")]
    if moving:
        problems.append(mistakes.drifting(moving))
    if not value.requires_grad:
        problems.append(_detached(inventory))
    trainable = {name: p for name, p in inventory.parameters.items() if p.requires_grad and p.numel()}
    return {name: found.get(id(p)) for name, p in trainable.items()}, problems


def _gradients(loss: torch.Tensor, model: nn.Module) -> dict[int, torch.Tensor]:
    """What a backward pass would add to each leaf, by ``id``. No ``.grad`` is touched, unless the model recomputes parts of
    itself in the old way of torch.utils.checkpoint, which knows no other."""
    leaves = mistakes.leaves_of(loss, _MOST_NODES)
    try:
        found = torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=True) if leaves else ()
        return {id(leaf): one for leaf, one in zip(leaves, found, strict=True) if one is not None}
    except RuntimeError as error:
        if "checkpoint" not in str(error).lower():
            raise
    own = [p for p in model.parameters() if p.requires_grad]
    kept = [p.grad for p in own]
    try:
        for p in own:
            p.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        return {id(p): p.grad for p in own if p.grad is not None}
    finally:
        for p, gradient in zip(own, kept, strict=True):
            p.grad = gradient


def _check_loss(value: Any) -> None:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else None
        what = f"a {type(value).__name__}" if shape is None else f"a tensor of shape {shape}"
        raise LossError(f"the loss must be one number, not {what}: take its .mean(), or a loss with reduction='mean'.")


def _detached(inventory: Inventory) -> Problem:
    all_frozen = not any(p.requires_grad for p in inventory.parameters.values())
    reason = (
        "all are frozen."
        if all_frozen
        else "look for detach(), .item(), .data, torch.no_grad() or a new tensor made of the output in the model or the loss."
    )
    return Problem(
        "detached",
        "error",
        f"the loss does not depend on any trainable parameter, so nothing would be learned: {reason}",
    )


@contextmanager
def _untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Whatever a forward and a backward pass do to a model or draw at random, is undone; buffers keep even their versions."""
    modules = list(model.modules())
    attributes = [dict(vars(module)) for module in modules]
    asked = [(one, one.asked) for module in modules if isinstance(one := vars(module).get("train"), StaysInEval)]
    buffers = [dict(module._buffers) for module in modules]
    parameters = [dict(module._parameters) for module in modules]
    copies: dict[int, torch.Tensor] = {}
    for own in buffers:
        for buffer in own.values():
            if buffer is not None and not is_uninitialized(buffer):
                copies[id(buffer)] = buffer.detach().clone()
    try:
        for module, own in zip(modules, buffers, strict=True):
            for name, buffer in own.items():
                if id(buffer) in copies:
                    module._buffers[name] = copies[id(buffer)]
        with isolated(0), _device_generators(device):
            yield
    finally:
        for module, kept, own, weights in zip(modules, attributes, buffers, parameters, strict=True):
            vars(module).clear()
            vars(module).update(kept)
            module._buffers.clear()
            module._buffers.update(own)
            module._parameters.clear()
            module._parameters.update(weights)
        for one, mode in asked:
            one.asked = mode


@contextmanager
def _device_generators(device: torch.device) -> Iterator[None]:
    """Put the generators of a device's kind back afterwards."""
    if device.type in ("cpu", "meta"):
        yield
        return
    kind: Any = torch.get_device_module(device)
    count = kind.device_count()
    kept = [kind.get_rng_state(number) if count > 1 else kind.get_rng_state() for number in range(count)]
    try:
        yield
    finally:
        for number, state in enumerate(kept):
            kind.set_rng_state(state, number) if count > 1 else kind.set_rng_state(state)


def _named(optimizer: Any) -> dict[str, torch.optim.Optimizer]:
    """Optimizers by name."""
    if optimizer is None:
        return {}
    if isinstance(optimizer, Mapping):
        named = dict(optimizer)
    elif isinstance(optimizer, (list, tuple)):
        named = {f"optimizer{number}": one for number, one in enumerate(optimizer)}
    else:
        named = {"optimizer": optimizer}
    for name, one in named.items():
        if not isinstance(one, torch.optim.Optimizer):
            raise OptimizerError(f"{name} must be a torch.optim.Optimizer, not {type(one).__name__}.")
    return named
