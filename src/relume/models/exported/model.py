"""A graph as a module: called like the model that it was made of, with the names of that model's state_dict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, NoReturn

import torch
from torch import nn

from relume.errors import ConfigurationError, ModelFileError
from relume.models.exported.program import DamagedError, Input, Program, program_of
from relume.models.exported.running import DEVICE, run


class ExportedModel(nn.Module):
    """What a model does in evaluation mode, from a graph.

    Parameters and buffers have the names that they have in the model; its submodules hold them and have no code. A graph has
    one mode: ``eval()`` does nothing, and ``train()`` is a `ConfigurationError`. Tensors that the graph makes are on the
    device of the module's own.

    Args:
        document: of the graph, as `vetted_program` gives it.
        state: the tensors of the state_dict; those that share memory still do.
        constants: other tensors that the graph uses.
        parameters: names of parameters, and whether they want gradients.
        where: what messages call the file.

    Raises:
        ModelFileError: the document contradicts itself, or ``state``.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        state: Mapping[str, torch.Tensor],
        constants: Mapping[str, torch.Tensor],
        parameters: Mapping[str, bool],
        where: str,
    ) -> None:
        super().__init__()
        self.training = False
        try:
            program = program_of(document)
            bound = _fill(self, program, state, constants, parameters)
        except DamagedError as error:
            raise ModelFileError(f"{where}: its graph is damaged: {error!s:.300}.") from None
        self._relume_program = program
        self._relume_tensors: list[tuple[int, MutableMapping[str, Any], str]] = bound

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call it like the model.

        Raises:
            ConfigurationError: the model is called with something else: another number of inputs, or tensors of a shape that
                the graph was not made for.
        """
        program = self._relume_program
        inputs = _flat_inputs(program, args, kwargs)
        values: list[Any] = [None] * program.graph.size
        for place, owner, name in self._relume_tensors:
            values[place] = owner[name]
        values[DEVICE] = self._relume_device(inputs)
        for known, value in zip(program.inputs, inputs, strict=True):
            if known.place is not None:
                values[known.place] = value
        run(program.graph, values)
        for target, place in program.changes:
            changed = inputs[target] if isinstance(target, int) else self.get_parameter_or_buffer(target)
            with torch.no_grad():
                changed.copy_(values[place])
        outputs = iter([values[place] if is_value else place for is_value, place in program.outputs])
        return _grown(program.gives, outputs)

    def _relume_device(self, inputs: list[Any]) -> torch.device:
        if self._relume_tensors:
            _, owner, name = self._relume_tensors[0]
            return torch.device(owner[name].device)
        return next((value.device for value in inputs if isinstance(value, torch.Tensor)), torch.device("cpu"))

    def get_parameter_or_buffer(self, name: str) -> torch.Tensor:
        """The tensor of a name."""
        path, _, last = name.rpartition(".")
        owner = self.get_submodule(path)
        tensor: torch.Tensor = getattr(owner, last)
        return tensor

    def train(self, mode: bool = True) -> ExportedModel:
        """Nothing, for evaluation; an error for training, which a graph cannot."""
        if mode:
            raise ConfigurationError(
                "a model from a .pt2 file or from the graph of a bundle has no training mode: its graph is what the model "
                "does in evaluation mode. To train, save the model with its recipe, as .safetensors, and load that."
            )
        return self

    def extra_repr(self) -> str:
        """How much there is of it."""
        program = self._relume_program
        return f"a graph of {len(program.graph.steps)} operators, {len(program.tensors)} tensors"


def _fill(
    root: nn.Module,
    program: Program,
    state: Mapping[str, torch.Tensor],
    constants: Mapping[str, torch.Tensor],
    parameters: Mapping[str, bool],
) -> list[tuple[int, MutableMapping[str, Any], str]]:
    """Register all tensors; returns where the graph finds each of its own."""
    made: dict[tuple[Any, ...], nn.Parameter] = {}
    for name, value in {**state, **constants}.items():
        is_parameter = name in program.parameters or name in parameters
        if is_parameter:
            value = _parameter(value, parameters.get(name, True), made)
        _place(root, name, value, is_persistent=name in state)
    bound: list[tuple[int, MutableMapping[str, Any], str]] = []
    for place, name in program.tensors:
        if name not in state and name not in constants:
            raise DamagedError(f"it uses {name!r:.100}, and there is no such tensor beside it")
        path, _, last = name.rpartition(".")
        owner = root.get_submodule(path)
        bound.append((place, owner._parameters if last in owner._parameters else owner._buffers, last))
    return bound


def _parameter(value: torch.Tensor, wants_grad: bool, made: dict[tuple[Any, ...], nn.Parameter]) -> nn.Parameter:
    """Tied ones are one parameter, as in the model."""
    key = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride()) if value.numel() else (id(value),)
    if key not in made:
        can_train = value.is_floating_point() or value.is_complex()
        made[key] = nn.Parameter(value, requires_grad=wants_grad and can_train)
    return made[key]


def _place(root: nn.Module, name: str, value: torch.Tensor, *, is_persistent: bool) -> None:
    module = root
    *path, last = name.split(".")
    try:
        for part in path:
            if part not in module._modules:
                module.add_module(part, Tensors())
            inner = module._modules[part]
            assert inner is not None
            module = inner
        if isinstance(value, nn.Parameter):
            module.register_parameter(last, value)
        else:
            module.register_buffer(last, value, persistent=is_persistent)
    except (KeyError, TypeError) as error:
        raise DamagedError(f"{name!r:.100} is no name that a tensor of a module can have ({error!s:.100})") from None


class Tensors(nn.Module):
    """Has tensors, and no code."""

    def __init__(self) -> None:
        super().__init__()
        self.training = False


# ------------------------------------------------------------------------------------------------------- inputs and outputs


def _flat_inputs(program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    positional, keywords = program.takes["children_spec"]
    names = program.order or []
    wanted = _keys(keywords)
    given = dict(kwargs)
    if len(args) > len(positional["children_spec"]):  # by position what the graph takes by keyword
        for name, value in zip(
            names[len(positional["children_spec"]) :], args[len(positional["children_spec"]) :], strict=False
        ):
            given.setdefault(name, value)
        args = args[: len(positional["children_spec"])] + args[len(names) :]
    for name in names[len(args) : len(positional["children_spec"])]:  # and the other way round
        if name in given:
            args = (*args, given.pop(name))
    if len(args) != len(positional["children_spec"]) or set(given) != set(wanted):
        _refuse_call(program, args, given)
    found: list[Any] = []
    for index, (spec, value) in enumerate(zip(positional["children_spec"], args, strict=True)):
        _collect(spec, value, names[index] if index < len(names) else f"input {index}", found)
    for spec, name in zip(keywords["children_spec"], wanted, strict=True):
        _collect(spec, given[name], name, found)
    _check_inputs(program, found)
    return found


def _refuse_call(program: Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoReturn:
    positional, keywords = program.takes["children_spec"]
    takes = [f"{len(positional['children_spec'])} by position"] if positional["children_spec"] else []
    takes += [f"{', '.join(map(str, _keys(keywords)))} by name"] if keywords["children_spec"] else []
    names = f" ({', '.join(program.order)})" if program.order else ""
    raise ConfigurationError(
        f"the graph takes {' and '.join(takes) or 'no inputs'}{names}, and was given {len(args)} by position"
        f"{' and ' + ', '.join(kwargs) if kwargs else ''}: it was made for that call alone."
    )


def _keys(tree: Mapping[str, Any]) -> list[Any]:
    import json

    keys: list[Any] = json.loads(tree["context"]) or []
    return keys


def _collect(spec: Mapping[str, Any], value: Any, name: str, found: list[Any]) -> None:
    """The values within a structure, in order."""
    match spec["type"]:
        case None:
            found.append(value)
            return
        case "builtins.dict" | "collections.OrderedDict":
            keys = _keys(spec)
            if not isinstance(value, Mapping) or set(value) != set(keys):
                raise ConfigurationError(
                    f"{name} is {_shape(value)}, and the graph takes a dict of {', '.join(map(str, keys))}."
                )
            parts = [(f"{name}[{key!r}]", value[key]) for key in keys]
        case kind:
            count = len(spec["children_spec"])
            if not isinstance(value, (list, tuple)) or len(value) != count:
                raise ConfigurationError(f"{name} is {_shape(value)}, and the graph takes a {kind[9:]} of {count}.")
            parts = [(f"{name}[{index}]", one) for index, one in enumerate(value)]
    for inner, (label, one) in zip(spec["children_spec"], parts, strict=True):
        _collect(inner, one, label, found)


def _shape(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{value!r:.60}"


def _check_inputs(program: Program, values: list[Any]) -> None:
    sizes: dict[str, Any] = {}
    for known, value in zip(program.inputs, values, strict=True):
        if known.is_constant and not isinstance(value, torch.Tensor) and value != known.constant:
            raise ConfigurationError(
                f"{known.name} is {value!r:.60}, and the graph was made for {known.constant!r:.60} alone."
            )
        if known.sizes is not None:
            _check_tensor(known, value, sizes, program)


def _check_tensor(known: Input, value: Any, sizes: dict[str, Any], program: Program) -> None:
    assert known.sizes is not None
    if not isinstance(value, torch.Tensor) or value.ndim != len(known.sizes):
        raise _refused(known, value)
    for wanted, size in zip(known.sizes, value.shape, strict=True):
        if isinstance(wanted, str):
            smallest, largest = program.ranges.get(wanted, (None, None))
            is_right = bool(sizes.setdefault(wanted, size) == size) and (largest is None or size <= largest)
            is_right = is_right and (smallest is None or smallest <= 2 or size >= smallest)
        else:
            is_right = wanted is None or size == wanted
        if not is_right:
            raise _refused(known, value)


def _refused(known: Input, value: Any) -> ConfigurationError:
    assert known.sizes is not None
    names = {
        name: f"n{index or ''}" for index, name in enumerate(dict.fromkeys(s for s in known.sizes if type(s) is str))
    }
    sizes = ", ".join(names[one] if isinstance(one, str) else str(one or "any") for one in known.sizes)
    return ConfigurationError(
        f"{known.name} is {_shape(value)}, and the graph takes a tensor of shape ({sizes}). Give it what the model was "
        "exported with, in another number at most."
    )


def _grown(tree: Mapping[str, Any], values: Iterator[Any]) -> Any:
    """A structure with values in it."""
    match tree["type"]:
        case None:
            return next(values)
        case "builtins.dict":
            return dict(zip(_keys(tree), [_grown(one, values) for one in tree["children_spec"]], strict=True))
        case "collections.OrderedDict":
            return OrderedDict(zip(_keys(tree), [_grown(one, values) for one in tree["children_spec"]], strict=True))
        case "builtins.list":
            return [_grown(one, values) for one in tree["children_spec"]]
    return tuple(_grown(one, values) for one in tree["children_spec"])
