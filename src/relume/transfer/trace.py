"""Which modules give a model's outputs: found by following the gradient of a run without values, on a copy."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from relume import tree
from relume.errors import ConfigurationError
from relume.twins import on_own_numbers, without_users_hooks

_BATCH = 2  # batch norms in training mode want more than one
_SIDES = (224, 32, 28, 64, 96, 128, 256, 299, 384, 480)
_TOKENS = 8


class CannotRunError(ConfigurationError):
    """The model does not take what it was tried on."""


@dataclass(frozen=True)
class Trace:
    """What one run of a model was.

    Attributes:
        last: the paths of the modules with parameters that nothing with parameters comes after, in the model's order.
        loose: names of parameters that come last too, without a module of their own that is called.
        taken: shapes of what these modules were called with, by path.
        outputs: the shapes of the model's outputs.
        empty: the path of an nn.Identity that was called last, on what the model gave then; or nothing.
        example: the batch that the model took.
    """

    last: tuple[str, ...]
    loose: tuple[str, ...]
    taken: Mapping[str, tuple[int, ...]]
    outputs: tuple[tuple[int, ...], ...]
    empty: str = ""
    example: Any = None


def trace(
    model: nn.Module,
    example: Any = None,
    *,
    side: int | None = None,
    training: bool = False,
    replaced: Mapping[str, nn.Module] | None = None,
) -> Trace:
    """Run a copy of a model and see what its outputs come from. The model, its modes and all random numbers stay untouched.

    The copy has no values (meta device), so that no memory is taken and nothing computed. A model that cannot run so runs
    with its own values, on its own device.

    Args:
        example: a batch that the model takes; None tries some that fit its first layer.
        side: of images, in pixels, where that is known.
        training: run in training mode.
        replaced: modules by path, to be put into the copy.

    Raises:
        CannotRunError: the model takes none of them; says what went wrong.
    """
    problem: Exception | None = None
    for tried in [example] if example is not None else examples(model, side):
        for has_values in (False, True):
            try:
                return replace(_run(model, tried, training, replaced or {}, has_values), example=tried)
            except Exception as error:  # a model may raise anything
                problem = error
    if problem is None:
        raise CannotRunError(f"what {type(model).__name__} takes cannot be told from its first layer")
    reason = str(problem).strip().splitlines()
    raise CannotRunError(
        f"{type(problem).__name__}: {reason[0]:.200}" if reason else type(problem).__name__
    ) from problem


def examples(model: nn.Module, side: int | None = None) -> Iterator[torch.Tensor]:
    """Batches that the first layer takes, the likeliest first; they have no values."""
    first = next((m for m in model.modules() if isinstance(m, _FIRST)), None)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    sides = dict.fromkeys([*([side] if side else []), *_own_sides(model), *_SIDES])
    shapes: list[tuple[int, ...]] = []
    if isinstance(first, nn.modules.conv._ConvNd):
        dimensions = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}.get(type(first), len(first.kernel_size))
        shapes = [(first.in_channels, *[one] * dimensions) for one in sides]
    elif isinstance(first, nn.Linear):
        whole = [(c, math.isqrt(first.in_features // c)) for c in (1, 3)]
        squares = [(c, one, one) for c, one in whole if c * one * one == first.in_features]
        shapes = [(first.in_features,), *squares, (_TOKENS, first.in_features)]
    elif isinstance(first, (nn.Embedding, nn.EmbeddingBag)):
        yield torch.empty(_BATCH, _TOKENS, dtype=torch.long, device="meta")
    elif isinstance(first, nn.RNNBase):
        shapes = [(_TOKENS, first.input_size)]
    for shape in shapes:
        yield torch.empty(_BATCH, *shape, dtype=dtype, device="meta")


_FIRST = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase)


def _own_sides(model: nn.Module) -> list[int]:
    """Sizes of images that a part of the model says it is made for."""
    values = (vars(part).get(name) for part in model.modules() for name in ("image_size", "img_size"))
    sides = (value[-1] if isinstance(value, (tuple, list)) and value else value for value in values)
    return [one for one in sides if isinstance(one, int) and not isinstance(one, bool) and one > 0]


def _run(model: nn.Module, example: Any, training: bool, replaced: Mapping[str, nn.Module], has_values: bool) -> Trace:
    twin = _twin(model, has_values)
    for path, module in replaced.items():
        twin.set_submodule(path, _twin(module, has_values))
    for part in twin.modules():
        part.training = training
    device = next((p.device for p in twin.parameters()), torch.device("cpu"))
    made: dict[Any, str] = {}  # the step of the gradient that an output of a module comes from, which keeps it alive
    taken: dict[str, tuple[int, ...]] = {}
    passed: list[tuple[str, Any]] = []
    for path, part in twin.named_modules():
        if type(part) is nn.Identity and path not in replaced:
            part.register_forward_hook(lambda _, args, output, path=path: passed.append((path, output)))
        elif _is_one_layer(part) or path in replaced:
            part.register_forward_hook(_recorder(path, made, taken))
    with on_own_numbers(device), torch.enable_grad():
        given = torch.utils._pytree.tree_map(lambda value: _moved(value, device), example)
        outputs = list(tree.tensors(_called(twin, given)))
    names = {id(p): name for name, p in twin.named_parameters()}
    last, loose = _last(outputs, made, names)
    order = [path for path, _ in twin.named_modules() if path in last]
    empty = passed[-1][0] if passed and any(passed[-1][1] is value for value in outputs) else ""
    return Trace(tuple(order), tuple(sorted(loose)), taken, tuple(tuple(value.shape) for value in outputs), empty)


def _called(model: nn.Module, given: Any) -> Any:
    if isinstance(given, (list, tuple)):
        return model(*given)
    return model(**given) if isinstance(given, dict) else model(given)


def _twin(model: nn.Module, has_values: bool) -> nn.Module:
    """A copy whose parameters have no values, or share the model's, and all of them a gradient to follow."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        value = parameter.detach() if has_values else torch.empty_like(parameter, device="meta").detach()
        if not torch.nn.parameter.is_lazy(parameter):
            memo[id(parameter)] = nn.Parameter(value, requires_grad=value.is_floating_point() or value.is_complex())
    for buffer in model.buffers():
        if not torch.nn.parameter.is_lazy(buffer):
            memo[id(buffer)] = buffer.detach().clone() if has_values else torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo | without_users_hooks(model))


def _is_one_layer(part: nn.Module) -> bool:
    """Whether a module has parameters, all of them its own or computed into them."""
    if parametrize.is_parametrized(part):
        return True
    own = any(True for _ in part.parameters(recurse=False))
    return own and not any(True for child in part.children() for _ in child.parameters())


def _recorder(path: str, made: dict[Any, str], taken: dict[str, tuple[int, ...]]) -> Any:
    def record(module: nn.Module, args: Any, output: Any) -> None:
        if (first := next(tree.tensors(args), None)) is not None:
            taken[path] = tuple(first.shape)
        for value in tree.tensors(output):
            if value.grad_fn is not None:
                made.setdefault(value.grad_fn, path)

    return record


def _last(outputs: list[torch.Tensor], made: dict[Any, str], names: Mapping[int, str]) -> tuple[set[str], set[str]]:
    """Where one comes to when one goes back from the outputs, as far as the first modules that are known."""
    last: set[str] = set()
    loose: set[str] = set()
    seen: set[Any] = set()
    waiting = [value.grad_fn for value in outputs]
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if step in made:
            last.add(made[step])
        elif (variable := getattr(step, "variable", None)) is not None:
            loose.add(names.get(id(variable), "?"))
        else:
            waiting += [before for before, _ in step.next_functions]
    return last, loose


def _moved(value: Any, device: torch.device) -> Any:
    if not isinstance(value, torch.Tensor) or value.device == device:
        return value
    return torch.zeros(value.shape, dtype=value.dtype, device=device) if value.is_meta else value.to(device)
