"""The objects that a run trains and tracks: captured and put back together, by name."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch

from relume.errors import RelumeError
from relume.generators import RandomScope
from relume.names import is_uninitialized, named_parameters, parameter_names, unwrap
from relume.run import state
from relume.run.cursor import as_named
from relume.run.scheduled import NAME as FREEZE
from relume.transfer.freezing import held_modules, hold_modules
from relume.transfer.modes import is_held

_KINDS = ("models", "optimizers", "schedulers", "tracked")


class Objects:
    """What is trained, by kind and name.

    Attributes:
        models, optimizers, schedulers, tracked: mappings by name; the Run shows them to the user.
        scaler: a GradScaler, or None.
    """

    def __init__(
        self, model: Any, optimizer: Any, scheduler: Any, scaler: Any, track: Mapping[str, Any] | None
    ) -> None:
        self.models: dict[str, Any] = as_named(model, "model")
        self.optimizers: dict[str, torch.optim.Optimizer] = as_named(optimizer, "optimizer")
        self.schedulers: dict[str, Any] = as_named(scheduler, "scheduler")
        self.tracked: dict[str, Any] = dict(track or {})
        self.scaler = scaler
        self._initial: dict[str, Any] = {}
        self._trainable: dict[str, dict[str, bool]] = {}  # as the script had it when it started
        self._held: dict[str, list[str]] = {}
        self._versions: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self.models or self.optimizers or self.tracked)

    def add(self, model: Any, optimizer: Any, scheduler: Any, scaler: Any, track: Mapping[str, Any] | None) -> Objects:
        """Take in more objects; returns those among them that were not here yet."""
        new = Objects(model, optimizer, scheduler, scaler if self.scaler is None else None, track)
        self.scaler = self.scaler if self.scaler is not None else scaler
        for kind in _KINDS:
            mine, others = getattr(self, kind), getattr(new, kind)
            there = {id(one) for one in mine.values()}
            setattr(new, kind, {name: one for name, one in others.items() if id(one) not in there})
            mine.update(getattr(new, kind))
        self._note_initial(new)
        return new

    def documents(self) -> dict[str, Any]:
        """How each model is built, for those where that is known: with it `relume.load_model` needs no script."""
        from relume.models.whole import model_document

        found = {}
        scope = RandomScope(0)  # builders may draw
        scope.enter()
        try:
            for name, model in self.models.items():
                if any(map(is_uninitialized, model.state_dict(keep_vars=True).values())):
                    continue  # a lazy module does not know yet what it will be
                with contextlib.suppress(RelumeError):
                    found[name] = model_document(unwrap(model))
        finally:
            scope.leave()
        return found

    def note_initial(self) -> None:
        """Remember what the script gave optimizers and schedulers; called before anything is loaded."""
        self._note_initial(self)

    def _note_initial(self, objects: Objects) -> None:
        if FREEZE not in self.tracked:  # where a schedule says what is trained, the script does not
            self._trainable |= {name: _trainable(model) for name, model in objects.models.items()}
            self._held |= {name: _held(model) for name, model in objects.models.items()}
        self._initial |= {name: state.group_options(one) for name, one in objects.optimizers.items()}
        self._initial |= {f"{name} (scheduler)": state.initial_options(one) for name, one in objects.schedulers.items()}

    def capture(self, *, with_gradients: bool) -> dict[str, Any]:
        """Everything that the objects consist of, by name. Nothing is copied here."""
        names, loose = self._names()
        return {
            "models": {name: state.model_state(model) for name, model in self.models.items()},
            "parameters": loose,
            "trainable": {
                name: {"initial": self._trainable.get(name, {}), "now": _trainable(model)}
                for name, model in self.models.items()
            },
            "held": {
                name: {"initial": self._held.get(name, []), "now": _held(model)} for name, model in self.models.items()
            },
            "optimizers": {
                name: state.optimizer_state(optimizer, names, initial=self._initial.get(name))
                for name, optimizer in self.optimizers.items()
            },
            "schedulers": {
                name: state.object_state(name, one, initial=self._initial.get(f"{name} (scheduler)"))
                for name, one in self.schedulers.items()
            },
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "random": state.random_state(),
            "gradients": state.gradients(self.models) if with_gradients else {},
            "tracked": {name: state.object_state(name, thing) for name, thing in self.tracked.items()},
        }

    def load(self, saved: Mapping[str, Any], new: Objects | None, override: frozenset[str]) -> list[str]:
        """Put back what fits of ``saved``, for all objects or those that are ``new``; returns what there is to say of it.

        Raises:
            MismatchError: shapes that do not fit; names them all.
        """
        here, notes = self if new is None else new, self._load_loose(saved)
        notes += self._load_frozen(saved, here.models)
        for name in _both(here.models, saved["models"]):
            notes += state.load_model_state(here.models[name], saved["models"][name], what=name, partly=True)
        for name in _both(here.optimizers, saved["optimizers"]):
            kept, script = saved["optimizers"][name], self._initial[name]
            initial = script
            if len(kept.get("initial") or kept["groups"]) == len(script):
                self._restore_groups(here.optimizers[name], kept)
                initial = script + state.group_options(here.optimizers[name])[len(script) :]
            notes += state.load_optimizer_state(
                here.optimizers[name], kept, self._names()[0], what=name, initial=initial, override=override
            )
            self._initial[name] = _merged(kept.get("initial"), script, override)
        for kind in ("schedulers", "tracked"):
            for name in _both(getattr(here, kind), saved.get(kind, {})):
                initial = self._initial.get(f"{name} (scheduler)") if kind == "schedulers" else None
                notes += state.load_object_state(
                    name, getattr(here, kind)[name], saved[kind][name], initial=initial, override=override
                )
        for kind in _KINDS:
            notes += [
                f"{name} is new: the checkpoint has none"
                for name in getattr(here, kind)
                if name not in saved.get(kind, {})
            ]
        if saved.get("gradients") and here.models:
            notes += state.load_gradients(here.models, saved["gradients"], partly=True)
        if here.scaler is not None and saved.get("scaler"):
            here.scaler.load_state_dict(saved["scaler"])
        return notes

    def _load_frozen(self, saved: Mapping[str, Any], models: Mapping[str, Any]) -> list[str]:
        """What was frozen, or no longer was, when the checkpoint was made. Where the script begins otherwise now, that holds."""
        notes = []
        for model_name, model in models.items():
            kept = saved.get("trainable", {}).get(model_name, {"initial": {}, "now": {}})
            script = self._trainable.get(model_name, {})
            changed = [name for name, value in script.items() if kept["initial"].get(name, value) != value]
            if changed:
                what = "trainable" if script[changed[0]] else "frozen"
                notes.append(f"{model_name}: {len(changed)} parameters are {what} in the script now: {changed[0]} …")
            for name, parameter in named_parameters({model_name: model}):
                name = name.removeprefix(f"{model_name}.")
                if name in kept["now"] and name not in changed:
                    parameter.requires_grad_(kept["now"][name])
            self._load_held(saved, model_name, model)
        return notes

    def _load_held(self, saved: Mapping[str, Any], name: str, model: Any) -> None:
        """The modules that stay in evaluation mode; older checkpoints do not say which."""
        kept = saved.get("held", {}).get(name)
        if kept is None:
            return
        script = set(self._held.get(name, []))
        changed = script ^ set(kept["initial"])
        hold_modules(model, (set(kept["now"]) - changed) | (script & changed))

    def _restore_groups(self, optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
        """Add the groups that the training added after its start, such as those of layers that were unfrozen."""
        names, _ = self._names()
        by_name = dict(named_parameters(self.models))
        held = {names[id(p)] for group in optimizer.param_groups for p in group["params"]}
        for group in saved["groups"][len(optimizer.param_groups) :]:
            own = group["names"]
            if own and all(name in by_name and name not in held for name in own):
                options = {k: v for k, v in group.items() if k != "names" and k in optimizer.param_groups[0]}
                optimizer.add_param_group({"params": [by_name[name] for name in own], **options})

    def _load_loose(self, saved: Mapping[str, Any]) -> list[str]:
        notes = []
        for name, tensor in self._names()[1].items():
            kept = saved.get("parameters", {}).get(name)
            if kept is not None and kept.shape == tensor.shape:
                with torch.no_grad():
                    tensor.copy_(kept)
            else:
                notes.append(f"{name} keeps its present value: the checkpoint has none of its shape")
        return notes

    def missing(self, saved: Mapping[str, Any]) -> list[str]:
        """What the checkpoint holds and nothing here takes up, in words."""
        found = [
            name
            for kind in _KINDS
            for name in saved.get(kind, {})
            if name not in getattr(self, kind) and not name.startswith(("relume/", "callback/"))
        ]
        return [f"the checkpoint holds what this script lacks: {', '.join(found)}"] if found else []

    def constants(self) -> list[torch.Tensor]:
        """Frozen parameters that nobody has written to since this was last asked."""
        before, found = self._versions, []
        self._versions = {}
        for tensor in state.constants(self.models):
            self._versions[id(tensor)] = tensor._version
            if before.get(id(tensor)) == tensor._version:
                found.append(tensor)
        return found

    def unknown_schedulers(self) -> list[str]:
        """A word on each optimizer that a scheduler moves which the run does not know."""
        known = {id(getattr(scheduler, "optimizer", None)) for scheduler in self.schedulers.values()}
        return [
            f"{name} has a scheduler that is not given to the run: it starts anew when the run goes on (scheduler=…)"
            for name, optimizer in self.optimizers.items()
            if hasattr(optimizer.step, "_wrapped_by_lr_sched") and not self.schedulers and id(optimizer) not in known
        ]

    def device(self) -> str:
        """The device of the first parameter."""
        return next((str(p.device) for model in self.models.values() for p in model.parameters()), "cpu")

    def _names(self) -> tuple[dict[int, str], dict[str, torch.Tensor]]:
        """The names of all parameters by their ids; and those parameters of optimizers that are in no model, by name."""
        names = parameter_names(self.models)
        loose: dict[str, torch.Tensor] = {}
        for owner, optimizer in self.optimizers.items():
            for place, group in enumerate(optimizer.param_groups):
                for number, parameter in enumerate(group["params"]):
                    if id(parameter) not in names:
                        names[id(parameter)] = f"parameters.{owner}.{place}.{number}"
                        loose[names[id(parameter)]] = parameter
        return names, loose


def _trainable(model: Any) -> dict[str, bool]:
    return {name.removeprefix("model."): p.requires_grad for name, p in named_parameters({"model": model})}


def _held(model: Any) -> list[str]:
    if not isinstance(model, torch.nn.Module) or not any(map(is_held, model.modules())):
        return []  # which is quicker than to name them
    return held_modules(model)


def _both(here: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    return [name for name in here if name in saved]


def _merged(saved: Any, script: Any, override: frozenset[str]) -> Any:
    """The options that a checkpoint began with, with those that the script now overrides."""
    if not saved or len(saved) != len(script):
        return script
    over = override | {"initial_lr"} if "lr" in override else override  # which a schedule of rates begins from
    return [{**s, **b, **{k: v for k, v in s.items() if k in over}} for b, s in zip(saved, script, strict=True)]
