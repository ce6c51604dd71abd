"""The model of a bundle comes by its recipe or its graph, and its weights are read by all that reads files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from made_bundles import packed, recipe
from torch import nn

import relume
from relume.errors import BundleError, ConfigurationError, RecipeError
from relume.models.bundled import is_bundle
from relume.models.exported import graph_files
from relume.models.files import open_model_file
from relume.share.bundle import Bundle
from relume.share.documents import Preprocessing
from relume.share.opening import open_model, ways
from relume.share.unpacking import unpack

CLASSES = ["cat", "dog", "owl"]


@pytest.fixture
def net() -> nn.Module:
    return relume.models.CNN(classes=3).eval()


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.rand(2, 1, 28, 28)


def test_a_recipe_of_relume_gives_the_class_from_file_folder_and_renamed_file(
    net: nn.Module, inputs: torch.Tensor, tmp_path: Path
) -> None:
    path = packed(tmp_path / "pets.relume", net)
    folder = unpack(path, tmp_path / "pets")
    (tmp_path / "pets.zip").write_bytes(path.read_bytes())
    for place in (path, str(path), folder, tmp_path / "pets.zip"):
        loaded = relume.load_model(place)
        assert type(loaded) is type(net) and torch.equal(loaded(inputs), net(inputs))


def test_tensors_stay_in_the_bundle_and_training_does_not_change_it(net: nn.Module, tmp_path: Path) -> None:
    path = packed(tmp_path / "pets.relume", net)
    before = path.read_bytes()
    loaded = relume.load_model(path)
    torch.optim.SGD(loaded.parameters(), lr=1.0).zero_grad()
    with torch.no_grad():
        for value in loaded.parameters():
            value.add_(1)
    assert path.read_bytes() == before and not Bundle(path).differences()


def test_without_mmap_the_file_may_go(net: nn.Module, inputs: torch.Tensor, tmp_path: Path) -> None:
    path = packed(tmp_path / "pets.relume", net)
    loaded = relume.load_model(path, mmap=False)
    path.unlink()
    assert torch.equal(loaded(inputs), net(inputs))


def test_a_class_that_is_not_here_comes_as_its_graph(net: nn.Module, inputs: torch.Tensor, tmp_path: Path) -> None:
    graph = graph_files(net, inputs)
    path = packed(tmp_path / "own.relume", document=recipe("their_code:Net"), state=net.state_dict(), files=graph)
    loaded = relume.load_model(path)
    assert torch.allclose(loaded(inputs), net(inputs), atol=1e-6) and type(loaded).__name__ != "CNN"
    with pytest.raises(RecipeError, match=r"By its recipe: their_code:Net is not imported"):
        relume.load_model(path, through="recipe")


def test_a_class_that_the_user_imported_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_nets.py").write_text("from torch import nn\nclass Line(nn.Linear): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    state = nn.Linear(2, 3).state_dict()
    path = packed(tmp_path / "own.relume", document=recipe("my_own_nets:Line", 2, 3), state=state)
    with pytest.raises(RecipeError, match="`import my_own_nets` first"):
        relume.load_model(path)
    __import__("my_own_nets")
    monkeypatch.delitem(sys.modules, "my_own_nets")  # taken away at the end as well
    import my_own_nets

    assert type(relume.load_model(path)) is my_own_nets.Line


def test_without_any_way_the_error_says_why_for_each_and_what_to_do(tmp_path: Path) -> None:
    state = nn.Linear(2, 3).state_dict()
    path = packed(tmp_path / "none.relume", state=state, why_no_document="it is a lambda", why_no_graph="it branches")
    with pytest.raises(
        RecipeError, match=r"recipe: it is a lambda\. By its graph: it branches\. Its weights alone: relume"
    ):
        relume.load_model(path)
    code = {"net.py": "class Net: pass\n\n"}
    path = packed(tmp_path / "code.relume", document=recipe("net:Net"), state=state, code=code)
    with pytest.raises(
        RecipeError, match=r"holds the code: Net in code/net.py \(2 lines\). It was not run. .*trust=True"
    ):
        relume.load_model(path)


def test_swapped_weights_under_a_manifest_made_anew_are_named(net: nn.Module, tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in net.state_dict().items()}
    from relume.share.weights import weights_digest

    path = packed(tmp_path / "pets.relume", net, state=other, weights_digest=weights_digest(net.state_dict()))
    with pytest.raises(BundleError, match=r"model.safetensors does not hold the weights that config.json names"):
        relume.load_model(path)
    for name, value in open_model_file(path).state.items():  # they can be looked at all the same
        assert torch.equal(value, other[name])


def test_wrong_arguments_are_refused(net: nn.Module, tmp_path: Path) -> None:
    path = packed(tmp_path / "pets.relume", net)
    single = relume.save_model(net, tmp_path / "pets.safetensors")
    wrong = [
        (path, {"through": "pickle"}, "through='pickle': it is 'recipe', 'code', 'graph'"),
        (path, {"through": "code"}, "takes trust=True"),
        (path, {"trust": "yes"}, "trust='yes': it is True or False"),
        (path, {"model": "teacher"}, "holds the weights of one model"),
        (path, {"device": "nowhere"}, "none that torch knows"),
        (single, {"trust": True}, "trust=True is for bundles"),
        (single, {"through": "graph"}, "through='graph' is for bundles"),
    ]
    for place, options, message in wrong:
        with pytest.raises(ConfigurationError, match=message):
            relume.load_model(place, **options)


def test_what_is_missing_in_a_bundle_is_named(tmp_path: Path) -> None:
    from relume.share.archive import write_archive

    write_archive(tmp_path / "empty.relume", "empty", {}, "0")
    with pytest.raises(BundleError, match=r"holds no config.json"):
        relume.load_model(tmp_path / "empty.relume")
    with pytest.raises(BundleError, match=r"holds no model.safetensors"):
        write_archive(tmp_path / "half.relume", "half", {"config.json": lambda: [b"{}"]}, "0")
        relume.load_model(tmp_path / "half.relume")


def test_all_that_reads_weights_reads_those_of_a_bundle(net: nn.Module, tmp_path: Path) -> None:
    path = packed(tmp_path / "pets.relume", net, preprocessing=Preprocessing(classes=CLASSES))
    folder = unpack(path, tmp_path / "pets")
    for place in (path, folder):
        assert open_model_file(place).format == "bundle"
        assert relume.read_state(place).keys() == net.state_dict().keys()
        assert relume.diff(place, path).is_same
        assert relume.inspect_file(place, stats=True).elements == sum(v.numel() for v in net.state_dict().values())
        target = relume.models.CNN(classes=3)
        assert not relume.load_weights(target, place).missing
        assert all(torch.equal(a, b) for a, b in zip(target.parameters(), net.parameters(), strict=True))
    relume.convert(path, tmp_path / "plain.pt")
    assert torch.load(tmp_path / "plain.pt", weights_only=True).keys() == net.state_dict().keys()


def test_a_changed_folder_is_refused_by_all_of_them(net: nn.Module, tmp_path: Path) -> None:
    folder = unpack(packed(tmp_path / "pets.relume", net), tmp_path / "pets")
    (folder / "config.json").write_text(json.dumps({}))
    for reader in (relume.load_model, relume.read_state, relume.inspect_file):
        with pytest.raises(BundleError, match=r"config.json has 2 bytes where"):
            reader(folder)


def test_other_archives_and_folders_are_no_bundles(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    (tmp_path / "manifest.json").write_text('{"kind": "something"}')
    assert not any(map(is_bundle, (tmp_path, tmp_path / "a.pt", tmp_path / "none.relume", "a\0b", "x" * 5000)))


def test_images_are_predicted_by_a_bundle(net: nn.Module, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (40, 30), 99).save(tmp_path / "photo.png")
    settings = Preprocessing(kind="image", settings={"size": 28, "channels": 1}, classes=CLASSES)
    path = packed(tmp_path / "pets.relume", net, preprocessing=settings)
    whole, [one] = relume.ImageClassifier.load(path, device="cpu"), relume.predict_images(path, tmp_path / "photo.png")
    assert (
        whole.classes == tuple(CLASSES) and whole.prepare.size == 28 and {name for name, _ in one.classes} == {*CLASSES}
    )
    [same] = relume.predict_images(unpack(path, tmp_path / "pets"), tmp_path / "photo.png")
    assert same.classes == one.classes


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (Preprocessing(kind="tensors", classes=CLASSES), "its inputs are no pictures"),
        (Preprocessing(kind="image", settings={"size": 28}), "its classes have no names"),
        (Preprocessing(kind="image", settings={"size": "big"}, classes=CLASSES), "size and channels are whole numbers"),
        (Preprocessing(kind="image", settings={"run": "me"}, classes=CLASSES), "how images are prepared is said by"),
        (None, "its inputs are no pictures"),
    ],
)
def test_a_bundle_that_cannot_predict_pictures_says_so(
    net: nn.Module, tmp_path: Path, known: Preprocessing | None, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        relume.ImageClassifier.load(packed(tmp_path / "pets.relume", net, preprocessing=known))


def test_the_ways_are_told_without_building_anything(net: nn.Module, inputs: torch.Tensor, tmp_path: Path) -> None:
    files = graph_files(net, inputs)
    path = packed(
        tmp_path / "a.relume", document=recipe("net:Net"), state=net.state_dict(), files=files, code={"net.py": ""}
    )
    assert [(one.name, bool(one.problem)) for one in ways(Bundle.open(path))] == [
        ("recipe", True), ("code", False), ("graph", False),
    ]  # fmt: skip
    assert "net" not in sys.modules
    assert isinstance(open_model(Bundle.open(path)), nn.Module)
