"""Optimizer state by the names of parameters, from and to torch's own by their positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from relume.errors import MismatchError, OptimizerError

State = dict[str, Any]

_LIKE_PARAMETERS = {
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "acc_delta", "sum", "prev",
    "step_size", "exp_inf", "ax", "variance",
}  # fmt: skip
"""State of torch's optimizers that has the shape of its parameter, or a single element."""

_IMPLEMENTATION = {
    "foreach",
    "fused",
    "capturable",
    "differentiable",
    "maximize",
    "initial_lr",
    "params",
    "param_names",
}
"""Settings of a group that say nothing about the kind of its optimizer."""


def named_optimizer(
    positional: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
    names: Mapping[int, str],
    *,
    source: str = "the state",
) -> State:
    """``optimizer.state_dict()`` with names for positions, in the order of the live optimizer's groups.

    Args:
        positional: what some optimizer's ``state_dict()`` gave.
        optimizer: the live one that it is for; it is only looked at.
        names: see `relume.names.parameter_names`.
        source: what error messages call ``positional``.

    Returns:
        ``{"class": ..., "groups": [{"lr": ..., "names": [...]}], "state": {name: {...}}}``; tensors are not copied.

    Raises:
        MismatchError: the groups, their parameters or the shapes differ; names both sides.
        OptimizerError: a parameter has no name.

    Example:
        >>> from relume.names import parameter_names
        >>> layer = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> named = named_optimizer(optimizer.state_dict(), optimizer, parameter_names({"model": layer}))
        >>> named["class"], named["groups"][0]["names"]
        ('SGD', ['model.weight', 'model.bias'])
    """
    kind = type(optimizer).__name__
    old_groups = _checked_groups(positional, optimizer, source)
    groups = []
    parameters: dict[Any, tuple[str, torch.Tensor]] = {}
    for number, (old, live) in enumerate(zip(old_groups, optimizer.param_groups, strict=True)):
        for place, (position, parameter) in enumerate(zip(old["params"], live["params"], strict=True)):
            if id(parameter) not in names:
                raise OptimizerError(
                    f"parameter {place} of group {number} of the {kind}, of shape {tuple(parameter.shape)}, belongs to "
                    "no model that is trained. Make the optimizer from the parameters of these models."
                )
            parameters[position] = (names[id(parameter)], parameter)
        settings = {key: value for key, value in old.items() if key not in ("params", "param_names")}
        groups.append({**settings, "names": [parameters[position][0] for position in old["params"]]})
    state = {}
    for position, values in positional["state"].items():
        if position not in parameters:
            raise MismatchError(f"{source} has values for parameter {position!r:.60}, which is in none of its groups.")
        name, parameter = parameters[position]
        _check_shapes(values, name, parameter, source)
        state[name] = values
    return {"class": kind, "groups": groups, "state": state}


def positional_optimizer(named: Mapping[str, Any]) -> State:
    """What ``optimizer.load_state_dict`` takes, from what `named_optimizer` or `relume.run.state` made.

    Parameters are counted over all groups.

    Example:
        >>> positional_optimizer({"class": "SGD", "groups": [{"lr": 0.1, "names": ["model.weight"]}], "state": {}})
        {'state': {}, 'param_groups': [{'lr': 0.1, 'params': [0]}]}
    """
    positions: dict[str, int] = {}
    groups = []
    for group in named["groups"]:
        places = [positions.setdefault(name, len(positions)) for name in group["names"]]
        groups.append({**{key: value for key, value in group.items() if key != "names"}, "params": places})
    by_position = {positions[name]: values for name, values in named["state"].items()}
    state = {place: by_position[place] for place in sorted(by_position)} | named.get("other", {})
    return {"state": state, "param_groups": groups, **named.get("extra", {})}


def _checked_groups(
    positional: Mapping[str, Any], optimizer: torch.optim.Optimizer, source: str
) -> Sequence[Mapping[str, Any]]:
    kind, live_groups = type(optimizer).__name__, optimizer.param_groups
    groups = positional["param_groups"]
    if not isinstance(groups, (list, tuple)) or not all(_is_group(group) for group in groups):
        raise MismatchError(f"{source} is not what an optimizer's state_dict() gives: its groups have no parameters.")
    counts, live_counts = ([len(group["params"]) for group in some] for some in (groups, live_groups))
    if counts != live_counts:
        raise MismatchError(
            f"{source} has {_count(counts)}, and this {kind} {_count(live_counts)}. Build the model and the optimizer "
            "with the parameters and groups that they had when it was saved, or load the weights alone."
        )
    for number, (old, live) in enumerate(zip(groups, live_groups, strict=True)):
        only_old, only_live = set(old) - set(live) - _IMPLEMENTATION, set(live) - set(old) - _IMPLEMENTATION
        if only_old and only_live:  # one alone is what another version of torch, or a scheduler, adds
            raise MismatchError(
                f"{source} is of another kind than this {kind}: its group {number} has {', '.join(sorted(only_old))}, "
                f"where the {kind} has {', '.join(sorted(only_live))}. Use the kind of optimizer that it was saved from, "
                "or load the weights alone."
            )
    return groups


def _is_group(group: object) -> bool:
    return isinstance(group, Mapping) and isinstance(group.get("params"), (list, tuple))


def _count(counts: Sequence[int]) -> str:
    groups = f"{len(counts)} group{'s' if len(counts) != 1 else ''}"
    return f"{groups} of {' + '.join(map(str, counts)) or 'no'} parameters"


def _check_shapes(values: Any, name: str, parameter: torch.Tensor, source: str) -> None:
    for key, value in values.items() if isinstance(values, Mapping) else ():
        is_like = key in _LIKE_PARAMETERS and isinstance(value, torch.Tensor) and value.numel() > 1
        if is_like and value.shape != parameter.shape:
            raise MismatchError(
                f"{source} has {key} of shape {tuple(value.shape)} where {name} has {tuple(parameter.shape)}. The model, "
                "or the order of its parameters, is another than when it was saved."
            )
