"""What a model computes on an example, found by running a copy of it and writing down each function of torch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from relume.twins import on_own_numbers, without_users_hooks

Node = dict[str, Any]


def nodes_of(model: nn.Module, example: Any) -> tuple[list[Node], str]:
    """The nodes of a model's graph, in the order in which they are computed, and why there are only modules; or nothing."""
    model = _inner(model)
    problem = ""
    for has_values in (False, True):
        try:
            return _traced(model, example, has_values), ""
        except Exception as error:  # a model may raise anything
            lines = str(error).strip().splitlines()
            problem = f"{type(error).__name__}: {lines[0]:.200}" if lines else type(error).__name__
    return _modules(model), problem


def _inner(model: nn.Module) -> nn.Module:
    """What was compiled, or spread over devices."""
    while True:
        parts = model._modules
        wrapped = {"OptimizedModule": "_orig_mod", "DistributedDataParallel": "module", "DataParallel": "module"}
        name = wrapped.get(type(model).__name__, "")
        if not isinstance(parts.get(name), nn.Module):
            return model
        model = parts[name]  # type: ignore[assignment]


def _modules(model: nn.Module) -> list[Node]:
    return [
        {"name": path.replace(".", "/") or type(model).__name__, "op": type(part).__name__, "inputs": []}
        for path, part in model.named_modules(remove_duplicate=False)
        if path or not any(True for _ in model.children())
    ]


def _traced(model: nn.Module, example: Any, has_values: bool) -> list[Node]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    twin = _twin(model, has_values)
    twin.eval()
    place = device if has_values else torch.device("meta")
    given = pytree.tree_map(lambda value: _placed(value, place), example)
    recorder = _Recorder(twin, given)
    with on_own_numbers(device), torch.no_grad(), recorder.following(twin), recorder:
        if isinstance(given, (list, tuple)):
            twin(*given)
        elif isinstance(given, Mapping):
            twin(**given)
        else:
            twin(given)
    return recorder.nodes


def _placed(value: Any, place: torch.device) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.is_meta and place.type != "meta":
        return torch.zeros(value.shape, dtype=value.dtype, device=place)
    return value.detach().to(place, copy=True)  # a model may change its input


def _twin(model: nn.Module, has_values: bool) -> nn.Module:
    """A copy that shares nothing with the model, without the hooks of users."""
    memo: dict[int, Any] = {}
    for value in (*model.parameters(), *model.buffers()):
        if torch.nn.parameter.is_lazy(value):
            raise RuntimeError("the model has parameters whose shape is not known before its first batch")
        made = value.detach().clone() if has_values else torch.empty_like(value, device="meta").detach()
        memo[id(value)] = nn.Parameter(made, requires_grad=False) if isinstance(value, nn.Parameter) else made
    return copy.deepcopy(model, memo | without_users_hooks(model))


_NOTHING = ("data", "grad", "detach", "requires_grad_")
_PERHAPS_NOTHING = ("to", "contiguous", "float", "half", "bfloat16", "double", "type")


class _Recorder(TorchFunctionMode):
    """Writes a node for each function of torch that gives tensors."""

    def __init__(self, model: nn.Module, given: Any) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self._made: dict[int, str] = {}  # the node that a tensor comes from, by its id
        self._alive: list[torch.Tensor] = []  # so that no id is given twice
        self._taken: dict[str, int] = {}
        self._path: list[str] = []
        self._own: dict[int, tuple[str, str, torch.Tensor]] = {}
        self._own |= {id(p): (name, "parameter", p) for name, p in model.named_parameters()}
        self._own |= {id(b): (name, "buffer", b) for name, b in model.named_buffers()}
        for path, value in _leaves(given):
            self._add(f"input/{path}" if path else "input", "input", [], [value])

    @contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Know in which module the model is."""
        with ExitStack() as hooks:
            for path, part in model.named_modules():
                before = part.register_forward_pre_hook(lambda *_, path=path: self._path.append(path))
                behind = part.register_forward_hook(lambda *_: void(self._path.pop()))
                hooks.callback(before.remove)
                hooks.callback(behind.remove)
            yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = _name_of(func)
        outputs = [value for value in pytree.tree_leaves(result) if isinstance(value, torch.Tensor)]
        if name == "__setitem__":
            outputs = [args[0]]
        if outputs and name not in _NOTHING:
            inputs = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
            if name not in _PERHAPS_NOTHING or outputs[0] is not inputs[0]:
                path = self._path[-1] if self._path else ""
                self._add("/".join(part for part in (path.replace(".", "/"), name) if part), name, inputs, outputs)
        return result

    def _add(self, name: str, op: str, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        sources = list(dict.fromkeys(source for value in inputs if (source := self._source(value))))
        shape = [int(side) for side in outputs[0].shape]
        self.nodes.append({"name": self._free(name), "op": op, "inputs": sources, "shape": shape})
        for value in outputs:
            self._made[id(value)] = self.nodes[-1]["name"]
            self._alive.append(value)

    def _source(self, value: torch.Tensor) -> str | None:
        if id(value) not in self._made and id(value) in self._own:
            path, op, _ = self._own[id(value)]
            self._add(path.replace(".", "/"), op, [], [value])
        return self._made.get(id(value))

    def _free(self, name: str) -> str:
        """The name, or with a number where it is taken."""
        count = self._taken[name] = self._taken.get(name, -1) + 1
        return name if not count else self._free(f"{name}_{count}")


def void(_: Any) -> None:
    """A hook that returns something would change the model's output."""


def _leaves(given: Any) -> list[tuple[str, torch.Tensor]]:
    flat, _ = pytree.tree_flatten_with_path(given)
    return [("/".join(_key(key) for key in path), value) for path, value in flat if isinstance(value, torch.Tensor)]


def _key(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))


def _name_of(func: Any) -> str:
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":  # a property such as .T
        return str(getattr(getattr(func, "__self__", None), "__name__", name))
    return str(name)
