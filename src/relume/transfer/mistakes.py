"""Mistakes in a model that torch accepts without a word: misspelt attributes, tensors that are not registered, modes."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from relume.transfer.findings import Problem, listed
from relume.transfer.freezing import moves_statistics
from relume.transfer.inventory import Inventory
from relume.transfer.modes import is_batchnorm, is_dropout, is_held

_KERAS = {"trainable", "freeze", "frozen"}
_OWN = {*vars(nn.Module()), "call_super_init", "dump_patches"}
_MOST_ITEMS = 200  # of a list that are looked through


def misspelt(inventory: Inventory) -> Iterator[Problem]:
    """Attributes that were meant to be ``requires_grad`` and say other than it does."""
    for name, parameter in inventory.parameters.items():
        for attribute, value in getattr(parameter, "__dict__", {}).items():
            if isinstance(value, bool) and value != parameter.requires_grad and _is_like_requires_grad(attribute):
                yield Problem(
                    "misspelt",
                    "error",
                    f"{name}.{attribute} = {value} has no effect: {name} is {_state(parameter.requires_grad)}. The attribute is "
                    f"called requires_grad: {name}.requires_grad_({value}), or relume.{_verb(value)}(model, {name!r}).",
                    (name,),
                )
    for owner, anatomy in inventory.anatomies.items():
        for path, module in anatomy.modules.items():
            yield from _misspelt_on_module(inventory.full(owner, path), path, module)


def _misspelt_on_module(name: str, path: str, module: nn.Module) -> Iterator[Problem]:
    is_torchs = type(module).__module__.partition(".")[0] in ("torch", "torchvision", "timm")
    for attribute, value in vars(module).items():
        if not isinstance(value, bool):
            continue
        is_exact = attribute == "requires_grad"
        if not (is_exact or _is_like_requires_grad(attribute) or (is_torchs and attribute in _KERAS)):
            continue
        wanted = value if attribute not in ("freeze", "frozen") else not value
        others = [p for p in module.parameters() if p.requires_grad != wanted]
        if not others:
            continue
        what = name or "the model"
        call = f"relume.{_verb(wanted)}(model{f', {path!r}' if path else ''})"
        yield Problem(
            "misspelt",
            "error" if is_torchs or not is_exact else "warning",
            f"{what}.{attribute} = {value} has no effect: a module has no such setting, and {len(others)} of its parameters "
            f"are {_state(not wanted)}. Say {what}.requires_grad_({wanted}) with an underscore, or {call}.",
            (name,),
        )


HasGradient = Callable[[torch.Tensor], bool]


def unregistered(inventory: Inventory, has_gradient: HasGradient) -> Iterator[Problem]:
    """Tensors and modules in plain attributes that get gradients, and that nobody trains, moves or saves."""
    known = {id(p) for p in inventory.parameters.values()} | inventory.places.keys()
    for owner, anatomy in inventory.anatomies.items():
        modules = {id(module) for module in anatomy.modules.values()}
        for path, module in anatomy.modules.items():
            for attribute, value in vars(module).items():
                if attribute in _OWN or attribute == "train":
                    continue
                name = f"{inventory.full(owner, path)}.{attribute}".lstrip(".")
                yield from _hidden_modules(name, value, modules, known, has_gradient)
                yield from _hidden_tensors(name, value, known, has_gradient)


def _hidden_modules(
    name: str, value: Any, modules: set[int], known: set[int], has_gradient: HasGradient
) -> Iterator[Problem]:
    if not isinstance(value, (list, tuple, dict)):
        return
    inner = [one for one in _items(value) if isinstance(one, nn.Module) and id(one) not in modules]
    used = [one for one in inner if any(id(p) not in known and has_gradient(p) for p in one.parameters())]
    if used:
        kind, better = ("dict", "nn.ModuleDict") if isinstance(value, dict) else (type(value).__name__, "nn.ModuleList")
        yield Problem(
            "not registered",
            "error",
            f"{name} is a plain {kind} with {len(inner)} modules in it ({type(used[0]).__name__} …): their parameters get "
            f"gradients, but no optimizer has them, and they are neither saved nor moved to a device. Make it an {better}.",
            (name,),
        )


def _hidden_tensors(name: str, value: Any, known: set[int], has_gradient: HasGradient) -> Iterator[Problem]:
    for tensor in _items(value) if isinstance(value, (list, tuple, dict)) else (value,):
        if not isinstance(tensor, torch.Tensor) or not tensor.requires_grad:
            continue
        if tensor.is_leaf and id(tensor) not in known and has_gradient(tensor):
            remedy = f"self.{name.rpartition('.')[2]} = nn.Parameter(…)"
            if isinstance(value, (list, tuple, dict)):
                remedy = f"an nn.Parameter{'Dict' if isinstance(value, dict) else 'List'}"
            yield Problem(
                "not registered",
                "error",
                f"{name} is a plain tensor of shape {tuple(tensor.shape)} that gets gradients: it is in no optimizer and is "
                f"neither saved nor moved to a device. Register it: {remedy}.",
                (name,),
            )
            return
        lost = [] if tensor.is_leaf else [leaf for leaf in leaves_of(tensor, 50) if id(leaf) not in known]
        if any(isinstance(leaf, nn.Parameter) and has_gradient(leaf) for leaf in lost):
            yield Problem(
                "not registered",
                "error",
                f"{name} was computed from a parameter of shape {tuple(lost[0].shape)} and is none itself, as "
                "nn.Parameter(x).to(device) or nn.Parameter(x) * 0.1 are: it cannot be trained. Compute first, and make the "
                "result an nn.Parameter.",
                (name,),
            )
            return


def leaves_of(tensor: torch.Tensor, most: int) -> list[torch.Tensor]:
    """The tensors that a result was computed from, found by a look at ``most`` nodes of its graph."""
    found: list[torch.Tensor] = []
    seen: set[Any] = set()
    waiting: list[Any] = [tensor.grad_fn]
    while waiting and len(seen) < most:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [after for after, _ in node.next_functions]
    return found


def tied_apart(inventory: Inventory) -> Iterator[Problem]:
    """A parameter with two names, one in a part that is frozen and one in a part that is trained."""
    for owner, anatomy in inventory.anatomies.items():
        aliases: dict[int, list[str]] = {}
        for name, parameter in anatomy.aliases.items():
            aliases.setdefault(id(parameter), []).append(name)
        for names in (names for names in aliases.values() if len(names) > 1):
            parameter = anatomy.aliases[names[0]]
            states = {name: _rest(anatomy.aliases, name, parameter) for name in names}
            is_trainable = parameter.requires_grad
            against = [name for name, rest in states.items() if rest == {not is_trainable}]
            agreeing = [name for name, rest in states.items() if rest <= {is_trainable}]
            if not is_trainable and not _weights_train(anatomy.parameters.values()):
                continue  # only biases and the like are trained: all weights are frozen alike
            if against and agreeing:
                yield Problem(
                    "tied",
                    "warning",
                    f"{inventory.full(owner, against[0])} is {_state(is_trainable)}, unlike all around it, because it is the "
                    f"same tensor as {inventory.full(owner, agreeing[0])}. A tied parameter has one requires_grad: freeze or "
                    "unfreeze both parts, or untie them with a copy.",
                    tuple(inventory.full(owner, name) for name in names),
                )


def _rest(aliases: Mapping[str, nn.Parameter], name: str, parameter: nn.Parameter) -> set[bool]:
    """Whether the other parameters of the part that ``name`` is in are trainable."""
    prefix = name.rpartition(".")[0].partition(".")[0] + "."
    return {one.requires_grad for key, one in aliases.items() if key.startswith(prefix) and one is not parameter}


def _weights_train(parameters: Iterable[nn.Parameter]) -> bool:
    return any(one.requires_grad and one.dim() > 1 for one in parameters)


def not_in_training_mode(inventory: Inventory) -> Iterator[Problem]:
    """Models that are trained while all their modules are in evaluation mode, where the mode makes a difference."""
    for owner, anatomy in inventory.anatomies.items():
        modules = anatomy.modules.values()
        if any(module.training for module in modules):
            continue
        if not any(p.requires_grad and inventory.is_in_optimizer(p) for p in anatomy.parameters.values()):
            continue
        names = [inventory.full(owner, path) for path, one in anatomy.modules.items() if _is_moded(one)]
        if names:
            yield Problem(
                "evaluation mode",
                "warning",
                f"{type(anatomy.model).__name__} is trained in evaluation mode: dropout is off and batch norms use their "
                f"stored statistics ({listed(names)}). Call model.train() before each epoch, also after an evaluation; "
                "relume.freeze and relume.unfreeze(…, batchnorm='eval') hold modules in evaluation mode on purpose.",
                tuple(names),
            )


def _is_moded(module: nn.Module) -> bool:
    """Whether its mode makes a difference, and nobody holds it where it is."""
    if is_held(module):
        return False
    drops = (
        getattr(module, "p", getattr(module, "drop_prob", 1)) if is_dropout(module) else getattr(module, "dropout", 0)
    )
    return is_batchnorm(module) or (isinstance(drops, (int, float)) and drops > 0)


def statistics(inventory: Inventory) -> dict[str, torch.Tensor]:
    """The running means of frozen batch norms that are in training mode, in models that are trained in part."""
    found = {}
    for owner, anatomy in inventory.anatomies.items():
        if not any(p.requires_grad for p in anatomy.parameters.values()):
            continue
        for path, module in anatomy.modules.items():
            own = list(module.parameters(recurse=False))
            if not is_batchnorm(module) or not own or any(p.requires_grad for p in own):
                continue
            if module.training and not moves_statistics(module):
                buffer = module._buffers.get("running_mean")
                if buffer is not None:
                    found[inventory.full(owner, path)] = buffer
    return found


def drifting(names: list[str]) -> Problem:
    """Frozen batch norms whose statistics have moved."""
    return Problem(
        "drifting statistics",
        "warning",
        f"the running statistics of {len(names)} frozen batch norms move in each forward pass, so what is frozen changes all "
        f"the same: {listed(names)}. requires_grad_(False) does not hold them; relume.freeze(model, …) does. "
        "relume.freeze(…, batchnorm='train') says that they are meant to move.",
        tuple(names),
    )


def has_twin(inventory: Inventory, name: str) -> bool:
    """Whether a frozen parameter lies in a part of which the same, trained, exists: it is an average or a target of that."""
    for owner, anatomy in inventory.anatomies.items():
        prefix = inventory.full(owner, "")
        path = name.removeprefix(f"{prefix}.") if prefix else name
        if path not in anatomy.parameters:
            continue
        part = _widest_frozen(anatomy.modules, path)
        if part is None:
            return False
        form = _form(part)
        own = {id(p) for p in part.parameters()}
        return any(
            _form(other) == form and not any(id(p) in own for p in other.parameters())
            and any(p.requires_grad for p in other.parameters())
            for one in inventory.anatomies.values()
            for other in one.modules.values()
        )  # fmt: skip
    return False


def _widest_frozen(modules: Mapping[str, nn.Module], path: str) -> nn.Module | None:
    parts = path.split(".")[:-1]
    for end in range(len(parts) + 1):
        module = modules.get(".".join(parts[:end]))
        if module is not None and not any(p.requires_grad for p in module.parameters()):
            return module
    return None


def _form(module: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, p.shape) for name, p in module.named_parameters()]


def _items(value: Any) -> list[Any]:
    return list(value.values() if isinstance(value, dict) else value)[:_MOST_ITEMS]


@functools.cache
def _is_like_requires_grad(name: str) -> bool:
    if name == "requires_grad" or name.startswith("_"):
        return False
    bare = name.lower().replace("_", "")
    return difflib.SequenceMatcher(None, bare, "requiresgrad").ratio() > 0.84


def _state(trainable: bool) -> str:
    return "trainable" if trainable else "frozen"


def _verb(trainable: bool) -> str:
    return "unfreeze" if trainable else "freeze"
