"""A model as a table of its layers: parameters, operations, and the memory that training it takes."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from relume.errors import ConfigurationError, UnknownNameError, closest
from relume.models.look.counting import Call, Ran, look_at, run
from relume.models.look.entries import size_of
from relume.models.look.inputs import Inputs, read_inputs
from relume.names import is_uninitialized, unwrap

Optimizer = torch.optim.Optimizer | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | str


@dataclass(frozen=True)
class Layer:
    """A call of a module, or a module where nothing was called.

    Attributes:
        name: its dotted path; empty for the model itself.
        kind: its class.
        depth: 0 for the model itself.
        parameters: of it and all in it, without those that an earlier row has: tied and shared ones count once.
        trainable: of these, those that want gradients.
        mult_adds: multiplications with an addition, of it and all in it; None where nothing was called.
        is_repeated: whether an earlier row is the same module.
    """

    name: str
    kind: str
    depth: int
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    parameters: int
    trainable: int
    mult_adds: int | None
    is_repeated: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes that a training step needs.

    Attributes:
        parameters, buffers: of the model; tied ones once.
        gradients: of the trainable parameters, in their dtype.
        optimizer: the state that the optimizer keeps; None where none was given, or where it cannot be told.
        activations: what autograd keeps of the forward pass of one batch for the backward pass; None without inputs.
        inputs: one batch.
    """

    parameters: int
    buffers: int
    gradients: int
    optimizer: int | None = None
    activations: int | None = None
    inputs: int | None = None

    @property
    def total(self) -> int:
        """Of all that is known."""
        return sum(value for value in vars(self).values() if value is not None)


@dataclass(frozen=True)
class ModelSummary:
    """See `summary`. It prints as a table and shows as one in a notebook.

    Attributes:
        name: the model's class.
        inputs: what it was called with, in words; empty where it was not.
        layers: in the order in which they were called.
        parameters, trainable: elements; tied ones once.
        buffers: elements.
        mult_adds: multiplications with an addition, of one forward pass; None without inputs.
        flops: floating point operations of one forward pass: two for each of ``mult_adds``.
        optimizer: its class.
        lazy: how many parameters of lazy modules have no shape yet.
    """

    name: str
    inputs: str
    batch_size: int
    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    buffers: int
    memory: Memory
    mult_adds: int | None = None
    flops: int | None = None
    optimizer: str = ""
    lazy: int = 0

    @property
    def frozen(self) -> int:
        """Parameters that are not trained."""
        return self.parameters - self.trainable

    def to_text(self, depth: int = 3, width: int = 100) -> str:
        """The table as text.

        Args:
            depth: layers further inside are summed up in the row of the layer that holds them.
            width: the longest line.
        """
        from relume.models.look.render import summary_page
        from relume.page import text_of

        return text_of(summary_page(self, depth), width)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        from relume.models.look.render import summary_page
        from relume.page import html_of

        return html_of(summary_page(self, 3))


def summary(
    model: nn.Module,
    input_shape: Any = None,
    *,
    batch_size: int = 1,
    dtypes: Any = None,
    optimizer: Optimizer | None = None,
) -> ModelSummary:
    """Sum up a model: its layers, parameters, operations, and the memory that training it takes.

    The model is left as it is, to the last bit of its buffers and of the random numbers to come: what is called is a copy on
    the meta device, which needs no memory. Only for a model that looks at values when it is called the copy has values. User's
    hooks are not called.

    Args:
        model: may itself be on the meta device, lazy, or wrapped (DataParallel, DDP, ``torch.compile``).
        input_shape: of one sample, without the batch: ``(3, 224, 224)``; a list of shapes for several inputs; a dictionary of
            shapes for inputs by name; or tensors, with their batch, in their place. None counts parameters only.
        batch_size: of what is called; operations and activations are those of the batch.
        dtypes: of the inputs, one or one for each. By default that of the model's parameters; ``torch.long`` for indices.
        optimizer: whose state is counted: a live optimizer, a class, a function that makes one of parameters, or a name in
            ``torch.optim`` (``"adamw"``). A state that is there is measured; else one step is made without values.

    Operations are counted as torch dispatches them (``torch.utils.flop_counter``): matrix products, convolutions and attention,
    and not what works element by element. Mult-adds of torchinfo, which is under the table, are estimated from parameters and are
    too small for layers that are applied along a sequence. Activations are the tensors that autograd saves for the backward
    pass in training mode, each piece of memory once, without parameters, buffers and inputs; kernels of a GPU may keep a few
    percent more, and attention without a fused kernel more than with one.

    Raises:
        ConfigurationError: a shape or dtype that makes no sense, inputs that the model does not take, or a model that cannot be
            copied.
        UnknownNameError: no such optimizer.

    Example:
        >>> found = summary(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), (4,), optimizer="adam")
        >>> found.parameters, found.mult_adds, found.memory.optimizer
        (67, 56, 552)
    """
    if not isinstance(model, nn.Module):
        raise ConfigurationError(
            f"summary takes a model, not a {type(model).__name__}. For a file: relume.inspect_file(path)."
        )
    model = unwrap(model)
    if input_shape is None:
        inputs, ran = None, look_at(model)
    else:
        inputs = read_inputs(model, input_shape, batch_size, dtypes)
        ran = run(model, inputs)
    return _described(model, inputs, ran, batch_size, optimizer)


def _described(
    model: nn.Module, inputs: Inputs | None, ran: Ran, batch_size: int, optimizer: Optimizer | None
) -> ModelSummary:
    known = [parameter for parameter in ran.trial.model.parameters() if not is_uninitialized(parameter)]
    trained = [parameter for parameter in known if parameter.requires_grad]
    buffers = [buffer for buffer in ran.trial.model.buffers() if not is_uninitialized(buffer)]
    name, state_bytes = _optimizer_state(optimizer, ran, trained)
    memory = Memory(
        parameters=sum(map(size_of, known)),
        buffers=sum(map(size_of, buffers)),
        gradients=sum(map(size_of, trained)),
        optimizer=state_bytes,
        activations=ran.activation_bytes,
        inputs=None if inputs is None else inputs.size_bytes,
    )
    return ModelSummary(
        name=type(model).__name__,
        inputs="" if inputs is None else str(inputs),
        batch_size=batch_size,
        layers=tuple(_layers(ran.calls)),
        parameters=sum(parameter.numel() for parameter in known),
        trainable=sum(parameter.numel() for parameter in trained),
        buffers=sum(buffer.numel() for buffer in buffers),
        memory=memory,
        mult_adds=None if ran.flops is None else ran.flops // 2,
        flops=ran.flops,
        optimizer=name,
        lazy=sum(map(is_uninitialized, ran.trial.model.parameters())),
    )


def _layers(calls: list[Call]) -> list[Layer]:
    layers = []
    counted: set[int] = set()
    seen: set[int] = set()
    for call in calls:
        new = {id(p): p for p in call.module.parameters() if id(p) not in counted and not is_uninitialized(p)}
        layers.append(
            Layer(
                name=call.name,
                kind=type(call.module).__name__,
                depth=call.depth,
                input_shape=call.input_shape,
                output_shape=call.output_shape,
                parameters=sum(parameter.numel() for parameter in new.values()),
                trainable=sum(parameter.numel() for parameter in new.values() if parameter.requires_grad),
                mult_adds=None if call.flops is None else call.flops // 2,
                is_repeated=id(call.module) in seen,
            )
        )
        seen.add(id(call.module))
        counted |= {id(parameter) for parameter in call.module.parameters(recurse=False)}
    return layers


# ---------------------------------------------------------------------------------------------------------- the optimizer


def _optimizer_state(optimizer: Optimizer | None, ran: Ran, trained: list[nn.Parameter]) -> tuple[str, int | None]:
    """The optimizer's class, and the bytes of the state that it keeps, or None where that cannot be told."""
    if optimizer is None:
        return "", None
    if isinstance(optimizer, torch.optim.Optimizer):
        name = type(optimizer).__name__
        if optimizer.state:
            return name, _state_bytes(optimizer)
        groups = [_without_values(group, ran) for group in optimizer.param_groups]
        return name, _after_a_step(type(optimizer), groups)
    make = _optimizer_class(optimizer) if isinstance(optimizer, str) else optimizer
    if not callable(make):
        raise ConfigurationError(
            f"optimizer={optimizer!r:.80} is no optimizer, no class of one, and no name in torch.optim such as 'adamw'."
        )
    name = getattr(make, "__name__", "") or getattr(getattr(make, "func", None), "__name__", "optimizer")
    if not trained:
        return name, 0
    return name, _after_a_step(make, [_empty(parameter) for parameter in trained])


def _optimizer_class(name: str) -> Any:
    known = {
        kind.__name__.lower(): kind
        for kind in vars(torch.optim).values()
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    if name.lower() not in known:
        raise UnknownNameError(f"torch.optim has no optimizer {name!r:.60}: {closest(name.lower(), known)}")
    return known[name.lower()]


def _without_values(group: dict[str, Any], ran: Ran) -> dict[str, Any]:
    """A group of a live optimizer, for parameters on the meta device; the kernels that need a device are left out."""
    parameters = [_empty(ran.trial.copies.get(id(one), one)) for one in group["params"]]
    return {**group, "params": parameters, "fused": None, "foreach": None, "capturable": False}


def _empty(parameter: nn.Parameter) -> nn.Parameter:
    empty = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
    if empty.requires_grad:
        empty.grad = torch.empty_like(empty)
    return empty


def _after_a_step(make: Any, parameters: Any) -> int | None:
    """Make one step without values, and measure what it leaves; None where the optimizer needs more than that."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer = make(parameters)
            optimizer.step()
            return _state_bytes(optimizer)
    except Exception:  # whatever a user's optimizer, or one with a closure, raises
        return None


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    return sum(
        size_of(value)
        for state in optimizer.state.values()
        if isinstance(state, dict)
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
