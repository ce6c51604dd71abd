"""The ledger of a training: what each parameter does in the first steps, and that what is frozen stays as it is.

It hangs on the optimizers' own hooks, so that it serves every loop: gradients are there before a step, and what has moved is
seen after it. It reads and writes nothing of the training, draws no random number, and keeps no tensor: sums of bits, names and
weak references. Measured on one core with others at work: 30 ms at the first two steps of a ResNet-18 together and 480 ms at
those of a VGG19, 15 ms for the latter at the end of a run; each later step 1 to 8 microseconds.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from relume.errors import PreflightError
from relume.names import is_uninitialized
from relume.transfer import measures, mistakes
from relume.transfer.clearing import Clearing
from relume.transfer.findings import Gradient, PreflightReport, Problem
from relume.transfer.inventory import Inventory, rows_of
from relume.transfer.membership import holding_only_frozen, membership, shared, two_optimizers
from relume.transfer.modes import is_batchnorm
from relume.transfer.verdicts import frozen_changed, no_gradient, not_finite, still_rates, unmoved, zero_gradient

_SETTLED_STEPS = 100  # after so many steps of an optimizer it is judged what never happened
_LEAST_STEPS = 4  # an epoch that is shorter tells nothing
_LEAST_LOOKS = 3  # at gradients that are zero: some are so at the first step, by the way that layers are initialised
_IDLE_STEPS = 3
_NEGLIGIBLE = 1e-5
_Reference = Callable[[], torch.Tensor | None]


@dataclass
class _Frozen:
    """A frozen parameter as it was."""

    reference: _Reference
    version: int
    bits: int | None
    is_held: bool
    """Whether an optimizer has it."""


@dataclass
class _Watch:
    """What is not known yet of the parameters of one optimizer."""

    steps: int = 0
    idle: int = 0
    looks: int = 0
    is_settled: bool = False
    has_closure: bool = False
    only_frozen: bool = True
    without: dict[str, _Reference] = field(default_factory=dict)
    zero: dict[str, _Reference] = field(default_factory=dict)
    before: dict[str, tuple[_Reference, int]] = field(default_factory=dict)
    still_rates: set[int] = field(default_factory=set)
    clearing: Clearing | None = None


class Ledger:
    """Watches models and optimizers from the first step on; says what contradicts itself.

    Args:
        models, optimizers: by name; what is added to these mappings is taken in by :meth:`again`.
        say: is given each warning, once.
        has_phases: a schedule freezes and unfreezes: an optimizer of which all is frozen waits for its turn.

    Errors are raised out of the first ``optimizer.step()``, before anything has moved.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> ledger = Ledger({"model": model}, {"optimizer": optimizer}, print)
        >>> model(torch.ones(1, 2)).sum().backward(); optimizer.step()
        >>> [(row.name, row.gradient, row.moved) for row in ledger.report().rows]
        [('weight', 'finite', True), ('bias', 'finite', True)]
        >>> ledger.close()
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        say: Callable[[Problem], None],
        *,
        has_phases: bool = False,
    ) -> None:
        self._models, self._optimizers, self._say = models, optimizers, say
        self.has_phases = has_phases
        self._handles: list[Any] = []
        self._phases: set[object] = set()
        self._said: set[tuple[str, tuple[str, ...]]] = set()
        self._problems: list[Problem] = []
        self._gradients: dict[str, tuple[Gradient, float]] = {}
        self._moved: dict[str, bool] = {}
        self._set_frozen({})
        self._statistics: dict[int, int | None] = {}
        self.again()

    def again(self, phase: object = None) -> None:
        """Look at the next step as at the first one: after something was added, frozen or unfrozen.

        Args:
            phase: the number or name of the phase that begins, if there are such: one that was seen before is not looked at
                again, so that phases may take turns with each step.
        """
        if phase is not None:
            if phase in self._phases:
                return
            self._phases.add(phase)
        self.close()
        self._watches = {name: _Watch() for name in self._optimizers}
        self._has_begun = False
        self._has_checked = False
        self._must_check_modes = False
        self._set_frozen({})
        self._shared: dict[tuple[str, ...], list[str]] = {}
        self._turns: list[str] = []
        self._note_statistics()
        for name, optimizer in self._optimizers.items():
            self._handles.append(optimizer.register_step_pre_hook(self._before(name)))
            self._handles.append(optimizer.register_step_post_hook(self._after(name)))

    def forget(self) -> None:
        """What is frozen was given other values on purpose."""
        self._set_frozen({})

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for watch in getattr(self, "_watches", {}).values():
            if watch.clearing is not None:
                watch.clearing.close()

    def epoch_done(self) -> None:
        """An epoch is over: what is frozen now must be as it was, and what never happened is said."""
        if not self._has_begun:
            return
        self._must_check_modes = True
        for name, watch in self._watches.items():
            if watch.steps + watch.idle >= _LEAST_STEPS:
                self._settle(name, watch)
        inventory = self._inventory()
        self._tell(problem for problem in membership(inventory) if problem.severity == "warning")
        self._check_frozen(inventory, thoroughly=False)
        self._note_frozen(inventory)

    def end(self) -> None:
        """The training is over: everything that is frozen is compared with what it was."""
        for name, watch in self._watches.items():
            if watch.steps + watch.idle >= _LEAST_LOOKS:
                self._settle(name, watch)
        if self._has_begun:
            self._check_frozen(self._inventory(), thoroughly=True)

    def explain(self, error: BaseException | None) -> None:
        """Add a note to torch's error for a loss without a graph: it does not say why there is none."""
        if not isinstance(error, RuntimeError) or "does not require grad" not in str(error):
            return
        inventory = self._inventory()
        frozen = [problem.text for problem in membership(inventory) if problem.code == "nothing to train"]
        said = frozen or [
            "the loss does not depend on any trainable parameter: look for detach(), .item(), .data, torch.no_grad() or a new "
            "tensor made of the output, in the model and in the loss."
        ]
        error.add_note(f"relume: {said[0]}")

    def report(self) -> PreflightReport:
        """Each parameter as it is now, with what the first step showed of it."""
        inventory = self._inventory()
        return PreflightReport(
            inventory.kind(), tuple(rows_of(inventory, self._gradients, self._moved)), tuple(self._problems)
        )

    # ------------------------------------------------------------------------------------------------- the two hooks

    def _before(self, name: str) -> Callable[..., None]:
        this = weakref.ref(self)

        def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            ledger = this()
            if ledger is None or _is_capturing() or _overflowed(optimizer):
                return
            watch = ledger._watches[name]
            if watch.is_settled and not ledger._must_check_modes:
                ledger._let_go()
                return
            ledger._before_step(name, watch, optimizer, has_closure=has_closure(args, kwargs))

        return before

    def _after(self, name: str) -> Callable[..., None]:
        this = weakref.ref(self)

        def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            ledger = this()
            if ledger is not None and ledger._watches[name].steps == 1 and not _is_capturing():
                ledger._after_first_step(name, ledger._watches[name])

        return after

    def _before_step(self, name: str, watch: _Watch, optimizer: torch.optim.Optimizer, *, has_closure: bool) -> None:
        if not self._has_begun:
            self._begin(has_closure)
        self._let_go()
        if self._must_check_modes:
            self._must_check_modes = False
            self._tell(mistakes.not_in_training_mode(self._inventory()))
        if watch.is_settled:
            return
        if not has_closure and not watch.steps and self._is_idle(name, watch):
            return
        watch.steps += 1
        watch.has_closure = has_closure
        if watch.steps == 1:
            self._first_step(name, watch)
        else:
            self._later_step(name, watch, optimizer)
        if self._shared:
            self._take_turn(name)
        if watch.steps >= _SETTLED_STEPS:
            self._settle(name, watch)

    def _begin(self, has_closure: bool) -> None:
        """The first step of all: what can be told without gradients, and what has moved without them."""
        inventory = self._inventory()
        found = [*mistakes.misspelt(inventory), *membership(inventory), *mistakes.tied_apart(inventory)]
        found += mistakes.not_in_training_mode(inventory)
        if not has_closure:
            found += mistakes.unregistered(inventory, _has_gradient)
        self._tell(found)
        self._has_begun = True
        self._check_statistics(inventory)
        self._note_frozen(inventory)
        self._shared = shared(inventory)

    def _is_idle(self, name: str, watch: _Watch) -> bool:
        """A step without any gradient: some scripts make one to quieten a scheduler, before they begin."""
        held = [p for group in self._optimizers[name].param_groups for p in group["params"]]
        if any(p.grad is not None for p in held):
            return False
        watch.idle += 1
        watch.only_frozen = watch.only_frozen and not any(p.requires_grad for p in held)
        is_all_idle = all(other.steps == 0 for other in self._watches.values())
        if watch.idle == _IDLE_STEPS and is_all_idle and not self.has_phases:
            raise PreflightError(
                f"{_IDLE_STEPS} steps of {name} found no gradient in any of its parameters, so nothing is trained. Is "
                "loss.backward() called before optimizer.step(), is zero_grad() called between the two, or is the loss detached "
                "from the model (detach(), .item(), .data, torch.no_grad(), a new tensor made of it)?"
            )
        if watch.idle == _SETTLED_STEPS:
            self._settle(name, watch)
        return True

    def _first_step(self, name: str, watch: _Watch) -> None:
        inventory = self._inventory()
        trainable = self._trainable(name, inventory)
        watch.only_frozen = not trainable
        watch.still_rates = {
            number
            for number, group in enumerate(self._optimizers[name].param_groups)
            if group["params"] and "lr" in group and float(group["lr"]) == 0.0
        }
        bits = measures.sums(list(trainable.values()))
        watch.before = {
            key: (weakref.ref(p), value)
            for (key, p), value in zip(trainable.items(), bits, strict=True)
            if value is not None
        }
        if not watch.has_closure:
            self._look_at_gradients(watch, trainable)

    def _look_at_gradients(self, watch: _Watch, trainable: Mapping[str, torch.Tensor]) -> None:
        found = dict(zip(trainable, measures.gradients([p.grad for p in trainable.values()]), strict=True))
        self._gradients.update(found)
        watch.looks = 1
        watch.without = {name: weakref.ref(trainable[name]) for name, (kind, _) in found.items() if kind == "none"}
        watch.zero = {name: weakref.ref(trainable[name]) for name, (kind, _) in found.items() if kind == "zero"}
        self._tell(not_finite(name for name, (kind, _) in found.items() if kind == "not finite"))
        smallest = min(
            (p for name, p in trainable.items() if found[name][0] == "finite" and p.grad is not None
             and p.grad.layout == torch.strided),
            key=lambda p: p.numel(), default=None,
        )  # fmt: skip
        if smallest is not None and not watch.has_closure:
            watch.clearing = Clearing(smallest)

    def _after_first_step(self, name: str, watch: _Watch) -> None:
        live = {key: p for key, (reference, _) in watch.before.items() if (p := reference()) is not None}
        if watch.has_closure:
            inventory = self._inventory()
            self._look_at_gradients(watch, self._trainable(name, inventory))
            self._tell(mistakes.unregistered(inventory, _has_gradient))
        self._compare(watch, live)

    def _compare(self, watch: _Watch, live: Mapping[str, torch.Tensor]) -> None:
        """Which of the parameters have moved; those that have not stay to be looked at."""
        for (key, _), bits in zip(live.items(), measures.sums(list(live.values())), strict=True):
            has_moved = bits != watch.before[key][1]
            self._moved[key] = has_moved
            if has_moved or self._gradients.get(key, ("none", 0))[0] != "finite":
                del watch.before[key]

    def _later_step(self, name: str, watch: _Watch, optimizer: torch.optim.Optimizer) -> None:
        # Hot path of the first hundred steps: 2 microseconds, and 0.1 for each parameter that is waited for.
        if watch.clearing is not None:
            self._tell(watch.clearing.judged(name))
            watch.clearing = None
        if not self._has_checked and watch.steps == 2:
            self._has_checked = True
            inventory = self._inventory()
            self._check_statistics(inventory)
            self._check_frozen(inventory, thoroughly=True)
        if watch.without:
            watch.without = {
                key: reference
                for key, reference in watch.without.items()
                if (p := reference()) is not None and p.requires_grad and p.grad is None
            }
        if watch.zero and watch.steps & (watch.steps - 1) == 0:  # at steps 2, 4, 8, …
            live = {key: p for key, reference in watch.zero.items() if (p := reference()) is not None}
            kinds = measures.gradients([p.grad for p in live.values()])
            watch.zero = {key: watch.zero[key] for key, (kind, _) in zip(live, kinds, strict=True) if kind == "zero"}
            watch.looks += 1
        if watch.still_rates:
            rates = {number: group["lr"] for number, group in enumerate(optimizer.param_groups)}
            watch.still_rates = {number for number in watch.still_rates if float(rates.get(number, 1)) == 0.0}
        if watch.only_frozen:
            watch.only_frozen = not any(p.requires_grad for group in optimizer.param_groups for p in group["params"])

    def _take_turn(self, name: str) -> None:
        """Optimizers that share parameters and step by turns, again and again, pull at them together."""
        if not self._turns or self._turns[-1] != name:
            self._turns.append(name)
        for owners, names in list(self._shared.items()):
            turns = [turn for turn in self._turns if turn in owners]
            if len(turns) >= 2 * len(owners) - 1 and len(set(turns)) > 1:
                del self._shared[owners]
                self._tell([two_optimizers(owners, names)])

    # ---------------------------------------------------------------------------------------------------- judgements

    def _settle(self, name: str, watch: _Watch) -> None:
        """Say what never happened in the steps so far."""
        if watch.is_settled:
            return
        watch.is_settled = True
        inventory = self._inventory()
        if watch.only_frozen:
            if not self.has_phases:
                self._tell(holding_only_frozen(inventory, [name]))
            return
        if not watch.steps:
            watch.without = {key: weakref.ref(p) for key, p in self._trainable(name, inventory).items()}
        if any(problem.code == "left out" for problem in self._problems):  # why its other tensors get none is said
            watch.without = {key: one for key, one in watch.without.items() if key in inventory.parameters}
        live = {
            key: p
            for key, (reference, _) in watch.before.items()
            if (p := reference()) is not None and p.requires_grad and key not in watch.without and key not in watch.zero
        }
        self._compare(watch, live)
        still = {
            key: places[0]
            for key in live
            if key in watch.before and (places := inventory.places.get(id(live[key]))) is not None
        }
        self._tell(no_gradient(watch.without, f"in {watch.steps + watch.idle} steps", self._modules_with_gradients()))
        if watch.looks >= _LEAST_LOOKS:
            self._tell(zero_gradient(self._dead(watch.zero), f"at {watch.looks} of the first {watch.steps} steps"))
        self._tell(still_rates(name, self._optimizers[name], watch.still_rates, inventory))
        # What a batch norm subtracts again, such as a bias before it, has a gradient of rounding errors alone.
        least = _NEGLIGIBLE * max((norm for kind, norm in self._gradients.values() if kind == "finite"), default=0.0)
        stuck = [key for key, place in still.items() if place.lr != 0.0 and self._gradients[key][1] > least]
        self._tell(unmoved(stuck, watch.steps, live))
        watch.before, watch.without, watch.zero = {}, {}, {}

    def _dead(self, names: Iterable[str]) -> list[str]:
        """Without biases beside a weight that learns: a loss of differences, as of a Wasserstein critic, has no use for them."""
        kinds = {name: kind for name, (kind, _) in self._gradients.items()}
        return [name for name in names if not name.endswith("bias") or kinds.get(f"{name[:-4]}weight") != "finite"]

    def _modules_with_gradients(self) -> set[str]:
        return {name.rpartition(".")[0] for name, (kind, _) in self._gradients.items() if kind != "none"}

    def _note_frozen(self, inventory: Inventory) -> None:
        """Take down what is frozen, in models of which a part is trained."""
        new: dict[str, torch.Tensor] = {}
        for owner, anatomy in inventory.anatomies.items():
            if not any(p.requires_grad and inventory.is_in_optimizer(p) for p in anatomy.parameters.values()):
                continue
            for name, p in anatomy.parameters.items():
                full = inventory.full(owner, name)
                if not p.requires_grad and full not in self._frozen and not is_uninitialized(p):
                    new[full] = p
        for (name, one), bits in zip(new.items(), measures.sums(list(new.values())), strict=True):
            is_held = inventory.is_in_optimizer(one)
            self._frozen[name] = _Frozen(weakref.ref(one), measures.version_of(one), bits, is_held)
        self._set_frozen(self._frozen)

    def _let_go(self) -> None:
        """What is trainable at some step may change, also when it is frozen again afterwards."""
        # Hot path: 0.1 microseconds for each frozen parameter that an optimizer has.
        for name, reference in self._held_frozen:
            p = reference()
            if p is not None and p.requires_grad:
                self._frozen.pop(name, None)

    def _set_frozen(self, frozen: dict[str, _Frozen]) -> None:
        self._frozen = frozen
        self._held_frozen = [(name, one.reference) for name, one in frozen.items() if one.is_held]

    def _check_frozen(self, inventory: Inventory, *, thoroughly: bool) -> None:
        self._let_go()
        live: dict[str, torch.Tensor] = {}
        for name, one in list(self._frozen.items()):
            there = one.reference()
            is_replaced = inventory.parameters.get(name) is not there
            if there is None or there.requires_grad or is_replaced:
                del self._frozen[name]
            elif one.bits is not None and (thoroughly or measures.version_of(there) != one.version):
                live[name] = there
        changed = {}
        for (name, tensor), bits in zip(live.items(), measures.sums(list(live.values())), strict=True):
            one = self._frozen[name]
            is_stepped = one.is_held and tensor.grad is not None
            if bits != one.bits and (is_stepped or not mistakes.has_twin(inventory, name)):
                changed[name] = tensor
            self._frozen[name] = replace(one, bits=bits, version=measures.version_of(tensor))
        self._tell(frozen_changed(changed, inventory))

    def _note_statistics(self) -> None:
        buffers = _running_means(self._models)
        self._statistics = dict(zip(map(id, buffers), measures.sums(buffers), strict=True))

    def _check_statistics(self, inventory: Inventory) -> None:
        suspects = mistakes.statistics(inventory)
        found = zip(suspects.items(), measures.sums(list(suspects.values())), strict=True)
        moving = [name for (name, buffer), bits in found if self._statistics.get(id(buffer), bits) != bits]
        moving = [name for name in moving if not mistakes.has_twin(inventory, f"{name}.weight")]
        self._note_statistics()
        if moving:
            self._tell([mistakes.drifting(moving)])

    # ---------------------------------------------------------------------------------------------------------- tools

    def _inventory(self) -> Inventory:
        return Inventory(self._models, self._optimizers)

    def _trainable(self, name: str, inventory: Inventory) -> dict[str, torch.Tensor]:
        """What an optimizer can move, by name; each once."""
        found: dict[str, torch.Tensor] = {}
        for number, p in enumerate(inventory.held(name)):
            if p.requires_grad and not is_uninitialized(p) and p.numel():
                found[inventory.names.get(id(p)) or f"{name}.{number}"] = p
        return found

    def _tell(self, problems: Iterable[Problem]) -> None:
        """Say what is new; raise what is an error."""
        errors = []
        for problem in problems:
            key = (problem.code, problem.names)
            if key in self._said:
                continue
            self._said.add(key)
            self._problems.append(problem)
            if problem.severity == "error":
                errors.append(problem)
            else:
                self._say(problem)
        if errors:
            PreflightReport("", (), tuple(errors)).raise_for_errors()


def _running_means(models: Mapping[str, nn.Module]) -> list[torch.Tensor]:
    return [
        buffer
        for model in models.values()
        if isinstance(model, nn.Module)
        for module in model.modules()
        if is_batchnorm(module) and (buffer := module._buffers.get("running_mean")) is not None
    ]


def _has_gradient(tensor: torch.Tensor) -> bool:
    return tensor.grad is not None


def has_closure(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether the step computes the gradients itself. The optimizer is the first of ``args``, or not there."""
    return any(callable(one) and not isinstance(one, torch.optim.Optimizer) for one in (*args, kwargs.get("closure")))


def _overflowed(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a GradScaler lets a fused optimizer skip this step."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _is_capturing() -> bool:
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    return torch.cuda.is_current_stream_capturing()
