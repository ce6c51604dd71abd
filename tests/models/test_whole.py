"""Whole models, saved and loaded: the same class, the same bits, the same outputs."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from relume.errors import ConfigurationError, RecipeError, RelumeWarning
from relume.models import CNN, MLP
from relume.models.recipe import build
from relume.models.whole import load_model, save_model

TIMM = ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224", "tf_efficientnet_lite0"]


class Mixed(nn.Module):
    """Tensors of odd dtypes, tied weights, a frozen part, and a buffer that is computed and not saved."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Embedding(width, width)
        self.decoder = nn.Linear(width, width, bias=False)
        self.decoder.weight = self.encoder.weight
        self.phase = nn.Parameter(torch.randn(width, dtype=torch.complex64))
        self.register_buffer("codes", torch.randn(width).to(torch.float8_e4m3fn))
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("table", torch.arange(width).float().sqrt(), persistent=False)
        self.places = [torch.arange(width)]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(tokens) * self.table + self.places[0] + self.codes.float()
        out: torch.Tensor = self.decoder(hidden * self.phase.abs())
        return out


def bits(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (value.dtype, value.shape, value.flatten().contiguous().view(torch.uint8).tolist())
        for name, value in state.items()
    }


def same(ours: nn.Module, theirs: nn.Module, *inputs: torch.Tensor) -> None:
    assert type(ours) is type(theirs)
    assert str(ours) == str(theirs)
    first, second = ours.state_dict(), theirs.state_dict()
    assert list(first) == list(second)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))
    assert [p.requires_grad for p in ours.parameters()] == [p.requires_grad for p in theirs.parameters()]
    assert [m.training for m in ours.modules()] == [m.training for m in theirs.modules()]
    with torch.no_grad():
        assert torch.equal(ours.eval()(*inputs), theirs.eval()(*inputs))


def image(size: int = 224) -> torch.Tensor:
    return torch.randn(1, 3, size, size)


@pytest.mark.parametrize("name", ["resnet18", "swin_t", "googlenet", pytest.param("vgg16", marks=pytest.mark.long)])
def test_models_of_torchvision_come_back(name: str, tmp_path: Path) -> None:
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    model = build(getattr(torchvision.models, name), **options)
    same(model, load_model(save_model(model, tmp_path / "a.safetensors")), image(64))


@pytest.mark.parametrize("name", TIMM)
def test_models_of_timm_come_back(name: str, tmp_path: Path) -> None:
    model = build(timm.create_model, name, pretrained=False, num_classes=5)
    same(model, load_model(save_model(model, tmp_path / "a.safetensors")), image())


def test_transformers_of_torch_come_back(tmp_path: Path) -> None:
    layer = build(nn.TransformerEncoderLayer, 16, 2, 32, batch_first=True, activation="gelu")
    encoder = build(nn.TransformerEncoder, layer, 2, norm=nn.LayerNorm(16), enable_nested_tensor=False)
    same(encoder, load_model(save_model(encoder, tmp_path / "a.safetensors")), torch.randn(2, 5, 16))
    both = build(nn.Transformer, 16, 2, 1, 1, 32, batch_first=True)
    same(both, load_model(save_model(both, tmp_path / "b.safetensors")), torch.randn(2, 5, 16), torch.randn(2, 3, 16))


def test_odd_dtypes_ties_frozen_parts_and_modes_come_back(tmp_path: Path) -> None:
    model = build(Mixed, width=5)
    model.phase.requires_grad_(False)
    model.decoder.eval()
    loaded = load_model(save_model(model, tmp_path / "a.safetensors"))
    assert bits(model.state_dict()) == bits(loaded.state_dict())
    assert loaded.decoder.weight is loaded.encoder.weight
    assert [p.requires_grad for p in loaded.parameters()] == [False, True]
    assert (loaded.training, loaded.decoder.training) == (True, False)
    assert torch.equal(loaded.table, model.table)
    same(model, loaded, torch.tensor([0, 4, 1]))


def test_ties_that_were_made_later_come_back(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    loaded = load_model(save_model(model, tmp_path / "a.safetensors"))
    assert loaded[2].weight is loaded[0].weight
    loaded(torch.ones(1, 3)).sum().backward()
    torch.optim.SGD(loaded.parameters(), lr=1.0).step()
    assert torch.equal(loaded[2].weight, loaded[0].weight)


def test_a_layer_that_stands_in_several_places_comes_back_as_one(tmp_path: Path) -> None:
    act, layer = nn.ReLU(), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model = nn.Sequential(layer, act, layer, act, nn.Linear(3, 3))
    act.eval()
    loaded = load_model(save_model(model, tmp_path / "a.safetensors"))
    assert loaded[0] is loaded[2] and loaded[1] is loaded[3] and loaded[0] is not loaded[4]
    assert len(list(loaded.parameters())) == len(list(model.parameters()))
    inputs = torch.randn(4, 3)
    assert torch.equal(loaded(inputs), model(inputs))
    same(model, loaded, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_of_another_dtype_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    model = CNN(3).to(dtype)
    loaded = load_model(save_model(model, tmp_path / "a.safetensors"))
    same(model, loaded, torch.randn(2, 1, 28, 28, dtype=dtype))
    assert next(loaded.parameters()).requires_grad


def test_what_is_loaded_can_be_trained_and_the_file_stays(tmp_path: Path) -> None:
    path = save_model(MLP(3, 1, 8), tmp_path / "a.safetensors")
    before = path.read_bytes()
    for mmap in (True, False):
        loaded = load_model(path, mmap=mmap)
        loaded(torch.rand(2, 1, 8, 8)).sum().backward()
        torch.optim.SGD(loaded.parameters(), lr=0.1).step()
    assert path.read_bytes() == before


def test_read_now_the_file_may_change(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    path = save_model(model, tmp_path / "a.safetensors")
    loaded = load_model(path, mmap=False)
    path.write_bytes(bytes(len(path.read_bytes())))
    assert torch.equal(loaded.weight, model.weight)


def test_wrapped_models_are_saved_as_what_is_inside(tmp_path: Path) -> None:
    model = MLP(3, 1, 8)
    same(model, load_model(save_model(nn.DataParallel(model), tmp_path / "a.safetensors")), torch.rand(2, 1, 8, 8))


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = MLP(3, 1, 8)
    assert bits(load_file(save_model(model, tmp_path / "a.safetensors"))) == bits(model.state_dict())


def test_random_numbers_are_left_alone(tmp_path: Path) -> None:
    path = save_model(build(Mixed), tmp_path / "a.safetensors")
    state = torch.get_rng_state()
    load_model(path)
    assert torch.equal(torch.get_rng_state(), state)


def test_verify_finds_a_flipped_bit(tmp_path: Path) -> None:
    from relume.errors import RelumeError

    path = save_model(nn.Linear(512, 512), tmp_path / "a.safetensors")
    load_model(path, verify=True)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(RelumeError, match=r"a\.safetensors"):
        load_model(path, verify=True)


def test_buffers_that_changed_and_are_not_saved_are_an_error(tmp_path: Path) -> None:
    model = build(Mixed)
    model.table.mul_(2)
    with pytest.raises(RecipeError, match=r"table: these buffers are not in the state_dict.*persistent=True"):
        save_model(model, tmp_path / "a.safetensors")


class Held(nn.Module):
    """Holds what is neither parameter nor buffer nor a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.mean = torch.zeros(3)
        self.lut = {"k": [torch.zeros(2)]}
        self.act = torch.relu
        self.scaled = lambda x: x * 2
        self.power = functools.partial(torch.pow, exponent=2)
        self._shift = torch.zeros(1)
        self._cache = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._cache = x
        out: torch.Tensor = self.power(self.scaled(self.act(self.layer(x - self.mean + self._shift))))
        return out


def test_tensors_and_functions_that_the_builder_makes_come_back(tmp_path: Path) -> None:
    model = build(Held)
    model(torch.ones(1, 3))
    same(model, load_model(save_model(model, tmp_path / "a.safetensors")), torch.randn(2, 3))


def _minus(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return -x


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "tensor": (lambda m: setattr(m, "mean", torch.full((3,), 7.0)), "mean has tensors with other values"),
    "in place": (lambda m: m.mean.add_(1), "mean has tensors with other values"),
    "shape": (lambda m: setattr(m, "mean", torch.zeros(1)), r"its mean is a tensor of shape \(1,\)"),
    "nested": (lambda m: m.lut["k"][0].add_(1), "lut has tensors with other values"),
    "dict": (lambda m: setattr(m, "lut", {"k": torch.ones(2)}), "its lut is"),
    "private": (lambda m: m._shift.add_(1), "_shift has tensors with other values"),
    "function": (lambda m: setattr(m, "act", torch.tanh), "its act is <built-in method tanh"),
    "lambda": (lambda m: setattr(m, "scaled", lambda x: x * 3), "its scaled is <function"),
    "partial": (lambda m: setattr(m, "power", functools.partial(torch.pow, exponent=3)), "its power is functools"),
    "new": (lambda m: setattr(m, "more", torch.ones(1)), "its more is a tensor"),
    "forward": (lambda m: setattr(m, "forward", lambda x: x), "its forward is <function .* builds None"),
    "method": (lambda m: setattr(m, "forward", types.MethodType(_minus, m)), "its forward is <bound method"),
    "part": (lambda m: setattr(m.layer, "forward", lambda x: x), "layer: its forward is <function"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_recipe_would_lose_is_an_error(name: str, tmp_path: Path) -> None:
    change, message = CHANGES[name]
    model = build(Held)
    change(model)
    with pytest.raises(RecipeError, match=message):
        save_model(model, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_function_of_a_layer_of_torch_is_not_lost(tmp_path: Path) -> None:
    layer = build(nn.TransformerEncoderLayer, 4, 2)
    layer.activation = torch.tanh
    with pytest.raises(RecipeError, match="its activation is <built-in method tanh"):
        save_model(layer, tmp_path / "a.safetensors")


def test_hooks_of_the_user_are_said_not_to_be_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    handle = model[0].register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.warns(RelumeWarning, match="Forward hooks are not saved .*of 0"):
        save_model(model, tmp_path / "a.safetensors")
    handle.remove()
    save_model(model, tmp_path / "a.safetensors")


class WithExtraState(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"a": 1}


def test_state_that_is_no_tensor_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"_extra_state of the state_dict is no tensor"):
        save_model(build(WithExtraState, 1, 1), tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("model", "path", "message"),
    [
        (nn.Linear(1, 1), "a.pt", r"'a.pt': a whole model is saved as .safetensors .* or .pt2"),
        (nn.Linear(1, 1), "a", "a whole model is saved as"),
        (nn.Linear(1, 1), "a.pt2", "give example_inputs="),
        (nn.Linear(1, 1).state_dict(), "a.safetensors", "save_model saves modules; for a state_dict there is save_weights"),
        (nn.LazyLinear(1), "a.safetensors", "weight, bias have no shape yet"),
        (nn.Linear(1, 1), "no/folder/a.safetensors", "no folder"),
        (nn.Linear(1, 1), "no/folder/a.pt2", "example_inputs"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(model: Any, path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        save_model(model, tmp_path / path)


def test_a_device_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="device='gpu' is none that torch knows"):
        load_model(tmp_path / "a.safetensors", device="gpu")


def test_weights_without_a_recipe_say_what_to_do(tmp_path: Path) -> None:
    from relume.models.files import save_weights

    path = save_weights(nn.Linear(1, 1), tmp_path / "a.safetensors")
    with pytest.raises(
        RecipeError, match=r"holds weights and no recipe .* relume.load_weights\(model, .*a.safetensors"
    ):
        load_model(path)


def test_neither_way_says_what_to_do(tmp_path: Path) -> None:
    class Local(nn.Module):
        pass

    with pytest.raises(
        RecipeError, match=r"relume.build\(Local, ...\).*save_model\(model, 'model.pt2', example_inputs=...\)"
    ):
        save_model(Local(), tmp_path / "a.safetensors")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    from relume.errors import StoreWriteError

    tmp_path.chmod(0o500)
    with pytest.raises(StoreWriteError, match="cannot be written"):
        save_model(nn.Linear(1, 1), tmp_path / "a.safetensors")


GRAPHS = {
    "resnet18": (lambda: torchvision.models.resnet18(), 64),
    "resnet10t": (lambda: timm.create_model("resnet10t"), 64),
    "convnext_atto": (lambda: timm.create_model("convnext_atto"), 64),
    "mobilenetv3_small_050": (lambda: timm.create_model("mobilenetv3_small_050"), 64),
    "vit_tiny_patch16_224": (lambda: timm.create_model("vit_tiny_patch16_224"), 224),
    "tf_efficientnet_lite0": (lambda: timm.create_model("tf_efficientnet_lite0"), 64),
    "vgg16": (lambda: torchvision.models.vgg16(), 64),
}


@pytest.mark.parametrize(
    "name", [n if n in ("resnet18", "convnext_atto") else pytest.param(n, marks=pytest.mark.long) for n in GRAPHS]
)
@pytest.mark.pt2
def test_graphs_of_models_give_the_same_bits(name: str, tmp_path: Path) -> None:
    make, size = GRAPHS[name]
    model = make().eval()
    loaded = load_model(save_model(model, tmp_path / "a.pt2", example_inputs=image(size)))
    assert bits(loaded.state_dict()) == bits(model.state_dict()) or name == "vgg16"
    with torch.no_grad():
        for batch in (1, 3):
            inputs = torch.randn(batch, 3, size, size)
            assert torch.equal(loaded(inputs), model(inputs))


@pytest.mark.pt2
def test_graphs_of_transformers_and_odd_dtypes(tmp_path: Path) -> None:
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False
    ).eval()
    loaded = load_model(save_model(encoder, tmp_path / "a.pt2", example_inputs=torch.randn(2, 5, 16)))
    mixed = Mixed().eval()
    tokens = torch.tensor([0, 1, 2])
    odd = load_model(save_model(mixed, tmp_path / "b.pt2", example_inputs=tokens))
    for batch in (2, 3):  # with gradients: without, the encoder itself takes another way, which a graph has not
        inputs = torch.randn(batch, 5, 16)
        assert torch.equal(loaded(inputs), encoder(inputs))
        tokens = torch.randint(4, (batch,))
        assert torch.equal(odd(tokens), mixed(tokens))
    weights = odd.state_dict()
    assert weights["decoder.weight"].data_ptr() == weights["encoder.weight"].data_ptr()
    assert bits(weights) == bits(mixed.state_dict())


@pytest.mark.pt2
def test_a_graph_with_modes_of_torch_in_it(tmp_path: Path) -> None:
    class Modes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            with torch.no_grad():
                y = self.layer(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                z = self.layer(x)
            return {"y": y, "z": z + torch.zeros_like(y).sum().clamp(min=0)}

    model = Modes()
    loaded = load_model(save_model(model, tmp_path / "a.pt2", example_inputs=torch.rand(2, 3)))
    inputs = torch.rand(4, 3)
    assert all(torch.equal(loaded(inputs)[name], model(inputs)[name]) for name in ("y", "z"))


@pytest.mark.pt2
def test_a_graph_is_used_like_any_model(tmp_path: Path) -> None:
    import relume

    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout()).eval()
    graph = load_model(save_model(model, tmp_path / "a.pt2", example_inputs=torch.randn(2, 3)))
    inputs, targets = torch.randn(5, 3), torch.zeros(5, dtype=torch.long)
    assert torch.equal(relume.predict(graph, [inputs]), model(inputs))
    batches = [(inputs, targets)]
    assert relume.evaluate(graph, batches, loss=nn.CrossEntropyLoss()) == relume.evaluate(
        model, batches, loss=nn.CrossEntropyLoss()
    )
    assert graph.eval() is graph and graph.train(False) is graph
    assert not nn.Sequential(graph).eval().training
    with pytest.raises(
        ConfigurationError, match="a model from a .pt2 file or from the graph of a bundle has no training mode"
    ):
        graph.train()
    again = load_model(save_model(graph, tmp_path / "b.pt2", example_inputs=torch.randn(2, 3)))
    assert torch.equal(again(inputs), model(inputs))
    with pytest.raises(RecipeError, match=r"the model is a graph .*save_model\(model, 'model.pt2'"):
        save_model(graph, tmp_path / "a.safetensors")


SPEED = """
    import sys, time, resource
    import torch, torchvision
    from relume.models.whole import load_model

    def anonymous():
        return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Anonymous:")) * 1024

    load_model(sys.argv[2])  # imports
    before = anonymous()
    start = time.perf_counter()
    model = load_model(sys.argv[1])
    print(time.perf_counter() - start, anonymous() - before)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_vgg19_is_there_at_once_and_takes_no_memory(tmp_path: Path) -> None:
    model = build(torchvision.models.vgg19, init_weights=False)
    path, warm = save_model(model, tmp_path / "a.safetensors"), save_model(MLP(), tmp_path / "b.safetensors")
    torch.save(model.state_dict(), tmp_path / "a.pt")
    start = time.perf_counter()
    plain = torchvision.models.vgg19()
    plain.load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True))
    plain_seconds = time.perf_counter() - start
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SPEED), path, warm],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    seconds, memory_bytes = map(float, done.stdout.split())
    print(f"VGG-19: {seconds * 1000:.1f} ms and {memory_bytes / 1e6:.1f} MB, plain torch {plain_seconds:.2f} s")
    assert memory_bytes < 0.1 * path.stat().st_size
    same(plain, load_model(path), image(64))
