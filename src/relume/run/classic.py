"""The classic checkpoint: a dictionary with ``epoch``, ``model_state_dict``, ``optimizer_state_dict`` and ``loss``.

It is what PyTorch's tutorials tell people to ``torch.save``
(https://pytorch.org/tutorials/recipes/recipes/saving_and_loading_a_general_checkpoint.html), and so what old trainings
have left and other tools expect.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from relume.errors import ClassicFileError, MismatchError
from relume.names import canonical, parameter_names
from relume.run.inert import load_inert
from relume.run.named import State, named_optimizer, positional_optimizer

_MODEL = ("model_state_dict", "state_dict", "model", "model_state", "net", "network", "weights", "params", "module")
_OPTIMIZER = (
    "optimizer_state_dict", "optimizer", "optim", "optimizer_state", "optim_state_dict", "opt_state_dict", "opt",
)  # fmt: skip
_SCHEDULER = (
    "scheduler_state_dict",
    "scheduler",
    "lr_scheduler",
    "lr_scheduler_state_dict",
    "scheduler_state",
    "sched",
)
_SCALER = ("scaler_state_dict", "scaler", "grad_scaler", "amp_scaler")
_EPOCH = ("epoch", "epochs", "start_epoch", "current_epoch")
_STEP = ("step", "global_step", "iteration", "iter", "steps", "global_iter", "n_iter")
_METRICS = ("metrics", "scores", "results")
_CONFIG = ("config", "args", "hparams", "hyper_parameters", "cfg", "opt")
_LISTS = {"optimizer_states": "optimizer", "lr_schedulers": "scheduler"}  # as Lightning writes them
_BY_NAME = {"model_state_dicts": "model", "optimizer_state_dicts": "optimizer", "scheduler_state_dicts": "scheduler"}
_ENDINGS = ("_state_dict", "_state")
_FORMS = (
    "What is read: torch.save(model.state_dict(), path), and torch.save({'epoch': epoch, 'model_state_dict': "
    "model.state_dict(), 'optimizer_state_dict': optimizer.state_dict(), 'loss': loss}, path)."
)


@dataclass
class ClassicCheckpoint:
    """What was found in a classic file.

    Attributes:
        path: the file.
        models: state_dicts by name; a single one is called ``"model"``.
        optimizers: their ``state_dict()``, parameters by position; a single one is called ``"optimizer"``.
        schedulers: their ``state_dict()``; a single one is called ``"scheduler"``.
        scaler: the GradScaler's ``state_dict()``.
        epoch, step, loss: as the file has them; None where it does not.
        metrics: all other single numbers, and the mappings of numbers that are called metrics.
        config: hyperparameters.
        unused: what in the file was not understood.
    """

    path: Path
    models: dict[str, State] = field(default_factory=dict)
    optimizers: dict[str, State] = field(default_factory=dict)
    schedulers: dict[str, State] = field(default_factory=dict)
    scaler: State | None = None
    epoch: int | None = None
    step: int | None = None
    loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    config: State = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


# -------------------------------------------------------------------------------------------------------------- reading


def read_classic(path: str | Path) -> ClassicCheckpoint:
    """Read a file that ``torch.save`` wrote: a classic dictionary, or a bare state_dict. No code in it runs.

    Tensors are on the CPU. They are mapped from the file where its format allows that, so nothing may overwrite the file
    while they are in use.

    Raises:
        ClassicFileError: there is no such file, it is damaged, it is none of these, or reading it would need pickle;
            names what in it does.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> torch.save({"epoch": 3, "model_state_dict": layer.state_dict(), "loss": 0.5}, tmp_path / "old.pt")
        >>> found = read_classic(tmp_path / "old.pt")
        >>> found.epoch, found.loss, list(found.models["model"])
        (3, 0.5, ['weight', 'bias'])
    """
    path = Path(path)
    content = load_inert(path)
    if _is_state_dict(content):
        return ClassicCheckpoint(path, {"model": dict(content)})
    if not isinstance(content, Mapping):
        raise ClassicFileError(
            f"{path} holds a {type(content).__name__}, and neither a state_dict nor a dictionary with one. {_FORMS}"
        )
    found = ClassicCheckpoint(path)
    by_name = {one for many, one in _BY_NAME.items() if many in content}
    for key, value in content.items():
        if not _take_state(found, str(key), value, by_name) and not _take_plain(found, str(key), value):
            found.unused.append(str(key))
    if not found.models:
        keys = ", ".join(map(repr, content)) or "nothing"
        raise ClassicFileError(f"{path} has no state_dict of a model in it: it holds {keys:.300}. {_FORMS}")
    return found


def _take_state(found: ClassicCheckpoint, key: str, value: Any, by_name: set[str]) -> bool:
    """Put a state where it belongs, by what it is more than by its name; whether it is one."""
    kind, states, known = _kind(found, key, value)
    if key in _BY_NAME and isinstance(value, Mapping):
        states.update({str(name): dict(state) for name, state in value.items() if isinstance(state, Mapping)})
    elif key in _LISTS and isinstance(value, (list, tuple)):
        names = [kind] if len(value) == 1 else [f"{kind}{number}" for number in range(len(value))]
        states.update(zip(names, value, strict=True))
    elif not known:
        return False
    elif key not in known:
        states[_without_ending(key)] = value
    elif kind not in by_name and (kind not in states or key == known[0]):
        states[kind] = value
    return True


def _kind(found: ClassicCheckpoint, key: str, value: Any) -> tuple[str, dict[str, State], Sequence[str]]:
    """What a state is of, where such are collected, and the keys under which it is *the* one of its kind."""
    kind = _BY_NAME.get(key) or _LISTS.get(key) or ""
    if _is_optimizer_state(value) or kind == "optimizer":
        return "optimizer", found.optimizers, _OPTIMIZER
    if _is_state_dict(value) or kind == "model":
        return "model", found.models, _MODEL
    if (isinstance(value, Mapping) and (key in _SCHEDULER or "last_epoch" in value)) or kind == "scheduler":
        return "scheduler", found.schedulers, _SCHEDULER
    return "", {}, ()


def _take_plain(found: ClassicCheckpoint, key: str, value: Any) -> bool:
    number = _number(value)
    if number is not None:
        _take_number(found, key, number)
    elif key in _METRICS and isinstance(value, Mapping):
        found.metrics |= {str(name): n for name, item in value.items() if (n := _number(item)) is not None}
    elif key in _SCALER and isinstance(value, Mapping):
        found.scaler = dict(value)
    elif key in _CONFIG and isinstance(value, Mapping):
        found.config |= plain(value)
    else:
        return value is None
    return True


def _take_number(found: ClassicCheckpoint, key: str, number: float) -> None:
    is_whole = float(number).is_integer()
    if key in _EPOCH and is_whole:
        found.epoch = int(number) if found.epoch is None or key == _EPOCH[0] else found.epoch
    elif key in _STEP and is_whole:
        found.step = int(number) if found.step is None else found.step
    elif key == "loss":
        found.loss = float(number)
    else:
        found.metrics[key] = number


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex() and not value.is_meta:
        value = value.item()
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    tensors = [item for key, item in value.items() if not key.endswith("_extra_state")]
    return any(getattr(item, "ndim", 0) for item in tensors) and all(isinstance(item, torch.Tensor) for item in tensors)


def _is_optimizer_state(value: Any) -> bool:
    return isinstance(value, Mapping) and "param_groups" in value and isinstance(value.get("state"), Mapping)


def _without_ending(key: str) -> str:
    for ending in _ENDINGS:
        key = key.removesuffix(ending)
    return key


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
    return max((int(n) for values in states if (n := _number(values.get("step"))) is not None), default=0)


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


def plain(value: Any) -> Any:
    """``value`` made of what ``torch.load(weights_only=True)`` builds: tensors, and Python's own kinds."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        made = {plain(key): plain(item) for key, item in value.items()}
        return Counter(made) if isinstance(value, Counter) else made
    if isinstance(value, (set, frozenset)):
        return {plain(item) for item in value}
    if isinstance(value, (torch.Size, str, int, float, complex, bytes, torch.dtype, torch.device)) or value is None:
        return value
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return [plain(item) for item in value] if isinstance(value, Iterable) else str(value)
