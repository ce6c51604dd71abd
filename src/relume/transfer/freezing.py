"""Freezing that holds: what is frozen gets no gradient, does not drift, and stays so whatever ``model.train()`` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal
from weakref import WeakSet

import torch
from torch import nn

from relume.errors import ConfigurationError
from relume.transfer.modes import hold, is_batchnorm, is_dropout, is_held, release
from relume.transfer.report import FreezeReport, report_of
from relume.transfer.selection import Anatomy, Part, Selection, as_parts

Mode = Literal["eval", "train"]

_moving: WeakSet[nn.Module] = WeakSet()
"""Frozen batch norms whose statistics are meant to move."""


def freeze(
    model: nn.Module,
    *patterns: Part,
    trainable: Part | Iterable[Part] | None = None,
    before: Part | None = None,
    batchnorm: Mode = "eval",
    dropout: Mode = "eval",
) -> FreezeReport:
    """Stop training parts of a model, statistics included.

    Args:
        patterns: names of modules or parameters, ``fnmatch`` style (``"features"``, ``"layer[12]"``, ``"*.bias"``), or
            modules and parameters themselves; a module means all in it. Each must match something. None at all means the
            whole model.
        trainable: "all but": what stays, or becomes, trainable; everything else is frozen.
        before: everything registered before this module or parameter is frozen.
        batchnorm: ``"eval"`` pins the running statistics of what is frozen; ``"train"`` lets them move.
        dropout: ``"eval"`` switches dropout and stochastic depth off in what is frozen; ``"train"`` leaves them on.

    Changes ``requires_grad`` in place and drops the gradients of what it freezes. Modules all of whose parameters are frozen
    stay in evaluation mode through any later ``model.train()``; nothing is replaced, names and files stay as they are.
    Modules without tensors, such as a dropout, do so where they lie in such a module, where a pattern names them, and with
    ``trainable=`` between two that are frozen; a dropout in front of the head follows ``model.train()``.

    Returns:
        What is frozen and what is trainable now, by block.

    Raises:
        NoMatchError: a pattern matches nothing; the message lists the closest names.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        >>> report = freeze(model, trainable=["2"])
        >>> report.trainable, report.frozen
        (8, 21)
        >>> model.train()[1].training
        False
    """
    for what, value in {"batchnorm": batchnorm, "dropout": dropout}.items():
        if value not in ("eval", "train"):
            raise ConfigurationError(f"{what}={value!r}: it is 'eval' or 'train'.")
    if trainable is not None and (patterns or before is not None):
        raise ConfigurationError("trainable= says what stays; give either that or what is frozen (patterns, before=).")
    anatomy = Anatomy(model)
    if trainable is not None:
        kept = anatomy.select(as_parts(trainable))
        _thaw(anatomy, kept, batchnorm="train")
        chosen = anatomy.without(kept)
    else:
        chosen = anatomy.select(patterns or ([] if before is not None else ["*"]))
        if before is not None:
            earlier = anatomy.before(before)
            chosen = Selection(chosen.parameters | earlier.parameters, chosen.modules | earlier.modules)
    for parameter in chosen.parameters.values():
        parameter.requires_grad = False
        parameter.grad = None
    _hold(anatomy, chosen, batchnorm, dropout)
    return report_of(anatomy)


def unfreeze(model: nn.Module, *patterns: Part, batchnorm: Mode = "train") -> FreezeReport:
    """Train parts of a model again.

    Args:
        patterns: as in :func:`freeze`; none at all means the whole model.
        batchnorm: ``"eval"`` trains scale and shift of batch norms and keeps their running statistics pinned, which is
            what small batches need.

    Changes ``requires_grad`` in place. An optimizer that was made without these parameters does not know them: see
    :func:`relume.preflight`.

    Raises:
        NoMatchError: a pattern matches nothing; the message lists the closest names.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> freeze(model).trainable, unfreeze(model, "1").trainable
        (0, 8)
    """
    if batchnorm not in ("eval", "train"):
        raise ConfigurationError(f"batchnorm={batchnorm!r}: it is 'eval' or 'train'.")
    anatomy = Anatomy(model)
    _thaw(anatomy, anatomy.select(patterns or ["*"]), batchnorm)
    return report_of(anatomy)


def frozen(model: nn.Module) -> FreezeReport:
    """What of a model is frozen and what is trainable, by block; nothing is changed.

    Example:
        >>> frozen(nn.Linear(3, 2)).trainable
        8
    """
    return report_of(Anatomy(model))


def held_modules(model: nn.Module) -> list[str]:
    """The canonical names of the modules that stay in evaluation mode, in the model's order."""
    return [path for path, module in Anatomy(model).modules.items() if is_held(module)]


def hold_modules(model: nn.Module, paths: Iterable[str]) -> None:
    """Let exactly these modules stay in evaluation mode; names that the model does not have are passed over."""
    wanted = set(paths)
    anatomy = Anatomy(model)
    for path, module in anatomy.modules.items():
        if path in wanted:
            hold(module)
        elif is_held(module):
            release(module)


def set_trainable(model: nn.Module, mask: Mapping[str, bool]) -> None:
    """Freeze and unfreeze parameters by canonical name, gradients of frozen ones dropped; modes are left alone."""
    for name, parameter in Anatomy(model).parameters.items():
        if name in mask and _can_train(parameter):
            parameter.requires_grad = mask[name]
            if not mask[name]:
                parameter.grad = None


def moves_statistics(module: nn.Module) -> bool:
    """Whether a frozen batch norm was said to go on gathering its statistics, by ``freeze(…, batchnorm="train")``."""
    return module in _moving


def settle(model: nn.Module) -> None:
    """Let go of modules that were wholly frozen and have something trainable in them now, such as a new head.

    What stands beside that and holds no tensors, such as a dropout, follows ``model.train()`` again too, but for what lies
    between frozen layers.
    """
    for module in Anatomy(model).modules.values():
        if is_held(module) and any(p.requires_grad for child in module.children() for p in child.parameters()):
            _let_go(module)


def _let_go(module: nn.Module) -> None:
    release(module)
    waiting: list[nn.Module] = []
    has_met = False
    for child in module.children():
        if any(p.requires_grad for p in child.parameters()):
            has_met = True
        elif any(True for _ in (*child.parameters(), *child.buffers())):
            waiting = waiting if has_met else []
        else:
            waiting.append(child)
    for one in (inner for child in waiting for inner in child.modules()):
        release(one)


def _hold(anatomy: Anatomy, chosen: Selection, batchnorm: Mode, dropout: Mode) -> None:
    """What was chosen, and what around it has nothing trainable left."""
    own = {id(p) for p in chosen.parameters.values()}
    for path, module in anatomy.modules.items():
        parameters = list(module.parameters())
        is_chosen = path in chosen.modules or _has_own(module, own)
        if any(p.requires_grad for p in parameters) or not (parameters or is_chosen):
            continue
        if not ((batchnorm == "train" and is_batchnorm(module)) or (dropout == "train" and is_dropout(module))):
            hold(module)
            _moving.discard(module)
        elif is_chosen:
            release(module)
            _moving.add(module)


def _thaw(anatomy: Anatomy, chosen: Selection, batchnorm: Mode) -> None:
    own = {id(p) for p in chosen.parameters.values()}
    for parameter in chosen.parameters.values():
        if _can_train(parameter):
            parameter.requires_grad = True
    for path, module in anatomy.modules.items():
        is_chosen = path in chosen.modules or _has_own(module, own)
        if is_batchnorm(module):
            if is_chosen:
                hold(module) if batchnorm == "eval" else release(module)
        elif is_chosen:
            release(module)
        elif is_held(module) and any(p.requires_grad for p in module.parameters()):
            _let_go(module)


def _has_own(module: nn.Module, ids: set[int]) -> bool:
    return any(id(p) in ids for p in module._parameters.values())


def _can_train(parameter: torch.Tensor) -> bool:
    return parameter.is_floating_point() or parameter.is_complex()
