"""Optimizers by the names of their parameters, through their own ``state_dict`` and ``load_state_dict``.

The form that is stored: ``{"class": "Adam", "groups": [{"lr": 0.001, ..., "names": [...]}], "state": {name: {...}}}``, and with
it ``shapes`` (of the parameters), ``initial`` (the options as the script gave them), ``is_stepped``, and what optimizers of other
makes add: ``other`` (state of no parameter) and ``extra`` (further entries of their state_dict).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from relume.errors import MismatchError, OptimizerError
from relume.names import is_uninitialized
from relume.run.state.objects import rejoined, storable
from relume.run.state.options import Choice
from relume.run.state.values import copied, counted, equal, grouped, listed, map_leaves

_NOT_OPTIONS = ("params", "param_names")


def optimizer_state(
    optimizer: Optimizer, names: Mapping[int, str], *, initial: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """The state and the options of an optimizer by the names of its parameters; the tensors are the live ones.

    Args:
        names: `relume.names.parameter_names` of all models.
        initial: what `group_options` gave when the script had made the optimizer (and its scheduler).

    Raises:
        OptimizerError: it updates parameters that belong to no model.

    Cost: 0.5 ms for Adam on the 62 parameters of a ResNet-18, 0.2 ms on the 38 of a VGG-19; nothing is copied.
    """
    by_group = _names(optimizer, names)
    by_position = dict(enumerate(chain.from_iterable(by_group)))
    packed = optimizer.state_dict()
    state: dict[str, Any] = {}
    other: dict[Any, Any] = {}
    for key, value in packed.get("state", {}).items():
        if type(key) is int and key in by_position:
            state[by_position[key]] = storable(value)
        else:
            other[key] = storable(value)
    groups = packed.get("param_groups", optimizer.param_groups)
    if len(groups) != len(by_group):
        raise OptimizerError(
            f"the state_dict() of {type(optimizer).__name__} has {counted(len(groups), 'group')} where the optimizer has "
            f"{len(by_group)}: such a state cannot be kept by name."
        )
    named: dict[str, Any] = {
        "class": type(optimizer).__name__,
        "groups": [_options(group) | {"names": own} for group, own in zip(groups, by_group, strict=True)],
        "state": {name: state[name] for name in chain.from_iterable(by_group) if name in state},
        "shapes": _shapes(optimizer, by_group),
        "is_stepped": bool(getattr(optimizer, "_opt_called", False)),
    }
    extra = {key: storable(value) for key, value in packed.items() if key not in ("state", "param_groups")}
    for key, value in (("initial", initial and [dict(g) for g in initial]), ("other", other), ("extra", extra)):
        if value:
            named[key] = value
    return named


def group_options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """A copy of the options of each group (``lr``, ``betas``, ...), without the parameters.

    Call it when the script has made the optimizer and its scheduler, before anything is loaded: it is what the script says.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> group_options(torch.optim.SGD(layer.parameters(), lr=0.1))[0]["lr"]
        0.1
    """
    return [copied(_options(group)) for group in optimizer.param_groups]


def load_optimizer_state(
    optimizer: Optimizer,
    state: Mapping[str, Any],
    names: Mapping[int, str],
    *,
    what: str = "optimizer",
    initial: Sequence[Mapping[str, Any]] | None = None,
    override: frozenset[str] = frozenset(),
) -> list[str]:
    """Give a live optimizer the state of a checkpoint, parameter by parameter of the same name and shape.

    Args:
        state: what `optimizer_state` gave.
        names: `relume.names.parameter_names` of all models, whose own state is loaded already.
        what: what notes and errors call the optimizer.
        initial: the script's options, from `group_options` before anything was loaded; None takes the present ones.
        override: options for which the script's value is used where the script was changed since (``"lr"``). Under a
            scheduler the learning rate is scaled by as much as the script's has changed, so that its schedule goes on.

    Other changed options stay the checkpoint's, except how the step is computed (foreach, fused, capturable,
    differentiable). Tensors keep every bit and their dtype, also where torch would cast them to the parameter's.
    Tensors are copied. Parameters that the checkpoint does not know start with the state that they have.

    Returns:
        Notes in words: changed options with both values, parameters without a counterpart, another class of optimizer
        (of which nothing is loaded).

    Raises:
        OptimizerError: it updates parameters that belong to no model.
        MismatchError: the optimizer refuses the state.

    Cost: 60 ms for Adam on a ResNet-18 (94 MB of state), which is that of the copy into fresh memory.
    """
    kind = type(optimizer).__name__
    if state["class"] != kind:
        return [
            f"{what}: the checkpoint's is {state['class']}, the script's is {kind}: nothing was loaded, it starts afresh"
        ]
    load = _Load(optimizer, state, _names(optimizer, names), what)
    script = group_options(optimizer) if initial is None else initial
    packed = {"state": load.states(), "param_groups": load.groups(script, override)}
    load.extras(packed)
    try:
        optimizer.load_state_dict(_without_arrays(packed))
    except Exception as error:
        raise MismatchError(
            f"{what}: {kind} does not take the state of the checkpoint: {type(error).__name__}: {error}. Build it as it was "
            "when the checkpoint was written, or start a new run."
        ) from error
    load.correct()
    if state.get("is_stepped") and hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        optimizer._opt_called = True  # type: ignore[attr-defined]  # or the scheduler warns that no step came before its own
    return grouped(load.notes)


@dataclass
class _Load:
    """One optimizer while it is loaded.

    Attributes:
        names: of the parameters of each live group.
        notes: what the user should know.
        wanted: the state that each parameter must end up with.
    """

    optimizer: Optimizer
    state: Mapping[str, Any]
    names: list[list[str]]
    what: str
    notes: list[str] = field(default_factory=list)
    wanted: list[tuple[torch.Tensor, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.live = self.optimizer.state_dict()
        self.parameters = list(chain.from_iterable(group["params"] for group in self.optimizer.param_groups))
        self.flat_names = list(chain.from_iterable(self.names))
        self.saved_names = list(chain.from_iterable(group["names"] for group in self.state["groups"]))

    def states(self) -> dict[Any, Any]:
        """The state by position, as the live optimizer counts."""
        known = set(self.saved_names)
        positional: dict[Any, Any] = {}
        shapes = self.state.get("shapes", {})
        new: list[str] = []
        reshaped: list[str] = []
        is_whole = not isinstance(self.optimizer, torch.optim.LBFGS) or self.flat_names == self.saved_names
        if not is_whole:
            self.notes.append(f"{self.what}: the parameters are not those of the checkpoint: LBFGS starts afresh")
        memo: dict[Any, torch.Tensor] = {}
        seen: set[str] = set()
        for position, (name, parameter) in enumerate(zip(self.flat_names, self.parameters, strict=True)):
            if name in seen:  # the same parameter twice in a group: torch counts the first
                continue
            seen.add(name)
            is_reshaped = name in shapes and not is_uninitialized(parameter) and list(parameter.shape) != shapes[name]
            if name not in known or is_reshaped or not is_whole:
                (reshaped if is_reshaped else new if is_whole else []).append(name)
                if position in self.live.get("state", {}):  # what the constructor put there, as Adagrad's does
                    positional[position] = self.live["state"][position]
            elif name in self.state["state"]:
                value = rejoined(self.state["state"][name], self.live.get("state", {}).get(position), name, self.notes)
                positional[position] = _fitted(value, parameter, memo)
                self.wanted.append((parameter, positional[position]))
        self._say("new: they start with empty state", new)
        self._say("of another shape than in the checkpoint: they start with empty state", reshaped)
        self._say(
            "of the checkpoint no longer there: their state is left out", [n for n in self.saved_names if n not in seen]
        )
        return positional

    def _say(self, verdict: str, names: list[str]) -> None:
        if names:
            self.notes.append(f"{self.what}: {counted(len(names), 'parameter')} {verdict}: {listed(names)}")

    def groups(self, script: Sequence[Mapping[str, Any]], override: frozenset[str]) -> list[dict[str, Any]]:
        """The groups by position, each with the options of its counterpart in the checkpoint."""
        made = []
        start = 0
        changes: dict[str, list[int]] = {}
        for index, (own, options) in enumerate(zip(self.names, script, strict=True)):
            counterpart = self._counterpart(index, own)
            live = _without(self.optimizer.param_groups[index], _NOT_OPTIONS)
            chosen = live
            if counterpart is not None:
                saved = _without(self.state["groups"][counterpart], ("names",))
                choice = Choice(saved, dict(options), _at(self.state.get("initial"), counterpart), override)
                chosen = live | rejoined(choice.options(), live, f"{self.what} group {index}", self.notes)
                for change in choice.changes:
                    changes.setdefault(change, []).append(index)
            made.append(
                {key: _like(value, live.get(key)) for key, value in chosen.items()}
                | {"params": list(range(start, start + len(own)))}
            )
            start += len(own)
        for change, indices in changes.items():
            of = "" if len(indices) == len(made) else f" of group {', '.join(map(str, indices))}"
            self.notes.append(f"{self.what}: {change.replace(' ', of + ' ', 1)}")
        return made

    def _counterpart(self, index: int, own: list[str]) -> int | None:
        """The group of the checkpoint that has most of these parameters."""
        place = {name: i for i, group in enumerate(self.state["groups"]) for name in group["names"]}
        counts = Counter(place[name] for name in own if name in place)
        saved = self.state["groups"]
        if not own and index < len(saved) and not saved[index]["names"]:
            return index
        if not counts:
            self.notes.append(
                f"{self.what}: group {index} ({counted(len(own), 'parameter')}) is new: the script's options hold"
            )
            return None
        best = min(counts, key=lambda i: (-counts[i], i))
        differing = [i for i in counts if not equal(saved[i] | {"names": 0}, saved[best] | {"names": 0})]
        if differing:
            self.notes.append(
                f"{self.what}: the parameters of group {index} were in groups {', '.join(map(str, sorted(counts)))} with "
                f"different options: those of group {best} are used"
            )
        return best

    def extras(self, packed: dict[str, Any]) -> None:
        """What other optimizers keep beside the state of parameters: as it was, where the parameters are the same."""
        state = self.state
        for key, value in state.get("other", {}).items():
            packed["state"][key] = rejoined(value, self.live.get("state", {}).get(key), str(key), self.notes)
        packed |= {key: value for key, value in self.live.items() if key not in packed}
        if state.get("extra") and self.flat_names != self.saved_names:
            self.notes.append(f"{self.what}: {listed(list(state['extra']))} is left out: the parameters have changed")
        elif state.get("extra"):
            packed |= {k: rejoined(v, self.live.get(k), k, self.notes) for k, v in copied(state["extra"]).items()}

    def correct(self) -> None:
        """Take back the casts of ``Optimizer.load_state_dict``: it casts all state but "step" to the parameter's dtype."""
        for parameter, wanted in self.wanted:
            if parameter in self.optimizer.state:
                self.optimizer.state[parameter] = _uncast(self.optimizer.state[parameter], wanted, parameter.dtype)


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: storable(value) for key, value in _without(group, (*_NOT_OPTIONS, "names")).items()}


def _without(group: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in keys}


def _at(options: Any, index: int) -> Mapping[str, Any] | None:
    return options[index] if options and index < len(options) else None


def _names(optimizer: Optimizer, names: Mapping[int, str]) -> list[list[str]]:
    """The names of the parameters of each group."""
    unknown = [p for group in optimizer.param_groups for p in group["params"] if id(p) not in names]
    if unknown:
        shapes = listed([str(tuple(p.shape)) if not is_uninitialized(p) else "no shape yet" for p in unknown])
        raise OptimizerError(
            f"{type(optimizer).__name__} updates {counted(len(unknown), 'parameter')} of no model (of shape {shapes}): no "
            "checkpoint would hold them. Give the module that has them as a model, or make the optimizer from the "
            "parameters of the models."
        )
    return [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def _shapes(optimizer: Optimizer, names: list[list[str]]) -> dict[str, list[int]]:
    pairs = zip(
        chain.from_iterable(names), chain.from_iterable(g["params"] for g in optimizer.param_groups), strict=True
    )
    return {name: list(parameter.shape) for name, parameter in pairs if not is_uninitialized(parameter)}


def _fitted(value: Any, parameter: torch.Tensor, memo: dict[Any, torch.Tensor]) -> Any:
    """A copy of one parameter's state: tensors of its shape in its layout, in memory of their own."""
    if isinstance(value, dict):
        return {key: _fitted_entry(key, item, parameter, memo) for key, item in value.items()}

    def leaf(item: Any) -> Any:
        if not isinstance(item, torch.Tensor):
            return copied(item)
        key = id(item), parameter.device
        if key not in memo:
            memo[key] = _tensor_like(item.detach(), parameter)
        return memo[key]

    return map_leaves(leaf, value)


def _fitted_entry(key: Any, item: Any, parameter: torch.Tensor, memo: dict[Any, torch.Tensor]) -> Any:
    if key == "step" and isinstance(item, torch.Tensor):
        return item.detach().cpu().clone()  # torch moves it to the device where the options ask for that
    return _fitted(item, parameter, memo)


def _tensor_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    if value.layout == torch.strided and not is_uninitialized(parameter) and value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    return value.to(parameter.device, copy=True)


def _like(value: Any, live: Any) -> Any:
    """An option in the live one's form: a learning rate that is a tensor there is one here, on its device."""
    if isinstance(live, torch.Tensor):
        made = torch.as_tensor(value, dtype=live.dtype, device=live.device)
        return made.detach().clone().reshape(live.shape)
    if isinstance(value, torch.Tensor) and isinstance(live, (int, float)):
        return value.item()
    return copied(value)


def _without_arrays(packed: Any) -> Any:
    """``Optimizer.load_state_dict`` cannot copy numpy arrays; `_uncast` puts them in their places."""
    return map_leaves(lambda item: None if isinstance(item, np.ndarray) else item, packed)


def _uncast(loaded: Any, wanted: Any, dtype: torch.dtype) -> Any:
    """``loaded`` with the dtypes, texts and arrays of ``wanted`` where torch has cast them; what hooks have made stays."""
    if isinstance(wanted, torch.Tensor):
        is_cast = isinstance(loaded, torch.Tensor) and loaded.dtype == dtype != wanted.dtype
        if is_cast and loaded.shape == wanted.shape and equal(loaded, wanted.to(dtype)):
            return wanted.to(loaded.device)
        return loaded
    if isinstance(wanted, dict) and isinstance(loaded, dict):
        return {
            key: _uncast(item, wanted[key], dtype) if key in wanted and key != "step" else item
            for key, item in loaded.items()
        }
    if isinstance(wanted, (list, tuple)) and type(loaded) is type(wanted) and len(loaded) == len(wanted):
        return type(wanted)([_uncast(one, other, dtype) for one, other in zip(loaded, wanted, strict=True)])
    if isinstance(wanted, (int, float, bool, type(None))):
        return loaded
    return wanted
