"""Learning rates, as each group of parameters has them."""

from __future__ import annotations

from typing import Any

import torch

from relume.run.run import Run
from relume.watch.steps import StepWatcher, read_interval


class LearningRates(StepWatcher):
    """The learning rate of each group, as the update of a step used it.

    Args:
        every: the interval, in steps. The first step is watched, too.

    The names are ``lr`` for a single group, else ``lr/<group>`` by the group's ``"name"`` (see
    :func:`relume.parameter_groups`) or its number, with the optimizer's name in front where there are several:
    ``lr/generator/0``. A rate that is a tensor on a device is not waited for.

    Raises:
        ConfigurationError: ``every`` is not understood.
    """

    def __init__(self, every: str = "10 steps") -> None:
        self.every = read_interval(every)

    def before(self, name: str, optimizer: torch.optim.Optimizer, step: int) -> None:
        assert self._run is not None
        run = self._run
        rates = {
            called: group["lr"]
            for called, group in group_names(run, name, optimizer).items()
            if group.get("lr") is not None
        }
        moment = run.moment(step)
        plain = {called: float(rate) for called, rate in rates.items() if not isinstance(rate, torch.Tensor)}
        tensors = {called: rate for called, rate in rates.items() if isinstance(rate, torch.Tensor)}
        if not tensors:
            if plain:
                run.journal.write({**moment, "values": plain})
            return

        def write(numbers: list[float]) -> None:
            run.journal.write({**moment, "values": plain | dict(zip(tensors, numbers, strict=True))})

        # a copy: the rate may be changed in place before it is read
        self.later.put([rate.detach().reshape(-1)[:1].clone() for rate in tensors.values()], write)


def group_names(run: Run, name: str, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """The groups of an optimizer by what their rates are called."""
    groups = optimizer.param_groups
    front = ["lr"] + ([name] if len(run.optimizers) > 1 else [])
    found: dict[str, dict[str, Any]] = {}
    for number, group in enumerate(groups):
        called = group.get("name")
        parts = [str(called if called is not None else number)] if len(groups) > 1 or called is not None else []
        key = "/".join(front + parts)
        found[key if key not in found else f"{key} ({number})"] = group
    return found
