"""Bundles that were put together to be believed: none of them is reproduced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from altered_bundles import altered, row_of, tensor_file, verdicts

from relume.share import documents
from relume.share.bundle import Bundle
from relume.share.pack import pack
from relume.share.reproduce import Verdict, reproduce
from relume.share.reproduce.told import exchanged

EXACT, DIFFERENT, UNCHECKED = Verdict.EXACT, Verdict.DIFFERENT, Verdict.UNCHECKED
Alter = Callable[[dict[str, Any]], Path]


@pytest.fixture
def alter(bundle: Path, tmp_path: Path) -> Alter:
    return lambda changes: altered(bundle, tmp_path / "altered.relume", changes)


@pytest.fixture(scope="module")
def sampled(bundle: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a sample of the data in it."""
    out = tmp_path_factory.mktemp("sampled") / "sampled.relume"
    return pack(bundle.parent / "runs" / "fashion-mnist", out, data=images, sample=20, graph=False).path


def without_claims(document: dict[str, Any]) -> None:
    document.update(claims=[], confusion=None)


def test_examples_without_samples_prove_nothing(alter: Alter, bundle: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        document.update(examples=[], batch_size=0)

    state = {name: value[:0].clone() for name, value in Bundle(bundle).tensors(documents.EXAMPLE_TENSORS).state.items()}
    changes = {
        documents.EXAMPLE_TENSORS: tensor_file(state),
        documents.EXAMPLES: edit,
        documents.CLAIMS: without_claims,
    }
    found = reproduce(alter({**changes, documents.CARD: None}))
    assert found.exit_status == 3 and verdicts(found, "outputs") == {UNCHECKED}


def test_a_tolerance_of_the_claim_s_own_does_not_make_it_true(alter: Alter, images: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        for claim in document["claims"]:
            claim.update(value=0.999, tolerance=1.0)

    found = reproduce(alter({documents.CLAIMS: edit}), images)
    rows = [row for row in found.stage("metrics").rows if row.claim.startswith("val/")]  # type: ignore[union-attr]
    assert {row.verdict for row in rows} == {DIFFERENT} and found.exit_status == 1


def test_a_sample_is_called_one_whatever_it_calls_itself(sampled: Path, tmp_path: Path) -> None:
    """Numbers of 20 chosen pictures, under the name of the whole test set."""

    def rename(document: dict[str, Any]) -> None:
        document["sets"][1].update(name="fashion-mnist", split="test")

    def move(document: dict[str, Any]) -> None:
        accuracy = next(claim for claim in document["claims"] if claim["name"] == "sample/val/accuracy")
        document["evaluations"][accuracy["evaluation"]]["metrics"] = {"val/accuracy": "accuracy"}
        document.update(claims=[{**accuracy, "name": "val/accuracy"}], confusion=None)

    changes = {documents.DATA: rename, documents.CLAIMS: move, documents.CARD: None}
    found = reproduce(altered(sampled, tmp_path / "altered.relume", changes))
    assert [row.claim for row in found.stage("data").rows] == ["sample/ (sample)"]  # type: ignore[union-attr]
    assert row_of(found, "metrics", "val/accuracy").claim == "val/accuracy on a sample"


def test_a_number_of_samples_that_there_are_not_is_found(alter: Alter, images: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["sets"][0]["samples"] = 10_000

    found = reproduce(alter({documents.DATA: edit}), images)
    assert found.first_difference == "data"
    assert "that of 120 samples, and the bundle speaks of 10,000" in row_of(found, "data", "fashion-mnist").why


def test_chosen_samples_are_called_chosen(bundle: Path, images: Path, tmp_path: Path) -> None:
    from torch.utils.data import Subset

    from relume.datasets import load

    split = load("fashion-mnist", images, quiet=True)
    path = pack(
        bundle.parent / "runs" / "fashion-mnist", tmp_path / "s.relume", data=Subset(split.test, range(9)), graph=False
    ).path
    found = reproduce(path, images)
    assert row_of(found, "data", "fashion-mnist (test, chosen samples)").verdict is EXACT


def turned(document: dict[str, Any]) -> None:
    document["classes"] = document["classes"][::-1]


def in_config(document: dict[str, Any]) -> None:
    names = list(document["id2label"].values())[::-1]
    document["id2label"] = {str(number): name for number, name in enumerate(names)}


def in_data(document: dict[str, Any]) -> None:
    for one in document["sets"]:
        turned(one)


@pytest.mark.parametrize(
    ("changes", "stage", "where"),
    [
        ({documents.INPUT: turned}, "preprocessing", "config.json"),
        ({documents.INPUT: turned, documents.MODEL: in_config}, "data", "data.json"),
        ({documents.INPUT: turned, documents.MODEL: in_config, documents.DATA: in_data}, "data", "the data"),
    ],
)
def test_exchanged_names_of_classes_are_found(
    alter: Alter, images: Path, changes: dict[str, Any], stage: str, where: str
) -> None:
    found = reproduce(alter(changes), images)
    row = row_of(found, stage, "names of classes")
    assert found.first_difference == stage and f"and {where} have the same names for other classes" in row.why


def test_translated_names_are_no_difference() -> None:
    assert not exchanged(["cat", "dog"], ["Katze", "Hund"]) and not exchanged(["cat"], ["cat"])


@pytest.mark.parametrize(
    ("old", "new"),
    [("      value: 0.", "      value: 1."), ("` | 0.", "` | 1."), ("**accuracy ", "**accuracy 9")],
)
def test_edited_numbers_of_the_card_are_found(alter: Alter, bundle: Path, images: Path, old: str, new: str) -> None:
    text = Bundle(bundle).read(documents.CARD).decode()
    assert old in text
    found = reproduce(alter({documents.CARD: text.replace(old, new, 1).encode()}), images)
    assert "which metrics.json does not claim" in row_of(found, "metrics", "numbers of the card").why
    assert found.exit_status == 1


def test_a_right_card_is_no_proof(bundle: Path, images: Path, alter: Alter) -> None:
    assert not [row for row in reproduce(bundle, images).stage("metrics").rows if "card" in row.claim]  # type: ignore[union-attr]

    def edit(document: dict[str, Any]) -> None:
        for evaluation in document["evaluations"]:
            evaluation["metrics"] = {}

    found = reproduce(alter({documents.CLAIMS: edit, documents.EXAMPLES: None}), images)
    assert found.exit_status == 3 and verdicts(found, "metrics") == {UNCHECKED}


def test_a_metric_that_cannot_be_computed_does_not_hide_the_others(alter: Alter, images: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        for evaluation in document["evaluations"]:
            evaluation["metrics"]["val/loss"] = "mae"
        for claim in document["claims"]:
            claim["value"] = 0.999

    found = reproduce(alter({documents.CLAIMS: edit}), images)
    assert row_of(found, "metrics", "val/accuracy").verdict is DIFFERENT
    loss = row_of(found, "metrics", "val/loss")
    assert loss.verdict is UNCHECKED and "val/loss cannot be computed" in loss.why


def test_half_characters_in_a_name_do_not_stop_the_report(alter: Alter, images: Path, tmp_path: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["claims"][0]["name"] = "a\ud800b"

    found = reproduce(alter({documents.CLAIMS: edit}), images)
    for ending in (".json", ".md", ".html"):
        assert found.save(tmp_path / f"report{ending}").read_text(encoding="utf-8")
