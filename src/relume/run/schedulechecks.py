"""Does a freeze schedule fit the models and optimizers of a run?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from relume.errors import ConfigurationError, NoMatchError, OptimizerError
from relume.text import counted
from relume.transfer.phases import Phase
from relume.transfer.schedule import FreezeSchedule
from relume.transfer.selection import Anatomy


def check_schedule(schedule: Any) -> None:
    """Raise ConfigurationError when ``freeze=`` is no schedule."""
    if schedule is not None and not isinstance(schedule, FreezeSchedule):
        raise ConfigurationError(
            f"freeze must be a relume.FreezeSchedule, not {type(schedule).__name__}. To freeze parts for the whole run, call "
            "relume.freeze(model, …) before it."
        )


def common_root(models: Mapping[str, Any]) -> nn.Module:
    """One module in which the schedule's patterns are looked up: the model, or all of them by name."""
    for name, model in models.items():
        if not isinstance(model, nn.Module):
            raise ConfigurationError(f"freeze= works on modules; {name} is a {type(model).__name__}.")
    if len(models) == 1:
        only: nn.Module = next(iter(models.values()))
        return only
    return nn.ModuleDict({name.replace(".", "_"): model for name, model in models.items()})


def check_phase(number: int, phase: Phase, anatomy: Anatomy, held: set[int], has_optimizers: bool) -> None:
    """Raise where a phase names what is not there, trains nothing, or trains what no optimizer holds."""
    try:
        chosen = anatomy.select(phase.trainable)
    except NoMatchError as error:
        raise NoMatchError(f"phase {number} of the freeze schedule: {error}") from error
    if not chosen.parameters:
        raise ConfigurationError(
            f"phase {number} of the freeze schedule ({phase}) trains nothing: what it names has no parameters."
        )
    out = [n for n, p in chosen.parameters.items() if id(p) not in held and (p.is_floating_point() or p.is_complex())]
    if not out:
        return
    if not has_optimizers:
        raise OptimizerError("freeze= needs the optimizer: give the Run optimizer= (or the Trainer).")
    shown = ", ".join(out[:5]) + (f" and {len(out) - 5} more" if len(out) > 5 else "")
    raise OptimizerError(
        f"phase {number} of the freeze schedule ({phase}) trains {counted(len(out), 'parameter')} that no optimizer holds: "
        f"{shown}. Make the optimizer from all that any phase trains, such as model.parameters() or "
        "relume.parameter_groups(model, lr): what is frozen costs it nothing and is not moved."
    )


def check_schedulers(
    schedule: FreezeSchedule, schedulers: Mapping[str, Any], optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Raise where phases and a scheduler would both set the learning rate."""
    phase = next(phase for phase in schedule.all if phase.sets_lr)
    name = next(iter(schedulers), None) or next(
        (f"a scheduler of {name}" for name, o in optimizers.items() if hasattr(o.step, "_wrapped_by_lr_sched")), None
    )
    if name is not None:
        raise ConfigurationError(
            f"the phase {phase} sets the learning rate, and so does {name}: each would undo what the other has set. Take lr= "
            "and warmup= out of the phases, or the scheduler out of the training."
        )
