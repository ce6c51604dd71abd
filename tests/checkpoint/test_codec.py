from __future__ import annotations

import contextlib
import enum
import pathlib
import warnings
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relume.checkpoint import Store, decode, encode
from relume.errors import ManifestError, UnstorableError

from .same import same

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

TORCH_DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex32, torch.complex64, torch.complex128,
    torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64,
    torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
]  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(TORCH_DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    content = draw(st.binary(min_size=count, max_size=count))
    if dtype is torch.bool:
        content = bytes(byte & 1 for byte in content)
    flat = torch.tensor(list(content), dtype=torch.uint8).view(dtype)
    tensor = flat.reshape(shape)
    if len(shape) >= 2 and draw(st.booleans()):
        tensor = tensor.transpose(0, 1)
    if len(shape) >= 1 and draw(st.booleans()):
        tensor = tensor[::2]
    return tensor


arrays = hnp.arrays(
    dtype=st.one_of(
        hnp.scalar_dtypes(), hnp.unicode_string_dtypes(max_len=5), hnp.byte_string_dtypes(max_len=5)
    ),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=3),
)  # fmt: skip
keys = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.tuples(st.integers(), st.text()))
plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**300), 2**300), st.floats(), st.complex_numbers(),
    st.text(st.characters()), st.binary(max_size=3000), st.sampled_from([torch.float32, torch.Size([2, 3])]),
    st.sampled_from([torch.device("cpu"), torch.device("cuda:1")]),
)  # fmt: skip
leaves = st.one_of(plain, tensors(), arrays, arrays.map(lambda array: array.reshape(-1)[:1].copy()[0]))


def containers(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    mappings = st.dictionaries(keys, inner, max_size=3)
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(lambda items: deque(items, maxlen=5)),
        mappings,
        st.dictionaries(st.sampled_from(["$", "a", "n"]), inner),
        mappings.map(OrderedDict),
        mappings.map(lambda items: defaultdict(list, items)),
        st.sets(keys, max_size=3),
        st.frozensets(keys, max_size=3),
        st.dictionaries(keys, st.integers(), max_size=3).map(Counter),
    )


states = st.recursive(leaves, containers, max_leaves=8)


@settings(max_examples=400, deadline=None)
@given(state=states)
def test_any_state_comes_back_to_the_last_bit(state: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    assert same(store.load(store.save({"it": state}))["it"], state)


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_every_dtype_in_every_form(dtype: torch.dtype, tmp_path: pathlib.Path) -> None:
    numbers = (torch.arange(24 * dtype.itemsize) % 2).to(torch.uint8).view(dtype).reshape(4, 6)
    state = {
        "whole": numbers,
        "scalar": numbers[1, 1],
        "empty": numbers[:0],
        "transposed": numbers.t(),
        "strided": numbers[:, ::2],
        "expanded": numbers[0].expand(3, 6),
    }
    store = Store(tmp_path)
    assert same(store.load(store.save(state)), state)


def test_conjugated_and_negated_views_come_back_as_what_they_show(tmp_path: pathlib.Path) -> None:
    tensor = torch.randn(3, dtype=torch.complex64)
    store = Store(tmp_path)
    loaded = store.load(store.save({"conj": tensor.conj(), "neg": tensor.conj().imag, "it": tensor}))
    assert same(loaded, {"conj": tensor.conj().resolve_conj(), "neg": -tensor.imag, "it": tensor})


def test_tied_tensors_are_stored_once_and_tied_again(tmp_path: pathlib.Path) -> None:
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 3), "out": torch.nn.Linear(3, 5, bias=False)})
    model["out"].weight = model["embed"].weight
    store = Store(tmp_path)
    checkpoint = store.save(model.state_dict())
    loaded = store.load(checkpoint)
    assert loaded["embed.weight"].data_ptr() == loaded["out.weight"].data_ptr()
    assert store.manifest(checkpoint).total_bytes == 5 * 3 * 4


def test_equal_tensors_that_were_not_tied_have_memory_of_their_own(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    loaded = store.load(store.save({"a": torch.zeros(3), "b": torch.zeros(3)}))
    loaded["a"].add_(1)
    assert loaded["b"].tolist() == [0, 0, 0]


def test_a_parameter_stays_one(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    loaded = store.load(store.save([torch.nn.Parameter(torch.ones(2), requires_grad=False), torch.ones(2)]))
    assert isinstance(loaded[0], torch.nn.Parameter)
    assert not loaded[0].requires_grad
    assert type(loaded[1]) is torch.Tensor


def test_module_metadata_comes_back(tmp_path: pathlib.Path) -> None:
    state = torch.nn.BatchNorm1d(2).state_dict()
    store = Store(tmp_path)
    assert store.load(store.save(state))._metadata == state._metadata


class _Colour(enum.IntEnum):
    RED = 1


class _Words(dict):
    pass


_Pair = namedtuple("_Pair", "a b")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: 1, r"state\.optimizer\.state\[3\]\.hook is a builtins\.function .*Functions are code"),
        (_Colour.RED, "subclass: store the plain"),
        (_Words(), "subclass: store the plain dict"),
        (_Pair(1, 2), r"Store its _asdict\(\)"),
        (pathlib.Path("x"), r"its str\(\)"),
        (torch.nn.Linear(1, 1), r"cannot hold"),
        (torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1), r"Store its state_dict\(\)"),
        (np.array([object()]), "holds Python objects"),
        (np.zeros(2, dtype=[("a", "i4")]), "holds Python objects or fields"),
        (torch.eye(2).to_sparse(), r"\.to_dense\(\)"),
        (torch.empty(2, device="meta"), "A meta tensor has no values"),
        (defaultdict(lambda: 1), "defaultdict whose factory"),
    ],
)
def test_what_cannot_be_stored_is_named_with_its_path(value: object, message: str) -> None:
    with pytest.raises(UnstorableError, match=message) as raised:
        encode({"optimizer": {"state": {3: {"hook": value}}}})
    assert str(raised.value).startswith("state.optimizer.state[3].hook")


def test_a_quantised_tensor_is_refused() -> None:
    with warnings.catch_warnings(action="ignore"):
        tensor = torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)
    with pytest.raises(UnstorableError, match=r"int_repr\(\)"):
        encode([tensor])


def test_a_state_that_contains_itself_is_refused() -> None:
    state: list[object] = []
    state.append(state)
    with pytest.raises(UnstorableError, match="contains itself"):
        encode(state)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KINDS = """data int float complex bytes scalar dtype device Size dict tuple set frozenset deque OrderedDict defaultdict
    Counter __import__ tensor"""
kinds = st.sampled_from(KINDS.split())
nodes = st.fixed_dictionaries(
    {"$": kinds | json_values},
    optional={
        name: json_values | st.sampled_from(["list", "float32", "<f8", "ff", "7ff8000000000000", [[1, 2]]])
        for name in ("n", "hex", "items", "maxlen", "factory", "dtype", "name", "base64", "metadata")
    },
)
trees = st.recursive(json_values | nodes, lambda inner: st.lists(inner, max_size=3) | nodes, max_leaves=6)


@settings(max_examples=600, deadline=None)
@given(tree=trees)
def test_any_json_is_decoded_or_refused_with_our_error(tree: object) -> None:
    with contextlib.suppress(ManifestError):
        decode(tree, lambda place: [torch.zeros(1)][place])


def test_a_tree_nested_without_end_is_refused() -> None:
    tree: object = 1
    for _ in range(100_000):
        tree = [tree]
    with pytest.raises(ManifestError, match="nested"):
        decode(tree, lambda place: None)
