"""unpack, inspect and predict with a bundle, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import relume
from relume.cli.app import app
from relume.errors import BundleError, ConfigurationError, RecipeError
from relume.models.exported import graph_files
from relume.models.tensorfile import tensorfile_parts
from relume.models.whole import model_document
from relume.share.archive import write_archive
from relume.share.documents import INPUT, MODEL, WEIGHTS, Model, Preprocessing

run = CliRunner().invoke


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return write("pets.relume", model_document(relume.models.CNN(classes=2)))


def write(name: str, document: dict) -> Path:
    known = Preprocessing(kind="image", settings={"size": 28, "channels": 1}, classes=["cat", "dog"])
    texts = {
        MODEL: Model(document=document, architectures=["CNN"], weights_digest="").model_dump_json().encode(),
        INPUT: known.model_dump_json().encode(),
    }
    files = {member: (lambda text=text: [text]) for member, text in texts.items()}
    state = relume.models.CNN(classes=2).state_dict()
    files[WEIGHTS] = lambda: list(tensorfile_parts(state))
    write_archive(Path(name), "pets", files, "0.1.0")
    return Path(name)


def test_inspect_tells_on_a_page_what_a_bundle_is(pets: Path) -> None:
    found = run(app, ["inspect", str(pets)])
    assert found.exit_code == 0 and max(map(len, found.stdout.splitlines())) <= 80
    for text in (
        "every byte is as it was packed",
        "recipe: yes, relume.models.CNN builds it",
        "cat, dog",
        "licence",
        "28 x 28",
    ):
        assert text in found.stdout
    facts = json.loads(run(app, ["inspect", str(pets), "--json"]).stdout)
    assert facts["digest"] in found.stdout and facts["ways"][0] == {
        "way": "recipe", "problem": "", "detail": "relume.models.CNN builds it",
    }  # fmt: skip
    assert "float32" in run(app, ["inspect", str(pets), "--all"]).stdout


def test_unpack_says_what_it_wrote_and_refuses_to_do_it_twice(pets: Path) -> None:
    assert run(app, ["unpack", str(pets)]).stdout.startswith("pets: 3 files, ")
    again = run(app, ["unpack", str(pets)])
    assert isinstance(again.exception, ConfigurationError) and "--force" in str(again.exception)
    assert run(app, ["unpack", str(pets), "--force", "-o", "pets"]).exit_code == 0
    (Path("pets") / "config.json").write_text("{}")
    assert isinstance(run(app, ["inspect", "pets"]).exception, BundleError)


def test_predict_just_works_and_code_needs_trust(pets: Path) -> None:
    from PIL import Image

    Image.new("L", (40, 30), 99).save("photo.png")
    found = run(app, ["predict", str(pets), "photo.png", "--format", "json"])
    [one] = json.loads(found.stdout)
    assert one["image"] == "photo.png" and {each["class"] for each in one["classes"]} == {"cat", "dog"}
    recipe = {"builder": "their_net:Net", "args": [], "kwargs": {}}
    theirs = write("theirs.relume", {"format": 1, "recipe": recipe})
    for options in ([], ["--trust"]):
        failed = run(app, ["predict", str(theirs), "photo.png", *options])
        assert isinstance(failed.exception, RecipeError if not options else BundleError | RecipeError)
    with_trust = run(app, ["predict", "no_such_run", "photo.png", "--trust"])
    assert isinstance(with_trust.exception, ConfigurationError) and "trust=True is for bundles" in str(
        with_trust.exception
    )


def test_summary_shows_the_authors_class_where_its_code_is_trusted_and_a_graph_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = b"from torch import nn\nclass Own(nn.Linear):\n    pass\n"
    texts = {
        MODEL: json.dumps({"document": {"format": 1, "recipe": {"builder": "owned:Own", "args": [4, 3], "kwargs": {}}}}).encode(),
        "code/owned.py": code, **graph_files(nn.Linear(4, 3), torch.rand(2, 4)),
    }  # fmt: skip
    files = {member: (lambda text=text: [text]) for member, text in texts.items()}
    state = nn.Linear(4, 3).state_dict()
    files[WEIGHTS] = lambda: list(tensorfile_parts(state))
    write_archive(Path("own.relume"), "own", files, "0.1.0")
    plain = run(app, ["summary", "own.relume"])
    assert plain.exit_code == 0 and "ExportedModel" in plain.stdout and "_Holder" not in plain.stdout
    trusted = run(app, ["summary", "own.relume", "--trust"])
    assert trusted.exit_code == 0 and "Own" in trusted.stdout and "ExportedModel" not in trusted.stdout
