"""A model called once, with what its layers compute and what training would keep counted meanwhile."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from relume.errors import ConfigurationError
from relume.generators import isolated
from relume.models.look.inputs import Inputs
from relume.models.look.trial import Trial, with_weights, without_weights


@dataclass
class Call:
    """One call of a module, or one module where nothing was called.

    Attributes:
        name: the dotted path; empty for the model itself.
        depth: 0 for the model itself.
        output_shape: of the first tensor that it returned.
        flops: of this call, with all that it called; None where nothing was called.
    """

    name: str
    module: nn.Module
    depth: int
    input_shape: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None
    flops: int | None = None


@dataclass
class Ran:
    """What one call of the model has shown.

    Attributes:
        activation_bytes: what autograd keeps for the backward pass; None where the model cannot be trained at all.
    """

    trial: Trial
    calls: list[Call]
    flops: int | None = None
    activation_bytes: int | None = None


def look_at(model: nn.Module) -> Ran:
    """The modules of a model, which is neither called nor copied."""
    trial = Trial(model, torch.device("cpu"), {id(parameter): parameter for parameter in model.parameters()})
    return Ran(trial, _calls(_torchinfo(trial.model, None), _Flops()))


def run(model: nn.Module, inputs: Inputs) -> Ran:
    """Call a copy of the model without values, or, where it looks at values, a copy with them.

    Raises:
        ConfigurationError: the model does not take these inputs; says what it raised.
    """
    is_scripted = any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())
    with _random_set_aside():
        try:
            if is_scripted:  # its own copies take no other tensors in place of theirs
                return _run(with_weights(model), inputs)
            return _run(without_weights(model), inputs)
        except _ForwardError as error:
            if is_scripted or not _misses_values(error.reason) or _has_no_values(model):
                raise _refused(model, inputs, error.reason) from error.reason
        try:
            return _run(with_weights(model), inputs)
        except _ForwardError as error:
            raise _refused(model, inputs, error.reason) from error.reason


class _OutputError(Exception):
    """torchinfo does not know what a layer returned; the model is well."""


class _ForwardError(Exception):
    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _run(trial: Trial, inputs: Inputs) -> Ran:
    made = inputs.make(trial.device)
    flops = _Flops()
    with _factories_on(trial.device), _without_fast_paths():
        try:
            with flops.counting(trial.model):
                layers = _torchinfo(trial.model, made)
        except _OutputError:
            flops = _Flops()
            with flops.counting(trial.model):
                _call(trial.model.eval(), made)
            layers = _torchinfo(trial.model, None)
    calls = _calls(layers, flops)
    _sum_up(calls)
    return Ran(trial, calls, flops.total, _activation_bytes(trial, inputs))


def _call(model: nn.Module, made: list[torch.Tensor] | dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        model(*made) if isinstance(made, list) else model(**made)


def _sum_up(calls: list[Call]) -> None:
    """Containers that are never called, such as a ModuleList, compute what is computed in them."""
    for number in reversed(range(len(calls))):
        if calls[number].flops is None:
            calls[number].flops = sum(call.flops or 0 for call in _inside(calls, number))


def _inside(calls: list[Call], number: int) -> Iterator[Call]:
    """The calls directly below one."""
    depth = None
    for call in calls[number + 1 :]:
        if call.depth <= calls[number].depth:
            break
        if depth is None or call.depth <= depth:
            depth = call.depth
            yield call


# ---------------------------------------------------------------------------------------------------------- the layers


def _torchinfo(model: nn.Module, inputs: Any) -> list[Any]:
    """The rows of torchinfo, which calls the model in evaluation mode, without gradients."""
    import torchinfo
    from torchinfo.torchinfo import clear_cached_forward_pass

    try:
        return list(torchinfo.summary(model, input_data=inputs, verbose=0).summary_list)
    except RuntimeError as error:  # it names the layers that were called, and has the model's own error as its cause
        cause = error.__cause__
        if isinstance(cause, TypeError) and "unsupported input or output type" in str(cause):
            raise _OutputError from error
        raise _ForwardError(cause or error) from error
    finally:
        clear_cached_forward_pass()  # it would keep the copy for as long as the process lives


def _calls(layers: list[Any], flops: _Flops) -> list[Call]:
    counts = {module: iter(values) for module, values in flops.calls.items()}
    found = []
    for layer in layers:
        count = next(counts.get(layer.layer_id, iter(())), None)
        call = Call(_path(layer), layer.module, layer.depth, flops=count)
        if layer.executed:
            call.input_shape, call.output_shape = _shape(layer.input_size), _shape(layer.output_size)
        found.append(call)
    return found


def _path(layer: Any) -> str:
    names: list[str] = []
    while layer.parent_info is not None:
        names.insert(0, layer.var_name)
        layer = layer.parent_info
    return ".".join(names)


def _shape(lengths: Any) -> tuple[int, ...] | None:
    flat = all(isinstance(length, int) for length in lengths)
    return tuple(lengths) if flat and lengths else None


class _Flops:
    """Counts floating point operations per call of each module."""

    def __init__(self) -> None:
        self.calls: dict[int, list[int]] = defaultdict(list)
        self.total: int = 0

    @contextlib.contextmanager
    def counting(self, model: nn.Module) -> Iterator[None]:
        from torch.utils.flop_counter import FlopCounterMode

        counter = FlopCounterMode(display=False)
        began: list[tuple[int, int]] = []

        def enter(module: nn.Module, _: Any) -> None:
            began.append((len(self.calls[id(module)]), counter.get_total_flops()))
            self.calls[id(module)].append(0)

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            number, before = began.pop()
            self.calls[id(module)][number] = counter.get_total_flops() - before

        called = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
        handles = [module.register_forward_pre_hook(enter) for module in called]
        handles += [module.register_forward_hook(leave) for module in called]
        try:
            with counter:
                yield
        finally:
            for handle in handles:
                handle.remove()
        self.total = counter.get_total_flops()


# ------------------------------------------------------------------------------------------------------ the activations


def _activation_bytes(trial: Trial, inputs: Inputs) -> int | None:
    """What autograd keeps of one call: each piece of memory once, without parameters, buffers and the inputs."""
    for training in (True, False):  # a batch norm refuses to train on a single value
        trial.model.train(training)
        with contextlib.suppress(Exception):
            return _kept_bytes(trial, inputs)
    return None


def _kept_bytes(trial: Trial, inputs: Inputs) -> int:
    made = inputs.make(trial.device)
    values = made if isinstance(made, list) else list(made.values())
    own = {_storage(tensor) for tensor in (*trial.model.parameters(), *trial.model.buffers(), *values)}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout is torch.strided and _storage(tensor) not in own:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage  # held, so that no other storage gets its number
        return tensor.detach()

    with _factories_on(trial.device), torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        trial.model(*made) if isinstance(made, list) else trial.model(**made)
    return sum(storage.nbytes() for storage in kept.values())


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0


# ----------------------------------------------------------------------------------------------------------- conditions


@contextlib.contextmanager
def _random_set_aside() -> Iterator[None]:
    is_used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if is_used else []
    with isolated(0), torch.random.fork_rng(devices, enabled=bool(devices)):
        yield


@contextlib.contextmanager
def _factories_on(device: torch.device) -> Iterator[None]:
    """What a model makes while it is called is made where the copy is."""
    if device.type != "meta":
        yield
        return
    with device:
        yield


@contextlib.contextmanager
def _without_fast_paths() -> Iterator[None]:
    """nn.MultiheadAttention and nn.TransformerEncoderLayer have one that calls no layers, and so shows none."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def _misses_values(reason: BaseException) -> bool:
    """Whether the model wanted values, of which a copy on the meta device has none."""
    text = str(reason).lower()
    return isinstance(reason, NotImplementedError) or "meta" in text or "fake" in text


def _has_no_values(model: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def _refused(model: nn.Module, inputs: Inputs, reason: BaseException) -> ConfigurationError:
    lines = [line for line in str(reason).splitlines() if any(map(str.isalnum, line))]
    first = lines[-1 if "TorchScript" in str(reason) else 0].strip() if lines else ""
    hint = ""
    if "indices" in first or "scalar type" in first.lower() or "embedding" in first.lower():
        hint = " Indices are given with dtypes=torch.long (--dtype long)."
    elif _has_no_values(model) and _misses_values(reason):
        hint = " The model has no values, and looks at some when it is called: build it with values."
    return ConfigurationError(
        f"this {type(model).__name__} does not take {inputs} ({type(reason).__name__}: {first:.300}). Shapes are given "
        f"without the batch, channels first: (3, 224, 224).{hint}"
    )
