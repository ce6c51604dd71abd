"""Packing gathers all of a run into one file, says what is not in it, and tells nothing of the machine."""

from __future__ import annotations

import getpass
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.datasets import ToTensor, load
from relume.errors import (
    BundleError,
    ClassicFileError,
    ConfigurationError,
    DataError,
    RelumeError,
    UnknownCheckpointError,
    UnknownNameError,
)
from relume.saved import find_checkpoint
from relume.share import documents as named
from relume.share.bundle import Bundle
from relume.share.examples import prepared, run_examples, stored
from relume.share.pack import pack
from relume.share.sampling import open_sample
from relume.share.weights import weights_digest


def blobs(count: int = 60) -> TensorDataset:
    draws = torch.Generator().manual_seed(0)
    target = torch.arange(count) % 3
    return TensorDataset(torch.randn(count, 4, generator=draws) + target[:, None], target)


def trained(root: Path, name: str = "blobs", **config: Any) -> relume.Trainer:
    torch.manual_seed(0)
    model = relume.build(nn.Sequential, nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    trainer = relume.Trainer(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(model.parameters(), lr=0.05),
        metrics={"accuracy": relume.accuracy},
        device="cpu",
        quiet=True,
    )
    trainer.fit(
        DataLoader(blobs(), 20, shuffle=True),
        DataLoader(blobs(), 30),
        epochs=2,
        run=name,
        root=root,
        config=config or None,
    )
    return trainer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELUME_PROVENANCE", "off")
        root = tmp_path_factory.mktemp("runs")
        trained(root)
    return root


def packed(root: Path, out: Path, **options: Any) -> tuple[Any, Bundle]:
    found = pack("blobs", out, root=root, **{"data": blobs(), "graph": False, **options})
    return found, Bundle.open(out)


def test_a_run_is_in_one_file(root: Path, tmp_path: Path) -> None:
    found, bundle = packed(root, tmp_path / "one.relume", title="Blobs", authors=["Ann Lee"], licence="MIT")
    held = set(bundle.members())
    assert {named.WEIGHTS, named.MODEL, named.INPUT, named.RUN, named.CLAIMS, named.DATA, named.EXAMPLES} <= held
    assert {named.ENVIRONMENT, named.LINEAGE, named.CARD, named.CRATE, named.CITATION} <= held
    store, checkpoint = find_checkpoint("blobs", root)
    state = store.load(checkpoint, part=("models", "model"))
    assert {name: value.tolist() for name, value in bundle.tensors(named.WEIGHTS).state.items()} == {
        name: value.tolist() for name, value in state.items()
    }
    model = bundle.document(named.MODEL, named.Model)
    assert model.weights_digest == weights_digest(state) and model.architectures == ["Sequential"]
    assert model.parameters == 4 * 8 + 8 + 8 * 3 + 3 and not model.needs_code
    facts = bundle.document(named.RUN, named.RunFacts)
    assert (facts.name, facts.title, facts.authors, facts.licence) == ("blobs", "Blobs", ["Ann Lee"], "MIT")
    assert facts.epoch == 2 and facts.step == 6 and facts.status == "finished"
    assert found.digest == bundle.manifest.digest and found.size_bytes == (tmp_path / "one.relume").stat().st_size


def test_packing_twice_gives_the_same_bytes_whatever_the_file_is_called(root: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        packed(root, tmp_path / f"{name}.relume", graph=True, checkpoint=True, sample=3)
    assert (tmp_path / "one.relume").read_bytes() == (tmp_path / "two.relume").read_bytes()


def test_its_model_opens_and_computes_what_its_author_got(root: Path, tmp_path: Path) -> None:
    _, bundle = packed(root, tmp_path / "one.relume", graph=True)
    from relume.share.opening import open_model

    for way in ("recipe", "graph"):
        outputs, expected = run_examples(open_model(bundle, through=way), bundle)
        assert torch.equal(outputs, expected) and outputs.shape == (4, 3)


def test_numbers_of_the_run_are_measured_anew(root: Path, tmp_path: Path) -> None:
    _, bundle = packed(root, tmp_path / "one.relume")
    claims = bundle.document(named.CLAIMS, named.Claims)
    assert {claims.evaluations[claim.evaluation].where for claim in claims.claims} == {"packing"}
    measured = {claim.name: claim.value for claim in claims.claims}
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    model.load_state_dict(dict(bundle.tensors(named.WEIGHTS).state))
    inputs, target = blobs().tensors
    with torch.no_grad():
        right = int((model(inputs).argmax(1) == target).sum())
        loss = nn.functional.cross_entropy(model(inputs).double(), target).item()
    assert measured["val/accuracy"] == right / 60
    assert measured["val/loss"] == pytest.approx(loss, rel=1e-9)
    for name, value in measured.items():  # what the run recorded stands in the curve
        assert claims.curves[name][-1][2] == pytest.approx(value, rel=1e-5)
    packing = next(one for one in claims.evaluations if one.where == "packing")
    assert packing.metrics == {"val/accuracy": "accuracy", "val/loss": "cross entropy"} and packing.data == 0
    assert packing.batch_size == 500 and packing.environment["torch"] == torch.__version__
    assert [len(claims.curves["val/loss"]), claims.curves["val/loss"][-1][:2]] == [2, (6, 2)]


def test_numbers_of_other_data_than_in_training_are_both_there_and_it_is_said(root: Path, tmp_path: Path) -> None:
    other = (torch.zeros(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    found, bundle = packed(root, tmp_path / "one.relume", data=other)
    assert any("both are in the bundle" in note for note in found.notes)
    values = [claim.value for claim in found.claims.claims if claim.name == "val/accuracy"]
    assert len(set(values)) == 2
    assert bundle.document(named.DATA, named.Data).sets[0].samples == 5


def test_nothing_of_the_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELUME_PROVENANCE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("import torch\n")
    trained(Path("runs"), data=str(tmp_path / "images"), note=f"see {Path.home()}/notes/a.txt", key="hf_" + "a1B2" * 9)
    pack("blobs", "one.relume", data=blobs(), checkpoint=True, sample=2)
    bundle = Bundle.open("one.relume")
    told = [str(tmp_path), str(Path.home()), str(Path(__file__).parents[2]), sys.prefix]
    told += [name for name in (platform.node(), getpass.getuser()) if len(name) > 4]
    for member in bundle.members():
        if not member.startswith(named.CODE_FOLDER):
            content = bytes(bundle.buffer(member))
            assert not [one for one in told if one.encode() in content], member
            assert b"a1B2a1B2" not in content, member
    config = bundle.document(named.RUN, named.RunFacts).config
    assert (config["data"], config["note"]) == ("images", "see a.txt")


def test_without_data_it_says_so_and_claims_what_the_run_recorded(root: Path, tmp_path: Path) -> None:
    found = pack("blobs", tmp_path / "one.relume", root=root)
    assert any("names no 'dataset'" in text and "--data" in text for text in found.missing)
    assert {found.claims.evaluations[claim.evaluation].where for claim in found.claims.claims} == {"training"}
    with pytest.raises(DataError, match=r"is not known: give data="):
        pack("blobs", tmp_path / "two.relume", root=root, evaluate=True)


def test_a_sample_of_the_data_has_numbers_of_its_own(root: Path, tmp_path: Path) -> None:
    found, bundle = packed(root, tmp_path / "one.relume", sample=7)
    inputs, _ = blobs().tensors
    dataset = open_sample(bundle)
    assert torch.equal(torch.stack([dataset[n][0] for n in range(7)]), inputs[:7])
    named_claims = {claim.name: claim for claim in found.claims.claims}
    evaluation = found.claims.evaluations[named_claims["sample/val/accuracy"].evaluation]
    facts = bundle.document(named.DATA, named.Data).sets[evaluation.data or 0]
    assert (facts.role, facts.samples) == ("sample", 7)
    with pytest.raises(DataError, match="sample= takes samples of the data"):
        pack("blobs", tmp_path / "two.relume", root=root, sample=3)


def test_training_goes_on_from_the_whole_checkpoint(root: Path, tmp_path: Path) -> None:
    _, bundle = packed(root, tmp_path / "one.relume", checkpoint=True)
    for member in bundle.members(named.CHECKPOINT_FOLDER):
        path = tmp_path / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bundle.read(member))
    unpacked = tmp_path / named.CHECKPOINT_FOLDER
    store, checkpoint = find_checkpoint("blobs@best", unpacked)
    old_store, old = find_checkpoint("blobs", root)
    now, before = store.load(checkpoint), old_store.load(old)
    assert isinstance(now, dict) and isinstance(before, dict)
    for name, value in before["models"]["model"].items():
        assert torch.equal(now["models"]["model"][name], value)
    assert now["optimizers"].keys() == before["optimizers"].keys()
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    with relume.Run(
        "more", root=tmp_path / "runs", model=model, optimizer=optimizer, from_checkpoint=checkpoint.path
    ) as run:
        assert run.cursor.step == 6


# --------------------------------------------------------------------------------------------------------------- pictures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draws = torch.Generator().manual_seed(1)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(6):
            pixels = torch.randint(0, 256, (12, 10, 3), dtype=torch.uint8, generator=draws)
            Image.fromarray(pixels.numpy()).save(tmp_path / "pictures" / name / f"{number}.jpg")
    return tmp_path / "pictures"


def of_pictures(root: Path, pictures: Path, **config: Any) -> None:
    split = load(pictures, size=8, quiet=True, val_share=0.34)
    model = relume.build(nn.Sequential, nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    trainer = relume.Trainer(
        model, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1), quiet=True, device="cpu",
        metrics={"accuracy": relume.accuracy},
    )  # fmt: skip
    own = {"dataset": str(pictures), "val_share": 0.34, "classes": split.classes, "input": split.prepare.as_config()}
    trainer.fit(
        DataLoader(split.train, 4), DataLoader(split.test, 4), epochs=1, run="pets", root=root, config=own | config
    )


def test_a_folder_of_images_is_measured_and_its_raw_pictures_become_the_inputs(tmp_path: Path, pictures: Path) -> None:
    of_pictures(tmp_path / "runs", pictures)
    found = pack("pets", tmp_path / "pets.relume", root=tmp_path / "runs", sample=2)
    bundle = Bundle.open(tmp_path / "pets.relume")
    facts = bundle.document(named.DATA, named.Data).sets[0]
    assert (facts.kind, facts.name, facts.options, facts.samples) == ("folder", "pictures", {"val_share": 0.34}, 4)
    assert {claim.name for claim in found.claims.claims} > {"val/accuracy", "sample/val/accuracy"}
    assert found.claims.confusion is not None and sum(map(sum, found.claims.confusion)) == 4
    assert not found.notes, found.notes
    again = prepared(bundle)
    assert again is not None and torch.equal(again, stored(bundle).args[0])
    assert {one.label for one in stored(bundle).document.examples} == {0, 1}
    assert sum(member.endswith(".png") for member in bundle.members(named.SAMPLE_FOLDER)) == 2


def test_data_that_is_gone_is_missing_and_the_rest_is_packed(tmp_path: Path, pictures: Path) -> None:
    of_pictures(tmp_path / "runs", pictures)
    pictures.rename(tmp_path / "elsewhere")
    found = pack("pets", tmp_path / "pets.relume", root=tmp_path / "runs")
    assert any("is not here any more" in text and "--data" in text for text in found.missing)
    bundle = Bundle.open(tmp_path / "pets.relume")
    assert bundle.document(named.DATA, named.Data).sets[0].kind == "folder"
    assert all(one.raw and one.index is None for one in stored(bundle).document.examples), "made up pictures"
    with pytest.raises(DataError, match="is not here any more"):
        pack("pets", tmp_path / "two.relume", root=tmp_path / "runs", evaluate=True)
    pack("pets", tmp_path / "two.relume", root=tmp_path / "runs", data=tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "bird").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "elsewhere" / "bird" / "0.png")
    with pytest.raises(DataError, match="has the classes"):
        pack("pets", tmp_path / "three.relume", root=tmp_path / "runs", data=tmp_path / "elsewhere")


# ----------------------------------------------------------------------------------------------------------- own classes

_SCRIPT = """
import sys, torch, relume
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(4, width)
        self.outer = nn.Linear(width, 3)
    def forward(self, x):
        return self.outer(self.inner(x).relu())

if __name__ == "__main__":
    model = relume.build(Net, 5)
    data = TensorDataset(torch.randn(30, 4), torch.arange(30) % 3)
    trainer = relume.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                             metrics={"accuracy": relume.accuracy}, quiet=True, device="cpu", seed=3)
    trainer.fit(DataLoader(data, 10), DataLoader(data, 10), epochs=1, run="own")
    if sys.argv[1:]:
        from relume.share.pack import pack
        found = pack("own", sys.argv[1], data=data)
        print(found.model.needs_code, found.model.has_graph, found.missing)
"""


def run_script(folder: Path, *arguments: str) -> str:
    (folder / "train.py").write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, "train.py", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_class_of_a_script_is_packed_with_its_code_and_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RELUME_PROVENANCE", raising=False)
    assert "__main__.Net True" in run_script(tmp_path, "own.relume")
    bundle = Bundle.open(tmp_path / "own.relume")
    facts = bundle.document(named.CODE, named.CodeFacts)
    assert (facts.script, facts.arguments, facts.is_relume_command) == ("train.py", ["own.relume"], False)
    assert bundle.read("code/train.py").decode() == _SCRIPT
    from relume.share.opening import open_model

    for options in ({"through": "graph"}, {"through": "code", "trust": True}):
        outputs, expected = run_examples(open_model(bundle, **options), bundle)
        assert torch.equal(outputs, expected)

    inputs = (torch.zeros(2, 4), torch.tensor([0, 1]))
    with pytest.raises(RelumeError, match=r"not imported|cannot be built"):
        pack("own", tmp_path / "two.relume", root=tmp_path / "runs", data=inputs, evaluate=True)
    without = pack("own", tmp_path / "three.relume", root=tmp_path / "runs", data=inputs)
    assert any("graph" in text for text in without.missing) and not without.model.has_graph
    trusted = pack("own", tmp_path / "four.relume", root=tmp_path / "runs", data=inputs, trust=True)
    assert trusted.model.has_graph and not any("graph" in text for text in trusted.missing)


def test_code_that_is_too_large_is_left_out_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from relume.share import sources

    monkeypatch.delenv("RELUME_PROVENANCE", raising=False)
    (tmp_path / "notes.md").write_text("a" * 3000)
    (tmp_path / "keys.py").write_text("KEY = 'hf_" + "aB3" * 12 + "'\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    run_script(tmp_path)
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 2500)
    found = pack("own", tmp_path / "own.relume", root=tmp_path / "runs", data=None)
    bundle = Bundle.open(tmp_path / "own.relume")
    facts = bundle.document(named.CODE, named.CodeFacts)
    assert any(text.startswith("notes.md has 3.0 kB") for text in facts.left_out)
    assert "code/notes.md" not in bundle and "code/train.py" in bundle
    assert b"aB3aB3" not in bundle.read("code/keys.py")
    assert next(one for one in facts.files if one.path == "keys.py").redacted == 1
    assert any("not exactly what ran" in note for note in found.notes)


# ---------------------------------------------------------------------------------------------------------------- errors


def test_a_model_that_nobody_could_open_is_refused(tmp_path: Path) -> None:
    class Local(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.inner(x))

    model = Local()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with relume.Run("local", root=tmp_path / "runs", model=model, optimizer=optimizer) as run:
        run.log({"val/loss": 1.0})
        run.checkpoint()
    with pytest.raises(BundleError, match=r"nobody could open this bundle.*relume.pack\(..., model=model"):
        pack("local", tmp_path / "one.relume", root=tmp_path / "runs", data=blobs())
    assert not list(tmp_path.glob("*.relume*"))
    found = pack(
        "local", tmp_path / "one.relume", root=tmp_path / "runs", data=blobs(), model=model, loss="cross entropy"
    )
    assert found.model.has_graph and found.model.document is None
    with pytest.raises(ConfigurationError, match="that the weights do not fit"):
        pack("local", tmp_path / "two.relume", root=tmp_path / "runs", data=blobs(), model=nn.Linear(2, 2))


def test_several_models_ask_for_one(tmp_path: Path) -> None:
    models = {name: relume.build(nn.Linear, 4, 3) for name in ("generator", "critic")}
    with relume.Run("two", root=tmp_path / "runs", model=models) as run:
        run.checkpoint()
    with pytest.raises(ConfigurationError, match="generator"):
        pack("two", tmp_path / "one.relume", root=tmp_path / "runs")
    assert pack("two", tmp_path / "one.relume", root=tmp_path / "runs", model="critic").model.architectures == [
        "Linear"
    ]
    with pytest.raises(UnknownNameError, match="critic"):
        pack("two", tmp_path / "two.relume", root=tmp_path / "runs", model="critics")


def test_a_checkpoint_without_models_and_a_run_without_checkpoints(tmp_path: Path) -> None:
    with relume.Run("bare", root=tmp_path / "runs", track={"counter": _Counter()}) as run:
        run.checkpoint()
    with pytest.raises(ClassicFileError, match="has no models in it"):
        pack("bare", tmp_path / "one.relume", root=tmp_path / "runs")
    with relume.Run("none", root=tmp_path / "runs", model=nn.Linear(1, 1)):
        pass
    for manifest in (tmp_path / "runs" / "none" / "checkpoints").glob("*.json"):
        manifest.unlink()
    with pytest.raises(UnknownCheckpointError, match="A bundle is made from a checkpoint"):
        pack("none", tmp_path / "one.relume", root=tmp_path / "runs")


class _Counter:
    def state_dict(self) -> dict[str, int]:
        return {"count": 1}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"out": "one.zip"}, r"a bundle is called NAME\.relume"),
        ({"out": "nowhere/one.relume"}, r"there is no folder nowhere"),
        ({"out": "folder.relume"}, r"is a folder"),
        ({"out": "there.relume"}, r"exists\. Choose another name"),
        ({"examples": -1}, r"examples=-1"),
        ({"sample": True}, r"sample=True"),
        ({"authors": [3]}, r"authors=\[3\]"),
        ({"data": 7}, r"data=7 is a int"),
        ({"data": "fashion-mnits"}, r"no dataset, no folder and no file 'fashion-mnits'.*fashion-mnist"),
        ({"data": blobs(), "metrics": {"f1": "f1"}}, r"f1='f1' is not known"),
        ({"data": blobs(), "metrics": ["accuracy"]}, r"metrics=\['accuracy'\]"),
        ({"data": blobs(), "loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, r"a loss with settings"),
        ({"data": blobs(), "metrics": {"own": lambda output, target: 1.0}}, r"cannot be found again by its name"),
    ],
)
def test_arguments_that_make_no_sense(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.relume").mkdir()
    (tmp_path / "there.relume").touch()
    with pytest.raises(ConfigurationError, match=problem):
        pack("blobs", **{"root": root, "out": "one.relume", **options})
    assert not (tmp_path / "one.relume").exists()


def test_there_is_no_such_run(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no run 'blob' .*blobs"):
        pack("blob", tmp_path / "one.relume", root=root)
    with pytest.raises(UnknownCheckpointError, match="99"):
        pack("blobs@99", tmp_path / "one.relume", root=root)
    with pytest.raises(ConfigurationError, match="pack takes RUN"):
        pack(3, tmp_path / "one.relume", root=root)


def test_a_run_is_named_in_several_ways(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = set()
    _, checkpoint = find_checkpoint("blobs", root)
    for name in ("blobs", "blobs@last", "blobs@2", root / "blobs", checkpoint.path, checkpoint):
        written.add(pack(name, root=root, graph=False, examples=0, force=True).digest)
    assert len(written) == 1 and (tmp_path / "blobs.relume").is_file()


# --------------------------------------------------------------------------------------------------------------- command


def test_the_command_says_what_went_in_and_what_did_not(root: Path, tmp_path: Path) -> None:
    def relume_pack(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "relume", "pack", *arguments, "--root", str(root)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = relume_pack("blobs@best", "-o", "one.relume")
    assert done.returncode == 0, done.stderr
    assert "one.relume" in done.stdout and "weights" in done.stdout and "relume reproduce one.relume" in done.stdout
    assert "Not in it: " in done.stdout and "--licence" in done.stdout
    again = relume_pack("blobs@best", "-o", "one.relume")
    assert again.returncode == 1 and "--force" in again.stderr
    as_json = relume_pack("blobs", "-o", "one.relume", "--force", "--json")
    assert json.loads(as_json.stdout)["digest"] == Bundle.open(tmp_path / "one.relume").manifest.digest
    assert relume_pack("blobs", "-o", "q.relume", "--quiet").stdout == ""


def test_what_turns_images_into_inputs_is_told_from_torchvisions_transforms(pictures: Path) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    folder = pytest.importorskip("torchvision.datasets").ImageFolder
    from relume.share.transforms import known_transform

    steps = [
        transforms.Resize(8),
        transforms.CenterCrop(8),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.2] * 3),
    ]
    expected = ToTensor(8, None, (0.5,) * 3, (0.2,) * 3)
    assert known_transform(folder(pictures, transforms.Compose(steps))) == expected
    assert known_transform(folder(pictures, transforms.Compose([transforms.RandomCrop(8), *steps]))) is None
    assert known_transform(folder(pictures, lambda image: image)) is None
