"""Seeing what modules give, through one hook for all modules that belongs to none of them.

So a model that is copied or pickled while it is watched has no hook in it, and none can be left behind on it.
"""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from relume.errors import ConfigurationError, NoMatchError, closest
from relume.transfer.selection import Anatomy
from relume.watch.steps import StepWatcher, labels

See = Callable[[str, nn.Module, Any, Any], None]


class Calls:
    """Calls ``see(name, module, inputs, output)`` behind each call of a chosen module, while armed and in training.

    A call counts as training where gradients are enabled and the whole model is in training mode. What ``torch.compile``
    runs is not seen: a hook would end up in the compiled code or be missing from it.
    """

    def __init__(self, see: See) -> None:
        self._see = see
        self._chosen: dict[int, tuple[str, nn.Module, nn.Module]] = {}
        self._handle: Any = None

    def choose(self, modules: Mapping[str, tuple[nn.Module, nn.Module]]) -> None:
        """The modules by name, each with the whole model that it is in."""
        self._chosen = {id(module): (name, module, root) for name, (module, root) in modules.items()}

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self._chosen.values()]

    @property
    def is_armed(self) -> bool:
        return self._handle is not None

    def arm(self) -> None:
        if self._handle is None and self._chosen:
            # its only effect, a second call of the hook for the wrapper, is nothing here: wrappers are not chosen
            warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global hooks")
            self._handle = register_module_forward_hook(self._hook)

    def disarm(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _hook(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        found = self._chosen.get(id(module))
        if found is not None and torch.is_grad_enabled() and found[2].training:
            self._see(found[0], module, inputs, output)


class CallWatcher(StepWatcher):
    """Base of the watchers that see what modules give: a failure takes their hook away, too. Override :meth:`_see`."""

    def __init__(self) -> None:
        self._calls = Calls(self._see)

    def _see(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        self._calls.disarm()
        super().fail(error)

    def failed(self) -> None:
        self._calls.disarm()
        super().failed()


def modules_of(models: Mapping[str, nn.Module]) -> dict[str, tuple[nn.Module, nn.Module]]:
    """All modules of several models by name, each with the whole that it is in, without the wrappers around it."""
    label = labels(models)
    found: dict[str, tuple[nn.Module, nn.Module]] = {}
    for model_name, model in models.items():
        anatomy = Anatomy(model)
        for path, module in anatomy.modules.items():
            found.setdefault(label(model_name, path), (module, anatomy.model))
    return found


def leaves(modules: Mapping[str, tuple[nn.Module, nn.Module]]) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Those that hold no other module."""
    return {name: pair for name, pair in modules.items() if not any(True for _ in pair[0].children())}


def matching(patterns: Iterable[str], names: Iterable[str], what: str, *, below: bool = False) -> list[str]:
    """The names that a pattern matches.

    Args:
        below: a pattern that matches a part in front of a dot means all that is in it.

    Raises:
        NoMatchError: a pattern matches nothing; names the closest.

    Example:
        >>> matching(["0"], ["0.weight", "2.weight"], "parameters", below=True)
        ['0.weight']
    """
    names = list(names)
    chosen: set[str] = set()
    for pattern in patterns:
        hits = [
            name for name in names if any(fnmatch.fnmatchcase(n, pattern) for n in (_fronts(name) if below else [name]))
        ]
        if not hits:
            raise NoMatchError(f"{what}={pattern!r} matches nothing: {closest(pattern, names)}")
        chosen |= set(hits)
    return [name for name in names if name in chosen]


def _fronts(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def read_patterns(given: Any, what: str) -> bool | tuple[str, ...]:
    """``True``, ``False``, or patterns.

    Raises:
        ConfigurationError: something else; names it.
    """
    if isinstance(given, bool):
        return given
    if given is None:
        return False
    if isinstance(given, str):
        return (given,)
    try:
        found = tuple(given)
    except TypeError:
        found = (given,)
    wrong = next((one for one in found if not isinstance(one, str)), None)
    if wrong is not None:
        raise ConfigurationError(
            f'{what}={given!r:.80}: it is True, False, or names and patterns such as "features.*".'
        )
    return found or False
