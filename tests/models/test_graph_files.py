"""A graph without its weights: what torch's own module gives, to the last bit, and files that are refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from relume.errors import ConfigurationError, ModelFileError, UnsafeFileError
from relume.models.contents import ModelFile
from relume.models.exported import graph_files, load_graph
from relume.models.exported.parts import CONSTANTS, PROGRAM
from relume.models.exported.saving import exported_program
from relume.models.exported.sizes import ARITHMETIC
from relume.models.tensorfile import read_tensorfile


class Folder:
    """Files in a real folder, as a bundle has them."""

    def __init__(self, path: Path, files: dict[str, bytes]) -> None:
        self.path = path
        (path / "graph").mkdir(exist_ok=True)
        for name, content in files.items():
            (path / name).write_bytes(content)

    def __contains__(self, member: str) -> bool:
        return (self.path / member).is_file()

    def read(self, member: str) -> bytes:
        return (self.path / member).read_bytes()

    def tensors(self, member: str) -> ModelFile:
        return read_tensorfile(self.path / member)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv = nn.Linear(6, 8), nn.Linear(8, 24)
        self.first = nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1)
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        return self.norm(x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width))[
            :, 0
        ]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        out, (hidden, cell) = self.cells(x)
        return {"out": out, "last": [hidden, cell]}


class Tied(nn.Module):
    """Words in, words out by the same table; a buffer of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head, self.drop = nn.Embedding(20, 4), nn.Linear(4, 20, bias=False), nn.Dropout(0.5)
        self.head.weight = self.words.weight
        self.register_buffer("order", torch.arange(5))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.words(ids)) + self.order[:, None])


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, *, more: dict[str, torch.Tensor]) -> Any:
        y = self.layer(x)
        y = y if mask is None else y.masked_fill(mask, float("-inf")).sigmoid()
        return y, {"sum": y.sum(0), "product": more["a"] * more["b"]}, torch.topk(y, 2)[1]


class Arithmetic(nn.Module):
    """With the batch; a count that goes up; a tensor that no state_dict has."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.layer, self.shift = nn.Linear(4, 4), torch.randn(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch = x.shape[0]
        rows = torch.arange(batch * 2, device=x.device)
        self.count.add_(1)
        with torch.no_grad():
            y = self.layer(x).repeat(2, 1) / (batch + 1) + rows[:, None] + self.shift
        return y.reshape(batch * 8 // 2, -1) + self.count


def convolutions() -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(), *head)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
    "convolutions": (convolutions, lambda batch: torch.rand(batch, 1, 8, 8)),
    "attention": (Attention, lambda batch: torch.rand(batch, 4, 6)),
    "recurrent": (Recurrent, lambda batch: torch.rand(batch, 3, 3)),
    "tied": (Tied, lambda batch: torch.randint(0, 20, (batch, 5))),
    "by name": (
        ByName,
        lambda batch: {
            "x": torch.rand(batch, 4), "mask": torch.rand(batch, 4) > 0.5,
            "more": {"a": torch.rand(batch), "b": torch.rand(batch)},
        },
    ),
    "arithmetic": (Arithmetic, lambda batch: torch.rand(batch, 4)),
}  # fmt: skip


def called(model: nn.Module, inputs: Any) -> Any:
    with torch.no_grad():
        return model(**inputs) if isinstance(inputs, dict) else model(inputs)


@pytest.fixture
def small(tmp_path: Path) -> tuple[Folder, nn.Module]:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    return Folder(tmp_path, graph_files(model, torch.rand(2, 4))), model


def changed(folder: Folder, change: Callable[[Any], Any]) -> Folder:
    document = json.loads(folder.read(PROGRAM))
    change(document["program"])
    return Folder(folder.path, {PROGRAM: json.dumps(document).encode()})


@pytest.mark.parametrize("name", MODELS)
def test_the_result_is_that_of_torch_to_the_last_bit(name: str, tmp_path: Path) -> None:
    make, inputs = MODELS[name]
    model = make().eval()
    program = exported_program(model, inputs(2)).module()
    loaded = load_graph(Folder(tmp_path, graph_files(model, inputs(2))), copy.deepcopy(model.state_dict()))
    for batch in (1, 2, 7):
        given = inputs(batch)
        ours, theirs = called(loaded, given), called(program, given)
        tree = torch.utils._pytree
        assert tree.tree_structure(ours) == tree.tree_structure(theirs)
        pairs = zip(tree.tree_leaves(ours), tree.tree_leaves(theirs), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    assert list(dict(loaded.named_parameters())) == list(dict(model.named_parameters()))
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_a_real_network_and_its_weights(tmp_path: Path) -> None:
    efficientnet = pytest.importorskip("efficientnet_lite_pytorch")
    model = efficientnet.EfficientNet.from_name("efficientnet-lite0").eval()
    files = graph_files(model, torch.rand(2, 3, 32, 32))
    loaded = load_graph(Folder(tmp_path, files), model.state_dict())
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(called(loaded, images), called(model, images))
    weights = sum(value.nbytes for value in model.state_dict().values())
    assert sum(map(len, files.values())) < 0.01 * weights


def test_the_weights_are_not_in_it_and_not_copied(small: tuple[Folder, nn.Module]) -> None:
    folder, model = small
    state = model.state_dict()
    loaded = load_graph(folder, state)
    assert CONSTANTS not in folder
    assert loaded.state_dict()["0.weight"].data_ptr() == state["0.weight"].data_ptr()


def test_tied_weights_are_one_parameter_again(tmp_path: Path) -> None:
    model = Tied().eval()
    loaded = load_graph(Folder(tmp_path, graph_files(model, torch.zeros(2, 5, dtype=torch.long))), model.state_dict())
    assert loaded.get_submodule("head").weight is loaded.get_submodule("words").weight
    assert len(list(loaded.parameters())) == 1


def test_the_same_model_gives_the_same_bytes_and_tells_no_places(tmp_path: Path) -> None:
    first, second = (graph_files(Arithmetic().eval(), torch.rand(2, 4)) for _ in range(2))
    assert first[PROGRAM] == second[PROGRAM]
    for secret in (str(Path.home()), str(Path.cwd()), __file__, "test_graph_files", "forward"):
        assert secret.encode() not in first[PROGRAM].replace(b"forward_arg_names", b"")


def test_a_graph_of_torch_2_14_is_read_by_every_torch() -> None:
    """The file is from relume 0.1 with torch 2.14: ``relu(x W' + b) * batch``."""
    text = (Path(__file__).parent / "graphs" / "torch_2_14.json").read_bytes()

    class One:
        def __contains__(self, member: str) -> bool:
            return False

        def read(self, member: str) -> bytes:
            return text

        def tensors(self, member: str) -> ModelFile:
            raise AssertionError(member)

    state = {"layer.weight": torch.arange(12.0).reshape(3, 4) - 6, "layer.bias": torch.ones(3)}
    loaded = load_graph(One(), state)
    for batch in (1, 2, 7):
        x = torch.rand(batch, 4)
        expected = F.linear(x, state["layer.weight"], state["layer.bias"]).relu() * batch
        assert torch.equal(loaded(x), expected)


def test_a_graph_trains_nothing_and_says_what_to_do(small: tuple[Folder, nn.Module]) -> None:
    folder, model = small
    loaded = load_graph(folder, model.state_dict())
    assert loaded.eval() is loaded
    with pytest.raises(ConfigurationError, match="has no training mode"):
        loaded.train()


def test_a_loaded_graph_is_copied_and_changed_like_a_model(small: tuple[Folder, nn.Module]) -> None:
    folder, model = small
    loaded = load_graph(folder, model.state_dict())
    other = copy.deepcopy(loaded)
    other.load_state_dict({name: torch.zeros_like(value) for name, value in model.state_dict().items()})
    assert other(torch.ones(2, 4)).sum() == 0
    assert torch.equal(loaded.double()(torch.ones(2, 4).double()), model.double()(torch.ones(2, 4).double()))


CALLS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "shape": (lambda model: model(torch.rand(2, 5)), r"is a tensor of shape \(2, 5\), and the graph takes a tensor of shape \(n, 4\)"),
    "dimensions": (lambda model: model(torch.rand(4)), r"is a tensor of shape \(4,\)"),
    "text": (lambda model: model("x"), "is 'x', and the graph takes a tensor"),
    "none": (lambda model: model(), r"takes 1 by position.*was given 0 by position"),
    "two": (lambda model: model(torch.rand(2, 4), torch.rand(2, 4)), "was given 2 by position"),
    "name": (lambda model: model(torch.rand(2, 4), other=1), "was given 1 by position and other"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_what_it_was_not_made_for_is_said(name: str, small: tuple[Folder, nn.Module]) -> None:
    folder, model = small
    call, message = CALLS[name]
    with pytest.raises(ConfigurationError, match=message):
        call(load_graph(folder, model.state_dict()))


def _graph(program: Any) -> Any:
    return program["graph_module"]["graph"]


def _planted(target: str) -> Callable[[Any], Any]:
    return lambda program: _graph(program)["nodes"][0].update(target=target)


BROKEN: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "operator": (_planted("torch.hub.load"), UnsafeFileError, "it is no operator that computes with tensors. Nothing of"),
    "file": (_planted("torch.ops.aten.from_file.default"), UnsafeFileError, "does more than to compute"),
    "alias": (_planted("torch.ops.aten._reshape_alias.default"), UnsafeFileError, "does more than to compute"),
    "sparse": (_planted("torch.ops.aten.to_sparse.default"), UnsafeFileError, "does not check where its tensors end"),
    "segments": (_planted("torch.ops.aten.segment_reduce.default"), UnsafeFileError, "does more than to compute"),
    "gradient": (
        _planted("torch.ops.aten.max_pool2d_with_indices_backward.default"), UnsafeFileError, "does not check where its tensors end",
    ),
    "layout": (
        lambda program: _graph(program)["nodes"][0]["inputs"].append({"name": "layout", "arg": {"as_layout": 1}, "kind": 2}),
        UnsafeFileError, "Argument.as_layout is 1, which it cannot be",
    ),
    "missing": (_planted("torch.ops.aten.relu.twice"), ModelFileError, "has no such operator as its graph needs: aten.relu.twice"),
    "value": (
        lambda program: _graph(program)["outputs"][0].update(as_tensor={"name": "nowhere"}), ModelFileError, "'nowhere', which nothing gives",
    ),
    "field": (lambda program: _graph(program).update(loops=[1]), ModelFileError, "a field 'loops', which is not known"),
    "signature": (
        lambda program: program["graph_module"]["signature"]["input_specs"].pop(), ModelFileError, "is of another graph",
    ),
    "version": (lambda program: program["schema_version"].update(major=9), ModelFileError, "schema version .* reads 8"),
    "tensor": (
        lambda program: program["graph_module"]["signature"]["input_specs"][0]["parameter"].update(parameter_name="other"),
        ModelFileError, "uses 'other', and there is no such tensor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_graph_that_is_not_as_it_was_written(name: str, small: tuple[Folder, nn.Module]) -> None:
    folder, model = small
    change, error, message = BROKEN[name]
    with pytest.raises(error, match=message):
        load_graph(changed(folder, change), model.state_dict())


def test_a_batch_norm_does_not_read_beyond_its_statistics(tmp_path: Path) -> None:
    """Only torch's layer compares their lengths; the operator below it takes what lies behind them in memory."""
    model = nn.Sequential(nn.BatchNorm2d(4)).eval()
    folder = Folder(tmp_path, graph_files(model, torch.rand(2, 4, 3, 3)))

    def lower(program: Any) -> None:
        [node] = _graph(program)["nodes"]
        node["target"] = "torch.ops.aten._native_batch_norm_legit_no_training.default"
        node["inputs"] = [one for one in node["inputs"] if one["name"] not in ("training", "cudnn_enabled")]

    short = {**model.state_dict(), "0.running_mean": torch.zeros(1)}
    with pytest.raises(
        RuntimeError, match=r"a batch norm of the graph takes 1 numbers for an input of shape \(2, 4, 3, 3\)"
    ):
        load_graph(changed(folder, lower), short)(torch.rand(2, 4, 3, 3))


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"format": 2}', b'{"format": 1, "format": 1}'])
def test_files_that_are_no_graph(content: bytes, small: tuple[Folder, nn.Module]) -> None:
    folder, model = small
    with pytest.raises(ModelFileError, match=r"graph/program.json is (no JSON|not of a form)"):
        load_graph(Folder(folder.path, {PROGRAM: content}), model.state_dict())


def test_arithmetic_ends_where_no_size_is() -> None:
    assert ARITHMETIC["_operator.pow"](2, 10) == 1024
    with pytest.raises(OverflowError, match="exponent 99999999 of a size"):
        ARITHMETIC["_operator.pow"](9, 99999999)
    with pytest.raises(OverflowError, match="a size of more than"):
        ARITHMETIC["_operator.mul"](1 << 62, 1 << 62)
    with pytest.raises(OverflowError, match="exponent"):
        ARITHMETIC["_operator.lshift"](1, 1 << 40)
