"""Python state as JSON and back, with the tensors taken out of it.

Plain JSON stays plain JSON. What JSON has no form for is an object with the key ``"$"`` that names the kind:
``{"$": "tuple", "items": [...]}``. Tensors, arrays and long bytes become ``{"$": "data", "n": 5}``, a place in a table.
Reading builds the kinds named here and nothing else: no class is looked up, no code runs.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from relume.checkpoint.tensors import ARRAY_DTYPE, Source, array_dtype, is_plain_array_dtype, torch_dtype
from relume.errors import ManifestError, UnstorableError

Json = Any

MAX_DEPTH = 100
_INLINE_BYTES = 1024
_JSON_INT = 2**53
_NAME = re.compile(r"\w+(?:\.\w+)*\Z")
_FACTORIES: dict[str, Callable[[], Any]] = {
    "dict": dict, "list": list, "set": set, "int": int, "float": float, "str": str, "bool": bool, "tuple": tuple
}  # fmt: skip


@dataclass(frozen=True)
class Encoded:
    """A state as JSON, and the table that its ``data`` entries count into."""

    tree: Json
    sources: list[Source]


def encode(state: object, *, root: str = "state") -> Encoded:
    """Take the tensors out of ``state`` and write the rest as JSON; copies nothing.

    Args:
        state: nested dict, list, tuple, set, deque, str, bytes, numbers, None, torch dtype, device and Size, tensors,
            numpy arrays and scalars.
        root: what error messages call it.

    Raises:
        UnstorableError: the path to the object that cannot be stored, and what to do.

    Example:
        >>> encoded = encode({"epoch": 3, "weight": torch.ones(2)})
        >>> encoded.tree
        {'epoch': 3, 'weight': {'$': 'data', 'n': 0}}
        >>> encoded.sources[0].path
        'state.weight'
    """
    encoder = _Encoder()
    try:
        tree = encoder.value(state, root, 0)
    except RecursionError:
        raise _too_deep(root) from None
    return Encoded(tree, encoder.sources)


def decode(tree: Json, data: Callable[[int], object]) -> Any:
    """Build the state again; ``data`` gives what stands at a place of the table.

    Raises:
        ManifestError: ``tree`` is not what `encode` writes.

    Example:
        >>> decode({"$": "tuple", "items": [1, {"$": "float", "hex": "7ff0000000000000"}]}, lambda n: None)
        (1, inf)
    """
    try:
        return _Decoder(data).value(tree, 0)
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        OverflowError,
        RecursionError,
        MemoryError,
        struct.error,
    ) as error:
        raise ManifestError(f"the state in the manifest is not understood: {_reason(error)}") from error


def places(tree: Json) -> list[int]:
    """The places of the table that ``tree`` uses, each once, in order."""
    found: dict[int, None] = {}
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(reversed(node))
        elif isinstance(node, dict):
            if node.get("$") == "data" and type(node.get("n")) is int:
                found[node["n"]] = None
            waiting.extend(reversed(node.values()))
    return list(found)


def members(tree: Json) -> dict[Any, Json] | list[Json]:
    """What a container holds, still as JSON; nothing where ``tree`` is none. Only plain keys are among them."""
    while isinstance(tree, dict) and "$" in tree:
        kind, tree = tree["$"], tree.get("items")
        if kind == "dict":
            pairs = [pair for pair in tree if isinstance(pair, list) and len(pair) == 2]
            return {key: item for key, item in pairs if isinstance(key, (str, int, float))}
    return tree if isinstance(tree, (dict, list)) else {}


class _Encoder:
    """Hot path: training waits for it (measured 4 microseconds a tensor)."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self._seen: dict[Hashable, int] = {}

    def value(self, value: Any, path: str, depth: int) -> Json:
        if depth > MAX_DEPTH:
            raise _too_deep(path)
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return value
        if kind is int:
            return value if -_JSON_INT < value < _JSON_INT else {"$": "int", "hex": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$": "float", "hex": struct.pack(">d", value).hex()}
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        handler = _ENCODERS.get(kind)
        if handler is not None:
            return handler(self, value, path, depth + 1)
        if isinstance(value, np.generic):
            return {
                "$": "scalar",
                "dtype": _array_dtype(value.dtype, path),
                "hex": value.tobytes()[: value.dtype.itemsize].hex(),
            }
        raise _unstorable(value, path)

    def items(self, values: Iterable[Any], path: str, depth: int) -> list[Json]:
        return [self.value(value, f"{path}[{index}]", depth) for index, value in enumerate(values)]

    def mapping(self, value: dict[Any, Any], path: str, depth: int) -> Json:
        if all(type(key) is str for key in value) and "$" not in value:
            return {key: self.value(item, _join(path, key), depth) for key, item in value.items()}
        pairs = [
            [self.value(key, f"{path} key {key!r:.60}", depth), self.value(item, _join(path, key), depth)]
            for key, item in value.items()
        ]
        return {"$": "dict", "items": pairs}

    def ordered(self, value: OrderedDict[Any, Any], path: str, depth: int) -> Json:
        node = {"$": "OrderedDict", "items": self.mapping(value, path, depth)}
        if hasattr(value, "_metadata"):  # the versions that nn.Module.state_dict notes for its own loading
            node["metadata"] = self.value(value._metadata, f"{path}._metadata", depth)
        return node

    def defaulting(self, value: defaultdict[Any, Any], path: str, depth: int) -> Json:
        factory = value.default_factory
        name = None if factory is None else getattr(factory, "__name__", "")
        if name is not None and _FACTORIES.get(name) is not factory:
            raise UnstorableError(
                f"{path} is a defaultdict whose factory {factory!r} cannot be stored (those that can: "
                f"{', '.join(_FACTORIES)}). Store dict({path}) and set the factory when loading."
            )
        return {"$": "defaultdict", "factory": name, "items": self.mapping(value, path, depth)}

    def data(self, source: Source, identity: Hashable | None = None) -> Json:
        place = self._seen.get(identity) if identity is not None else None
        if place is None:
            place = len(self.sources)
            self.sources.append(source)
            if identity is not None:
                self._seen[identity] = place
        return {"$": "data", "n": place}

    def array(self, value: np.ndarray[Any, Any], path: str, depth: int) -> Json:
        dtype = ARRAY_DTYPE + _array_dtype(value.dtype, path)
        return self.data(Source(path, value, dtype, tuple(value.shape)), id(value))

    def binary(self, value: bytes, path: str, depth: int) -> Json:
        if len(value) <= _INLINE_BYTES:
            return {"$": "bytes", "base64": base64.b64encode(value).decode("ascii")}
        return self.data(Source(path, value, "bytes", (len(value),)))

    def unordered(self, value: set[Any] | frozenset[Any], path: str, depth: int) -> Json:
        items = sorted((self.value(item, f"{path} item {item!r:.60}", depth) for item in value), key=repr)
        return {"$": type(value).__name__, "items": items}

    def _tensor(self, value: torch.Tensor, path: str) -> Json:
        _check_tensor(value, path)
        identity: Hashable = id(value)
        if value.numel():  # views that show the same numbers are one: tied weights
            identity = (
                value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride(),
                value.dtype, value.device, value.is_conj(), value.is_neg(),
                isinstance(value, torch.nn.Parameter), value.requires_grad,
            )  # fmt: skip
        source = Source(
            path=path,
            value=value if value.is_inference() else value.detach(),  # which shares the version counter
            dtype=str(value.dtype).removeprefix("torch."),
            shape=tuple(value.shape),
            is_parameter=isinstance(value, torch.nn.Parameter),
            requires_grad=value.requires_grad and value.is_leaf,
        )
        return self.data(source, identity)


_ENCODERS: dict[type, Callable[[_Encoder, Any, str, int], Json]] = {
    dict: lambda e, v, p, d: e.mapping(v, p, d),
    list: lambda e, v, p, d: e.items(v, p, d),
    tuple: lambda e, v, p, d: {"$": "tuple", "items": e.items(v, p, d)},
    set: lambda e, v, p, d: e.unordered(v, p, d),
    frozenset: lambda e, v, p, d: e.unordered(v, p, d),
    deque: lambda e, v, p, d: {"$": "deque", "items": e.items(v, p, d), "maxlen": v.maxlen},
    OrderedDict: lambda e, v, p, d: e.ordered(v, p, d),
    defaultdict: lambda e, v, p, d: e.defaulting(v, p, d),
    Counter: lambda e, v, p, d: {"$": "Counter", "items": e.mapping(v, p, d)},
    bytes: lambda e, v, p, d: e.binary(v, p, d),
    complex: lambda e, v, p, d: {"$": "complex", "hex": struct.pack(">dd", v.real, v.imag).hex()},
    np.ndarray: lambda e, v, p, d: e.array(v, p, d),
    torch.Size: lambda e, v, p, d: {"$": "Size", "items": list(v)},
    torch.dtype: lambda e, v, p, d: {"$": "dtype", "name": str(v).removeprefix("torch.")},
    torch.device: lambda e, v, p, d: {"$": "device", "name": str(v)},
}


class _Decoder:
    def __init__(self, data: Callable[[int], object]) -> None:
        self._data = data

    def value(self, node: Json, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        if isinstance(node, list):
            return [self.value(item, depth + 1) for item in node]
        if not isinstance(node, dict):
            return node
        if "$" not in node:
            return {key: self.value(item, depth + 1) for key, item in node.items()}
        return self._special(node, depth)

    def _special(self, node: dict[str, Json], depth: int) -> Any:
        match node["$"]:
            case "data":
                return self._data(_integer(node["n"]))
            case "int":
                return int(node["hex"], 16)
            case "float":
                return struct.unpack(">d", bytes.fromhex(node["hex"]))[0]
            case "complex":
                return complex(*struct.unpack(">dd", bytes.fromhex(node["hex"])))
            case "bytes":
                return base64.b64decode(node["base64"], validate=True)
            case "scalar":
                return _scalar(array_dtype(node["dtype"]), bytes.fromhex(node["hex"]))
            case "dtype":
                return torch_dtype(node["name"])
            case "device":
                return _device(node["name"])
            case "Size":
                return torch.Size([_integer(item) for item in _sequence(node["items"])])
            case _:
                return self._container(node, depth)

    def _container(self, node: dict[str, Json], depth: int) -> Any:
        kind = node["$"]
        if kind in ("OrderedDict", "defaultdict", "Counter"):
            return self._mapping(node, depth)
        # The form {"$": kind, "items": [...]} is one level of the state, though two of the JSON.
        items = _sequence(node["items"])
        if kind == "dict":
            return {self.value(key, depth + 1): self.value(item, depth + 1) for key, item in items}
        values = [self.value(item, depth + 1) for item in items]
        if kind == "deque":
            return deque(values, maxlen=node["maxlen"])
        return _SEQUENCES[kind](values)

    def _mapping(self, node: dict[str, Json], depth: int) -> Any:
        items = self.value(node["items"], depth)
        if not isinstance(items, dict):
            raise ValueError(f"a {node['$']} without items")
        if node["$"] == "Counter":
            return Counter(items)
        if node["$"] == "defaultdict":
            factory = None if node["factory"] is None else _FACTORIES[node["factory"]]
            return defaultdict(factory, items)
        ordered = OrderedDict(items)
        if "metadata" in node:
            ordered._metadata = self.value(node["metadata"], depth)  # type: ignore[attr-defined]
        return ordered


_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def _array_dtype(dtype: np.dtype[Any], path: str) -> str:
    if not is_plain_array_dtype(dtype.str):
        raise UnstorableError(
            f"{path} is a numpy array of dtype {dtype}, which holds Python objects or fields. "
            "Store a list, or a dict with one array a field."
        )
    return dtype.str


def _check_tensor(value: torch.Tensor, path: str) -> None:
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        advice = "Store its local or full plain tensor."
    elif value.layout != torch.strided:
        advice = "Store .to_dense(), or its indices and values."
    elif value.is_quantized:
        advice = "Store .int_repr() with its scale and zero point, or .dequantize()."
    elif value.device.type == "meta":
        advice = "A meta tensor has no values: load or initialise the module before it is saved."
    else:
        return
    raise UnstorableError(
        f"{path} is a {type(value).__name__} with dtype {value.dtype}, layout {value.layout} on {value.device}, "
        f"which a checkpoint cannot hold. {advice}"
    )


def _unstorable(value: object, path: str) -> UnstorableError:
    if callable(value):
        advice = "Functions are code, not state: leave it out, and build it again in the script."
    elif hasattr(value, "state_dict"):
        advice = "Store its state_dict()."
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        advice = "Store its _asdict()."
    elif isinstance(value, (dict, list, tuple, str, int, float, set)):
        advice = f"It is a subclass: store the plain {type(value).__mro__[1].__name__}."
    else:
        advice = "Store what it is made of as dict, list, str, numbers and tensors, or its str()."
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return UnstorableError(f"{path} is a {kind} ({value!r:.80}), which a checkpoint cannot hold. {advice}")


def _too_deep(path: str) -> UnstorableError:
    return UnstorableError(
        f"{path:.200} is nested more than {MAX_DEPTH} deep, or contains itself. Store it flat, keyed by name."
    )


def _join(path: str, key: object) -> str:
    if isinstance(key, str):
        return f"{path}.{key}" if _NAME.match(key) else f"{path}[{key!r:.200}]"
    return f"{path}[{key!r:.200}]"


def _integer(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r:.60} where an integer is expected")
    return value


def _sequence(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.60} where a list is expected")
    return value


def _scalar(dtype: np.dtype[Any], data: bytes) -> Any:
    if dtype.itemsize != len(data):
        raise ValueError(f"a scalar {dtype} of {len(data)} bytes")
    return np.frombuffer(data, dtype, count=1)[0] if data else np.zeros(1, dtype)[0]


def _device(name: object) -> torch.device:
    if not isinstance(name, str):
        raise ValueError(f"{name!r:.60} is not a device")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(f"{name!r:.60} is not a device that this torch knows") from None


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"there is no {error.args[0]!r:.60}"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, binascii.Error):
        return f"bytes that are not base64 ({error})"
    return str(error)[:200] or type(error).__name__
