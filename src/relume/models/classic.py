"""The classic checkpoint: a dictionary with ``epoch``, ``model_state_dict``, ``optimizer_state_dict`` and ``loss``.

It is what PyTorch's tutorials tell people to ``torch.save``
(https://pytorch.org/tutorials/recipes/recipes/saving_and_loading_a_general_checkpoint.html), and so what old trainings
have left and other tools expect. Here it is read; `relume.run.classic` turns it into a run's state and back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relume.errors import ClassicFileError, UnsafeFileError
from relume.models.pickles import Inert, describe, is_module, is_state_dict, module_state, read_torch
from relume.models.pickles.inert import children
from relume.models.pickles.modules import Names, found_in, unread_tensors
from relume.models.state import is_extra

State = dict[str, Any]

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
_KNOWN = {"model": _MODEL, "optimizer": _OPTIMIZER, "scheduler": _SCHEDULER}
_MAX_ITEMS = 5_000_000
_MAX_DEPTH = 50
_MAX_NUMBER = 2**63
_PLAIN = (
    torch.Tensor, np.ndarray, np.generic, dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex,
    type(None), torch.dtype, torch.device, torch.layout, slice, range,
)  # fmt: skip
_ENDINGS = ("_state_dict", "_state")
_FORMS = (
    "What is read: torch.save(model.state_dict(), path), torch.save(model, path), and torch.save({'epoch': epoch, "
    "'model_state_dict': model.state_dict(), 'optimizer_state_dict': optimizer.state_dict(), 'loss': loss}, path)."
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
        unused: what in the file was not understood, objects of classes that relume does not build among it.
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
    _names: Names = field(default_factory=Names, repr=False, compare=False)
    _items_left: int = field(default=_MAX_ITEMS, repr=False, compare=False)


def read_classic(path: str | Path) -> ClassicCheckpoint:
    """Read a file that ``torch.save`` wrote: a classic dictionary, a bare state_dict or a whole model. No code in it runs.

    Tensors are on the CPU. They are mapped from the file where its format allows that, so nothing may overwrite the file
    while they are in use.

    Raises:
        ModelFileError: there is no such file, or it is damaged.
        UnsafeFileError: an ordinary reader would have run code from it; names what.
        ClassicFileError: there is no state_dict of a model in it; lists what there is.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> torch.save({"epoch": 3, "model_state_dict": layer.state_dict(), "loss": 0.5}, tmp_path / "old.pt")
        >>> found = read_classic(tmp_path / "old.pt")
        >>> found.epoch, found.loss, list(found.models["model"])
        (3, 0.5, ['weight', 'bias'])
    """
    return classic_of(read_torch(path).content, Path(path))


def classic_of(content: Any, path: Path) -> ClassicCheckpoint:
    """What of a training there is in the content of a file of ``torch.save``, see `read_classic`.

    Raises:
        ClassicFileError: there is no state_dict of a model in it; lists what there is.
    """
    found = ClassicCheckpoint(path)
    if is_module(content) or is_state_dict(content):
        _take_model(found, "model", content)
        return found
    entries = _mapping(content)
    if entries is None:
        raise ClassicFileError(
            f"{path} holds {found_in(content)}, and neither a state_dict nor a model nor a dictionary with one. {_FORMS}"
        )
    if sum(map(_length, entries.values())) > _MAX_ITEMS:
        raise UnsafeFileError(
            f"{path} is refused: its entries share one another and come to more than {_MAX_ITEMS:,} items."
        )
    by_name = {one for many, one in _BY_NAME.items() if many in entries}
    for key, value in entries.items():
        name = key if isinstance(key, str) else describe(key)
        if not _take_state(found, name, value, by_name) and not _take_plain(found, name, value):
            found.unused.append(name)
    if not found.models and (unread := unread_tensors(content)):
        raise ClassicFileError(
            f"{path} holds tensors of a kind that is not read (quantized?): {', '.join(unread)[:300]}. Save what they stand for: "
            "value.dequantize()."
        )
    if not found.models:
        raise ClassicFileError(
            f"{path} has no state_dict of a model in it: it holds {found_in(content):.300}. {_FORMS}"
        )
    return found


def _length(value: Any) -> int:
    if isinstance(value, Inert):
        return len(value.pairs) + (len(value.state) if isinstance(value.state, dict) else 0)
    return len(value) if isinstance(value, (dict, list, tuple)) else 0


# --------------------------------------------------------------------------------------------------------------- states


def _take_state(found: ClassicCheckpoint, key: str, value: Any, by_name: set[str]) -> bool:
    """Put a state where it belongs, by what it is more than by its name; whether it is one."""
    if key in _BY_NAME and isinstance(value, Mapping):
        taken = [_put(found, _BY_NAME[key], str(name), state) for name, state in value.items()]
        return all(taken)
    if key in _LISTS and isinstance(value, (list, tuple)):
        kind = _LISTS[key]
        names = [kind] if len(value) == 1 else [f"{kind}{number}" for number in range(len(value))]
        taken = [_put(found, kind, name, state) for name, state in zip(names, value, strict=True)]
        return all(taken)
    kind = _kind(key, value)
    if not kind:
        return False
    known = _KNOWN[kind]
    if key not in known:
        return _put(found, kind, _without_ending(key), value)
    if kind not in by_name and (kind not in _states(found, kind) or key == known[0]):
        return _put(found, kind, kind, value)
    return True


def _kind(key: str, value: Any) -> str:
    """What a state is of: a model, an optimizer or a scheduler; empty where it is none."""
    if _is_optimizer_state(value):
        return "optimizer"
    if is_module(value) or is_state_dict(_mapping(value)):
        return "model"
    if isinstance(value, Mapping) and (key in _SCHEDULER or "last_epoch" in value):
        return "scheduler"
    return ""


def _put(found: ClassicCheckpoint, kind: str, name: str, value: Any) -> bool:
    if kind == "model":
        return _take_model(found, name, value)
    if not isinstance(value, Mapping) or (kind == "optimizer" and not _is_optimizer_state(value)):
        return False
    state = _plain_state(found, name, value)
    if state is not None:
        _states(found, kind)[name] = state
    return True


def _take_model(found: ClassicCheckpoint, name: str, value: Any) -> bool:
    """Weights, of a state_dict or of a whole model. Extra state that is an object of some class is left out."""
    if is_module(value):
        found.models[name] = dict(module_state(value, found._names))
        return True
    state = _mapping(value)
    if state is None or not is_state_dict(state):
        return False
    objects = [
        key
        for key, item in state.items()
        if not isinstance(item, torch.Tensor) and not (is_extra(key) and _is_plain_tree(found, item))
    ]
    found.unused += [f"{name}.{key}" for key in objects]
    found.models[name] = {key: item for key, item in state.items() if key not in objects} if objects else state
    return True


def _states(found: ClassicCheckpoint, kind: str) -> dict[str, State]:
    return {"model": found.models, "optimizer": found.optimizers, "scheduler": found.schedulers}[kind]


def _plain_state(found: ClassicCheckpoint, name: str, state: Mapping[Any, Any]) -> State | None:
    """A state as it is, without those of its entries that hold objects of some class."""
    objects = [key for key, value in state.items() if not _is_plain_tree(found, value)]
    found.unused += [f"{name}.{describe(key) if not isinstance(key, str) else key}" for key in objects]
    if not objects:
        return dict(state)
    if name.startswith("optimizer") or {"state", "param_groups"} & set(objects):
        return None
    return {key: value for key, value in state.items() if key not in objects}


def _mapping(value: Any) -> dict[Any, Any] | None:
    """A dictionary, be it of a class of its own."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Inert) and value.pairs and all(isinstance(key, str) for key, _ in value.pairs):
        return dict(value.pairs)
    return None


def _is_optimizer_state(value: Any) -> bool:
    return isinstance(value, Mapping) and "param_groups" in value and isinstance(value.get("state"), Mapping)


def _without_ending(key: str) -> str:
    for ending in _ENDINGS:
        key = key.removesuffix(ending)
    return key


# --------------------------------------------------------------------------------------------------------------- plain


def _take_plain(found: ClassicCheckpoint, key: str, value: Any) -> bool:
    number = number_in(value)
    entries = _mapping(value)
    if number is not None:
        _take_number(found, key, number)
    elif key in _METRICS and entries is not None:
        found.metrics |= {str(name): n for name, item in entries.items() if (n := number_in(item)) is not None}
    elif key in _SCALER and isinstance(value, Mapping):
        found.scaler = _plain_state(found, key, value)
    elif key in _CONFIG and (entries is not None or isinstance(value, Inert)):
        _take_config(found, key, entries if entries is not None else value.attributes)
    else:
        return value is None
    return True


def _take_config(found: ClassicCheckpoint, key: str, entries: Mapping[Any, Any]) -> None:
    for name, value in entries.items():
        if _is_plain_tree(found, value):
            found.config[str(name)] = plain(value)
        else:
            found.unused.append(f"{key}.{name}")


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


def number_in(value: Any) -> float | None:
    """A single number, whether Python's or a tensor's; None for what is none."""
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.layout is torch.strided:
        value = None if value.is_complex() or value.is_meta else value.item()
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return value if isinstance(value, float) or abs(value) < _MAX_NUMBER else None


def _is_plain_tree(found: ClassicCheckpoint, value: Any) -> bool:
    """Whether a value is tensors and plain Python, of a size that writing it out is no harm.

    A file can hold lists that share one another, so that a few of them write out as more than any memory.
    """
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        found._items_left -= 1
        if found._items_left < 0 or depth > _MAX_DEPTH or not isinstance(item, _PLAIN):
            return False
        waiting += [(child, depth + 1) for _, child in children(item)]
    return True


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
