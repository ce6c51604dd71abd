"""What a run has kept besides its numbers, as the page asks for it."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detail_runs import as_json
from PIL import Image as Pictures
from torch import nn

import relume
from relume.errors import RunError, UnknownNameError
from relume.monitor.classes import ClassReport
from relume.ui.answers import media

NAMES = ["<b>cat</b>", "dog", "x" * 300]
EVIL = "<script>alert(1)</script>\u202e"


def logged(root: Path, values: dict[str, Any], step: int = 1) -> Path:
    with relume.Run("a", root=root, quiet=True, watch=False) as run:
        run.log(values, step=step)
    return run.folder


def only(folder: Path, name: str = "one") -> dict[str, Any]:
    """The newest item of a name, as it arrives."""
    entry = next(one for one in as_json(media.names(folder))["names"] if one["name"] == name)
    found: dict[str, Any] = as_json(media.item(folder, entry["items"][-1]["id"]))
    assert found["kind"] == entry["kind"] and found["name"] == name
    return found


def picture(folder: Path, item: dict[str, Any], name: str) -> Any:
    data, kind = media.file(folder, item["id"], name)
    assert kind == "image/png"
    return Pictures.open(io.BytesIO(data))


def test_names_are_listed_with_their_items(tmp_path: Path) -> None:
    with relume.Run("a", root=tmp_path, quiet=True, watch=False) as run:
        for step in (1, 5, 3):
            run.log({"said": f"step {step}", EVIL: relume.Histogram([1.0])}, step=step)
    found = {one["name"]: one for one in as_json(media.names(run.folder))["names"]}
    assert found["said"]["kind"] == "text" and found[EVIL]["kind"] == "histogram" and found["said"]["total"] == 3
    assert [one["step"] for one in found["said"]["items"]] == [1, 3, 5]
    assert [media.item(run.folder, one["id"])["text"] for one in found["said"]["items"]] == [
        "step 1",
        "step 3",
        "step 5",
    ]


def test_items_of_many_steps_are_chosen_evenly_the_newest_always(tmp_path: Path) -> None:
    with relume.Run("a", root=tmp_path, quiet=True, watch=False) as run:
        for step in range(250):
            run.log({"weights": relume.Histogram([float(step), 1.0], bins=4)}, step=step)
    found = as_json(media.items(run.folder, "weights"))
    assert (found["kind"], len(found["items"]), found["total"]) == ("histogram", 100, 250)
    steps = [one["step"] for one in found["items"]]
    assert steps[0] == 0 and steps[-1] == 249 and set(np.diff(steps)) <= {2, 3}
    assert all(len(one["edges"]) == 5 and sum(one["counts"]) == 2 for one in found["items"])


def test_nothing_is_found_under_an_unknown_name(tmp_path: Path) -> None:
    folder = logged(tmp_path, {"one": "text"})
    with pytest.raises(UnknownNameError, match="has logged nothing called 'two'"):
        media.items(folder, "two")


# --------------------------------------------------------------------------------------------------------------- kinds


def test_predictions_come_one_by_one_the_worst_first(tmp_path: Path) -> None:
    images = torch.zeros(5, 1, 8, 8)
    for number in range(5):
        images[number] = number / 4
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.5, 0.3, 0.2], [0.0, 1.0, 0.0]])
    with relume.Run("a", root=tmp_path, quiet=True, watch=False) as run:
        run.log_predictions(images, scores, torch.tensor([0, 0, 1, 2, 1]), NAMES, name="one", count=4)
    found = only(run.folder)
    assert found["order"] == "worst first" and found["sheet"]["file"] == "0.png"
    assert [one["sample"] for one in found["images"]] == [1, 3, 2, 0]
    assert [one["right"] for one in found["images"]] == [False, False, False, True]
    assert [one["label"] for one in found["images"]] == [NAMES[0], NAMES[2][:200], NAMES[1], NAMES[0]]
    assert found["images"][0]["predicted"] == "dog" and found["images"][0]["score"] == pytest.approx(0.8)
    assert found["images"][0]["label_score"] == pytest.approx(0.2)
    for one in found["images"]:
        made = picture(run.folder, found, one["file"]).convert("L")
        assert made.size == (one["width"], one["height"])
        assert set(np.asarray(made).flat) == {round(one["sample"] / 4 * 255)}  # the whole tile is that sample's picture


def test_an_image_has_its_marks_apart_and_beside_it(tmp_path: Path) -> None:
    image = relume.Image(
        np.zeros((8, 12, 3)), caption=EVIL, boxes=[{"box": [1, 1, 5, 5], "label": EVIL}], masks={"m": np.eye(8, 12) > 0}
    )
    folder = logged(tmp_path, {"one": image})
    (found,) = only(folder)["images"]
    assert found["caption"] == EVIL and found["boxes"][0]["label"] == EVIL and found["masks"][0]["name"] == "m"
    item = only(folder)
    assert picture(folder, item, "0.png").size == (found["width"], found["height"])
    assert picture(folder, item, "plain.png").size == (12, 8) and picture(folder, item, "mask-0.png").size == (12, 8)


def test_a_figure_is_a_png_and_its_svg_is_not_given(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    drawing = Figure()
    drawing.subplots().plot([1, 2])
    folder = logged(tmp_path, {"one": relume.Figure(drawing)})
    item = only(folder)
    assert picture(folder, item, item["file"]).size == (item["width"], item["height"])
    for name in ("figure.svg", "0.svg"):
        with pytest.raises(UnknownNameError, match="there is no picture"):
            media.file(folder, item["id"], name)


def test_a_histogram_has_its_mean_and_deviation(tmp_path: Path) -> None:
    found = only(logged(tmp_path, {"one": relume.Histogram([1.0, 3.0, float("nan"), float("inf")], bins=2)}))
    assert found["edges"] == [1.0, 2.0, 3.0] and found["counts"] == [1, 1]
    assert (found["mean"], found["std"], found["nan"], found["infinite"]) == (2.0, 1.0, 1.0, 1.0)


def test_text_arrives_as_it_is_and_is_cut_where_it_is_long(tmp_path: Path) -> None:
    assert only(logged(tmp_path, {"one": EVIL})) | {"text": EVIL, "markdown": False} == only(tmp_path / "a")
    folder = logged(tmp_path, {"one": "# title\n" + "é" * 300_000})
    found = only(folder)
    assert (
        len(found["text"]) == 200_000 and (found["shown"], found["total"]) == (200_000, 300_008) and found["markdown"]
    )
    assert len(media.items(folder, "one")["items"][0]["text"]) == 4000


def test_a_mesh_has_its_vertices_colours_and_faces(tmp_path: Path) -> None:
    mesh = relume.Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0.123456789]], colors=[[255, 0, 0]] * 3, faces=[[0, 1, 2]])
    found = only(logged(tmp_path, {"one": mesh}))
    assert found["vertices"] == [[0, 0, 0], [1, 0, 0], [0, 1, 0.12346]] and found["faces"] == [[0, 1, 2]]
    assert found["colors"] == [[255, 0, 0]] * 3 and "shown" not in found


def test_a_huge_cloud_is_thinned_and_says_so(tmp_path: Path) -> None:
    vertices = np.random.default_rng(0).normal(size=(200_000, 3))
    vertices[7] = np.nan
    found = only(logged(tmp_path, {"one": relume.Mesh(vertices, colors=np.zeros((200_000, 3)))}))
    assert found["total"] == {"vertices": 200_000, "faces": 0} and found["shown"] == {"vertices": 60_000, "faces": 0}
    assert len(found["vertices"]) == len(found["colors"]) == 60_000 and found["faces"] is None
    assert all(math.isfinite(side) for vertex in found["vertices"] for side in vertex)


def test_a_huge_mesh_keeps_faces_that_belong_to_its_vertices(tmp_path: Path) -> None:
    vertices = np.arange(300_000).reshape(-1, 3) * 1.0
    faces = np.arange(99_999).reshape(-1, 3)
    faces = np.concatenate([faces] * 3)
    vertices[4] = np.inf
    found = only(logged(tmp_path, {"one": relume.Mesh(vertices, faces=faces)}))
    assert found["shown"]["faces"] == len(found["faces"]) == 60_000 and found["total"]["faces"] == 99_999
    corners = np.array(found["vertices"])[np.array(found["faces"])]
    assert (corners[:, 1, 0] - corners[:, 0, 0] == 3).all()


def test_a_graph_has_nodes_with_their_shapes_and_parameters(tmp_path: Path) -> None:
    found = only(logged(tmp_path, {"one": relume.Graph(nn.Sequential(nn.Linear(4, 3)), torch.ones(1, 4))}))
    nodes = {node["id"]: node for node in found["nodes"]}
    assert nodes["0/linear"]["inputs"] == ["input", "0/weight", "0/bias"] and nodes["0/linear"]["shape"] == [1, 3]
    assert nodes["0/linear"]["parameters"] == 15 and nodes["0/weight"]["kind"] == "parameter"
    assert nodes["0/linear"]["group"] == "0" and nodes["0/linear"]["label"] == "linear"


def test_tables_are_cut_and_say_so(tmp_path: Path) -> None:
    found = only(logged(tmp_path, {"one": relume.Table({EVIL: [1.5, float("nan")], "b": [None, EVIL]})}))
    assert found["columns"] == [EVIL, "b"] and found["rows"] == [[1.5, None], ["NaN", EVIL]]
    found = only(logged(tmp_path, {"one": relume.Table({"n": list(range(3000)), "s": ["y" * 3000] * 3000})}))
    assert len(found["rows"]) == 1000 and (found["shown"], found["total"]) == (1000, 3000)
    assert len(found["rows"][0][1]) == 2000


def test_a_confusion_matrix_has_the_scores_of_its_classes(tmp_path: Path) -> None:
    found = only(logged(tmp_path, {"one": relume.ConfusionMatrix([0, 0, 1, 2], [0, 1, 1, 1], NAMES)}))
    assert found["classes"] == NAMES and found["counts"] == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert found["accuracy"] == 0.5 and found["per_class"][0]["recall"] == 0.5
    assert found["pairs"][0] == {"class": NAMES[0], "taken_for": "dog", "times": 1}


def test_of_many_classes_those_with_most_mistakes_are_shown(tmp_path: Path) -> None:
    true = np.arange(300)
    predicted = true.copy()
    predicted[[250, 299]] = [299, 250]
    found = only(logged(tmp_path, {"one": relume.ConfusionMatrix(true, predicted)}))
    assert (found["shown"], found["total"]) == (100, 300) and {"250", "299"} <= set(found["classes"])
    assert len(found["counts"]) == len(found["counts"][0]) == 100


def test_the_classes_of_a_trainers_run_are_among_them(tmp_path: Path) -> None:
    folder = logged(tmp_path, {"x": 1.0})
    ClassReport(("cat", "dog"), ((8, 2), (1, 9)), 4).save(folder)
    found = only(folder, "classes")
    assert found["counts"] == [[8, 2], [1, 9]] and found["epoch"] == 4 and found["accuracy"] == 0.85
    (folder / "classes.json").write_text("{")
    assert "is damaged" in only(folder, "classes")["problem"]


def test_curves_and_settings_arrive_too(tmp_path: Path) -> None:
    curve = relume.PRCurve([0, 1, 1], [[0.7, 0.3], [0.4, 0.6], [0.2, 0.8]], ["a", EVIL], thresholds=5)
    folder = logged(tmp_path, {"one": curve, "two": relume.HParams({"lr": 0.1}, {"loss": float("nan")})})
    found = only(folder)
    assert found["classes"] == ["a", EVIL] and len(found["precision"]) == 2 and len(found["recall"][1]) == 5
    two = only(folder, "two")
    assert two["values"] == {"lr": 0.1} and two["metrics"] == {"loss": "NaN"}


# -------------------------------------------------------------------------------------------------------------- damage

ODD = [
    {"kind": "image"},
    {"kind": "image", "file": "../../../etc/passwd"},
    {"kind": "image", "file": "media/../run.json", "predictions": [{"box": [0, 0, 1, 1e9]}, 7], "masks": 5},
    {"kind": "figure", "file": 7, "width": EVIL},
    {"kind": "histogram", "edges": [0, 1], "counts": [1, 2]},
    {"kind": "histogram", "edges": [0, "NaN"], "counts": [1]},
    {"kind": "histogram"},
    {"kind": "text", "file": "/etc/passwd"},
    {"kind": "text", "text": {"a": "\ud800"}},
    {"kind": "mesh", "file": "media/00/" + "0" * 64 + ".safetensors"},
    {"kind": "graph", "file": None},
    {"kind": "table", "columns": 5, "rows": [[1]]},
    {"kind": "table", "columns": ["a"], "rows": [[{"deep": [1]}], 5]},
    {"kind": "confusion_matrix", "classes": ["a"], "counts": [[1, 2]]},
    {"kind": "pr_curve", "thresholds": [0], "precision": ["x"], "recall": [0]},
    {"kind": "hparams", "values": 5, "metrics": {}},
    {"kind": "no such kind"},
    {"kind": ["list"]},
    {},
]


@pytest.mark.parametrize("content", ODD, ids=lambda content: json.dumps(content)[:40])
def test_what_is_damaged_says_so_and_is_no_error(tmp_path: Path, content: dict[str, Any]) -> None:
    folder = logged(tmp_path, {"good": "text"})
    with (folder / "journal" / "0001.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2, "epoch": 1, "time": 1.0, "media": {"bad": content}}) + "\n")
    listed = {one["name"]: one for one in as_json(media.names(folder))["names"]}
    found = as_json(media.item(folder, listed["bad"]["items"][0]["id"]))
    assert found["name"] == "bad" and ("problem" in found or found["kind"] in ("image", "figure", "text", "table"))
    as_json(media.items(folder, "bad"))
    assert only(folder, "good")["text"] == "text"
    for name in ("0.png", "figure.png", "sample-0.png", "../run.json", "mask-0.png"):
        with pytest.raises((RunError, UnknownNameError)):
            media.file(folder, found["id"], name)


@pytest.mark.parametrize(
    "id",
    ["", "1", "1-0", "1-0-0-0", "1-1-0", "9-0-0", "1-99999999-0", "-1-0-0", "1-0-9", "../1-0-0", "١-0-0", "1-0-0\n"],
)
def test_an_id_that_names_nothing_is_refused(tmp_path: Path, id: str) -> None:
    folder = logged(tmp_path, {"one": "text"})
    with pytest.raises(UnknownNameError):
        media.item(folder, id)
    with pytest.raises(UnknownNameError):
        media.file(folder, id, "0.png")


def test_links_and_changed_files_are_not_given(tmp_path: Path) -> None:
    folder = logged(tmp_path, {"one": relume.Image(np.zeros((8, 8)))})
    item = only(folder)
    (path,) = (folder / "media").rglob("*.png")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"!")
    with pytest.raises(RunError, match="its bytes are not those that were stored"):
        media.file(folder, item["id"], "0.png")
    (tmp_path / "elsewhere.png").write_bytes(data)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(RunError, match="is a link, which is not followed"):
        media.file(folder, item["id"], "0.png")


def test_a_file_that_is_no_png_is_not_given_as_one(tmp_path: Path) -> None:
    from relume.monitor.kinds.files import keep

    folder = logged(tmp_path, {"good": "text"})
    place = keep(folder, b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "svg")
    with (folder / "journal" / "0001.jsonl").open("a") as file:
        line = {"step": 2, "epoch": 1, "time": 1.0, "media": {"bad": {"kind": "image", "file": place}}}
        file.write(json.dumps(line) + "\n")
    with pytest.raises(RunError, match="is no PNG"):
        media.file(folder, only(folder, "bad")["id"], "0.png")


def test_a_deleted_or_damaged_index_is_made_again(tmp_path: Path) -> None:
    folder = logged(tmp_path, {"one": "text"})
    (folder / "metrics.db").write_bytes(b"garbage" * 999)
    assert only(folder)["text"] == "text"


def test_boxes_beyond_a_sheet_are_cut_to_it(tmp_path: Path) -> None:
    folder = logged(tmp_path, {"good": relume.Image(np.zeros((8, 8)))})
    stored = next((folder / "media").rglob("*.png")).relative_to(folder).as_posix()
    sheet = {"kind": "image", "file": stored, "predictions": [{"box": [0, 0, 99_999, 99_999]}, {"box": [5, 5, 1, 1]}]}
    with (folder / "journal" / "0001.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2, "epoch": 1, "time": 1.0, "media": {"bad": sheet}}) + "\n")
    with pytest.raises(RunError, match="the picture is damaged"):
        media.file(folder, only(folder, "bad")["id"], "sample-0.png")
    sheet["predictions"] = sheet["predictions"][:1]
    with (folder / "journal" / "0001.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "epoch": 1, "time": 1.0, "media": {"bad": sheet}}) + "\n")
    item = only(folder, "bad")
    assert picture(folder, item, "sample-0.png").size == (8, 8)
