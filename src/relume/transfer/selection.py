"""Which parts of a model are meant: patterns, modules and parameters, turned into parameters and modules by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn

from relume.errors import ConfigurationError, NoMatchError, closest
from relume.names import canonical_in, unwrap

Part = str | nn.Module | nn.Parameter
"""The name of a module or parameter (``fnmatch`` style), or the object itself."""


@dataclass(frozen=True)
class Selection:
    """Parts of a model.

    Attributes:
        parameters: by canonical name; a tied parameter once, by the first of its names.
        modules: all that lie in a selected one, and these themselves, by canonical name. The model itself is ``""``.
    """

    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)


class Anatomy:
    """A model's parameters and modules by canonical names, in the order in which they were registered."""

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise ConfigurationError(f"the model must be an nn.Module, not a {type(model).__name__}.")
        self.model = unwrap(model)
        rename = canonical_in(self.model)
        self.modules: dict[str, nn.Module] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        self.aliases: dict[str, nn.Parameter] = {}
        for path, module in self.model.named_modules(remove_duplicate=False):
            self.modules.setdefault(rename(f"{path}.")[:-1] if path else "", module)
        known: set[int] = set()
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            self.aliases[rename(name)] = parameter
            if id(parameter) not in known:
                known.add(id(parameter))
                self.parameters[rename(name)] = parameter

    def select(self, parts: Iterable[Part]) -> Selection:
        """What the parts mean, together.

        Raises:
            NoMatchError: a part matches nothing; names the closest.
            ConfigurationError: a part is no name, module or parameter.
        """
        modules: dict[str, nn.Module] = {}
        chosen: set[int] = set()
        for part in parts:
            paths, own = self._found(part)
            for path in paths:
                modules |= self.below(path)
            chosen |= own
        chosen |= {id(p) for module in modules.values() for p in module.parameters(recurse=False)}
        return Selection({name: p for name, p in self.parameters.items() if id(p) in chosen}, modules)

    def before(self, part: Part) -> Selection:
        """Everything that was registered before the parameters of ``part``, and does not contain it.

        Raises:
            NoMatchError: the part matches nothing, or nothing comes before it.
        """
        target = self.select([part])
        order = list(self.parameters)
        first = next((number for number, name in enumerate(order) if name in target.parameters), None)
        if first is None:
            raise NoMatchError(f"before={_said(part)}: it has no parameters, so nothing tells what comes before it.")
        if first == 0:
            raise NoMatchError(f"before={_said(part)}: no parameter comes before {order[0]}, the first of all.")
        path = order[first].rpartition(".")[0]
        paths = list(self.modules)
        earlier = [p for p in paths[: paths.index(path)] if p and not f"{path}.".startswith(f"{p}.")]
        return Selection(
            {name: self.parameters[name] for name in order[:first]},
            {p: self.modules[p] for p in earlier if p not in target.modules},
        )

    def without(self, kept: Selection) -> Selection:
        """All but ``kept``: the other parameters, the other modules that hold tensors, and what lies between these."""
        ids = {id(p) for p in kept.parameters.values()}
        inner = {id(module) for module in kept.modules.values()}
        around = {path for path, module in self.modules.items() if id(module) in inner}
        around |= {name.rpartition(".")[0] for name, p in self.aliases.items() if id(p) in ids}
        around |= {path[:end] for path in around for end in (n for n, c in enumerate(path) if c == ".")} | {""}
        modules = {path: module for path, module in self.modules.items() if path not in around and _has_tensors(module)}
        for path in around:
            modules |= self._between(path, around, modules)
        below = {name: one for path in modules for name, one in self.below(path).items()}
        return Selection({name: p for name, p in self.parameters.items() if id(p) not in ids}, below)

    def _between(self, path: str, around: set[str], chosen: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """Children without tensors that were registered between chosen ones, such as a dropout, and not behind what is kept."""
        found: dict[str, nn.Module] = {}
        waiting: dict[str, nn.Module] = {}
        for key, child in self.modules[path].named_children():
            name = f"{path}.{key}" if path else key
            if name in around:
                break
            if name in chosen:
                found |= waiting
                waiting = {}
            else:
                waiting[name] = child
        return found

    def below(self, path: str) -> dict[str, nn.Module]:
        """A module and all within it."""
        prefix = f"{path}." if path else ""
        return {name: one for name, one in self.modules.items() if name == path or name.startswith(prefix)}

    def _found(self, part: Part) -> tuple[list[str], set[int]]:
        if isinstance(part, nn.Parameter):
            if not any(p is part for p in self.parameters.values()):
                raise NoMatchError(f"a parameter of shape {tuple(part.shape)} was given that is not in the model.")
            return [], {id(part)}
        if isinstance(part, nn.Module):
            inner = unwrap(part)
            paths = [path for path, module in self.modules.items() if module is inner]
            if not paths:
                raise NoMatchError(f"a {type(inner).__name__} was given that is not in the model.")
            return paths, set()
        if not isinstance(part, str):
            raise ConfigurationError(
                f"{part!r:.80} is a {type(part).__name__}: parts of a model are given by name, as modules or as parameters."
            )
        paths = [path for path in self.modules if fnmatch.fnmatchcase(path, part)]
        own = {id(p) for name, p in self.aliases.items() if fnmatch.fnmatchcase(name, part)}
        if not paths and not own:
            raise NoMatchError(f"{part!r} matches nothing in {type(self.model).__name__}: {self._closest(part)}")
        return paths, own

    def _closest(self, pattern: str) -> str:
        bare = pattern.rstrip("*").rstrip(".") or pattern
        names = [name for name in (*self.modules, *self.aliases) if name]
        hint = closest(bare, names)
        return hint if hint.startswith("did you mean") else closest(pattern, self._blocks())

    def _blocks(self) -> Iterator[str]:
        return (name for name, _ in self.model.named_children())


def as_parts(parts: Part | Iterable[Part]) -> list[Part]:
    """One part or several, as a list."""
    return [parts] if isinstance(parts, (str, nn.Module, nn.Parameter)) else list(parts)


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())


def _said(part: Part) -> str:
    return repr(part) if isinstance(part, str) else type(part).__name__
