"""Recipes: what is remembered, what is proved, and what a recipe out of a file may not do."""

from __future__ import annotations

import cProfile
import itertools
import json
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from relume.errors import ConfigurationError, RecipeError, RelumeError
from relume.models import CNN, MLP, make_model
from relume.models.recipe import budget, build, builder, recipe_of
from relume.models.recipe.budget import Held
from relume.models.recipe.building import make
from relume.models.whole import RECIPE, load_model, save_model

HERE = __name__
HELD = Held(100, 10**6, 1000)
canary_calls: list[str] = []


class Net(nn.Module):
    def __init__(self, sizes: tuple[int, ...], *, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b, dtype=dtype) for a, b in itertools.pairwise(sizes))
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x * self.scale


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module, norms: dict[str, type[nn.Module]]) -> None:
        super().__init__()
        self.inner = inner
        self.norm = norms["out"](3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.inner(x))
        return out


class WithSideEffects:
    def __init__(self, *args: Any) -> None:
        canary_calls.append("class")


def plain_function(*args: Any) -> nn.Module:
    canary_calls.append("function")
    return nn.Linear(1, 1)


@builder
def registered(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.ReLU())


@builder
def gives_no_module(value: int) -> nn.Module:
    return value  # type: ignore[return-value]


@builder
def reads_values(count: int) -> nn.Module:
    """Cannot be built on the meta device."""
    return nn.Sequential(*(nn.Linear(2, int(size.item())) for size in torch.full((count,), 2)))


def recipe(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"builder": name, "args": list(args), "kwargs": kwargs}


def written(path: Path, recipe: Any, tensors: dict[str, torch.Tensor] | None = None, **more: Any) -> Path:
    document = {"format": 1, "recipe": recipe, "training": False, "other_mode": [], "frozen": [], "tied": [], **more}
    tensors = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)} if tensors is None else tensors
    save_file(tensors, path, metadata={RECIPE: json.dumps(document)})
    return path


def rebuilt(model: nn.Module) -> nn.Module:
    return make(json.loads(json.dumps(recipe_of(model))), HELD)[0]


def test_what_build_was_given_is_remembered() -> None:
    model = build(Net, (2, 4, 3), dtype=torch.float64, scale=float("inf"))
    assert recipe_of(model) == {
        "builder": f"{HERE}:Net",
        "args": [{"tuple": [2, 4, 3]}],
        "kwargs": {"dtype": {"dtype": "float64"}, "scale": {"float": "inf"}},
    }
    again = rebuilt(model)
    assert type(again) is Net
    assert again.scale == float("inf")
    assert again.layers[1].weight.dtype is torch.float64


def test_modules_and_classes_are_arguments() -> None:
    assert recipe_of(build(nn.Linear, 2, 3, device="cpu")) == recipe("torch.nn:Linear", 2, 3)
    model = build(Wrapper, nn.Sequential(nn.Linear(2, 3), nn.ReLU()), norms={"out": nn.BatchNorm1d})
    again = rebuilt(model)
    assert str(again) == str(model)
    assert recipe_of(again) == recipe_of(model)


def test_a_copy_keeps_its_recipe() -> None:
    import copy

    assert recipe_of(copy.deepcopy(build(Net, (2, 3)))) == recipe_of(build(Net, (2, 3)))


def test_relumes_own_models_are_remembered() -> None:
    for model in (
        MLP(3, 1, 8),
        CNN(3, channels=3, size=8),
        make_model("mlp"),
        make_model("timm/test_resnet", 3, 1, 32),
    ):
        assert str(rebuilt(model)) == str(model)


def test_a_subclass_of_an_own_model_is_not_taken_for_it() -> None:
    class Mine(MLP):
        pass

    with pytest.raises(RecipeError, match=r"how Mine was built is not known. Build it by relume.build\(Mine"):
        recipe_of(Mine())


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(2, 3, bias=False), nn.Conv2d(2, 4, (3, 1), stride=2, padding="same" if False else 1, groups=2, padding_mode="reflect"),
        nn.BatchNorm2d(3, eps=1e-3, momentum=None), nn.LayerNorm((2, 3), elementwise_affine=False), nn.Dropout(0.1, inplace=True),
        nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.Embedding(5, 3, padding_idx=1), nn.Flatten(0, 1), nn.GELU("tanh"),
        nn.ConvTranspose2d(2, 3, 2, output_padding=0), nn.GroupNorm(2, 4), nn.PReLU(3), nn.Upsample(scale_factor=2.0, mode="bilinear"),
        nn.AdaptiveAvgPool2d((1, None)), nn.Softmax(1), nn.LeakyReLU(0.3), nn.Bilinear(2, 3, 4), nn.Unflatten(1, (2, 2)),
        nn.LSTM(2, 3, 2, batch_first=True, dropout=0.5, bidirectional=True, proj_size=2), nn.GRU(2, 3, bias=False),
        nn.RNN(2, 3, nonlinearity="relu"), nn.MultiheadAttention(4, 2, 0.1, bias=False, kdim=3, vdim=2, batch_first=True),
        nn.MultiheadAttention(4, 2, add_bias_kv=True, add_zero_attn=True),
        nn.ModuleList([nn.Linear(2, 3), nn.ReLU()]), nn.ModuleDict({"a": nn.LSTM(2, 3), "b": nn.ModuleList()}),
    ],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_plain_modules_of_torch_are_described_by_what_they_hold(module: nn.Module, tmp_path: Path) -> None:
    model = nn.Sequential(module, nn.Identity())
    loaded = load_model(save_model(model, tmp_path / "a.safetensors"))
    assert str(loaded) == str(model)
    assert {name: value.tolist() for name, value in loaded.state_dict().items()} == {
        name: value.tolist() for name, value in model.state_dict().items()
    }


def test_a_sequential_with_names(tmp_path: Path) -> None:
    from collections import OrderedDict

    model = nn.Sequential(OrderedDict(first=nn.Linear(2, 3), second=nn.Sequential(nn.ReLU())))
    assert str(load_model(save_model(model, tmp_path / "a.safetensors"))) == str(model)


def test_modules_that_do_not_tell_their_arguments_need_build() -> None:
    with pytest.raises(RecipeError, match=r"how TransformerEncoderLayer .*was built is not known"):
        save_model(nn.Sequential(nn.TransformerEncoderLayer(4, 2)), "never.safetensors")
    with pytest.raises(RecipeError, match=r"how TransformerEncoderLayer was built"):
        recipe_of(nn.TransformerEncoderLayer(4, 2))


def test_an_argument_that_cannot_be_remembered_is_named() -> None:
    with pytest.raises(
        RecipeError, match=r"the argument scale is <function.* of type function, which a recipe cannot hold"
    ):
        build(Net, (2, 3), scale=lambda: 1)
    with pytest.raises(RecipeError, match=r"the argument number 1\[1\] is tensor\(3\) of type Tensor"):
        build(Net, (2, torch.tensor(3)))
    with pytest.raises(RecipeError, match="Local is defined inside a function"):

        class Local(nn.Module):
            pass

        build(Local)


@pytest.mark.parametrize(
    "found", [plain_function, print, WithSideEffects, 3, "torch.nn:Linear", torch.load, lambda: nn.ReLU()]
)
def test_what_is_no_builder_is_refused_by_build(found: Any) -> None:
    canary_calls.clear()
    with pytest.raises(RecipeError):
        build(found, 1)
    assert not canary_calls


def test_a_registered_function_is_remembered_when_it_is_called() -> None:
    model = registered(3)
    assert recipe_of(model)["builder"] == f"{HERE}:registered"
    assert recipe_of(build(registered, 3)) == recipe_of(model)
    assert str(rebuilt(model)) == str(model)
    with pytest.raises(RecipeError, match="gave 3, which is no module"):
        gives_no_module(3)


@pytest.mark.parametrize("found", [Net, print, 3])
def test_builder_is_for_functions(found: Any) -> None:
    with pytest.raises(ConfigurationError, match="is for functions"):
        builder(found)


def test_builder_is_for_functions_that_are_found_again() -> None:
    def local() -> nn.Module:
        return nn.ReLU()

    with pytest.raises(ConfigurationError, match="Define it at the top level"):
        builder(local)


def test_weights_of_a_library_are_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), folder / "resnet18-f37072fd.pth")
    model = build(torchvision.models.resnet18, weights="IMAGENET1K_V1")
    assert recipe_of(model) == recipe("torchvision.models:resnet18", weights=None)
    loaded = load_model(save_model(model, tmp_path / "a.safetensors"))
    assert torch.equal(loaded.fc.weight, model.fc.weight)


def test_a_new_head_is_part_of_the_recipe(tmp_path: Path) -> None:
    model = build(timm.create_model, "test_resnet", pretrained=False)
    model.fc = nn.Linear(model.num_features, 7)
    with pytest.raises(RecipeError, match="num_classes is 7, and the recipe builds 1000"):
        model.num_classes = 7
        save_model(model, tmp_path / "a.safetensors")
    model.num_classes = 1000
    loaded = load_model(save_model(model, tmp_path / "a.safetensors"))
    assert loaded.fc.out_features == 7
    again = load_model(save_model(loaded, tmp_path / "b.safetensors"))
    assert str(again) == str(model)


def test_a_model_that_was_changed_is_not_saved_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    model = build(Net, (2, 3), scale=2.0)
    model.scale = 3.0
    with pytest.raises(RecipeError, match="its scale is 3.0, and the recipe builds 2.0"):
        save_model(model, path)
    model = build(Net, (2, 3))
    model.extra = Net((1, 1))
    with pytest.raises(RecipeError, match="it has extra, which the recipe does not build"):
        save_model(model, path)
    assert not path.exists()
    model = build(Net, (2, 3, 4))
    del model.layers[1]
    assert str(load_model(save_model(model, path))) == str(model)


def test_a_part_that_was_put_in_must_be_known(tmp_path: Path) -> None:
    model = build(torchvision.models.resnet18)
    model.fc = Net((512, 3))
    with pytest.raises(RecipeError, match=r"how Net \(fc\) was built is not known"):
        save_model(model, tmp_path / "a.safetensors")


def test_a_builder_that_reads_values_is_built_with_values(tmp_path: Path) -> None:
    model = registered(3)
    assert not make(recipe_of(model), HELD)[1]
    model = reads_values(2)
    state = torch.get_rng_state()
    loaded = load_model(save_model(model, tmp_path / "a.safetensors"))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(loaded[1].weight, model[1].weight)


SCRIPT = """
    import sys
    import torch
    from torch import nn
    from pathlib import Path
    from relume.models.recipe import build
    from relume.models.whole import load_model, save_model

    class Mine(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layer = nn.Linear(width, 1)

    if sys.argv[1] == "save":
        save_model(build(Mine, 3), sys.argv[2])
    print(type(load_model(sys.argv[2])).__name__)
"""


def test_a_class_of_the_script_is_found_by_the_script_and_by_no_other(tmp_path: Path) -> None:
    script, path = tmp_path / "train.py", tmp_path / "a.safetensors"
    script.write_text(textwrap.dedent(SCRIPT))
    for mode in ("save", "load"):
        done = subprocess.run(
            [sys.executable, script, mode, path], check=True, capture_output=True, text=True, timeout=60
        )
        assert done.stdout == "Mine\n"
    with pytest.raises(RecipeError, match="there is no Mine in __main__"):
        load_model(path)


def test_a_class_must_be_imported_by_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mymodel.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('canary').touch()\n"
        "from torch import nn\nclass Mine(nn.Linear):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = written(tmp_path / "a.safetensors", recipe("mymodel:Mine", 3, 2))
    with pytest.raises(
        RecipeError, match="mymodel:Mine is not imported, and a file may not import it: `import mymodel` first"
    ):
        load_model(path)
    assert not (tmp_path / "canary").exists()
    import mymodel  # type: ignore[import-not-found]

    assert type(load_model(path)) is mymodel.Mine
    sys.modules.pop("mymodel")


REFUSED: dict[str, tuple[Any, str]] = {
    "system": (
        recipe("os:system", "touch {canary}"),
        "os:system is neither a class of modules nor a registered builder",
    ),
    "posix": (recipe("posix:system", "touch {canary}"), "is neither a class of modules"),
    "eval": (recipe("builtins:eval", "open('{canary}', 'w')"), "builtins:eval is neither"),
    "open": (recipe("builtins:open", "{canary}", "w"), "builtins:open is neither"),
    "Popen": (recipe("subprocess:Popen", ["touch", "{canary}"]), "subprocess:Popen is neither"),
    "getattr": (recipe("builtins:getattr", {"class": "os:system"}, "x"), "is neither"),
    "hub": (recipe("torch.hub:load", "evil/repo", "model"), "torch.hub:load is refused: of these libraries"),
    "load": (recipe("torch:load", "{canary}"), "torch:load is refused"),
    "module in torch": (recipe("torch.fx:GraphModule", {}, {}), "torch.fx:GraphModule is refused"),
    "quantized": (recipe("torch.ao.nn.quantized:Linear", 3, 2), "is refused"),
    "attributes": (recipe("torch.nn:Module.__init__"), "names no builder"),
    "modules in modules": (recipe("torch.nn:modules.os.system", "x"), "names no builder"),
    "private": (recipe("torch.nn:_reduction"), "names no builder"),
    "module": (recipe("torch.nn:functional"), "is neither"),
    "function of torch.nn": (recipe("torch.nn:factory_kwargs", {"dict": []}), "is neither"),
    "no module of mine": (recipe(f"{HERE}:WithSideEffects", 1), "is neither"),
    "function of mine": (recipe(f"{HERE}:plain_function", 1), "is neither .* registered by @relume.builder"),
    "gives no module": (recipe(f"{HERE}:gives_no_module", 1), "gave int, which is no module"),
    "foreign name": (recipe(f"{HERE}:nn"), "is neither"),
    "class by another module": (
        recipe(f"{HERE}:CNN"),
        "is a class of relume.models.small, and is named by another module",
    ),
    "not there": (recipe("torch.nn:Linera", 3, 2), "there is no Linera in torch.nn"),
    "helper of torchvision": (recipe("torchvision.models:get_model_weights", "resnet18"), "is neither"),
    "get_model": (recipe("torchvision.models:get_model", "resnet18", weights="DEFAULT"), "is neither"),
    "weights": (
        recipe("torchvision.models:resnet18", weights="DEFAULT"),
        "with weights='DEFAULT' would read other files",
    ),
    "old weights": (recipe("torchvision.models:resnet18", pretrained=True), "with pretrained=True would read"),
    "make_model": (
        recipe("relume.models:make_model", "torchvision/resnet18", weights="default"),
        "would read other files",
    ),
    "timm pretrained": (recipe("timm:create_model", "resnet18", True), "with pretrained=True would read other files"),
    "timm path": (
        recipe("timm:create_model", "resnet18", checkpoint_path="{canary}"),
        "with checkpoint_path=.* would read",
    ),
    "timm file": (recipe("timm:create_model", "resnet18", pretrained_cfg={"dict": [["file", "x"]]}), "pretrained_cfg"),
    "timm overlay": (
        recipe("timm:create_model", "resnet18", pretrained_cfg_overlay={"dict": [["url", "x"]]}),
        "overlay",
    ),
    "timm hub": (recipe("timm:create_model", "hf-hub:evil/model"), "would read other files or the network"),
    "timm folder": (recipe("timm:create_model", "local-dir:/tmp/x"), "would read other files or the network"),
    "timm builder": (recipe("timm.models:resnet18", pretrained=True), "with pretrained=True would read"),
    "timm loader": (recipe("timm.models:load_checkpoint", {"build": recipe("torch.nn:ReLU")}, "x"), "is neither"),
    "timm data": (recipe("timm.data:create_dataset", "x", "y"), "is refused"),
    "class argument": (recipe("torch.nn:Linear", {"class": "os:system"}, 2), "os:system is neither"),
    "wrong kind": (recipe("torch.nn:Linear", "three", 2), "fails with the arguments of the recipe: TypeError"),
    "too few": (recipe("torch.nn:Linear"), "fails with the arguments|cannot be called so"),
    "negative": (recipe("torch.nn:Linear", -3, 2), "fails with the arguments"),
    "device": (recipe("torch.nn:Linear", 99_000, 99_000, device="cpu"), "a recipe does not choose the device"),
    "device by place": (recipe("torch.nn:Linear", 99_000, 99_000, True, "cpu"), "a recipe does not choose the device"),
    "giant": (recipe("torch.nn:Linear", 10**6, 10**6), "builds another model than its tensors are of"),
    "beyond giant": (recipe("torch.nn:Linear", 10**15, 10**15), "is larger than any dimension"),
    "no builder": ({"builder": 3}, "is not understood"),
    "no table": ({"builder": "torch.nn:Linear", "args": {}}, "is not understood"),
    "strange argument": (recipe("torch.nn:Linear", {"eval": "1"}, 2), "an argument .* is not understood"),
    "dtype": (recipe("torch.nn:Linear", 3, 2, dtype={"dtype": "os"}), "is not a dtype"),
    "infinite": (recipe("torch.nn:Dropout", {"float": "__import__('os')"}), "is not understood"),
    "another model": (recipe("torch.nn:Linear", 3, 3), r"weight: \(3, 3\) built, \(2, 3\) in the file"),
    "replaced": (
        {**recipe("torch.nn:Linear", 3, 2), "replaced": {"__class__": recipe("torch.nn:ReLU")}},
        "fails|not understood",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_recipes_that_are_refused(name: str, tmp_path: Path) -> None:
    canary_calls.clear()
    value, message = REFUSED[name]
    canary = tmp_path / "canary"
    value = json.loads(json.dumps(value).replace("{canary}", str(canary)))
    path = written(tmp_path / "evil.safetensors", value)
    with pytest.raises(RecipeError, match=message) as raised:
        load_model(path)
    assert str(path) in str(raised.value)
    assert not canary.exists()
    assert not canary_calls


LAYERS: dict[str, Any] = {
    "clones": recipe(
        "torch.nn:TransformerEncoder", {"build": recipe("torch.nn:Identity")}, 10**6, enable_nested_tensor=False
    ),
    "clones of layers": recipe("torch.nn:Transformer", 16, 2, 10**6, 1),
    "depth": recipe("timm:create_model", "vit_tiny_patch16_224", depth=10**5),
    "giant depth": recipe("timm:create_model", "vit_tiny_patch16_224", depth=10**9),
    "list": recipe("torchvision.ops:MLP", 1, [1] * 300_000),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.timeout(60)
def test_a_thousand_million_layers_are_not_built(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"it makes more layers than its tensors are for|is larger than any dimension"
    ):
        load_model(written(tmp_path / "evil.safetensors", LAYERS[name]))


@builder
def in_modes(layers: int) -> nn.Module:
    made = []
    for _ in range(layers):
        with torch.no_grad(), torch.device("meta"), torch.autocast("cpu"):
            made.append(nn.Linear(2, 2))
    return nn.Sequential(*made)


def test_wherever_the_work_is_cut_short_torch_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "a.safetensors", recipe(f"{HERE}:in_modes", 100_000))
    for calls in range(500, 900):
        monkeypatch.setattr(budget, "_BASE_CALLS", calls)
        with pytest.raises(RecipeError, match="it makes more layers than its tensors are for"):
            load_model(file)
        assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        assert torch.ones(1).device.type == "cpu"
        assert torch._C._len_torch_function_stack() == 0


def test_under_a_profiler_models_are_built_and_the_profiler_goes_on() -> None:
    profile = cProfile.Profile()
    profile.enable()
    try:
        with budget.limited_work([1000, 1000, 1000, 1000], Held(tensors=4, largest=10, size_bytes=160)):
            nn.Linear(2, 2)
        is_current = sys.getprofile()
        list(map(str, range(3)))
    finally:
        profile.disable()
    assert is_current is None or is_current is profile  # newer Pythons profile without the hook


@builder
def greedy(size: int) -> nn.Module:
    int(torch.ones(1).item())  # not on the meta device
    return nn.Linear(size, size)


@pytest.mark.parametrize("size", [100_000, 10**6])
def test_no_memory_is_taken_beyond_what_the_file_holds(size: int, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="it makes tensors far larger than those of the file"):
        load_model(written(tmp_path / "evil.safetensors", recipe(f"{HERE}:greedy", size)))


def test_a_recipe_that_is_nested_too_deep(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    with pytest.raises(RecipeError, match="nested"):
        load_model(written(tmp_path / "a.safetensors", recipe("torch.nn:Linear", deep, 2)))


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "",
        "[]",
        "{",
        "null",
        '{"format": 1}',
        '{"format": 2, "recipe": {}}',
        "[" * 5000,
        '{"format":1,"recipe":[]}',
    ],
)
def test_metadata_without_a_recipe(metadata: str | None, tmp_path: Path) -> None:
    save_file(
        {"weight": torch.zeros(1)},
        tmp_path / "a.safetensors",
        metadata=None if metadata is None else {RECIPE: metadata},
    )
    with pytest.raises(RecipeError, match="no recipe of a model|its recipe is damaged|its recipe has format 2"):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "more",
    [
        {"tied": [["weight", "nothing"]]},
        {"tied": [["weight", "bias"]]},
        {"tied": 3},
        {"tied": [3]},
        {"tied": [["a.b.c", "x"]]},
    ],
)
def test_ties_that_are_none(more: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="do not belong together"):
        load_model(written(tmp_path / "a.safetensors", recipe("torch.nn:Linear", 3, 2), **more))


@pytest.mark.parametrize("groups", [3, [3], [["0", "0.0"]], [["", ""]], [["0", "2"]], [["0", "9"]], [["0", "0."]]])
def test_modules_that_cannot_be_one(groups: Any, tmp_path: Path) -> None:
    part = {"build": recipe("torch.nn:Sequential", {"build": recipe("torch.nn:ReLU")})}
    value = recipe("torch.nn:Sequential", part, part, {"build": recipe("torch.nn:Linear", 3, 2)})
    tensors = {"2.weight": torch.zeros(2, 3), "2.bias": torch.zeros(2)}
    with pytest.raises(RecipeError, match="do not belong together"):
        load_model(written(tmp_path / "a.safetensors", value, tensors, shared=groups))


@builder
def normed(width: int) -> nn.Module:
    return nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(width, width)))


def test_parametrized_modules_come_back_from_a_builder(tmp_path: Path) -> None:
    model = normed(3)
    loaded = load_model(save_model(model, tmp_path / "a.safetensors"))
    inputs = torch.randn(2, 3)
    assert torch.equal(loaded(inputs), model(inputs))


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (lambda: torchvision.models.resnet18(), r"relume.build\(torchvision.models.resnet18, ...\) in place of"),
        (lambda: torchvision.models.vgg11(init_weights=False), r"relume.build\(torchvision.models.vgg11, ...\).*'torchvision/vgg11'"),
        (lambda: torchvision.models.resnet18().layer1[0], r"relume.build\(BasicBlock, ...\)"),
        (lambda: timm.create_model("test_resnet"), r"relume.build\(timm.create_model, 'test_resnet', ...\).*'timm/test_resnet'"),
        (lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "make a class of their own out of Linear.*@relume.builder"),
    ],
)  # fmt: skip
def test_the_remedy_is_one_that_can_be_followed(make_one: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_of(make_one())


def test_a_class_that_was_defined_anew_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(Wrapper, nn.Linear(2, 3), norms={"out": nn.BatchNorm1d})
    anew = type("Wrapper", (nn.Module,), {**vars(Wrapper), "__init__": _wrapped})
    monkeypatch.setattr(sys.modules[HERE], "Wrapper", anew)
    with pytest.raises(
        RecipeError, match="its class Wrapper was defined anew after the model was built, as by running"
    ):
        save_model(model, tmp_path / "a.safetensors")


def _wrapped(self: Any, inner: nn.Module, norms: dict[str, type[nn.Module]]) -> None:
    nn.Module.__init__(self)
    self.inner, self.norm = inner, norms["out"](3)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([torch.int8, nn.ReLU]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
@settings(max_examples=100, deadline=None)
def test_arguments_come_back(value: Any) -> None:
    from relume.models.recipe.values import from_json, to_json

    taken = json.loads(json.dumps(to_json(value, "value", lambda module, path: {})))
    assert repr(from_json(taken, lambda content: nn.ReLU())) == repr(value)


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.text(max_size=4)
    | st.sampled_from(["torch.nn:Linear", "os:system"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["builder", "args", "kwargs", "build", "class", "dict", "tuple", "replaced", "float"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(junk)
@settings(max_examples=150, deadline=None)
def test_whatever_a_recipe_is_only_errors_of_relume_come_out(value: Any) -> None:
    try:
        make(value, HELD)
    except RelumeError:
        pass


@pytest.mark.parametrize("seed", range(40))
def test_mutated_recipes_make_only_errors_of_relume(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    model = (
        build(torchvision.models.resnet18, num_classes=3)
        if seed % 4 == 0
        else nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    )
    path = save_model(model, tmp_path / "a.safetensors")
    data = bytearray(path.read_bytes())
    start = data.index(RECIPE.encode())
    for _ in range(rng.randint(1, 5)):
        data[start + rng.randrange(400)] = rng.choice(b'0123456789"[]{}:,.xnulltorchme\\')
    path.write_bytes(data)
    try:
        load_model(path)
    except RelumeError:
        pass
