"""Histograms, curves, matrices, meshes, tables, texts: their contents, and the way back."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torchmetrics.functional.classification import binary_precision_recall_curve

from relume import ClassReport
from relume.errors import ConfigurationError, RunError
from relume.monitor.journal import encode
from relume.monitor.kinds import ConfusionMatrix, Histogram, HParams, Mesh, PRCurve, Table, Text, read
from relume.monitor.kinds.files import keep, kept


def back(tmp_path: Path, media: object) -> object:
    """Through the journal's line, as a reader gets it."""
    return read(tmp_path, json.loads(encode(media.content(tmp_path))))


# ------------------------------------------------------------------------------------------------------------- histograms


@settings(deadline=None, max_examples=150)
@given(
    arrays.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_]), st.integers(0, 60)
    ),
    st.integers(1, 40),
)
def test_a_histogram_counts_each_value_once(values: np.ndarray, bins: int) -> None:
    content = Histogram(values, bins=bins).content(Path())
    edges, counts = np.array(content["edges"]), np.array(content["counts"])
    assert len(edges) == len(counts) + 1 and (np.diff(edges) > 0).all() and np.isfinite(edges).all()
    assert content["count"] == counts.sum() == np.isfinite(values).sum()
    assert content["nan"] + content["infinite"] + content["count"] == values.size
    if content["count"]:
        finite = values[np.isfinite(values)].astype(np.float64)
        assert (content["min"], content["max"]) == (finite.min(), finite.max())
        assert edges[0] <= content["min"] and content["max"] <= edges[-1]


def test_a_histogram_agrees_with_numpys(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=5000)
    content = Histogram(torch.from_numpy(values).reshape(50, 100), bins=30).content(tmp_path)
    counts, edges = np.histogram(values, bins=30)
    assert np.abs(np.array(content["counts"]) - counts).sum() <= 2 and np.allclose(content["edges"], edges)
    assert content["sum"] == pytest.approx(values.sum()) and content["sum_squares"] == pytest.approx((values**2).sum())


@pytest.mark.parametrize(
    "values", [[], [math.nan], [7.0], [1e308, -1e308], [1.79769313e308, 0.0], [5e-324, 0.0], [1e20] * 5, [True, False]]
)
def test_histograms_of_odd_values(tmp_path: Path, values: list) -> None:
    found = back(tmp_path, Histogram(values))
    assert (np.diff(found["edges"]) > 0).all() and found["counts"].sum() == np.isfinite(values).sum()


def test_histograms_are_refused_by_what_is_wrong_with_them() -> None:
    for wrong in (0, 5000, 2.5, True):
        with pytest.raises(ConfigurationError, match="bins must be a whole number from 1 to 4096"):
            Histogram([1.0], bins=wrong)
    with pytest.raises(ConfigurationError, match="Histogram: .* is no array of real numbers"):
        Histogram("abc")
    with pytest.raises(ConfigurationError, match="edges and .* counts do not belong together"):
        Histogram.of_counts([0, 1], [1, 2])
    with pytest.raises(ConfigurationError, match="do not belong together"):
        Histogram.of_counts([0, 0, 1], [1, 2])
    assert Histogram.of_counts(torch.tensor([0.0, 1.0]), np.array([3])).content(Path())["sum"] == 1.5


def test_a_sparse_and_a_bfloat16_tensor_have_histograms() -> None:
    assert Histogram(torch.eye(3).to_sparse()).content(Path())["sum"] == 3
    assert Histogram(torch.ones(4, dtype=torch.bfloat16)).content(Path())["sum"] == 4


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_histogram_is_counted_on_the_device_without_waiting() -> None:
    values = torch.randn(10_000)
    values[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    on_device = values.cuda()
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)
    made = Histogram(on_device)
    assert not made._values.is_ready()
    found, plain = made.content(Path()), Histogram(values).content(Path())
    assert np.allclose(found["edges"], plain["edges"]) and found["count"] == plain["count"] == 9_997
    assert (found["nan"], found["infinite"], found["min"]) == (1, 2, plain["min"])
    assert np.abs(np.array(found["counts"]) - plain["counts"]).sum() <= 4


# ---------------------------------------------------------------------------------------------------- curves and matrices


def test_a_curve_agrees_with_torchmetrics(tmp_path: Path) -> None:
    scores, true = torch.rand(300), torch.rand(300) < 0.4
    found = back(tmp_path, PRCurve(true, scores, thresholds=11))
    precision, recall, thresholds = binary_precision_recall_curve(scores, true.long(), thresholds=11)
    assert np.allclose(found["thresholds"], thresholds, atol=1e-6)
    assert np.allclose(found["recall"], recall[:-1], atol=1e-6)
    has_any = found["tp"] + found["fp"] > 0
    assert np.allclose(found["precision"][has_any], precision[:-1][torch.from_numpy(has_any)], atol=1e-6)
    assert (found["tp"] + found["fn"] == true.sum().item()).all() and (
        found["fp"] + found["tn"] == 300 - true.sum().item()
    ).all()


def test_a_curve_a_class_from_logits(tmp_path: Path) -> None:
    logits, true = torch.randn(50, 3) * 4, torch.randint(0, 3, (50,))
    found = back(tmp_path, PRCurve(true, logits, ["a", "b", "c"]))
    assert found["classes"] == ["a", "b", "c"] and found["precision"].shape == (3, 127)
    same = back(tmp_path, PRCurve(true, logits.softmax(1), ["a", "b", "c"]))
    assert np.allclose(found["recall"], same["recall"], atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 0], [0.5]), r"true has the shape \(2,\) and scores \(1,\)"),
        (([], []), r"true has the shape \(0,\)"),
        (([1.5, 0.5], [[0.5, 0.5]] * 2), "true must be the numbers of classes"),
        (([1, 0], [[0.5, 0.5]] * 2, ["a"]), "1 names of classes for scores of shape"),
    ],
)
def test_curves_are_refused_by_what_is_wrong_with_them(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PRCurve(*arguments)
    with pytest.raises(ConfigurationError, match="thresholds must be from 2 to 1024"):
        PRCurve([1], [0.5], thresholds=1)


def test_a_confusion_matrix_from_labels_scores_and_a_report(tmp_path: Path) -> None:
    true, scores = torch.tensor([0, 0, 1, -100]), torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.0, 1.0], [1.0, 0.0]])
    report = ClassReport(("cat", "dog"), ((1, 1), (0, 1)))
    for made in (ConfusionMatrix(true, scores, ["cat", "dog"]), ConfusionMatrix(report)):
        assert back(tmp_path, made) == report
    assert ConfusionMatrix([0, 3], [1, 1]).content(tmp_path)["classes"] == ["0", "1", "2", "3"]
    with pytest.raises(ConfigurationError, match="there are 2 classes, and a label is 5"):
        ConfusionMatrix([0, 5], [0, 0], ["a", "b"])
    with pytest.raises(ConfigurationError, match=r"true has the shape \(2,\) and predicted \(3,\)"):
        ConfusionMatrix([0, 1], [0, 1, 1])
    with pytest.raises(ConfigurationError, match="predicted= is missing"):
        ConfusionMatrix([0, 1])
    with pytest.raises(ConfigurationError, match="Give numbers of classes"):
        ConfusionMatrix([0, 1], [0.5, 0.2])


# ------------------------------------------------------------------------------------------- meshes, tables, texts, values


def test_a_mesh_comes_back_as_it_was(tmp_path: Path) -> None:
    vertices, faces = np.random.default_rng(0).normal(size=(6, 3)), [[0, 1, 2], [3, 4, 5]]
    found = back(tmp_path, Mesh(torch.from_numpy(vertices), np.tile([0.0, 0.5, 1.0], (6, 1)), faces))
    assert np.allclose(found["vertices"], vertices, atol=1e-6) and found["faces"].tolist() == faces
    assert found["colors"].tolist() == [[0, 128, 255]] * 6
    assert [found[n].dtype for n in ("vertices", "colors", "faces")] == [np.float32, np.uint8, np.int32]
    cloud = back(tmp_path, Mesh(vertices[None]))
    assert list(cloud) == ["vertices"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 0]],), r"vertices must have the shape \(N, 3\), not \(1, 2\)"),
        ((np.zeros((0, 3)),), r"vertices must have the shape"),
        ((np.zeros((2, 3)), np.zeros((3, 3))), "2 vertices and 3 colors"),
        ((np.zeros((2, 3)), None, [[0, 1, 2]]), "faces name vertex 2, and there are 2"),
        ((np.zeros((2, 3)), None, [[0, 1, -1]]), "faces name vertex -1"),
        ((np.zeros((2, 3)), None, [[0.0, 1.0, 1.0]]), "faces must be whole numbers"),
    ],
)
def test_meshes_are_refused_by_what_is_wrong_with_them(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Mesh(*arguments)


def test_a_table_from_all_that_is_one(tmp_path: Path) -> None:
    import pandas

    wanted = {"columns": ["a", "b"], "rows": [[1, "x"], [2, None]]}
    rows = [{"a": 1, "b": "x"}, {"a": 2}]
    for data, columns in (
        (pandas.DataFrame(rows), None),
        (rows, None),
        ({"a": torch.tensor([1, 2]), "b": ["x", None]}, None),
        ([[1, "x"], (np.int64(2), None)], ["a", "b"]),
    ):
        assert back(tmp_path, Table(data, columns)) == wanted
    assert back(tmp_path, Table(np.eye(2)))["rows"] == [[1.0, 0.0], [0.0, 1.0]]
    assert back(tmp_path, Table([])) == {"columns": [], "rows": []}


def test_cells_of_all_kinds(tmp_path: Path) -> None:
    day = datetime.datetime(2026, 1, 2, 3, 4, 5)
    row = [True, 2**80, math.nan, day, object, "\ud800<b>", np.float32(0.5), torch.tensor(3), float("-inf")]
    (found,) = back(tmp_path, Table([row], [str(n) for n in range(len(row))]))["rows"]
    assert found[:2] == [True, str(2**80)] and found[3] == "2026-01-02T03:04:05" and found[5] == "\\ud800<b>"
    assert found[4] == "<class 'object'>" and found[6:8] == [0.5, 3]
    column = back(tmp_path, Table({"a": [1.5, math.nan, math.inf]}))["rows"]
    assert math.isnan(column[1][0]) and column[2] == [math.inf]


def test_a_large_table_is_a_file(tmp_path: Path) -> None:
    content = Table({"n": range(5000)}).content(tmp_path)
    assert set(content) == {"kind", "file", "count"} and content["count"] == 5000
    assert read(tmp_path, content)["rows"][4999] == [4999]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"a": [1], "b": [1, 2]},), "its columns have different lengths"),
        (([[1, 2], [3]], ["a", "b"]), "row 1 has 1 cells, and there are 2 columns"),
        ((5,), "a int is no list of cells"),
        ((["ab", "cd"],), "a str is no list of cells"),
    ],
)
def test_tables_are_refused_by_what_is_wrong_with_them(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Table(*arguments)


@given(st.text(max_size=6000))
@settings(deadline=None, max_examples=60)
def test_text_comes_back_letter_by_letter(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "texts"
    assert back(folder, Text(text)) == text


def test_long_text_is_a_file_and_no_text_is_refused(tmp_path: Path) -> None:
    content = Text("ä\n" * 5000).content(tmp_path)
    assert content["file"].endswith(".txt") and read(tmp_path, content) == "ä\n" * 5000
    with pytest.raises(ConfigurationError, match="a bytes is no text"):
        Text(b"abc")  # type: ignore[arg-type]


def test_hyperparameters_are_flat(tmp_path: Path) -> None:
    found = back(tmp_path, HParams({"a": {"b": {"c": 1}}, "d": [1, 2], "e": None, "f": {}}, {"x": math.inf}))
    assert found == {"values": {"a/b/c": 1, "d": "[1, 2]", "e": None, "f": "{}"}, "metrics": {"x": math.inf}}


# ------------------------------------------------------------------------------------------------------------------ files


def test_a_file_that_is_gone_damaged_or_elsewhere_is_not_read(tmp_path: Path) -> None:
    name = keep(tmp_path, b"abc", "txt")
    assert kept(tmp_path, name) == b"abc"
    (tmp_path / name).write_bytes(b"abd")
    with pytest.raises(RunError, match="is damaged: its bytes are not those"):
        kept(tmp_path, name)
    keep(tmp_path, b"abcd", "txt")
    (tmp_path / name).unlink()
    with pytest.raises(RunError, match="is gone. Copy the folder media/"):
        kept(tmp_path, name)
    for hostile in ("../../etc/passwd", "/etc/passwd", "media/ab/../../x.png", name[:-3] + "pkl", 5, None):
        with pytest.raises(RunError, match="is no file of a run's media. It was not opened"):
            kept(tmp_path, hostile)


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "image", "file": "x"},
        {"kind": "table", "columns": 5, "rows": []},
        {"kind": "confusion_matrix", "classes": ["a"], "counts": 3},
        {"kind": "pickle"},
        {"kind": []},
        {},
        {"kind": "hparams"},
    ],
)
def test_a_content_that_is_none_is_an_error_of_the_run(tmp_path: Path, content: dict) -> None:
    with pytest.raises(RunError):
        read(tmp_path, content)


def test_bytes_that_are_no_picture_are_an_error_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is damaged"):
        read(tmp_path, {"kind": "image", "file": keep(tmp_path, b"GIF89a nothing", "png")})
