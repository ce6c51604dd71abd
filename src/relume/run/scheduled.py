"""A freeze schedule at work in a run: the phase changes between two batches, and goes on where a checkpoint was made."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from relume.errors import ConfigurationError, closest, warn
from relume.run.blocks import trained_blocks
from relume.run.schedulechecks import check_phase, check_schedulers, common_root
from relume.run.stopping import EarlyStopping
from relume.text import counted
from relume.transfer.phases import Length, Phase, Stall
from relume.transfer.plans import Plan, enter
from relume.transfer.schedule import FreezeSchedule, Start
from relume.transfer.selection import Anatomy

NAME = "relume/freeze"
_TURNS_SAID = 2


class Change(NamedTuple):
    """A phase that has begun: what there is to say of it, its numbers, and, in the first turns, the blocks it trains."""

    text: str
    values: dict[str, float]
    blocks: dict[str, Any] | None = None


class ScheduledFreezing:
    """Applies a schedule to the models and optimizers of a run; a tracked object, so that its state is in each checkpoint.

    Args:
        before_change: called before anything is unfrozen: a checkpoint that is still being written reads frozen tensors
            where they lie.
    """

    def __init__(self, schedule: FreezeSchedule, before_change: Callable[[], None] = lambda: None) -> None:
        self.schedule = schedule
        self.number: int | None = None
        """Of the phase that holds, counted from 0 over all turns; None before any was applied."""
        self._before_change = before_change
        self._starts = [Start(0, 0)]
        self._stopping: EarlyStopping | None = None
        self._models: Mapping[str, nn.Module] = {}
        self._optimizers: Mapping[str, torch.optim.Optimizer] = {}
        self._root: nn.Module | None = None
        self._is_live = False
        self._is_warming = False
        self._must_apply = False
        self._must_reset_rates = False  # the checkpoint's schedule has set learning rates, and this one does not
        self._was_inside: bool | None = None  # what the checkpoint says of the gradients' group
        self._saved: Mapping[str, Any] | None = None
        self._has_updated: Callable[[], bool] = lambda: True
        self._said = False
        self._has_schedulers = False
        self._stalls_in: int | None = None  # the phase that `_stopping` belongs to
        self._may_be_another = False  # whether the model is still to be compared with the checkpoint's
        self._first: Change | None = None
        self._plans: dict[int, Plan] = {}
        self._watch_again()

    # ------------------------------------------------------------------------------------------------------ beginning

    def bind(
        self,
        models: Mapping[str, Any],
        optimizers: Mapping[str, torch.optim.Optimizer],
        schedulers: Mapping[str, Any],
        has_updated: Callable[[], bool],
    ) -> None:
        """Take the models and optimizers, and check that the schedule fits them. Nothing of the models is changed.

        Raises:
            NoMatchError: a pattern of a phase matches nothing.
            OptimizerError: a phase trains parameters that no optimizer holds.
            ConfigurationError: a phase trains nothing; phases and a scheduler would both set the learning rate.
        """
        self._root = common_root(models)
        self._models, self._optimizers, self._has_updated = models, optimizers, has_updated
        self._has_schedulers = bool(schedulers)
        anatomy = Anatomy(self._root)
        held = {id(p) for o in optimizers.values() for group in o.param_groups for p in group["params"]}
        for number, phase in enumerate(self.schedule.all, 1):
            check_phase(number, phase, anatomy, held, bool(optimizers))
        if self.schedule.sets_lr:
            check_schedulers(self.schedule, schedulers, optimizers)
            self._note_base_rates()

    @property
    def is_bound(self) -> bool:
        return self._root is not None

    @property
    def was_loaded(self) -> bool:
        """Whether a checkpoint said which phase held."""
        return self._saved is not None

    def apply_now(self, epoch: int, batch: int, step: int) -> None:
        """Begin with the phase of this place, by the schedule alone; it is said before the first batch."""
        number, starts = self.schedule.starts(epoch, step, self._starts, inside=batch > 0)
        self._first = self._enter(number, starts)
        self._watch_again()

    def put_back(self) -> None:
        """The run has loaded its checkpoint once more, masks included."""
        self._watch_again()
        if not self.was_loaded:
            self._must_apply = True

    # ------------------------------------------------------------------------------------------------------- the loop

    def before_batch(self, epoch: int, batch: int, step: int, batches: int | None) -> Change | None:
        """Change the phase where one ends here, and set the learning rate of a warm-up.

        Args:
            epoch, batch: of the batch that comes next, counted from 0.
            step: optimizer updates done.
            batches: in an epoch, where that is known.

        Raises:
            ConfigurationError: there is no model, or a warm-up of epochs whose length is not known.
        """
        # Hot path: 0.2 microseconds while nothing changes.
        if step < self._next_step and epoch < self._next_epoch and not self._is_warming:
            return None
        if self._root is None:
            raise ConfigurationError("freeze= needs the model that it freezes: give the Run model= and optimizer=.")
        number, starts = self.schedule.starts(
            epoch, step, self._starts, inside=batch > 0, is_live=self._is_live, has_stalled=self._has_stalled()
        )
        self._is_live, change, self._first = True, self._first, None
        was_inside, self._was_inside = self._was_inside, None
        if number != self.number or self._must_apply or (self._may_be_another and self._has_another_model()):
            if self._is_inside_group() if was_inside is None else was_inside:
                return change  # it is looked at again before the next batch
            change = self._enter(number, starts)
        self._may_be_another = False
        self._watch()
        if self._is_warming:
            self._warm_up(epoch, batch, step, batches)
        if change is not None:
            change.values.update(self._rate())
        return change

    def epoch_done(self, values: Mapping[str, float], known: Mapping[str, float]) -> None:
        """Look at the metrics of an epoch, where the phase waits for one to stall."""
        stopping = self._stopping
        if stopping is None:
            return
        value = values.get(stopping.monitor)
        if value is not None:
            if stopping.update(value) is not None:
                self._watch_again()
        elif stopping.monitor not in known and not self._said:
            self._said = True
            warn(
                f"the freeze schedule waits for {stopping.monitor!r} to stall, which was not logged in this epoch: "
                f"{closest(stopping.monitor, known)}"
            )

    def _enter(self, number: int, starts: list[Start]) -> Change:
        assert self._root is not None
        phase = self.schedule[number]
        before = [p for p in self._root.parameters() if p.requires_grad]
        self._before_change()
        place = number % len(self.schedule.all)
        plan = self._plans.get(place)
        if plan is not None and plan.fits(self._root):
            plan.apply()
        else:
            plan = self._plans[place] = enter(self._root, phase)
        after = {id(p) for p in self._root.parameters() if p.requires_grad}
        if {id(p) for p in before} != after:
            for optimizer in self._optimizers.values():
                if isinstance(optimizer, torch.optim.LBFGS):
                    optimizer.state.clear()  # its directions are of all parameters together
        if phase.state == "drop":
            self._drop([p for p in before if id(p) not in after])
        if number != self._stalls_in:
            self._stopping, self._stalls_in = self._stall_of(number), number
        self.number, self._starts, self._must_apply = number, starts, False
        self._watch()
        if self.schedule.sets_lr or self._must_reset_rates:
            self._set_rates(1.0)
            self._must_reset_rates = False
        of = f"{place + 1} of {len(self.schedule.all)}"
        text = f"freeze: phase {of} ({phase}): {plan.trainable:,} of {counted(plan.total, 'parameter')} trainable"
        is_said = number < _TURNS_SAID * len(self.schedule.all)
        values = {"freeze/phase": float(place + 1), "freeze/trainable": float(plan.trainable)}
        return Change(text, values, self._blocks(place, phase)) if is_said else Change("", values)

    def _blocks(self, place: int, phase: Phase) -> dict[str, Any] | None:
        """Once a phase is enough: the metric ``freeze/phase`` says when it holds again."""
        assert self._root is not None
        blocks = trained_blocks(self._root, self._optimizers.values())
        return None if blocks is None else {"phase": place + 1, "text": str(phase), **blocks}

    def _rate(self) -> dict[str, float]:
        """The largest learning rate of a group in which something is trained."""
        groups = [group for o in self._optimizers.values() for group in o.param_groups if "lr" in group]
        rates = [float(group["lr"]) for group in groups if any(p.requires_grad for p in group["params"])]
        return {"freeze/lr": max(rates)} if rates else {}

    def _drop(self, parameters: list[nn.Parameter]) -> None:
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                held = {id(p) for p in group["params"]}
                for parameter in parameters:
                    if id(parameter) in held and parameter in optimizer.state:
                        _drop_state(optimizer, group, parameter)

    # --------------------------------------------------------------------------------------------------- when to look

    def _watch(self) -> None:
        """Note when there will be something to do."""
        assert self.number is not None
        self._next_step = self._next_epoch = math.inf
        phase, begun = self.schedule[self.number], self._starts[-1]
        if isinstance(phase.length, Length) and (self.schedule.repeat or self.number < len(self.schedule.all) - 1):
            if phase.length.unit == "steps":
                self._next_step = begun.step + phase.length.count
            else:
                self._next_epoch = begun.epoch + phase.length.count

    def _watch_again(self) -> None:
        """Look at everything before the next batch."""
        self._next_step = self._next_epoch = -math.inf

    def _has_stalled(self) -> bool:
        return self._stopping is not None and self._stopping.reason is not None

    def _stall_of(self, number: int) -> EarlyStopping | None:
        length = self.schedule[number].length
        if not isinstance(length, Stall) or number == len(self.schedule.all) - 1:
            return None
        return EarlyStopping(
            length.monitor,
            patience=length.patience,
            mode=length.mode,
            min_delta=length.min_delta,
            stop_on_nan=False,
        )

    def _is_inside_group(self) -> bool:
        """Whether gradients of batches before wait for their update."""
        return not self._has_updated() and any(p.grad is not None for p in self._parameters())

    def _parameters(self) -> Iterator[nn.Parameter]:
        return (p for model in self._models.values() for p in model.parameters())

    # -------------------------------------------------------------------------------------------------- learning rates

    def _note_base_rates(self) -> None:
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", float(group["lr"]))

    def _set_rates(self, share: float) -> None:
        """The phase's learning rates, times ``share``; each group keeps its proportion to the largest."""
        assert self.number is not None
        phase = self.schedule[self.number]
        self._note_base_rates()
        groups = [group for optimizer in self._optimizers.values() for group in optimizer.param_groups]
        largest = max((float(group["initial_lr"]) for group in groups), default=0.0)
        for group in groups:
            base = float(group["initial_lr"])
            full = base if phase.lr is None else phase.lr * (base / largest if largest else 1.0)
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(full * share)
            else:
                group["lr"] = full * share
        self._is_warming = phase.warmup is not None

    def _warm_up(self, epoch: int, batch: int, step: int, batches: int | None) -> None:
        assert self.number is not None
        phase, begun = self.schedule[self.number], self._starts[-1]
        assert phase.warmup is not None
        if phase.warmup.unit == "steps":
            share = (step - begun.step + 1) / phase.warmup.count
        elif batches is None:
            raise ConfigurationError(
                f"phase {phase}: the loader does not say how many batches an epoch has: give the warm-up in steps."
            )
        else:
            passed = (epoch - begun.epoch) * batches + batch + 1
            share = max(passed, 1) / (phase.warmup.count * batches)
        self._set_rates(min(share, 1.0))
        self._is_warming = share < 1

    # ------------------------------------------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "starts": [list(start) for start in self._starts],
            "schedule": self.schedule.describe(),
            "model": self._digest(),
            "stall": None if self._stopping is None else self._stopping.state_dict(),
            "is_warming": self._is_warming,
            "is_inside": self._is_inside_group() if self.is_bound else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the phase of ``state``; where the schedule is another now, in that of the script, by epoch and step."""
        self._saved = state
        is_same = state["schedule"] == self.schedule.describe()
        starts = [Start(*start) for start in state["starts"]]
        if not is_same:
            starts = starts[: self._same_lengths(state["schedule"]) + 1]
        if self.schedule.repeat or any(phase.get("repeat") for phase in state["schedule"]):
            starts = starts if is_same else [Start(0, 0)]
        self._starts = starts
        self._must_reset_rates = (
            sets_rates(state["schedule"]) and not self.schedule.sets_lr and not self._has_schedulers
        )
        self.number = state["number"] if is_same else None
        self._must_apply, self._is_live = not is_same, is_same
        self._stalls_in = state["number"] if self.schedule.repeat else len(starts) - 1
        self._stopping = None if self.schedule.repeat else self._stall_of(len(starts) - 1)
        if self._stopping is not None and state["stall"] and state["number"] == len(starts) - 1:
            self._stopping.load_state_dict(state["stall"])
        self._is_warming = bool(state["is_warming"]) and is_same
        self._was_inside = state["is_inside"]
        self._may_be_another, self._first = True, None
        self._watch_again()

    def _same_lengths(self, phases: list[Mapping[str, Any]]) -> int:
        """How many phases at the beginning last as long as those of the checkpoint."""
        same = 0
        for one, other in zip(self.schedule.describe(), phases, strict=False):
            if one["length"] != other["length"]:
                break
            same += 1
        return min(same, len(self.schedule.all) - 1)

    def differences(self, epoch: int, batch: int, step: int) -> list[str]:
        """What is not as it was when the checkpoint was made, in words."""
        number, _ = self.schedule.starts(
            epoch, step, self._starts, inside=batch > 0, is_live=self._is_live, has_stalled=self._has_stalled()
        )
        now = f"phase {number % len(self.schedule.all) + 1} ({self.schedule[number]}) holds at epoch {epoch + 1}, step {step}"
        if self._saved is None:
            return [f"freeze: the checkpoint was made without this schedule: {now}"]
        if self._saved["schedule"] == self.schedule.describe():
            return [f"freeze: {now}"]
        return [
            f"freeze: the schedule was {_said(self._saved['schedule'])!r} and is {self.schedule.summary()!r}: {now}"
        ]

    def _has_another_model(self) -> bool:
        return self._saved is not None and self._saved["model"] not in ("", self._digest())

    def _digest(self) -> str:
        """Tells models of other parameters apart."""
        if self._root is None:
            return ""
        names = "\n".join(Anatomy(self._root).parameters)
        return hashlib.sha256(names.encode()).hexdigest()[:16]


def sets_rates(phases: list[Mapping[str, Any]]) -> bool:
    """Whether a schedule, as a checkpoint describes it, sets learning rates."""
    return any(phase["lr"] is not None or phase["warmup"] for phase in phases)


def left_behind(saved: Mapping[str, Any]) -> list[str]:
    """A word on a schedule that a checkpoint has and the script lacks."""
    state = (saved.get("tracked") or {}).get(NAME)
    if not state:
        return []
    phases = state["state"]["schedule"]
    rates = ", and so do the learning rates that it has set (override='lr' takes the script's)"
    return [
        f"freeze: the script has no schedule any more (it was {_said(phases)!r}): what was frozen stays so"
        f"{rates if sets_rates(phases) else ''}"
    ]


def _said(phases: list[Mapping[str, Any]]) -> str:
    def one(phase: Mapping[str, Any]) -> str:
        more = [str(phase["length"])] if phase["length"] else []
        more += [f"lr {phase['lr']:g}"] if phase["lr"] is not None else []
        more += [f"warm-up {phase['warmup']}"] if phase["warmup"] else []
        parts = phase["trainable"]
        name = f"{phase['name']} ({parts})" if phase["name"] not in (None, parts) else parts
        return name + (f": {', '.join(more)}" if more else "")

    return "; ".join(map(one, phases)) + ("; and again" if any(phase.get("repeat") for phase in phases) else "")


def _drop_state(optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: nn.Parameter) -> None:
    """Forget what an optimizer knows of a parameter, so that it begins anew."""
    if isinstance(optimizer, torch.optim.Adagrad):  # which makes its state once, with the optimizer
        optimizer.state[parameter]["sum"].fill_(group["initial_accumulator_value"])
        optimizer.state[parameter]["step"].zero_()
    else:
        del optimizer.state[parameter]
