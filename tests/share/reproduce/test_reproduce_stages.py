"""An unaltered bundle is exact everywhere; what is altered is found, and named by the stage that it belongs to."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from altered_bundles import altered, images_of, row_of, tensor_file, verdicts, write_images
from torch.utils.data import TensorDataset

from relume.errors import BundleError, ConfigurationError
from relume.share import documents
from relume.share.bundle import Bundle
from relume.share.pack import pack
from relume.share.reproduce import Reproduction, Verdict, reproduce

EXACT, WITHIN, DIFFERENT, UNCHECKED = Verdict.EXACT, Verdict.WITHIN, Verdict.DIFFERENT, Verdict.UNCHECKED
Alter = Callable[[dict[str, Any]], Path]


@pytest.fixture
def alter(bundle: Path, tmp_path: Path) -> Alter:
    return lambda changes: altered(bundle, tmp_path / "altered.relume", changes)


def test_an_unaltered_bundle_is_exact_in_every_stage(bundle: Path, images: Path) -> None:
    told = []
    found = reproduce(bundle, images, progress=lambda stage, seconds: told.append(stage.name))
    assert found.exit_status == 0 and not found.first_difference and not found.reasons
    assert told == ["digests", "environment", "weights", "preprocessing", "outputs", "data", "metrics"]
    for name in told[:-1]:
        assert verdicts(found, name) <= {EXACT, UNCHECKED} and EXACT in verdicts(found, name)
    for claim in ("val/accuracy", "val/loss", "confusion matrix"):
        assert row_of(found, "metrics", claim).verdict is EXACT
    assert ": weights, preprocessing, outputs, data, metrics." in found.conclusion


def test_an_unpacked_folder_and_the_file_give_the_same_report(bundle: Path, images: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "folder")
    of_folder, of_file = (reproduce(path, images, time="then") for path in (tmp_path / "folder", bundle))
    assert of_folder.to_json() == of_file.to_json()


def test_a_changed_byte_is_found_by_the_digests_and_nothing_is_used(bundle: Path, tmp_path: Path) -> None:
    whole, place = bytearray(bundle.read_bytes()), Bundle(bundle).place(documents.WEIGHTS)
    whole[place.offset + place.size_bytes - 5] ^= 1
    path = tmp_path / "damaged.relume"
    path.write_bytes(whole)
    found = reproduce(path, retrain=True)
    assert (found.first_difference, found.exit_status) == ("digests", 1)
    assert row_of(found, "digests", documents.WEIGHTS).why == "was changed: its digest differs"
    assert all(stage.verdict is UNCHECKED for stage in found.stages[1:]) and len(found.stages) == 8


@pytest.mark.parametrize("size", [0, 100, 40_000])
def test_a_bundle_that_is_cut_short_differs(bundle: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.relume"
    path.write_bytes(bundle.read_bytes()[:size])
    found = reproduce(path)
    assert (found.first_difference, found.exit_status, found.digest) == ("digests", 1, "")
    assert found.to_markdown() and found.to_html()


def test_another_environment_is_named_and_is_no_failure(alter: Alter, images: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        document |= {"python": "3.8.1", "cpu": "Another", "threads": 64}
        document["packages"] |= {"torch": "1.13.0", "left-pad": "1.0"}

    found = reproduce(alter({documents.ENVIRONMENT: edit}), images)
    assert found.exit_status == 0
    for claim in ("python", "processor", "threads", "torch", "other packages"):
        assert row_of(found, "environment", claim).verdict is DIFFERENT
    assert row_of(found, "environment", "torch").why.startswith("1.13.0 there, ")
    assert "left-pad 1.0 (not installed here)" in row_of(found, "environment", "other packages").why


def test_swapped_weights_are_found_by_the_stage_of_the_weights(alter: Alter, bundle: Path, images: Path) -> None:
    state = {name: value.clone() for name, value in Bundle(bundle).tensors(documents.WEIGHTS).state.items()}
    state[next(iter(state))].view(-1)[0] += 1e-6
    found = reproduce(alter({documents.WEIGHTS: tensor_file(state)}), images)
    assert (found.first_difference, found.exit_status) == ("weights", 1)
    assert "other weights than those" in row_of(found, "weights", "6 tensors").why


def test_swapped_weights_with_a_new_digest_are_found_by_their_outputs(alter: Alter, bundle: Path, images: Path) -> None:
    from relume.share.weights import weights_digest

    state = {
        name: value.flip(0).contiguous() for name, value in Bundle(bundle).tensors(documents.WEIGHTS).state.items()
    }
    digest = weights_digest(state)
    changes = {documents.WEIGHTS: tensor_file(state), documents.MODEL: lambda d: d.update(weights_digest=digest)}
    found = reproduce(alter(changes), images)
    assert found.first_difference == "outputs" and found.stage("weights").verdict is EXACT  # type: ignore[union-attr]
    assert verdicts(found, "metrics") == {DIFFERENT}


@pytest.mark.parametrize(
    "edit", [{"mean": [0.5], "std": [0.25]}, {"size": 24}, {"channels": 3}], ids=["mean", "size", "channels"]
)
def test_another_preprocessing_is_found_by_its_own_stage(alter: Alter, images: Path, edit: dict[str, Any]) -> None:
    found = reproduce(alter({documents.INPUT: lambda d: d["settings"].update(edit)}), images)
    assert (found.first_difference, found.exit_status) == ("preprocessing", 1)
    assert row_of(found, "preprocessing", "inputs of the examples").verdict is DIFFERENT
    assert found.stage("outputs").verdict is EXACT  # type: ignore[union-attr]
    assert "config" in found.advice[0]


def test_preprocessing_that_contradicts_itself_is_found(alter: Alter, images: Path) -> None:
    found = reproduce(
        alter({documents.INPUT: lambda d: d.update(image_mean=[0.5], size={"height": 32, "width": 32})}), images
    )
    assert found.first_difference == "preprocessing"
    assert "for other programs" in row_of(found, "preprocessing", "image_mean").why
    assert row_of(found, "preprocessing", "size").verdict is DIFFERENT


def test_another_raw_example_is_found_by_the_preprocessing(alter: Alter, bundle: Path, images: Path) -> None:
    first, second = (Bundle(bundle).read(f"examples/00{number}.png") for number in (0, 1))
    found = reproduce(alter({"examples/000.png": second, "examples/001.png": first}), images)
    assert found.first_difference == "preprocessing"


@pytest.mark.parametrize(("change", "verdict"), [(1e-6, WITHIN), (0.1, DIFFERENT), (float("nan"), DIFFERENT)])
def test_edited_outputs_are_found_with_the_largest_difference(
    alter: Alter, bundle: Path, images: Path, change: float, verdict: Verdict
) -> None:
    state = {name: value.clone() for name, value in Bundle(bundle).tensors(documents.EXAMPLE_TENSORS).state.items()}
    place = int(state["output"][2].argmin())
    state["output"][2, place] += change
    found = reproduce(alter({documents.EXAMPLE_TENSORS: tensor_file(state)}), images)
    row = row_of(found, "outputs", "outputs (recipe)")
    assert row.verdict is verdict and f"at [2, {place}]" in row.why
    assert found.first_difference == ("outputs" if verdict is DIFFERENT else "")
    if verdict is WITHIN:
        assert found.conclusion.startswith("Reproduced within tolerance") and row.tolerance is not None
        assert row.difference is not None and 0 < row.difference < row.tolerance < 1e-2
    json.loads(found.to_json())


@pytest.mark.parametrize("name", ["val/accuracy", "val/loss"])
def test_an_edited_metric_is_found(alter: Alter, images: Path, name: str) -> None:
    def edit(document: dict[str, Any]) -> None:
        for claim in document["claims"]:
            claim["value"] += (claim["name"] == name) * 1 / 120

    found = reproduce(alter({documents.CLAIMS: edit, documents.CARD: None}), images)
    assert (found.first_difference, found.exit_status) == ("metrics", 1)
    rows = {row.claim: row.verdict for row in found.stage("metrics").rows}  # type: ignore[union-attr]
    assert {v for claim, v in rows.items() if claim.startswith(name)} == {DIFFERENT}
    assert DIFFERENT not in {v for claim, v in rows.items() if not claim.startswith(name)}
    assert "the claimed number itself is the suspect" in found.reasons[0]


def test_an_edited_confusion_matrix_is_found(alter: Alter, images: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["confusion"][0][0] -= 1
        document["confusion"][0][1] += 1

    found = reproduce(alter({documents.CLAIMS: edit}), images)
    assert row_of(found, "metrics", "confusion matrix").why == "2 of its 100 cells differ"
    assert found.first_difference == "metrics"


def other_order(images: torch.Tensor, labels: list[int]) -> tuple[torch.Tensor, list[int]]:
    return images.flip(0), labels[::-1]


def one_pixel(images: torch.Tensor, labels: list[int]) -> tuple[torch.Tensor, list[int]]:
    images[60, 3, 3] ^= 1
    return images, labels


def one_label(images: torch.Tensor, labels: list[int]) -> tuple[torch.Tensor, list[int]]:
    return images, [*labels[:-1], (labels[-1] + 1) % 10]


def a_part(images: torch.Tensor, labels: list[int]) -> tuple[torch.Tensor, list[int]]:
    return images[:100], labels[:100]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_order, "another order, or labels exchanged"),
        (one_pixel, r"the labels are the same: the samples themselves"),
        (one_label, "other labels: [0-9]+ samples of class"),
        (a_part, "100 samples where there were 120"),
    ],
)
def test_wrong_data_is_named_as_that(bundle: Path, images: Path, tmp_path: Path, change: Any, says: str) -> None:
    shutil.copytree(images, tmp_path / "data")
    write_images(tmp_path / "data", *change(*images_of(images)), train=False)
    found = reproduce(bundle, tmp_path / "data")
    assert (found.first_difference, found.exit_status) == ("data", 1)
    row = row_of(found, "data", "fashion-mnist (test)")
    assert row.why.startswith("these are not the author's data: ")
    assert re.search(says, row.why), row.why
    assert verdicts(found, "metrics") == {UNCHECKED}


def test_a_dataset_can_be_given_itself(bundle: Path, images: Path) -> None:
    pixels, labels = images_of(images)
    given = TensorDataset(pixels[:, None].float() / 255, torch.tensor(labels))
    found = reproduce(bundle, given)
    assert found.first_difference == "data"  # the same images, but as tensors: it has another fingerprint
    assert "the labels are the same" in row_of(found, "data", "fashion-mnist").why


def test_a_graph_and_a_sample_in_the_bundle_are_proven_without_any_data(
    bundle: Path, images: Path, tmp_path: Path
) -> None:
    """The reader has nothing but the bundle: outputs by both ways, and numbers on its sample."""
    whole = pack(bundle.parent / "runs" / "fashion-mnist", tmp_path / "whole.relume", data=images, sample=40)
    found = reproduce(altered(whole.path, tmp_path / "a.relume", {documents.DATA: _without_the_author_s}))
    assert found.exit_status == 0
    assert {row.claim for row in found.stage("outputs").rows} == {  # type: ignore[union-attr]
        "outputs (recipe)", "outputs (graph)", "predicted classes (recipe)", "predicted classes (graph)",
    }  # fmt: skip
    assert DIFFERENT not in verdicts(found, "outputs")
    rows = found.stage("metrics").rows  # type: ignore[union-attr]
    assert [row.claim for row in rows if row.verdict is EXACT and "accuracy" in row.claim]
    assert row_of(found, "data", "sample/").verdict is EXACT


def _without_the_author_s(document: dict[str, Any]) -> None:
    document["sets"][0] |= {"kind": "folder", "name": "photos"}


# ------------------------------------------------------------------------------------------- what cannot be checked


def test_without_data_the_outputs_are_still_proven(alter: Alter) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["sets"][0] |= {"kind": "folder", "name": "photos"}

    found = reproduce(alter({documents.DATA: edit}))
    assert found.exit_status == 0 and verdicts(found, "metrics") == {UNCHECKED}
    assert "say where it is" in row_of(found, "data", "photos").why
    assert "say where the data are: --data PATH" in found.advice


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan"])
def test_a_claim_that_is_no_number_is_never_exact(alter: Alter, images: Path, value: Any) -> None:
    def edit(document: dict[str, Any]) -> None:
        for claim in document["claims"]:
            claim["value"] = value

    found = reproduce(alter({documents.CLAIMS: edit}), images)
    rows = [row for row in found.stage("metrics").rows if row.claim.startswith("val/")]  # type: ignore[union-attr]
    assert rows and {row.verdict for row in rows} == {UNCHECKED}
    assert "no number can confirm that" in rows[0].why
    json.loads(found.to_json())


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda d: d.update(evaluations=[]), "does not say how it was measured"),
        (lambda d: [e.update(data=None) for e in d["evaluations"]] and None, "does not say on which data"),
        (lambda d: [e.update(data=7) for e in d["evaluations"]] and None, "has no data set number 7"),
        (lambda d: [e.update(metrics={}) for e in d["evaluations"]] and None, "does not say what computes it"),
        (lambda d: [e.update(metrics={"val/accuracy": "os.system", "val/loss": "os.system"}) for e in d["evaluations"]] and None,
         "not known to relume"),
        (lambda d: d.update(claims=[], confusion=None), "claims no numbers"),
    ],
)  # fmt: skip
def test_claims_without_what_they_need_say_what_is_missing(alter: Alter, images: Path, edit: Any, why: str) -> None:
    found = reproduce(alter({documents.CLAIMS: edit}), images)
    rows = [row for row in found.stage("metrics").rows if row.claim != "confusion matrix"]  # type: ignore[union-attr]
    assert rows and all(row.verdict is UNCHECKED and why in row.why for row in rows)
    assert found.exit_status == 0


def test_a_tolerance_that_makes_no_sense_is_none(alter: Alter, images: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        first = document["claims"][0]
        document["claims"] = [
            {**first, "tolerance": tolerance, "value": first["value"] + 0.01}
            for tolerance in (-1.0, "nan", "inf", float("inf"))
        ]

    found = reproduce(alter({documents.CLAIMS: edit}), images)
    rows = [row for row in found.stage("metrics").rows if row.claim.startswith("val/")]  # type: ignore[union-attr]
    assert {row.verdict for row in rows} == {DIFFERENT}


MISSING = [documents.MODEL, documents.INPUT, documents.RUN, documents.CLAIMS, documents.DATA, documents.EXAMPLES,
           documents.EXAMPLE_TENSORS, documents.ENVIRONMENT, documents.WEIGHTS, "examples/000.png"]  # fmt: skip


@pytest.mark.parametrize("member", MISSING)
@pytest.mark.parametrize("content", [None, b"{}", b"[" * 100_000, b'{"format": 7}', b"\xff"])
def test_missing_and_broken_documents_are_reasons_and_no_crash(
    alter: Alter, images: Path, member: str, content: Any
) -> None:
    found = reproduce(alter({member: content}), images)
    assert isinstance(found, Reproduction) and len(found.stages) == 7
    assert "Error" not in found.conclusion and all(
        row.why for stage in found.stages for row in stage.rows if row.verdict is UNCHECKED
    )
    assert found.to_markdown() and found.to_html() and json.loads(found.to_json())


def test_a_bundle_that_proves_nothing_says_so(alter: Alter) -> None:
    changes: dict[str, Any] = {
        documents.EXAMPLES: None,
        documents.CLAIMS: lambda d: d.update(claims=[], confusion=None),
    }
    found = reproduce(alter(changes))
    assert found.exit_status == 3
    assert found.conclusion == "Nothing was proven: neither outputs nor metrics could be checked."


# ------------------------------------------------------------------------------------------------------- wrong use


def test_wrong_arguments_are_errors(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no bundle .*missing\.relume\. relume pack RUN makes one"):
        reproduce(tmp_path / "missing.relume")
    with pytest.raises(BundleError, match="is an empty folder, and no bundle"):
        reproduce(tmp_path)
    with pytest.raises(ConfigurationError, match="--fresh-environment goes with --retrain"):
        reproduce(bundle, fresh_environment=True)
    with pytest.raises(ConfigurationError, match="packages run code"):
        reproduce(bundle, fresh_environment=True, retrain=True)
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="it is a number of seconds above 0"):
            reproduce(bundle, timeout_seconds=seconds)
