"""relume.summary: what it counts is right, and the model is left as it was to the last bit."""

from __future__ import annotations

import copy
import dataclasses
import functools
import random
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from relume.checkpoint import without_values
from relume.errors import ConfigurationError, UnknownNameError
from relume.generators import fingerprint
from relume.models.look import ModelSummary, summary
from relume.models.look.render import summary_page
from relume.page import Grid


class Small(nn.Module):
    """Batch norm, dropout, a shared activation and random numbers in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)
        self.calls = 0

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        noise = torch.rand(images_nchw.shape[0]) * random.random() * np.random.rand()
        x = self.act(self.norm(self.conv(images_nchw))) + noise.view(-1, 1, 1, 1)
        logits: torch.Tensor = self.head(self.drop(self.act(x)).mean((2, 3)))
        return logits


class Looks(Small):
    """Decides by a value, which a copy on the meta device does not have."""

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        return super().forward(images_nchw if images_nchw.sum().item() == 0 else images_nchw * 2)


def row(found: ModelSummary, name: str) -> Any:
    return next(layer for layer in found.layers if layer.name == name)


# --------------------------------------------------------------------------------------------- the model stays as it was


@pytest.mark.parametrize("kind", [Small, Looks])
def test_the_model_and_all_random_numbers_to_come_are_left_to_the_last_bit(kind: type[Small]) -> None:
    model = kind()
    model.train()
    model.norm.eval()
    called: list[str] = []
    model.register_forward_hook(lambda *_: called.append("after"))
    model.conv.register_forward_pre_hook(lambda *_: called.append("before"))
    model(torch.zeros(2, 3, 8, 8)).sum().backward()
    called.clear()
    grads = {name: (id(p.grad), p.grad.clone()) for name, p in model.named_parameters() if p.grad is not None}
    state, places = copy.deepcopy(model.state_dict()), {k: v.data_ptr() for k, v in model.state_dict().items()}
    flags, calls = {name: module.training for name, module in model.named_modules()}, model.calls
    hooks = {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()}
    before = fingerprint()

    summary(model, (3, 8, 8), batch_size=4, optimizer="adam")

    assert fingerprint() == before
    assert {k: v.data_ptr() for k, v in model.state_dict().items()} == places
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()} == hooks
    assert model.calls == calls and called == []
    assert len(grads) == 6
    for name, parameter in model.named_parameters():
        assert id(parameter.grad) == grads[name][0] and torch.equal(parameter.grad, grads[name][1])


def test_a_live_optimizer_is_left_as_it_was() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    found = summary(model, (4,), optimizer=optimizer)
    assert found.optimizer == "Adam" and not optimizer.state and optimizer.param_groups[0]["fused"] is True
    assert model.weight.grad is None and not model.weight.is_meta


def test_a_failing_model_is_left_as_it_was() -> None:
    model = Small().train()
    before, state = fingerprint(), copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigurationError, match="does not take 1 x 5 x 8 x 8"):
        summary(model, (5, 8, 8))
    assert model.training and model.calls == 0 and fingerprint() == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.conv._forward_hooks and not model.conv._forward_pre_hooks


def test_the_copy_does_not_outlive_the_call() -> None:
    import torchinfo.torchinfo as below

    summary(Looks(), (3, 8, 8))
    assert not below._cached_forward_pass


def test_hooks_that_cannot_be_copied_are_no_obstacle() -> None:
    class Watcher:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __call__(self, *_: Any) -> None:
            raise AssertionError("it is not called")

    model = nn.Sequential(nn.Linear(4, 4))
    model.register_forward_hook(Watcher())
    assert summary(model, (4,)).mult_adds == 16


# ------------------------------------------------------------------------------------------------------ what is counted


def test_the_figures_of_well_known_models() -> None:
    """Parameters and mult-adds as torchvision's documentation has them."""
    from torchvision.models import resnet18, vgg19

    with without_values():
        models = resnet18(), vgg19()
    small, large = (summary(model, (3, 224, 224)) for model in models)
    assert (small.parameters, small.mult_adds, small.flops) == (11_689_512, 1_814_073_344, 3_628_146_688)
    assert large.parameters == 143_667_240 and large.memory.parameters == 574_668_960
    assert large.mult_adds == 19_632_062_464
    assert row(small, "conv1").output_shape == (1, 64, 112, 112) and row(small, "fc").mult_adds == 512_000
    assert row(small, "layer1").parameters == 147_968 and small.buffers == 9_620


def test_a_layer_on_a_sequence_counts_every_place_of_it() -> None:
    found = summary(nn.Linear(8, 4), (10, 8), batch_size=3)
    assert found.mult_adds == 3 * 10 * 8 * 4


def test_attention_is_counted_with_its_fast_path_and_without() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    found = summary(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), (5, 16))
    projections, scores, feedforward = 4 * 5 * 16 * 16, 2 * 5 * 5 * 16, 2 * 5 * 16 * 32
    assert found.mult_adds == 2 * (projections + scores + feedforward)
    assert row(found, "layers.0.self_attn").mult_adds == projections + scores
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("training", [True, False])
def test_activations_are_what_autograd_keeps(training: bool) -> None:
    """Against a real forward pass in training mode, with real values."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5), nn.Tanh()
    )
    images = torch.randn(4, 3, 8, 8)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), images)}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(images)
    assert output.requires_grad
    # The batch norm's own statistics of this batch are kept as two vectors of 8.
    assert summary(model.train(training), (3, 8, 8), batch_size=4).memory.activations == sum(kept.values())


def test_what_is_frozen_keeps_nothing_and_gets_no_gradients() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    found = summary(model, (4,), batch_size=2, optimizer="adam")
    assert (found.parameters, found.trainable, found.frozen) == (67, 27, 40)
    assert row(found, "0").trainable == 0 and row(found, "2").trainable == 27
    assert found.memory.gradients == 27 * 4 and found.memory.optimizer == 2 * 27 * 4 + 2 * 4
    assert found.memory.activations == 2 * 8 * 4  # the last layer's input
    model.requires_grad_(False)
    assert summary(model, (4,), optimizer="adam").memory.total == 67 * 4 + 16


def test_shared_modules_and_tied_weights_count_once() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 4, bias=False))
    model[3].weight = shared.weight
    found = summary(model, (4,))
    assert found.parameters == 20 and found.mult_adds == 3 * 16 and found.memory.parameters == 80
    rows = [layer for layer in found.layers if layer.kind == "Linear"]
    assert [layer.parameters for layer in rows] == [20, 0, 0] and [layer.is_repeated for layer in rows] == [
        False,
        True,
        False,
    ]
    assert "(again)" in str(found)


def test_layers_in_containers_that_are_never_called() -> None:
    class Lists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.rows:
                x = layer(x)
            return x * self.scale

    found = summary(Lists(), (4,))
    assert row(found, "rows").mult_adds == 48 and row(found, "rows.2").parameters == 20
    text = found.to_text(depth=1).splitlines()
    assert next(line for line in text if " rows " in line).split() == ["rows", "ModuleList", "60", "48"]
    assert next(line for line in text if " Lists " in line and "called" not in line).split() == ["Lists", "4"]


@pytest.mark.parametrize("depth", range(5))
def test_the_columns_add_up_to_the_totals(depth: int) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3))
    model[0].layers[0].requires_grad_(False)
    found = summary(model, (5, 16))
    grid = summary_page(found, depth)[1]
    assert isinstance(grid, Grid)
    trainable, frozen = (sum(int(str(cells[column]).replace(",", "") or 0) for cells in grid.rows) for column in (3, 4))
    assert (trainable, frozen) == (found.trainable, found.frozen) and found.frozen


# ------------------------------------------------------------------------------------------------------ kinds of models


def test_no_input_counts_parameters_alone() -> None:
    found = summary(Small())
    assert found.parameters == 285 and found.mult_adds is None and found.memory.activations is None
    assert "mult-adds" not in str(found) and row(found, "head").parameters == 45


def test_several_inputs_and_inputs_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.image = nn.Embedding(10, 4), nn.Linear(6, 4)

        def forward(self, tokens: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
            return self.words(tokens).mean(1) + self.image(image)

    model = Two()
    wanted = 2 * 6 * 4
    kinds = [torch.long, None]
    assert summary(model, [(7,), (6,)], batch_size=2, dtypes=kinds).mult_adds == wanted
    by_name = summary(model, {"image": (6,), "tokens": (7,)}, batch_size=2, dtypes={"tokens": torch.long})
    assert by_name.mult_adds == wanted and by_name.memory.inputs == 2 * 6 * 4 + 2 * 7 * 8
    tensors = [torch.zeros(2, 7, dtype=torch.long), torch.zeros(2, 6)]
    assert summary(model, tensors).mult_adds == wanted
    with pytest.raises(ConfigurationError, match=r"does not take .*dtypes=torch.long"):
        summary(model, [(7,), (6,)])


def test_lazy_modules_are_described_and_stay_lazy() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))
    found = summary(model, (3, 6, 6))
    assert found.parameters == 4 * 27 + 4 + 2 * 64 + 2 and found.lazy == 0
    assert type(model[0]) is nn.LazyConv2d and torch.nn.parameter.is_lazy(model[2].weight)
    unknown = summary(model)
    assert unknown.parameters == 0 and unknown.lazy == 4 and "without a shape yet" in str(unknown)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, nn.Sequential])
def test_wrapped_models(wrap: Any) -> None:
    found = summary(wrap(nn.Linear(4, 3)), (4,))
    assert found.parameters == 15 and found.mult_adds == 12


def test_models_on_the_meta_device_of_half_precision_and_with_weight_norm() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert summary(model, (4,)).mult_adds == 16 and model[0].weight.is_meta
    half = summary(nn.Linear(4, 4).to(torch.bfloat16), (4,), optimizer="adam")
    assert half.memory.parameters == 40 and half.memory.optimizer == 2 * 40 + 8
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    assert summary(normed, (4,)).parameters == 24


def test_outputs_that_torchinfo_does_not_know() -> None:
    @dataclasses.dataclass
    class Output:
        logits: torch.Tensor

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> Output:
            return Output(self.layer(x))

    found = summary(Model(), (4,))
    assert found.mult_adds == 16 and row(found, "layer").mult_adds == 16 and found.memory.activations is not None


def test_a_computed_tensor_as_an_attribute() -> None:
    model = nn.Linear(4, 4)
    model.scaled = model.weight * 2  # torch refuses to copy it
    assert summary(model, (4,)).mult_adds == 16


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "convnext_atto", "tf_efficientnet_lite0"])
def test_models_of_timm_without_weights(name: str) -> None:
    import timm

    with without_values():
        model = timm.create_model(name)
    found = summary(model, (3, 224, 224), optimizer="adamw")
    own = sum(parameter.numel() for parameter in model.parameters())
    assert found.parameters == own and found.memory.optimizer is not None
    assert 8 * own <= found.memory.optimizer <= 8 * own + 4 * 1000 and found.mult_adds and found.memory.activations
    assert max(map(len, str(found).splitlines())) <= 100


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_large_model_needs_no_memory_for_its_weights() -> None:
    """They would be 6.4 GB, and 12.8 GB more for the optimizer."""
    code = """
import torch
from relume.models.look import summary
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
with torch.device("meta"):
    model = torch.nn.Sequential(*[torch.nn.Linear(20_000, 20_000, bias=False) for _ in range(4)])
before = peak()
found = summary(model, (20_000,), optimizer="adamw")
print(found.memory.parameters, found.memory.optimizer, peak() - before)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out[0] == "6400000000" and int(out[1]) >= 12_800_000_000
    assert int(out[2]) < 400_000  # kB, of which most is code that is imported


# ---------------------------------------------------------------------------------------------------------- optimizers


@pytest.mark.parametrize(
    "make", [torch.optim.SGD, functools.partial(torch.optim.SGD, momentum=0.9), torch.optim.Adam, torch.optim.Adagrad]
)
def test_the_state_of_an_optimizer_is_what_a_step_leaves(make: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    optimizer = make(model.parameters(), lr=0.1) if make is not torch.optim.Adam else make(model.parameters())
    predicted = [summary(model, optimizer=one).memory.optimizer for one in (make, optimizer)]
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    real = sum(v.nbytes for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor))
    assert predicted == [real, real] and summary(model, optimizer=optimizer).memory.optimizer == real


def test_optimizers_that_cannot_be_told_or_are_none() -> None:
    model = nn.Linear(2, 2)
    unknown = summary(model, optimizer="LBFGS")
    assert unknown.memory.optimizer is None and "not known before its first step" in str(unknown)
    with pytest.raises(UnknownNameError, match="'adamm': did you mean 'adam"):
        summary(model, optimizer="adamm")
    with pytest.raises(ConfigurationError, match="optimizer=5 is no optimizer"):
        summary(model, optimizer=5)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ wrong arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (3, -1)}, "-1 in the shape"),
        ({"input_shape": (3, 0)}, "0 in the shape"),
        ({"input_shape": (3, True)}, "True in the shape"),
        ({"input_shape": (3.0, 2)}, "3.0 in the shape"),
        ({"input_shape": "3x224"}, "is not understood"),
        ({"input_shape": 224}, "is not understood"),
        ({"input_shape": {}}, "is empty"),
        ({"input_shape": {"x": 3}}, "no shape of an input"),
        ({"input_shape": [(3,), "x"]}, "no shape of an input"),
        ({"input_shape": (4,), "batch_size": 0}, "batch_size=0"),
        ({"input_shape": (4,), "batch_size": 2.0}, "batch_size=2.0"),
        ({"input_shape": (4,), "dtypes": "float99"}, "'float99' is no dtype"),
        ({"input_shape": (4,), "dtypes": [torch.float, torch.float]}, "one for each of the 1"),
        ({"input_shape": {"input": (4,)}, "dtypes": {"other": torch.long}}, "dtypes has other"),
        ({"input_shape": {"nope": (4,)}}, "does not take nope: 1 x 4"),
        ({"input_shape": [(4,), (4,)]}, "does not take 1 x 4 float32, 1 x 4 float32"),
        ({"input_shape": (10**18, 10**18)}, "larger than any memory"),
        ({"input_shape": (5,)}, "does not take 1 x 5 float32"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        summary(nn.Linear(4, 4), **arguments)


def test_what_is_no_model() -> None:
    with pytest.raises(ConfigurationError, match="takes a model, not a dict"):
        summary({})  # type: ignore[arg-type]


def test_a_model_that_cannot_be_copied_says_so_and_is_described_without_input() -> None:
    model = nn.Linear(4, 4)
    model.lock = threading.Lock()
    with pytest.raises(ConfigurationError, match=r"cannot be copied .*lock.* without an input shape"):
        summary(model, (4,))
    assert summary(model).parameters == 20


def test_a_model_without_values_that_looks_at_them() -> None:
    with torch.device("meta"):
        model = Looks()
    with pytest.raises(ConfigurationError, match="build it with values"):
        summary(model, (3, 8, 8))


# --------------------------------------------------------------------------------------------------------- how it shows


def test_names_of_layers_never_reach_a_terminal_or_a_notebook_raw() -> None:
    model = nn.Module()
    for name in ("\x1b[31mred", "[bold]markup", "<script>alert(1)</script>", "two\nlines", "x" * 100_000):
        model.add_module(name, nn.Linear(1, 1))
    found = summary(model)
    text, page = str(found), found._repr_html_()
    assert "\x1b" not in text and r"\x1b[31mred" in text and "[bold]markup" in text and r"two\nlines" in text
    assert max(map(len, text.splitlines())) <= 100 and len(text) < 10_000
    assert "<script>" not in page and "&lt;script&gt;" in page and "\x1b" not in page


def test_a_notebook_shows_the_rows_and_the_totals() -> None:
    page = summary(nn.Sequential(nn.Linear(4, 8)), (4,))._repr_html_()
    assert page.count("<table") == 2 and "Linear" in page and "mult-adds" in page
