"""The classic checkpoint (`relume.models.classic`) turned into relume's state, and relume's state into one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.errors import ClassicFileError, MismatchError
from relume.models.classic import ClassicCheckpoint, number_in, plain
from relume.names import canonical, parameter_names
from relume.run.named import State, named_optimizer, positional_optimizer

# --------------------------------------------------------------------------------------------------- to relume's state


def to_state(
    classic: ClassicCheckpoint,
    models: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    schedulers: Mapping[str, Any] | None = None,
    *,
    epochs_done: int | None = None,
) -> tuple[State, State]:
    """A classic checkpoint as relume's state and its description, for live models and optimizers.

    Args:
        models, optimizers, schedulers: those that are to continue; they are only looked at. Where there is one, and one
            in the file, their names need not agree. A file says of no scheduler what class it is, so that what is in it
            is taken for that of the live one; without live ones it is left out.
        epochs_done: how many epochs the file has behind it. None takes the file's ``epoch`` for that; scripts that save
            the number of the epoch just trained, counted from 0, need one more.

    Returns:
        What a Run's checkpoint holds (``state``), and its ``meta`` with cursor, metrics and config. Tensors are those of
        ``classic``.

    Raises:
        MismatchError: a model, or an optimizer's groups, parameters or shapes, do not fit; names both sides.
        OptimizerError: a live optimizer trains a parameter of none of the models.
    """
    path, names = classic.path, parameter_names(models)
    state: State = {
        "models": {
            live: _fitted(classic.models[old], models[live], f"{path}: the model {old!r}", live)
            for live, old in _pairs("model", list(models), list(classic.models), path).items()
        },
        "optimizers": {
            live: named_optimizer(classic.optimizers[old], optimizers[live], names, source=f"{path}: the optimizer {old!r}")
            for live, old in _pairs("optimizer", list(optimizers), list(classic.optimizers), path).items()
        },
        "schedulers": {
            live: {"class": type((schedulers or {})[live]).__name__, "state": classic.schedulers[old]}
            for live, old in _pairs("scheduler", list(schedulers or {}), list(classic.schedulers), path).items()
        },
        "scaler": classic.scaler,
        "random": {}, "gradients": {}, "tracked": {}, "callbacks": {}, "stopping": None, "streams": {},
        "run": {"last": dict(classic.metrics), "best": {}, "best_epoch": {}},
    }  # fmt: skip
    epoch = classic.epoch if epochs_done is None else epochs_done
    step = max(map(_steps, classic.optimizers.values()), default=0) if classic.step is None else classic.step
    meta = {
        "kind": "training",
        "cursor": {"epoch": epoch or 0, "batch": 0, "step": step, "samples": 0},
        "metrics": classic.metrics | ({} if classic.loss is None else {"loss": classic.loss}),
        "best": {},
        "config": classic.config,
        "reason": f"from {path.name}",
    }
    return state, meta


def _pairs(kind: str, live: Sequence[str], old: Sequence[str], path: Path) -> dict[str, str]:
    """For each live name the one in the file: the same, or, where there is one, the one of its kind."""
    if not old or not live:
        return {}
    if len(live) == 1 and live[0] not in old and (len(old) == 1 or kind in old):
        return {live[0]: kind if kind in old else old[0]}
    missing = [name for name in live if name not in old]
    if missing:
        raise MismatchError(
            f"{path} has the {kind}s {', '.join(old)}, and here there are {', '.join(live)}: {', '.join(missing)} is not "
            f"in the file. Give yours the names of those in the file: {kind}={{{old[0]!r}: ...}}."
        )
    return {name: name for name in live}


def _fitted(tensors: State, module: nn.Module, source: str, live: str) -> State:
    """A state_dict under the canonical names of a live module; raises MismatchError when not one is the module's."""
    own = {canonical(name) for name in module.state_dict()}
    found = {canonical(name): value for name, value in tensors.items()}
    if own & found.keys() or not own:
        return found
    shorter = {name.partition(".")[2]: value for name, value in found.items()}
    if len({name.partition(".")[0] for name in found}) == 1 and own & shorter.keys():
        return shorter  # Lightning's names begin with the attribute that holds the model
    raise MismatchError(
        f"{source} has nothing in common with the model {live!r}, a {type(module).__name__}: the file has {_some(found)}, "
        f"and the model {_some(own)}."
    )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _steps(optimizer: Mapping[str, Any]) -> int:
    """How many updates an optimizer has made, where it counts them."""
    states = [values for values in optimizer["state"].values() if isinstance(values, Mapping)]
    return max((int(n) for values in states if (n := number_in(values.get("step"))) is not None), default=0)


# ------------------------------------------------------------------------------------------------- from relume's state


def from_state(state: Mapping[str, Any], meta: Mapping[str, Any]) -> State:
    """The classic dictionary of a Run's checkpoint: ``torch.save`` writes it, ``weights_only=True`` reads it.

    ``epoch`` is the number of epochs done. The first model, optimizer and scheduler are under the classic keys; where
    there are several, ``model_state_dicts`` and so on hold all of them by name. Tensors are not copied.

    Raises:
        ClassicFileError: the checkpoint has no model.
    """
    check_is_runs(state)
    cursor, metrics = meta.get("cursor") or {}, plain(meta.get("metrics") or {})
    classic: State = {"epoch": cursor.get("epoch", 0), "step": cursor.get("step", 0)}
    if cursor.get("batch"):
        classic["batch"] = cursor["batch"]
    _put(classic, "model_state_dict", {name: _tensors(tensors) for name, tensors in state["models"].items()})
    optimizers = state.get("optimizers") or {}
    _put(classic, "optimizer_state_dict", {name: plain(positional_optimizer(o)) for name, o in optimizers.items()})
    _put(classic, "scheduler_state_dict", {name: _scheduler(s) for name, s in (state.get("schedulers") or {}).items()})
    if state.get("scaler") is not None:
        classic["scaler_state_dict"] = plain(state["scaler"])
    losses = [metrics[name] for name in ("train/loss", "loss", "val/loss") if name in metrics]
    loss = losses[0] if losses else None
    return classic | {"loss": loss, "metrics": metrics, "config": plain(meta.get("config") or {})}


def check_is_runs(state: object) -> None:
    """Raise ClassicFileError unless ``state`` holds models as a Run's checkpoints do."""
    models = state.get("models") if isinstance(state, Mapping) else None
    if not isinstance(models, Mapping) or not models or not all(isinstance(m, Mapping) for m in models.values()):
        held = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ClassicFileError(
            f"the checkpoint has no models in it, only: {held or 'nothing':.200}. What can be exported are checkpoints that "
            "a Run or a Trainer with a model has made."
        )


def _scheduler(saved: Mapping[str, Any]) -> State:
    """A scheduler's own ``state_dict``, without the marks that stand for code (see `relume.run.state`)."""
    return {name: plain(value) for name, value in saved["state"].items() if not _is_mark(value)}


def _is_mark(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) == 1 and str(next(iter(value))).startswith("relume:")


def _put(classic: State, key: str, states: Mapping[str, Any]) -> None:
    if states:
        classic[key] = next(iter(states.values()))
    if len(states) > 1:
        classic[f"{key}s"] = dict(states)


def _tensors(state_dict: Mapping[str, Any]) -> State:
    """A state_dict as torch makes it: plain tensors, of which tied ones are still one."""
    tensors: OrderedDict[str, Any] = OrderedDict()
    seen: dict[int, Any] = {}
    for name, value in state_dict.items():
        tensors[name] = seen.setdefault(id(value), plain(value))
    if hasattr(state_dict, "_metadata"):
        tensors._metadata = state_dict._metadata  # type: ignore[attr-defined]
    return tensors
