"""Parameters, buffers and gradients by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from relume.errors import MismatchError
from relume.models.state import model_state
from relume.names import canonical, canonical_in, is_uninitialized, named_parameters, unwrap
from relume.run.state.values import counted, listed

__all__ = ["constants", "gradients", "load_gradients", "load_model_state", "model_state"]

_SPARSE = "relume:sparse"
_RESHAPED = "has shape"


def load_model_state(
    model: nn.Module, state: Mapping[str, Any], *, what: str = "model", partly: bool = False
) -> list[str]:
    """Copy ``state`` into the live parameters and buffers, which stay the objects that they are.

    Args:
        model: wrapped or not; lazy modules get the shapes of the state.
        state: what `model_state` gave, on any device.
        what: what notes and errors call the model.
        partly: pass over tensors of another shape, such as those of a new head, while at least half of the model fits.

    Returns:
        Notes on what has no place in the model, what does not fit and what the state lacks.

    Raises:
        MismatchError: names every tensor whose shape or dtype differs; nothing was changed.
    """
    inner = unwrap(model)
    rename = canonical_in(inner)
    live = inner.state_dict()
    names = {rename(name): name for name in live}
    full = OrderedDict((names.get(name, name), value) for name, value in state.items())
    unfit = _check_fit(live, full, type(inner).__name__, what, partly)
    for name in unfit:
        del full[name]
    full._metadata = _versions(inner, state, live)  # type: ignore[attr-defined]
    waiting = {rename(name) for name, value in live.items() if is_uninitialized(value)}
    try:
        outcome = inner.load_state_dict(full, strict=False)
    except RuntimeError as error:  # a hook of the module's own has made something else of the state
        raise MismatchError(f"{what}: {type(inner).__name__} does not take its state: {error}") from error
    missing, unexpected = outcome or ((), ())  # a module's own load_state_dict may give nothing
    kept = [rename(name) for name in missing if rename(name) not in waiting and name not in unfit]
    return [
        f"{what}: {rename(name)} {problem}: it keeps its present value" for name, problem in unfit.items()
    ] + _notes(what, [rename(name) for name in unexpected], kept)


def _versions(inner: nn.Module, state: Mapping[str, Any], live: Mapping[str, Any]) -> Any:
    """The versions of the modules as they were saved, under the names that the live modules have."""
    present = getattr(live, "_metadata", OrderedDict())
    saved = getattr(state, "_metadata", None)
    if saved is None:
        return present
    rename = canonical_in(inner)
    return OrderedDict((name, saved.get(rename(f"{name}.")[:-1], versions)) for name, versions in present.items())


def _check_fit(live: Mapping[str, Any], state: Mapping[str, Any], kind: str, what: str, partly: bool) -> dict[str, str]:
    """What does not fit and may be passed over, with the reason; raises where it may not."""
    found = {
        name: problem
        for name, own in live.items()
        if name in state and isinstance(own, torch.Tensor) and (problem := _problem(own, state[name]))
    }
    if not found:
        return {}
    if partly and all(problem.startswith(_RESHAPED) for problem in found.values()):
        sizes = {name: own.numel() for name, own in live.items() if isinstance(own, torch.Tensor) and name in state}
        if 2 * sum(sizes[name] for name in found) <= sum(sizes.values()):
            return found
    listed_problems = "; ".join(f"{canonical(name)} {problem}" for name, problem in found.items())
    raise MismatchError(
        f"{what}: {counted(len(found), 'tensor')} of the checkpoint do not fit {kind}: {listed_problems}. "
        "Nothing was loaded. Build the model as it was when the checkpoint was written, or start a new run."
    )


def _problem(own: torch.Tensor, value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return f"is a {type(value).__name__} where the model has a tensor"
    if own.device.type == "meta":
        return "is on the meta device in the model, which holds no values: move the model with to_empty() first"
    if is_uninitialized(own):
        return ""
    if value.shape != own.shape:
        return f"{_RESHAPED} {tuple(value.shape)} where the model has {tuple(own.shape)}"
    if value.dtype != own.dtype:
        return f"has dtype {value.dtype} where the model has {own.dtype}"
    return ""


def _notes(what: str, unexpected: list[str], kept: list[str]) -> list[str]:
    parts = []
    if unexpected:
        verb = "has" if len(unexpected) == 1 else "have"
        parts.append(
            f"{counted(len(unexpected), 'tensor')} of the checkpoint {verb} no place in the model: {listed(unexpected)}"
        )
    if kept:
        verb = "keeps its present value" if len(kept) == 1 else "keep their present values"
        parts.append(f"{counted(len(kept), 'tensor')} of the model {verb}: {listed(kept)}")
    return [f"{what}: {'; '.join(parts)}"] if parts else []


def gradients(models: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The gradients that there are, live, by ``"<model>.<parameter>"``; a sparse one as its indices and values.

    A checkpoint in the middle of gradient accumulation needs them. Cost: 0.4 ms for a ResNet-18, most of it for the names.
    """
    return {name: _grad_state(p.grad) for name, p in _distinct(models) if p.grad is not None}


def load_gradients(models: Mapping[str, nn.Module], state: Mapping[str, Any], *, partly: bool = False) -> list[str]:
    """Give the parameters the gradients of ``state``, and none to those that it does not name.

    Args:
        partly: leave out those of another shape.

    Raises:
        MismatchError: names every gradient whose shape or dtype does not fit its parameter; nothing was changed.
    """
    parameters = dict(_distinct(models))
    wanted = {name: _grad(value) for name, value in state.items() if name in parameters}
    if partly:
        wanted = {name: grad for name, grad in wanted.items() if grad.shape == parameters[name].shape}
    problems = [
        f"{name} is {grad.dtype} of shape {tuple(grad.shape)} where its parameter is {p.dtype} of {tuple(p.shape)}"
        for name, grad in wanted.items()
        if grad.shape != (p := parameters[name]).shape or grad.dtype not in (p.dtype, getattr(p, "grad_dtype", None))
    ]
    if problems:
        raise MismatchError(f"gradients of the checkpoint do not fit: {'; '.join(problems)}. None was loaded.")
    for name, parameter in parameters.items():
        parameter.grad = _like(wanted[name], parameter) if name in wanted else None
    lost = [name for name in state if name not in parameters]
    return (
        [f"gradients: those of {counted(len(lost), 'former parameter')} are left out: {listed(lost)}"] if lost else []
    )


def _distinct(models: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """Each parameter once, by the first of its names."""
    seen: set[int] = set()
    for name, parameter in named_parameters(models):
        if id(parameter) not in seen:
            seen.add(id(parameter))
            yield name, parameter


def _grad_state(grad: torch.Tensor) -> Any:
    if grad.layout != torch.sparse_coo:
        return grad
    return {
        _SPARSE: list(grad.shape),
        "indices": grad._indices(),
        "values": grad._values(),
        "is_coalesced": grad.is_coalesced(),
    }


def _grad(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    return torch.sparse_coo_tensor(
        value["indices"], value["values"], value[_SPARSE], is_coalesced=value["is_coalesced"], check_invariants=True
    )


def _like(grad: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    if grad.layout == torch.sparse_coo:
        return grad.detach().to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=grad.dtype, requires_grad=False).copy_(grad.detach())


def constants(models: Mapping[str, nn.Module]) -> list[torch.Tensor]:
    """The frozen parameters that nothing changes: for ``constant=`` of `relume.checkpoint.Writer.save`. Never buffers.

    A frozen parameter can still be written to, as the averaged copy of a teacher or target network is. So those are left
    out that have a trainable twin (``target.0.weight`` beside ``online.0.weight``), those of an ``AveragedModel``, and
    those of a model that trains nothing at all. Anything left out only costs its copy at each checkpoint.

    Cost: 0.6 ms for a ResNet-18.
    """
    averaged = _averaged(models)
    twins: set[Any] = set()
    frozen: dict[int, tuple[str, nn.Parameter]] = {}
    for model_name, model in models.items():
        named = [(n, p) for n, p in named_parameters({model_name: model}) if not is_uninitialized(p)]
        trained = [pair for pair in named if pair[1].requires_grad]
        for name, parameter in trained:
            twins.update(_patterns(name, parameter))
        for name, parameter in named if trained else []:
            if not parameter.requires_grad and id(parameter) not in averaged:
                frozen.setdefault(id(parameter), (name, parameter))
    return [p for name, p in frozen.values() if twins.isdisjoint(_patterns(name, p))]


def _averaged(models: Mapping[str, nn.Module]) -> set[int]:
    copies = [m for model in models.values() for m in model.modules() if type(m).__name__ == "AveragedModel"]
    return {id(parameter) for module in copies for parameter in module.parameters()}


def _patterns(name: str, parameter: nn.Parameter) -> Iterator[Any]:
    """The name with each segment that is no number left open: blocks of one stack are not copies of each other."""
    segments = canonical(name).split(".")
    for place, segment in enumerate(segments[:-1]):
        if not segment.isdigit():
            yield (*segments[:place], "*", *segments[place + 1 :]), parameter.shape
