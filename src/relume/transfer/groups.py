"""Discriminative learning rates: groups of parameters from the head down, each slower than the one above."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from relume.errors import ConfigurationError
from relume.text import counted
from relume.transfer.modes import is_batchnorm
from relume.transfer.selection import Anatomy, Part, as_parts

_MOST_BLOCKS = 64
_FEW_BLOCKS = 5
_NEARLY_ALL = 0.75
_DEEPEST = 8
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)


def parameter_groups(
    model: nn.Module,
    lr: float,
    *,
    factor: float = 0.5,
    groups: Sequence[Part | Iterable[Part]] | Mapping[str, Part | Iterable[Part]] | None = None,
    weight_decay: float | None = None,
    no_decay: Iterable[Part] | bool = False,
) -> list[dict[str, Any]]:
    """Groups for an optimizer: the head gets ``lr``, each block below it ``factor`` times the rate of the one above.

    Args:
        lr: the learning rate of the head.
        factor: 1 gives all the same rate.
        groups: the groups from the head down; by default the model's blocks, the last one first. Parameters in none of
            them form the last group, ``"rest"``.
        weight_decay: of all groups; None leaves it to the optimizer.
        no_decay: parameters without weight decay: ``True`` for biases, norms and everything with fewer than two axes, or
            patterns, modules and parameters.

    Each parameter is in exactly one group; each group has a ``"name"``, which optimizers keep.

    Raises:
        NoMatchError: a pattern matches nothing; the message lists the closest names.
        ConfigurationError: a rate, factor or decay that makes no sense; a parameter in two groups.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
        >>> [(group["name"], group["lr"]) for group in parameter_groups(model, 0.1)]
        [('3', 0.1), ('2', 0.05), ('0', 0.025)]
    """
    for what, value in {"lr": lr, "factor": factor}.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ConfigurationError(f"{what} must be a number above 0, not {value!r}.")
    if weight_decay is not None and not 0 <= weight_decay < math.inf:
        raise ConfigurationError(f"weight_decay must be at least 0, not {weight_decay!r}.")
    anatomy = Anatomy(model)
    spared = _without_decay(anatomy, no_decay)
    made = []
    for depth, (name, parameters) in enumerate(_grouped(anatomy, groups).items()):
        rate = lr * factor**depth
        plain = [p for p in parameters if id(p) in spared]
        decayed = [p for p in parameters if id(p) not in spared]
        decay = {} if weight_decay is None else {"weight_decay": weight_decay}
        if decayed:
            made.append({"params": decayed, "lr": rate, "name": name, **decay})
        if plain:
            called = f"{name} (no decay)"
            made.append({"params": plain, "lr": rate, "name": called, "weight_decay": 0.0})
    return made


def blocks_of(model: nn.Module) -> dict[str, list[Part]]:
    """The model's blocks by name, in its order: its children, or the parts of these where they are few.

    A child with nearly all parameters, as ``features`` or ``encoder`` often is, is looked into.

    Example:
        >>> list(blocks_of(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))))
        ['0', '2']
    """
    anatomy = Anatomy(model)
    blocks = _children(anatomy.model, "")
    for _ in range(_DEEPEST):
        inner = {name: _children(one, name) for name, one in blocks.items()}
        largest = max(
            (name for name in blocks if _is_divisible(inner[name])), key=lambda n: _size(blocks[n]), default=""
        )
        if not largest or len(blocks) + len(inner[largest]) > _MOST_BLOCKS:
            break
        share = _size(blocks[largest]) / sum(map(_size, blocks.values()))
        if len(blocks) >= _FEW_BLOCKS and share <= _NEARLY_ALL:
            break
        blocks = {
            k: v for name, one in blocks.items() for k, v in (inner[name] if name == largest else {name: one}).items()
        }
    paths = {id(module): path for path, module in reversed(anatomy.modules.items())}
    names = {id(p): name for name, p in anatomy.parameters.items()}
    return {(path := paths.get(id(one)) or names.get(id(one), name)): [path] for name, one in blocks.items()}


def _children(module: nn.Module | nn.Parameter, prefix: str) -> dict[str, nn.Module | nn.Parameter]:
    """What is directly in a module and holds parameters, by name; nothing where it cannot be taken apart."""
    if not isinstance(module, nn.Module):
        return {}
    lead = f"{prefix}." if prefix else ""
    own: dict[str, nn.Module | nn.Parameter] = {
        f"{lead}{name}": p for name, p in module.named_parameters(recurse=False)
    }
    inner = {f"{lead}{name}": one for name, one in module.named_children() if any(True for _ in one.parameters())}
    return own | inner


def _is_divisible(inner: Mapping[str, nn.Module | nn.Parameter]) -> bool:
    return len(inner) > 1 and any(isinstance(one, nn.Module) for one in inner.values())


def _size(one: nn.Module | nn.Parameter) -> int:
    return one.numel() if isinstance(one, nn.Parameter) else sum(p.numel() for p in one.parameters())


def _grouped(anatomy: Anatomy, groups: Any) -> dict[str, list[nn.Parameter]]:
    """The parameters of each group by its name, from the head down."""
    if groups is None:
        wanted = dict(reversed(list(blocks_of(anatomy.model).items())))
    elif isinstance(groups, Mapping):
        wanted = {str(name): as_parts(parts) for name, parts in groups.items()}
    else:
        lists = [as_parts(parts) for parts in ([groups] if isinstance(groups, str) else groups)]
        wanted = {_name(parts, number): parts for number, parts in enumerate(lists)}
        if len(wanted) != len(lists):
            raise ConfigurationError("the same group is given twice in groups=.")
    taken: dict[int, str] = {}
    found: dict[str, list[nn.Parameter]] = {}
    for name, parts in wanted.items():
        found[name] = []
        for full, parameter in anatomy.select(parts).parameters.items():
            if id(parameter) in taken and groups is not None:
                raise ConfigurationError(
                    f"{full} is in the groups {taken[id(parameter)]!r} and {name!r}: each parameter belongs to one."
                )
            if id(parameter) not in taken:  # tied to one of a block above
                taken[id(parameter)] = name
                found[name].append(parameter)
        if not found[name] and groups is not None:
            raise ConfigurationError(
                f"the group {name!r} has no parameters: {counted(len(parts), 'part')} without any."
            )
    rest = [p for p in anatomy.parameters.values() if id(p) not in taken]
    return {name: one for name, one in found.items() if one} | ({"rest": rest} if rest else {})


def _name(parts: Sequence[Part], number: int) -> str:
    return ", ".join(parts) if all(isinstance(part, str) for part in parts) else f"group {number}"  # type: ignore[arg-type]


def _without_decay(anatomy: Anatomy, no_decay: Iterable[Part] | bool) -> set[int]:
    if no_decay is False:
        return set()
    if no_decay is not True:
        return {id(p) for p in anatomy.select(as_parts(no_decay)).parameters.values()}
    norms = [module for module in anatomy.modules.values() if is_batchnorm(module) or _is_norm(module)]
    inner = {id(p) for module in norms for p in module.parameters(recurse=False)}
    return inner | {id(p) for name, p in anatomy.parameters.items() if name.endswith("bias") or p.dim() < 2}


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) or "Norm" in type(module).__name__
