"""``relume predict``: what images show."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from relume import Run, load_model, predict, save_weights
from relume.datasets import ToTensor, image_folder
from relume.errors import ConfigurationError, DataError, RecipeError
from relume.models import make_model
from relume.train.images import ImageClassifier, find_images, predict_images

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(project: Path, relume: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the run (the fixture ``relume`` goes first: it changes the folder, too)."""
    monkeypatch.chdir(project)
    return project


def test_a_table_names_the_classes_with_their_probabilities(here: Path, relume: Command) -> None:
    status, out, err = relume("predict", "garments@best", "garments/shirt/1.jpg", "garments/dress", "garments/trousers")
    assert status == 1 and "there is no file garments/dress" in err
    status, out, err = relume("predict", "garments@best", "garments/shirt/1.jpg", "garments/trousers", "--top", "2")
    assert (status, err) == (0, "")
    assert out.count("%") == 2 * 21 and "garments/trousers/20.png" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_single_image_gets_a_row_for_each_class(here: Path, relume: Command) -> None:
    _, out, _ = relume("predict", "garments", "garments/shirt/1.jpg")
    assert all(name in out for name in ("shirt", "trousers", "pullover")) and out.count("%") == 3


def test_csv_and_json_say_the_same(here: Path, relume: Command) -> None:
    status, text, _ = relume("predict", "garments@last", "garments/shirt", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    _, text, _ = relume("predict", "garments", "garments/shirt", "--format", "json")
    images = json.loads(text)
    assert status == 0 and len(rows) == 3 * 20 and len(images) == 20
    flat = [(one["image"], c["class"], f"{c['probability']:.6f}") for one in images for c in one["classes"]]
    assert flat == [(row["image"], row["class"], row["probability"]) for row in rows]
    assert [row["rank"] for row in rows[:3]] == ["1", "2", "3"]
    assert all(abs(sum(c["probability"] for c in one["classes"]) - 1) < 1e-9 for one in images)


def test_probabilities_are_those_of_the_model_on_the_validation_images(here: Path) -> None:
    run = json.loads((here / "runs" / "garments" / "run.json").read_text())["config"]
    held_out = image_folder(here / "garments", train=False, transform=ToTensor.of_config(run["input"]), quiet=True)
    loader = torch.utils.data.DataLoader(held_out, batch_size=6)
    expected = predict(load_model(str(here / "runs" / "garments")), loader, in_memory=False).double().softmax(1)
    found = predict_images("garments@last", [path for path, _ in held_out.samples], top=3, device="cpu")
    for row, one in zip(expected, found, strict=True):
        by_name = dict(one.classes)
        assert torch.allclose(torch.tensor([by_name[name] for name in held_out.classes]).double(), row, atol=1e-6)


def test_the_result_does_not_depend_on_how_images_are_put_into_batches(here: Path) -> None:
    together, apart = (predict_images("garments", "garments", batch_size=size, device="cpu") for size in (64, 7))
    assert [one.image for one in together] == [one.image for one in apart]
    for a, b in zip(together, apart, strict=True):
        assert dict(a.classes) == pytest.approx(dict(b.classes), abs=1e-5)


def test_the_ending_of_the_output_says_its_format(here: Path, tmp_path: Path, relume: Command) -> None:
    for name, begin in (("a.csv", "image,rank,class,probability\n"), ("a.json", "[\n"), ("a.txt", "")):
        status, out, _ = relume("predict", "garments", "garments/shirt", "--output", str(tmp_path / name))
        assert status == 0 and "20 images by garments, after epoch 2" in out
        assert (tmp_path / name).read_text().startswith(begin) and "shirt/1.jpg" in (tmp_path / name).read_text()


def test_an_unreadable_image_is_named_and_the_others_are_predicted(here: Path, tmp_path: Path, relume: Command) -> None:
    shutil.copy(here / "garments" / "shirt" / "1.jpg", tmp_path / "good.jpg")
    (tmp_path / "bad.png").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    status, out, err = relume("predict", "garments", str(tmp_path), "--format", "json")
    bad, empty, good = json.loads(out)
    assert status == 1 and len(good["classes"]) == 3
    assert "cannot be read as an image" in bad["error"] and "cannot be read as an image" in empty["error"]
    assert err.count("Not predicted:") == 2


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA", "I;16"])
def test_images_of_any_mode_and_shape_are_predicted(here: Path, tmp_path: Path, mode: str) -> None:
    image = Image.effect_noise((301, 17), 80)
    image = image.convert("RGB").convert(mode) if mode != "I;16" else image.convert("I;16")
    image.save(tmp_path / "odd.tif")
    [found] = predict_images("garments", tmp_path)
    assert not found.problem and len(found.classes) == 3


def test_exported_weights_know_the_model_its_classes_and_its_input(here: Path, tmp_path: Path, relume: Command) -> None:
    file = str(tmp_path / "garments.safetensors")
    assert relume("export", "garments@best", file)[0] == 0
    _, from_file, _ = relume("predict", file, "garments/shirt", "--format", "csv")
    _, from_run, _ = relume("predict", "garments@best", "garments/shirt", "--format", "csv")
    assert from_file == from_run


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("garments",), 1, "no images were given"),
        (("garment", "garments"), 1, "there is no run 'garment' in runs: did you mean 'garments'"),
        (("garments@77", "garments"), 1, "77"),
        (("garments", "garments/*.gif"), 1, "no file matches 'garments/*.gif'"),
        (("garments", "garments", "--output", "no/where.csv"), 1, "there is no folder no"),
        (("garments", "garments", "--output", "garments"), 1, "garments is a folder"),
        (("garments", "garments", "--top", "0"), 2, "--top"),
        (("garments", "garments", "--device", "cuda:77"), 1, "cuda:77"),
        (("missing.safetensors", "garments"), 1, "missing.safetensors"),
        (("pretrained.safetensors", "garments"), 1, "pretrained.safetensors knows no names of classes"),
        ((), 2, "Missing argument"),
    ],
)
def test_wrong_arguments(here: Path, relume: Command, arguments: tuple[str, ...], status: int, message: str) -> None:
    ended = relume("predict", *arguments)
    assert ended[0] == status and message in ended[2]
    assert "Traceback" not in ended[2]


def test_an_empty_folder_is_an_error(here: Path, tmp_path: Path, relume: Command) -> None:
    (tmp_path / "nothing").mkdir()
    status, _, err = relume("predict", "garments", str(tmp_path / "nothing"))
    assert status == 1 and "nothing has no images in it" in err


def test_patterns_folders_and_files_are_found_once_each(here: Path) -> None:
    assert find_images(["garments/shirt/1.jpg", "garments/shirt"])[0] == "garments/shirt/1.jpg"
    assert len(find_images(["garments/shirt/*.png", "garments/**/*.png", "garments/shirt/2.png"])) == 30
    with pytest.raises(DataError, match="no images were given"):
        find_images([])


def run_with(folder: Path, config: object, outputs: int = 2) -> None:
    model = make_model("cnn", classes=outputs, channels=3, size=8)
    with Run("own", model=model, root=folder, config=config, quiet=True) as run:
        run.checkpoint()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "own knows no names of classes. relume train keeps them"),
        ({"classes": ["a", "b"]}, "knows its classes, and not how an image becomes its input"),
        ({"classes": "ab", "input": {"size": 8}}, "its classes are 'ab', no list of two or more names"),
        ({"classes": ["a"], "input": {"size": 8}}, "no list of two or more names"),
        ({"classes": ["a", "b"], "input": {"size": "8"}}, "size and channels are whole numbers"),
    ],
)
def test_a_run_that_is_no_classifier_of_images(tmp_path: Path, config: object, message: str) -> None:
    run_with(tmp_path / "runs", config)
    with pytest.raises(ConfigurationError, match=message):
        ImageClassifier.load("own", tmp_path / "runs")


def test_a_script_of_ones_own_keeps_what_is_needed(tmp_path: Path) -> None:
    run_with(tmp_path / "runs", {"classes": ["a", "b"], "input": ToTensor(8, 3).as_config()})
    Image.new("RGB", (20, 30)).save(tmp_path / "image.png")
    [found] = predict_images("own", tmp_path / "image.png", root=tmp_path / "runs")
    assert {name for name, _ in found.classes} == {"a", "b"}


def test_as_many_outputs_as_classes_are_needed(tmp_path: Path) -> None:
    run_with(tmp_path / "runs", {"classes": ["a", "b"], "input": ToTensor(8, 3).as_config()}, outputs=1)
    Image.new("RGB", (20, 30)).save(tmp_path / "image.png")
    with pytest.raises(
        ConfigurationError,
        match=r"own, after epoch 0: there are 2 classes, and the output for 1 image is of shape \(1, 1\)",
    ):
        predict_images("own", tmp_path, root=tmp_path / "runs")


def test_scores_that_are_not_finite_are_said(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    nn.init.constant_(model[1].weight, float("nan"))
    Image.new("RGB", (20, 30)).save(tmp_path / "image.png")
    [found] = predict_images(ImageClassifier(model, ("a", "b"), ToTensor(8, 3)), tmp_path)
    assert "scores are not finite" in found.problem and not found.classes


@pytest.mark.parametrize("options", [{"top": 0}, {"batch_size": 0}, {"top": True}])
def test_numbers_below_one(tmp_path: Path, options: dict[str, int]) -> None:
    Image.new("RGB", (20, 30)).save(tmp_path / "image.png")
    classifier = ImageClassifier(nn.Identity(), ("a", "b"), ToTensor(8, 3))
    with pytest.raises(ConfigurationError, match="it is a whole number of at least 1"):
        predict_images(classifier, tmp_path, **options)


def test_weights_without_a_recipe_are_refused(tmp_path: Path) -> None:
    metadata = {"relume.classes": '["a", "b"]', "relume.input": '{"size": 8}'}
    save_weights(nn.Linear(2, 2), tmp_path / "bare.safetensors", metadata=metadata)
    with pytest.raises(RecipeError, match="holds weights and no recipe"):
        ImageClassifier.load(tmp_path / "bare.safetensors")
