"""Files of torch.save and torch.jit.save: everything in them comes out as it was, and nothing of them runs."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import io
import pickle
import sys
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from relume.checkpoint.restore import without_values
from relume.errors import ClassicFileError, ModelFileError
from relume.models.pickles import Inert, is_torch_file, module_tree, read_torch, state_dict_in, walk

FORMS = [(zipped, protocol) for zipped in (True, False) for protocol in (2, 3, 4, 5)]
SMALL = [(True, 2), (False, 2), (True, 5), (False, 4)]

pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")


def saved(content: Any, path: Path, zipped: bool = True, protocol: int = 2) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of protocols that its own reader does not know
        torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """To the bit, whatever the dtype."""
    if (one.shape, one.dtype, one.stride()) != (other.shape, other.dtype, other.stride()):
        return False
    one, other = (value.detach().resolve_conj().resolve_neg().contiguous().flatten() for value in (one, other))
    return not one.numel() or torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def dtypes() -> list[torch.dtype]:
    """Those of which this torch can make and save a tensor."""
    found = []
    for dtype in sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of dtypes that are experimental
                torch.save(torch.zeros(16, dtype=torch.uint8).view(dtype), io.BytesIO())
        except (RuntimeError, TypeError, KeyError):
            continue
        if not str(dtype).removeprefix("torch.").startswith(("qint", "quint", "bits")):
            found.append(dtype)
    return found


@pytest.mark.parametrize("dtype", dtypes(), ids=str)
def test_every_dtype_comes_back_to_the_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    raw = torch.randint(0, 256, (4 * 16,), dtype=torch.uint8)
    tensor = (raw % 2).view(torch.bool) if dtype is torch.bool else raw.view(dtype)
    content = {"a": tensor, "b": tensor[1:3], "empty": tensor[:0], "one": tensor[3]}
    for zipped, protocol in SMALL:
        state = read_torch(saved(content, tmp_path / "a.pt", zipped, protocol)).state
        assert list(state) == list(content)
        assert all(same(state[name], value) for name, value in content.items())
        assert state["a"].untyped_storage().data_ptr() == state["b"].untyped_storage().data_ptr()


@pytest.mark.parametrize(("zipped", "protocol"), FORMS)
def test_a_state_dict_comes_back_with_its_versions(zipped: bool, protocol: int, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    expected = model.state_dict()
    file = read_torch(saved(expected, tmp_path / "a.pt", zipped, protocol))
    assert file.format == ("torch" if zipped else "torch legacy")
    assert list(file.state) == list(expected) and all(map(same, file.state.values(), expected.values()))
    assert file.state._metadata == expected._metadata  # type: ignore[attr-defined]
    assert not file.callables and not file.suspicious
    assert file.size_bytes == (tmp_path / "a.pt").stat().st_size


def _torchvision(name: str) -> nn.Module:
    """A model with new weights; VGG with a smaller head, whose own has 120 million."""
    with without_values():
        model = torchvision.models.get_model(name, weights=None)
        if name.startswith("vgg"):
            model.classifier = nn.Sequential(nn.Linear(512, 10))
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.copy_(torch.arange(value.numel()).reshape(value.shape) % 1001)
    return model


@pytest.mark.parametrize(("zipped", "protocol"), SMALL)
@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenet_v3_small", "squeezenet1_0"])
def test_whole_models_of_torchvision_give_their_state_dict(
    name: str, zipped: bool, protocol: int, tmp_path: Path
) -> None:
    model = _torchvision(name)
    file = read_torch(saved(model, tmp_path / "whole.pt", zipped, protocol))
    expected = model.state_dict()
    assert list(file.state) == list(expected)
    assert all(map(same, file.state.values(), expected.values()))
    assert not file.suspicious
    tree = module_tree(file.content)
    assert [path for path, _, _ in tree] == [path for path, _ in model.named_modules(remove_duplicate=False)]
    for (_, class_name, shapes), (_, module) in zip(tree, model.named_modules(remove_duplicate=False), strict=True):
        assert class_name == f"{type(module).__module__}.{type(module).__qualname__}"
        assert shapes == {name: tuple(value.shape) for name, value in module.named_parameters(recurse=False)}


class Hidden(nn.Module):
    """Its buffer is not in its state_dict."""

    class Inner(nn.Linear):
        """Protocols before 4 write it by getattr."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = self.Inner(2, 2)
        self.tied = self.inner
        self.free = nn.Parameter(torch.ones(3))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.register_buffer("seen", torch.zeros(2))
        self.register_parameter("none", None)
        self.chosen = self.forward
        self.activation = torch.nn.functional.relu
        self.partial = functools.partial(torch.add, alpha=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(("zipped", "protocol"), FORMS)
def test_a_model_gives_what_its_state_dict_gave(zipped: bool, protocol: int, tmp_path: Path) -> None:
    model = nn.DataParallel(Hidden())
    file = read_torch(saved(model, tmp_path / "a.pt", zipped, protocol))
    assert list(file.state) == list(model.state_dict()) and "module.hidden" not in file.state
    assert file.state["module.tied.weight"].data_ptr() == file.state["module.inner.weight"].data_ptr()
    assert not any(value.requires_grad for value in file.state.values())
    assert not file.suspicious, file.suspicious
    assert file.callables[f"{__name__}.Hidden.Inner"] == 1


@pytest.mark.parametrize(("zipped", "protocol"), FORMS)
def test_a_class_that_is_gone_is_no_obstacle(
    zipped: bool, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("gone_for_good")
    source = "import torch\nclass Net(torch.nn.Linear):\n    pass\nclass Note:\n    __slots__ = ('text',)\n"
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "gone_for_good", module)
    net, note = module.Net(2, 3), module.Note()
    note.text = "kept"
    saved({"net": net, "note": note}, tmp_path / "a.pt", zipped, protocol)
    monkeypatch.delitem(sys.modules, "gone_for_good")
    file = read_torch(tmp_path / "a.pt")
    assert "gone_for_good" not in sys.modules
    assert list(file.state) == ["weight", "bias"] and same(file.state["weight"], net.weight)
    assert module_tree(file.content) == [("", "gone_for_good.Net", {"weight": (3, 2), "bias": (3,)})]
    assert file.content["note"].attributes == {"text": "kept"}
    assert file.callables == {"gone_for_good.Net": 1, "gone_for_good.Note": 1}


@pytest.mark.parametrize(("zipped", "protocol"), FORMS)
def test_tied_tensors_share_memory_and_requires_grad_stays(zipped: bool, protocol: int, tmp_path: Path) -> None:
    weight = torch.arange(12.0).reshape(3, 4).requires_grad_()
    parameter = nn.Parameter(torch.ones(2))
    content = {"a": weight, "b": weight.T, "c": weight[1], "p": parameter, "q": parameter}
    content |= {"conj": torch.ones(2, dtype=torch.complex64).mul(1j).conj(), "expanded": torch.ones(1).expand(2, 3)}
    read = read_torch(saved(content, tmp_path / "a.pt", zipped, protocol)).content
    assert read["a"].requires_grad and not read["conj"].requires_grad
    assert isinstance(read["p"], nn.Parameter) and read["p"] is read["q"]
    assert all(same(read[name], value) for name, value in content.items())
    assert len({read[name].untyped_storage().data_ptr() for name in "abc"}) == 1
    with torch.no_grad():
        read["a"][1, 0] = 100
    assert read["c"][0] == 100 == read["b"][0, 1]
    assert read_torch(tmp_path / "a.pt").content["c"][0] == 4  # the file is as it was


class Colour(enum.Enum):
    RED = 1


class Basket(dict[str, Any]):
    """A dictionary of a class of its own."""


class Shelf(list[Any]):
    """A list of a class of its own."""


class Point(tuple[Any, ...]):
    """A tuple of a class of its own."""


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_python_comes_back_as_it_was(protocol: int, tmp_path: Path) -> None:
    content = {
        "numbers": [0, -1, 255, 256, 65536, -(2**31), 2**70, 1.5, float("inf"), 1 + 2j, True, None, ...],
        "texts": ["", "ä€😀", "\ud800", b"", b"\x00\xff" * 200, bytearray(b"abc"), "x" * 300],
        "containers": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {1, "a"}, frozenset({(1, "b")}), [[]], {}],
        "slices": [slice(1, None, 2), range(1, 9, 2)],
        "keys": {1: 1, 1.5: 2, None: 3, False: 4, b"b": 5, (1, "a", None): 6},
        "ordered": collections.OrderedDict([("z", 1), ("a", 2)]),
        "counter": collections.Counter("abca"),
        "default": collections.defaultdict(list, {"a": [1]}),
        "torch": [torch.Size([2, 3]), torch.device("cuda", 1), torch.float8_e4m3fn, torch.strided, torch.half],
        "namespace": argparse.Namespace(lr=0.1, layers=[1, 2]),
        "simple": types.SimpleNamespace(a=1),
        "none": type(None),
    }
    saved(content, tmp_path / "a.pt", True, protocol)
    read = read_torch(tmp_path / "a.pt").content
    for name, value in content.items():
        if name in ("namespace", "simple"):
            assert read[name] == vars(value)
        elif name == "none":
            assert isinstance(read[name], Inert)
        else:
            assert read[name] == value and type(read[name]) is type(value), name
            assert [type(item) for item in read[name]] == [type(item) for item in value]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_objects_become_data(protocol: int, tmp_path: Path) -> None:
    shared = Basket(a=1)
    content = {
        "colour": Colour.RED,
        "basket": shared,
        "again": shared,
        "shelf": Shelf([1, 2]),
        "point": Point((1, 2)),
        "date": datetime.date(2020, 1, 2),
        "path": Path("a/b"),
        "class": nn.Linear,
        "function": torch.nn.functional.relu,
        "error": ValueError("x"),
    }
    file = read_torch(saved(content, tmp_path / "a.pt", True, protocol))
    read = file.content
    assert all(isinstance(value, Inert) for value in read.values()) and not file.suspicious
    assert read["basket"] is read["again"] and read["basket"].pairs == [("a", 1)]
    assert read["shelf"].items == [1, 2]
    assert read["colour"].class_name == f"{__name__}.Colour" and read["colour"].arguments == (1,)
    assert read["class"].is_reference and read["class"].class_name == "torch.nn.modules.linear.Linear"
    assert not read["date"].is_reference and repr(read["date"]) == "<datetime.date>"
    assert file.state == {}


KINDS = ("?", "i1", "u2", "<i4", ">i8", "f2", "<f4", ">f8", "c8", "S3", "U2")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_numpy_come_back(kind: str, protocol: int, tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3).astype(kind)
    content = {"c": array, "f": np.asfortranarray(array), "again": array, "empty": array[:0], "zero": array[0, 0]}
    saved(content, tmp_path / "a.pt", True, protocol)
    read = read_torch(tmp_path / "a.pt").content
    for name in ("c", "f", "empty"):
        assert read[name].dtype == content[name].dtype and np.array_equal(read[name], content[name])
    assert read["again"] is read["c"] and read["zero"] == array[0, 0] and not isinstance(read["zero"], np.generic)


def test_arrays_of_objects_and_fields_stay_inert(tmp_path: Path) -> None:
    content = [
        np.array([{}], dtype=object),
        np.zeros(2, dtype=[("a", "f4")]),
        np.datetime64("2020-01-01"),
        np.dtype("f4"),
    ]
    read = read_torch(saved(content, tmp_path / "a.pt")).content
    assert all(isinstance(value, Inert) for value in read)


def test_sparse_meta_and_quantized_tensors(tmp_path: Path) -> None:
    coo = torch.tensor([[0.0, 1], [2, 0]]).to_sparse()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        csr = torch.tensor([[0.0, 1], [2, 0]]).to_sparse_csr()
        quantized = torch.quantize_per_tensor(torch.tensor([1.0, 2.0]), 0.5, 3, torch.qint8)
    content = {"coo": coo, "csr": csr, "meta": torch.empty(2, 3, device="meta")}
    for zipped in (True, False):
        saved({**content, "q": quantized}, tmp_path / "a.pt", zipped)
        read = read_torch(tmp_path / "a.pt").content
        assert torch.equal(read["coo"].to_dense(), coo.to_dense()) and torch.equal(
            read["csr"].to_dense(), csr.to_dense()
        )
        assert read["meta"].is_meta and read["meta"].shape == (2, 3)
        assert read["q"].class_name == "torch._utils._rebuild_qtensor"
        assert torch.equal(read["q"].arguments[0], quantized.int_repr())


class Marked(torch.Tensor):
    """A subclass of a tensor."""


def test_tensors_of_a_subclass_come_as_plain_ones(tmp_path: Path) -> None:
    marked = torch.ones(3).as_subclass(Marked)
    marked.note = "odd"  # type: ignore[attr-defined]
    parameter = nn.Parameter(torch.ones(2))
    parameter.tag = "x"  # type: ignore[attr-defined]
    read = read_torch(saved({"a": marked, "p": parameter}, tmp_path / "a.pt")).content
    assert type(read["a"]) is torch.Tensor and torch.equal(read["a"], torch.ones(3))
    assert isinstance(read["p"], nn.Parameter)


def test_storages_within_a_pickle_within_a_file(tmp_path: Path) -> None:
    class Odd:
        def __reduce__(self) -> Any:
            storage = torch.arange(4.0).untyped_storage()
            return torch._utils._rebuild_tensor_v2, (_Pickled(storage), 0, (4,), (1,), False, {})

    class _Pickled:
        def __init__(self, storage: Any) -> None:
            self.storage = storage

        def __reduce__(self) -> Any:
            return torch.arange(4.0)._typed_storage().__reduce__()

    read = read_torch(saved({"a": Odd()}, tmp_path / "a.pt")).state
    assert torch.equal(read["a"], torch.arange(4.0))


@pytest.mark.parametrize("name", ["a.pt", "legacy.pt"])
def test_the_byte_order_of_another_machine(name: str, tmp_path: Path) -> None:
    values = {
        "f": torch.arange(3.0),
        "i": torch.arange(3),
        "c": torch.tensor([1 + 2j]),
        "b": torch.ones(2, dtype=torch.bool),
    }
    swapped = {key: _swapped(value) for key, value in values.items()}
    saved(swapped, tmp_path / name, name == "a.pt")
    data = (tmp_path / name).read_bytes()
    if name == "a.pt":
        data = _with_entry(tmp_path / name, "byteorder", b"big")
    else:
        at = data.index(b"little_endian")
        data = data[:at] + data[at:].replace(b"\x88", b"\x89", 1)
    (tmp_path / name).write_bytes(data)
    state = read_torch(tmp_path / name).state
    assert all(same(state[key], value) for key, value in values.items())


def _swapped(value: torch.Tensor) -> torch.Tensor:
    array = value.numpy()
    return torch.from_numpy(array.byteswap())


def _with_entry(path: Path, name: str, content: bytes) -> bytes:
    """The zip file with an entry's content replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, content if info.filename.endswith(f"/{name}") else old.read(info))
    return out.getvalue()


def test_a_zip_file_made_anew_is_read_too(tmp_path: Path) -> None:
    """Its tensors are not aligned, so that they are copied."""
    saved({"a": torch.arange(3.0), "b": torch.ones(5, dtype=torch.complex128)}, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(_with_entry(tmp_path / "a.pt", "none", b""))
    state = read_torch(tmp_path / "a.pt").state
    assert same(state["a"], torch.arange(3.0)) and same(state["b"], torch.ones(5, dtype=torch.complex128))
    assert all(value.data_ptr() % value.element_size() == 0 for value in state.values())


def test_a_traced_model_of_fx_gives_its_weights(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    file = read_torch(saved(torch.fx.symbolic_trace(model), tmp_path / "a.pt"))
    assert list(file.state) == list(model.state_dict())
    assert module_tree(file.content)[0][1] == "torch.fx.graph_module.GraphModule"
    assert file.callables["torch.fx.graph_module.reduce_graph_module"] == 1


@pytest.mark.pt2
def test_other_archives_of_torch_are_named(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(2, 1), (torch.ones(1, 2),)), tmp_path / "a.pt2")
    assert not is_torch_file(tmp_path / "a.pt2")
    with pytest.raises(ModelFileError, match=r"is an archive of torch.export \(.pt2\)"):
        read_torch(tmp_path / "a.pt2")
    with zipfile.ZipFile(tmp_path / "old.pt", "w") as file:
        file.writestr("old/model.json", "{}")
    with pytest.raises(ModelFileError, match="TorchScript archive of PyTorch 1.0"):
        read_torch(tmp_path / "old.pt")


# --------------------------------------------------------------------------------------------------------- TorchScript


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.tied = nn.Linear(2, 2)
        self.again = self.tied
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("offset", torch.zeros(1))
        self.loose = torch.full((2,), 7.0)
        self.sizes = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * self.scale + self.offset + self.loose.sum() + len(self.sizes)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_gives_weights_and_modules(tmp_path: Path) -> None:
    model = torch.jit.script(Scripted())
    torch.jit.save(model, tmp_path / "a.pt")
    file = read_torch(tmp_path / "a.pt")
    expected = model.state_dict()
    assert file.format == "torchscript" and sorted(file.state) == sorted(expected)
    assert all(same(file.state[name], value) for name, value in expected.items())
    assert file.state["tied.weight"].data_ptr() == file.state["again.weight"].data_ptr()
    assert any(name.startswith("TorchScript code/") for name in file.callables) and not file.suspicious
    tree = {path: (class_name, shapes) for path, class_name, shapes in module_tree(file.content)}
    assert tree["layers.0"] == ("torch.nn.modules.conv.Conv2d", {"weight": (2, 1, 3, 3), "bias": (2,)})
    assert tree[""][0].endswith("Scripted")
    assert torch.equal(file.content.attributes["loose"], torch.full((2,), 7.0))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_traced_and_frozen_models_give_their_tensors(tmp_path: Path) -> None:
    model = Scripted().eval()
    traced = torch.jit.trace(model, torch.zeros(1, 1, 4, 4))
    torch.jit.save(traced, tmp_path / "a.pt")
    file = read_torch(tmp_path / "a.pt")
    assert sorted(file.state) == sorted(traced.state_dict())
    frozen = torch.jit.freeze(torch.jit.script(model))
    torch.jit.save(frozen, tmp_path / "b.pt")
    file = read_torch(tmp_path / "b.pt")
    assert file.state and all(name.startswith("CONSTANTS.c") for name in file.state)
    assert any(value.shape == (2, 1, 3, 3) for value in file.state.values())


# -------------------------------------------------------------------------------------------------------- what is where


def test_state_dict_in_finds_weights_wherever_they_are(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    state = model.state_dict()
    for content in (
        state,
        dict(state),
        model,
        {"model": model, "epoch": 1},
        {"state_dict": state, "optimizer": {}},
        {"net": Basket(state)},
        {"params_ema": state},
    ):
        found = state_dict_in(read_torch(saved(content, tmp_path / "a.pt")).content)
        assert list(found) == ["weight", "bias"] and same(found["weight"], model.weight.detach())
    assert state_dict_in(read_torch(saved(nn.ReLU().state_dict(), tmp_path / "a.pt")).content) == {}
    assert list(state_dict_in({"alpha": torch.tensor(1.0)})) == ["alpha"]
    both = {"generator": state, "critic": model.state_dict()}
    file = read_torch(saved(both, tmp_path / "a.pt"))
    assert file.state == {} and list(state_dict_in(file.content, model="critic")) == ["weight", "bias"]
    with pytest.raises(
        ClassicFileError, match=r"holds several models: generator, critic; choose with model= \(--model\)"
    ):
        state_dict_in(file.content, path="gan.pt")
    with pytest.raises(ClassicFileError, match="has no model 'citric': did you mean 'critic'"):
        state_dict_in(file.content, model="citric")
    with pytest.raises(
        ClassicFileError, match="has no state_dict of a model in it: it holds a dictionary with 'a', 'b'"
    ):
        state_dict_in({"a": 1, "b": "x"})


def test_walking_meets_everything_once(tmp_path: Path) -> None:
    shared = [1]
    itself: dict[str, Any] = {"shared": shared, "again": shared}
    itself["itself"] = itself
    content = read_torch(saved(itself, tmp_path / "a.pt")).content
    assert content["itself"] is content
    assert [".".join(path) for path, _ in walk(content)] == ["", "shared", "shared.0"]


def test_large_vocabularies_are_read(tmp_path: Path) -> None:
    content = {"words": {f"w{number}": number for number in range(200_000)}, "seen": set(range(200_000))}
    for protocol in (2, 4):
        assert read_torch(saved(content, tmp_path / "a.pt", protocol=protocol)).content == content


def test_which_files_are_torchs(tmp_path: Path) -> None:
    assert is_torch_file(saved({}, tmp_path / "a.pt")) and is_torch_file(saved({}, tmp_path / "b.pt", False))
    np.savez(tmp_path / "c.npz", a=np.ones(2))
    (tmp_path / "d.pt").write_bytes(b"hello")
    (tmp_path / "e.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert not any(is_torch_file(tmp_path / name) for name in ("c.npz", "d.pt", "e.pkl"))
    (tmp_path / "f.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:100])
    assert is_torch_file(tmp_path / "f.pt")
    with pytest.raises(ModelFileError, match="there is no file"):
        is_torch_file(tmp_path / "no.pt")
    with pytest.raises(ModelFileError, match=r"c.npz is a zip archive, and not one of torch: it holds a.npy"):
        read_torch(tmp_path / "c.npz")
    (tmp_path / "g.pt").write_bytes(b"\0" * 257 + b"ustar" + b"\0" * 300)
    assert is_torch_file(tmp_path / "g.pt")
    with pytest.raises(ModelFileError, match="is a tar archive, which torch.save wrote before"):
        read_torch(tmp_path / "g.pt")


def test_tensors_are_mapped_and_not_read(tmp_path: Path) -> None:
    """Opening touches the pickle and the directory only: the data may be a hole of any size."""
    with torch.serialization.skip_data():
        saved(
            {"a": torch.empty(2**31, dtype=torch.uint8), "b": torch.empty(2**31 + 2**20, dtype=torch.uint8)},
            tmp_path / "a.pt",
        )
    assert (tmp_path / "a.pt").stat().st_blocks * 512 < 2**24
    state = read_torch(tmp_path / "a.pt").state
    state["b"][-1] = 3
    assert state["b"][-1] == 3 and state["a"][123456789] == 0
    assert read_torch(tmp_path / "a.pt").state["b"][-1] == 0


def test_verify_finds_a_flipped_bit_in_a_tensor(tmp_path: Path) -> None:
    path = saved({"a": torch.zeros(100_000)}, tmp_path / "a.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert read_torch(path).state["a"].count_nonzero() == 1
    with pytest.raises(ModelFileError, match=r"the checksums of .*/data/0 differ"):
        read_torch(path, verify=True)


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        saved({"a": torch.ones(3)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_torch(tmp_path / "a.pt", verify=True).state["a"].tolist() == [1, 1, 1]
