"""The classes and functions that a pickle may name and relume has an own, safe form of.

None of them is the one that the file means: each is written here, takes what a file gives as data to be checked, and
makes a tensor, an array or plain Python. What is in none of the tables becomes an `Inert`.
"""

from __future__ import annotations

import codecs
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from relume.models.pickles.arrays import NumpyDtype, PendingArray, plain_array, plain_scalar
from relume.models.pickles.danger import is_dangerous
from relume.models.pickles.inert import Inert, describe
from relume.models.pickles.storages import TENSOR_BYTES, Storage, view_of

if TYPE_CHECKING:
    from relume.models.pickles.machine import Machine

_MODULES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "_collections": "collections",
    "torch.tensor": "torch._tensor",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
}
"""Other names of modules, in whatever protocol: those of older torch and newer numpy among them."""

_LAST_OF_PYTHON2 = 2
_PLAIN_ENCODINGS = ("latin1", "latin-1", "iso-8859-1", "iso8859-1", "utf-8", "utf8", "ascii")
_MAX_RANGE = 2**63
_MAX_NAME = 1000
_MAX_DIMENSIONS = 64


class Known(Inert):
    """A class or function that relume has an own form of; ``call`` gets the machine and what the file gives."""

    __slots__ = ("call",)

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        super().__init__(name, is_reference=True)
        self.call = call


class Namespace(dict[str, Any]):
    """Stands for an ``argparse.Namespace``: its attributes."""


def known(module: str, name: str) -> Any:
    """relume's form of what a pickle names; None where it has none."""
    path = f"{module}.{name}"
    if path in _CALLS:
        return Known(path, _CALLS[path])
    if path in _VALUES:
        return _VALUES[path]
    return None


def modern(module: str, name: str, protocol: int) -> tuple[str, str]:
    """The present names of a module and of what is in it. Protocols up to 2 have those of Python 2, as Python 3 writes too."""
    if protocol <= _LAST_OF_PYTHON2:
        if (module, name) in NAME_MAPPING:
            return NAME_MAPPING[module, name]
        module = IMPORT_MAPPING.get(module, module)
    return _MODULES.get(module, module), name


# -------------------------------------------------------------------------------------------------------------- tensors


def _tensor(machine: Machine, storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Any:
    """``_rebuild_tensor`` and ``_v2``: then requires_grad, hooks and the bits for conjugate and negative follow."""
    requires_grad, _, metadata = _fill(more, (False, None, None))
    return _marked(view_of(machine.context, storage, offset, size, stride), requires_grad, metadata)


def _tensor_v3(
    machine: Machine,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    _: Any,
    dtype: Any,
    *more: Any,
) -> Any:
    (metadata,) = _fill(more, (None,))
    return _marked(view_of(machine.context, storage, offset, size, stride, _dtype(dtype)), requires_grad, metadata)


def _marked(tensor: torch.Tensor, requires_grad: Any, metadata: Any) -> torch.Tensor:
    if requires_grad is True and (tensor.is_floating_point() or tensor.is_complex()):
        tensor.requires_grad_(True)
    if isinstance(metadata, dict) and tensor.is_complex() and metadata.get("conj") is True:
        tensor = tensor.detach().conj()
    if isinstance(metadata, dict) and metadata.get("neg") is True:
        tensor = torch._neg_view(tensor.detach())
    return tensor


def _parameter(machine: Machine, data: Any = None, requires_grad: Any = True, *_: Any) -> Any:
    machine.context.spend(TENSOR_BYTES)
    if data is None:
        data = torch.empty(0)
    if not isinstance(data, torch.Tensor):
        return Inert("torch.nn.parameter.Parameter", (data, requires_grad))
    learns = requires_grad is True and (data.is_floating_point() or data.is_complex())
    return torch.nn.Parameter(data.detach(), learns)


def _of_type(machine: Machine, function: Any, kind: Any, arguments: Any, state: Any = None) -> Any:
    """A tensor of a subclass: it comes out as a plain tensor, a parameter as a parameter."""
    made = machine.call(function, arguments)
    if isinstance(kind, Inert) and kind.class_name == "torch.nn.parameter.Parameter" and isinstance(made, torch.Tensor):
        return _parameter(machine, made, made.requires_grad)
    return made


_INTEGERS = {torch.qint32: torch.int32, torch.qint8: torch.int8}


def _quantized(machine: Machine, storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Any:
    """A quantized tensor: its integers, and what they mean, as they are."""
    dtype = _INTEGERS.get(storage.dtype, torch.uint8) if isinstance(storage, Storage) and storage.dtype else None
    return Inert(
        "torch._utils._rebuild_qtensor", (view_of(machine.context, storage, offset, size, stride, dtype), *more)
    )


def _sparse(machine: Machine, layout: Any, data: Any) -> Any:
    """Built with all its invariants checked: wrong indices would read other memory later."""
    if machine.context.is_dry:
        return torch.empty(0)
    if not isinstance(data, tuple) or not 3 <= len(data) <= 4:
        raise TypeError(f"a sparse tensor of {describe(data)}")
    machine.context.claim(object(), sum(part.nbytes for part in data if isinstance(part, torch.Tensor)))
    if layout is torch.sparse_coo:
        indices, values, size = map(_plain_part, data[:3])
        # Coalesced or not is left to torch: a wrong claim of it would give wrong sums.
        return torch.sparse_coo_tensor(indices, values, size, check_invariants=True)
    compressed, plain, values, size = map(_plain_part, data)
    return torch.sparse_compressed_tensor(compressed, plain, values, size, layout=layout, check_invariants=True)


def _plain_part(part: Any) -> Any:
    if isinstance(part, torch.Tensor):
        return part.detach()
    if (
        isinstance(part, (tuple, list))
        and len(part) <= _MAX_DIMENSIONS
        and all(type(size) is int and 0 <= size < 2**63 for size in part)
    ):
        return tuple(part)
    raise TypeError(f"a sparse tensor of {describe(part)}")


def _meta(machine: Machine, dtype: Any, size: Any, stride: Any, requires_grad: Any = False) -> Any:
    machine.context.spend(TENSOR_BYTES)
    for value in (size, stride):
        _plain_part(value)
    return _marked(torch.empty_strided(size, stride, dtype=_dtype(dtype), device="meta"), requires_grad, None)


def _from_array(machine: Machine, data: Any, dtype: Any, device: Any = None, requires_grad: Any = False) -> Any:
    """Tensors of devices that have no storages, such as XLA's."""
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(data.astype(data.dtype.newbyteorder("="), copy=False))
    if not isinstance(data, torch.Tensor):
        raise TypeError(f"a tensor of {describe(data)}")
    machine.context.claim(object(), data.numel() * _dtype(dtype).itemsize)  # each call makes a copy
    return _marked(data.detach().to(dtype=_dtype(dtype)), requires_grad, None)


def _nested_file(machine: Machine, data: Any) -> Any:
    """A storage that was pickled by itself: a whole file of the older format."""
    from relume.models.pickles.legacy import is_legacy, read_stream  # it runs machines itself

    if not isinstance(data, (bytes, bytearray)) or not is_legacy(bytes(data[:64])):
        raise TypeError(f"a nested file that is {describe(data)}")
    machine.context.spend(len(data))
    machine.context.enter()
    content = read_stream(machine.context, bytes(data))
    machine.context.leave()
    return content


def _graph_module(machine: Machine, body: Any, *more: Any) -> Any:
    """A traced module of torch.fx, which would be made by compiling Python code that is in the file."""
    machine.context.callables["torch.fx.graph_module.reduce_graph_module"] += 1
    made = Inert("torch.fx.graph_module.GraphModule", more)
    made.state = body
    return made


# Not by getattr: torch imports some of its modules when they are asked for.
_LAYOUTS = {name: value for name, value in vars(torch).items() if isinstance(value, torch.layout)}


def _dtype(value: Any) -> torch.dtype:
    if not isinstance(value, torch.dtype):
        raise TypeError(f"a dtype that is {describe(value)}")
    return value


def _size(machine: Machine, sizes: Any = ()) -> Any:
    return torch.Size(_plain_part(sizes))


def _device(machine: Machine, *arguments: Any) -> Any:
    kind, index = _fill(arguments, ("cpu", None))
    try:
        return torch.device(kind) if index is None else torch.device(kind, index)
    except (RuntimeError, TypeError):
        return Inert("torch.device", arguments)


def _layout(machine: Machine, name: Any) -> Any:
    value = _LAYOUTS.get(name.removeprefix("torch.")) if isinstance(name, str) else None
    return Inert("torch.layout", (name,)) if value is None else value


# --------------------------------------------------------------------------------------------------------------- Python


def _ordered(machine: Machine, pairs: Any = ()) -> Any:
    made: OrderedDict[Any, Any] = OrderedDict()
    machine.keys.update(made, _alternating(pairs))
    return made


def _dict(machine: Machine, pairs: Any = ()) -> Any:
    made: dict[Any, Any] = {}
    machine.keys.update(made, _alternating(pairs))
    return made


def _counter(machine: Machine, counts: Any = ()) -> Any:
    return Counter(_dict(machine, counts))


def _default(machine: Machine, factory: Any = None, pairs: Any = ()) -> Any:
    """A defaultdict that makes nothing: its factory would be a function that the file names."""
    made: defaultdict[Any, Any] = defaultdict()
    machine.keys.update(made, _alternating(pairs))
    return made


def _alternating(pairs: Any) -> list[Any]:
    items = list(pairs.items()) if isinstance(pairs, dict) else pairs
    if not isinstance(items, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in items
    ):
        raise TypeError(f"a dictionary of {describe(pairs)}")
    return [part for pair in items for part in pair]


def _set(machine: Machine, members: Any = ()) -> Any:
    made: set[Any] = set()
    machine.keys.add(made, _members(members))
    return made


def _frozenset(machine: Machine, members: Any = ()) -> Any:
    return frozenset(_set(machine, members))


def _members(members: Any) -> Any:
    if not isinstance(members, (list, tuple, set, frozenset)):
        raise TypeError(f"a set of {describe(members)}")
    return members


def _list(machine: Machine, members: Any = ()) -> Any:
    return list(_copied(machine, _members(members)))


def _tuple(machine: Machine, members: Any = ()) -> Any:
    return tuple(_copied(machine, _members(members)))


def _copied(machine: Machine, value: Any) -> Any:
    """``value``, and its copy counted: a file can have one thing copied a million times."""
    if isinstance(value, (list, tuple, set, frozenset)):
        machine.context.spend(8 * len(value))
    elif isinstance(value, (str, bytes, bytearray)):
        machine.context.spend(2 * len(value))
    return value


def _slice(machine: Machine, *parts: Any) -> Any:
    return slice(*parts) if all(part is None or type(part) is int for part in parts) else Inert("builtins.slice", parts)


def _range(machine: Machine, *parts: Any) -> Any:
    if not all(type(part) is int and abs(part) < _MAX_RANGE for part in parts):
        raise TypeError(f"a range of {describe(parts)}")
    return range(*parts)


def _complex(machine: Machine, *parts: Any) -> Any:
    if not all(type(part) in (int, float) for part in parts):
        raise TypeError(f"a complex number of {describe(parts)}")
    return complex(*parts)


def _bytes(machine: Machine, data: Any = b"", encoding: Any = "latin-1") -> Any:
    """Not of a number, which would be that many zeros."""
    if isinstance(data, str):
        return _encoded(machine, data, encoding)
    _copied(machine, data)
    if isinstance(data, (list, tuple)):
        return bytes(data) if all(type(byte) is int for byte in data) else Inert("builtins.bytes", (data,))
    if not isinstance(data, (bytes, bytearray)):
        raise TypeError(f"bytes of {describe(data)}")
    return bytes(data)


def _bytearray(machine: Machine, data: Any = b"", encoding: Any = "latin-1") -> Any:
    return bytearray(_bytes(machine, data, encoding))


def _encoded(machine: Machine, text: Any, encoding: Any = "utf-8") -> Any:
    """How older protocols write bytes. Other codecs are functions that can be anything, a decompressor for one."""
    if not isinstance(text, str) or encoding not in _PLAIN_ENCODINGS:
        raise TypeError(f"bytes of {describe(text)} in the encoding {describe(encoding)}")
    return codecs.encode(_copied(machine, text), encoding)


def _reconstructed(machine: Machine, kind: Any, base: Any = None, state: Any = None) -> Any:
    """How protocols 0 and 1 write an object: its class, the built-in kind that it extends, and what that one holds."""
    if isinstance(kind, Known):
        return kind.call(machine) if state is None else kind.call(machine, state)
    return machine.call(kind, () if state is None else (state,), is_new=True)


def _new(machine: Machine, kind: Any, *arguments: Any) -> Any:
    return machine.call(kind, arguments, is_new=True)


def _new_with_keywords(machine: Machine, kind: Any, arguments: Any = (), keywords: Any = None) -> Any:
    return machine.call(kind, arguments, keywords, is_new=True)


def _attribute(machine: Machine, owner: Any, name: Any, *_: Any) -> Any:
    """``getattr``: how protocols before 4 write a class within a class, and how an attack reaches what it must not name."""
    if not isinstance(name, str) or not name.isidentifier() or not isinstance(owner, Inert):
        machine.note(f"getattr({describe(owner)}, {describe(name)})")
        return Inert("builtins.getattr", (owner, name))
    if owner.is_reference:
        path = f"{owner.class_name}.{name}"
        module, rest = path.split(".", 1)
        reference = Inert(path[:_MAX_NAME], is_reference=True)
        if is_dangerous(module, rest) or len(path) > _MAX_NAME:
            machine.note(reference.class_name, reference)
        return reference
    if name.startswith("__"):
        machine.note(f"getattr({describe(owner)}, {name!r:.100})")
    return Inert("builtins.getattr", (owner, name))


def _namespace(machine: Machine, *_: Any) -> Any:
    return Namespace()


def _scalar(machine: Machine, dtype: Any = None, raw: Any = b"") -> Any:
    return plain_scalar(dtype, raw)


def _numpy_dtype(machine: Machine, *arguments: Any) -> Any:
    return NumpyDtype("numpy.dtype", arguments)


def _array(machine: Machine, kind: Any = None, *arguments: Any) -> Any:
    if isinstance(kind, Inert) and kind.class_name == "numpy.ndarray":
        return PendingArray("numpy.ndarray", arguments)
    return Inert("numpy.core.multiarray._reconstruct", (kind, *arguments))


def _buffer_array(machine: Machine, raw: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> Any:
    array = plain_array(_copied(machine, raw), dtype, shape, order) if isinstance(raw, (bytes, bytearray)) else None
    return Inert("numpy.core.numeric._frombuffer", (raw, dtype, shape, order)) if array is None else array


def _first(machine: Machine, value: Any = None, *_: Any) -> Any:
    return value


def _nothing(machine: Machine, *_: Any) -> None:
    return None


def _old_tensor(dtype: torch.dtype) -> Callable[..., Any]:
    def made(machine: Machine, *arguments: Any) -> Any:
        if arguments:
            raise TypeError(f"a tensor of {describe(arguments)}")
        machine.context.spend(TENSOR_BYTES)
        return torch.empty(0, dtype=dtype)

    return made


def _fill(given: tuple[Any, ...], defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(given) > len(defaults):
        raise TypeError(f"{len(given)} arguments where there are at most {len(defaults)}")
    return given + defaults[len(given) :]


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_sparse_csr_tensor": _sparse,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_device_tensor_from_numpy": _from_array,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _from_array,
    "torch._utils._rebuild_xla_tensor": _from_array,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._tensor._rebuild_from_type": lambda machine, function, kind, *arguments: _of_type(
        machine, function, kind, *arguments
    ),
    "torch.storage._load_from_bytes": _nested_file,
    "torch.serialization._get_layout": _layout,
    "torch.fx.graph_module.reduce_graph_module": _graph_module,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.nn.Parameter": _parameter,
    "torch.FloatTensor": _old_tensor(torch.float32),
    "torch.DoubleTensor": _old_tensor(torch.float64),
    "torch.HalfTensor": _old_tensor(torch.float16),
    "torch.LongTensor": _old_tensor(torch.int64),
    "torch.IntTensor": _old_tensor(torch.int32),
    "torch.ShortTensor": _old_tensor(torch.int16),
    "torch.CharTensor": _old_tensor(torch.int8),
    "torch.ByteTensor": _old_tensor(torch.uint8),
    "torch.jit._pickle.build_intlist": _first,
    "torch.jit._pickle.build_doublelist": _first,
    "torch.jit._pickle.build_boollist": _first,
    "torch.jit._pickle.build_tensorlist": _first,
    "torch.jit._pickle.build_tensor_from_id": _first,
    "torch.jit._pickle.restore_type_tag": _first,
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _buffer_array,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _default,
    "collections.Counter": _counter,
    "builtins.dict": _dict,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    "builtins.list": _list,
    "builtins.tuple": _tuple,
    "builtins.slice": _slice,
    "builtins.range": _range,
    "builtins.xrange": _range,
    "builtins.complex": _complex,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytearray,
    "builtins.getattr": _attribute,
    "_codecs.encode": _encoded,
    "codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    "copyreg.__newobj__": _new,
    "copyreg.__newobj_ex__": _new_with_keywords,
    "argparse.Namespace": _namespace,
    "types.SimpleNamespace": _namespace,
    "types.NoneType": _nothing,
}

_VALUES: dict[str, Any] = {
    **{str(value): value for value in vars(torch).values() if isinstance(value, (torch.dtype, torch.layout))},
    **{f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, (torch.dtype, torch.layout))},
    "builtins.Ellipsis": Ellipsis,
    "builtins.NotImplemented": NotImplemented,
    "builtins.None": None,
    "builtins.True": True,
    "builtins.False": False,
}
