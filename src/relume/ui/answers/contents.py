"""Logged things as JSON, by their kind. What is large is thinned: ``shown`` says how much of ``total`` is left."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from relume.errors import RunError
from relume.monitor.classes import ClassReport
from relume.monitor.journal import number
from relume.monitor.kinds.read import read
from relume.text import printable
from relume.ui.answers import pictures
from relume.ui.answers.plain import plain

_LONGEST_TEXT = 200_000
_MOST_BINS = 4096
_MOST_VERTICES, _MOST_FACES = 60_000, 60_000
_MOST_NODES = 5000
_MOST_ROWS, _MOST_COLUMNS, _LONGEST_CELL = 1000, 200, 2000
_MOST_CLASSES, _MOST_CURVES, _MOST_PAIRS = 100, 50, 20
_MARKDOWN = re.compile(r"^(#{1,6} |\||[-*] |\d+\. |```|> )|\*\*\S", re.MULTILINE)

Json = dict[str, Any]


def content_of(folder: Path, content: Mapping[str, Any], longest: int | None = None) -> Json:
    """A content of the journal for the page; what it holds in files is read.

    Args:
        longest: to how many letters a text is cut.

    Raises:
        RunError: it is damaged or of an unknown kind. Other errors mean that it is damaged, too.
    """
    kind = content.get("kind")
    if kind == "text":
        return _text(folder, content, longest or _LONGEST_TEXT)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise RunError(f"{printable(kind)!r} is no kind that this relume knows.")
    return _KINDS[kind](folder, content)


def _image(folder: Path, content: Mapping[str, Any]) -> Json:
    sheet = {"file": "0.png", **_described(content)}
    files = pictures.files_of(content)
    found: Json = {"images": [sheet]}
    if "plain.png" in files:
        sheet["plain"] = "plain.png"
    masks = [name for name in files if name.startswith("mask-")]
    if masks:
        sheet["masks"] = [
            {"file": name, "name": str(content["masks"][at].get("name", ""))} for at, name in enumerate(masks)
        ]
    if isinstance(boxes := content.get("boxes"), list):
        sheet["boxes"] = boxes[:_MOST_ROWS]
    samples = [_sample(place, *held) for place, held in enumerate(pictures.boxes_of(content))]
    if samples:
        found = {"images": samples, "sheet": sheet, "order": "worst first"}
    return plain(found)  # type: ignore[no-any-return]


def _sample(place: int, box: list[int], told: Mapping[str, Any]) -> Json:
    """One of many predictions: its picture, what it is and what it was taken for."""
    size = {"width": box[2] - box[0], "height": box[3] - box[1], "box": box}
    names = {"label": str(told.get("true", "")), "predicted": str(told.get("predicted", ""))}
    shares = {"score": number(told.get("p_predicted")), "label_score": number(told.get("p_true"))}
    return {
        "file": f"sample-{place}.png",
        **size,
        **names,
        **shares,
        "right": told.get("right"),
        "sample": told.get("sample"),
    }


def _described(content: Mapping[str, Any]) -> Json:
    found = {name: content[name] for name in ("width", "height") if isinstance(content.get(name), int)}
    found |= {name: str(content[name])[:_LONGEST_CELL] for name in ("caption", "title") if content.get(name)}
    if isinstance(captions := content.get("captions"), list):
        found["captions"] = [str(text)[:_LONGEST_CELL] for text in captions[:_MOST_ROWS]]
    if content.get("stretched") is not None:
        found["stretched"] = content["stretched"]
    return found


def _figure(folder: Path, content: Mapping[str, Any]) -> Json:
    return plain({"file": "figure.png", **_described(content)})  # type: ignore[no-any-return]


def _histogram(folder: Path, content: Mapping[str, Any]) -> Json:
    edges, counts = _numbers(content.get("edges")), _numbers(content.get("counts"))
    if len(edges) != len(counts) + 1 or len(counts) > _MOST_BINS:
        raise RunError("a histogram's edges and counts do not belong together.")
    told = {
        name: number(content.get(name)) for name in ("count", "min", "max", "sum", "sum_squares", "nan", "infinite")
    }
    known = {name: value for name, value in told.items() if value is not None}
    if known.get("count") and "sum" in known:
        known["mean"] = known["sum"] / known["count"]
        known["std"] = math.sqrt(max(0.0, known.get("sum_squares", math.nan) / known["count"] - known["mean"] ** 2))
    return {"edges": edges, "counts": counts, **plain(known)}


def _numbers(values: Any) -> list[float]:
    """Finite ones, whole ones as such."""
    found = [value for value in values if type(value) in (int, float) and math.isfinite(value)]
    if len(found) != len(values):
        raise RunError("there is something among the numbers that is none.")
    return found


def _text(folder: Path, content: Mapping[str, Any], longest: int) -> Json:
    text = str(content["text"]) if "text" in content else pictures.stored(folder, content.get("file")).decode()
    found = {"text": text[:longest], "markdown": _MARKDOWN.search(text[:longest]) is not None}
    if len(text) > longest:
        found |= {"shown": longest, "total": len(text)}
    return plain(found)  # type: ignore[no-any-return]


def _mesh(folder: Path, content: Mapping[str, Any]) -> Json:
    """Points, or faces, evenly chosen where there are too many for a browser."""
    from safetensors.numpy import load

    held = load(pictures.stored(folder, content.get("file")))
    vertices, faces, colors = held["vertices"].reshape(-1, 3), held.get("faces"), held.get("colors")
    total = {"vertices": len(vertices), "faces": 0 if faces is None else len(faces)}
    chosen = np.flatnonzero(np.isfinite(vertices).all(1))
    if faces is not None and len(faces):
        faces, chosen = _chosen_faces(faces, chosen, len(vertices))
    else:
        faces, chosen = None, _thinned(chosen, _MOST_VERTICES)
    shown = {"vertices": len(chosen), "faces": 0 if faces is None else len(faces)}
    found = {
        "vertices": _rounded(vertices[chosen]),
        "colors": None if colors is None else colors.reshape(-1, 3)[chosen].astype(int).tolist(),
        "faces": None if faces is None else faces.tolist(),
    }
    return found | ({"shown": shown, "total": total} if shown != total else {})


def _chosen_faces(faces: Any, finite: Any, count: int) -> tuple[Any, Any]:
    """The faces that can be shown, and the vertices that they need."""
    faces = faces.reshape(-1, 3)
    is_finite = np.zeros(count, bool)
    is_finite[finite] = True
    is_good = ((faces >= 0) & (faces < count)).all(1)
    is_good[is_good] = is_finite[faces[is_good]].all(1)
    faces = faces[_thinned(np.flatnonzero(is_good), _MOST_FACES)]
    if count <= _MOST_VERTICES and is_finite.all():
        return faces, finite
    chosen, places = np.unique(faces, return_inverse=True)
    return places.reshape(-1, 3), chosen


def _thinned(places: Any, most: int) -> Any:
    return places if len(places) <= most else places[np.linspace(0, len(places) - 1, most).round().astype(int)]


def _rounded(vertices: Any) -> list[list[float]]:
    """With five digits of the largest extent: more cannot be seen."""
    wide = vertices.astype(np.float64)
    extent = float(np.ptp(wide, axis=0).max()) if len(wide) else 0.0
    digits = 5 - math.floor(math.log10(extent)) if extent > 0 else 5
    found: list[list[float]] = wide.round(min(max(digits, 0), 300)).tolist()
    return found


def _graph(folder: Path, content: Mapping[str, Any]) -> Json:
    held = json.loads(pictures.stored(folder, content.get("file")))["nodes"]
    nodes = [node for node in held if isinstance(node, dict)]
    sizes = {node.get("name"): _size(node) for node in nodes if node.get("op") == "parameter"}
    shown = [_node(node, sizes) for node in nodes[:_MOST_NODES]]
    known = {node["id"] for node in shown}
    for node in shown:
        node["inputs"] = [name for name in node["inputs"] if name in known]
    found: Json = {"nodes": shown, "problem_of_graph": str(content.get("problem", ""))}
    if len(nodes) > _MOST_NODES:
        found |= {"shown": _MOST_NODES, "total": len(nodes)}
    return plain(found)  # type: ignore[no-any-return]


def _node(node: Mapping[str, Any], sizes: Mapping[Any, int]) -> Json:
    """One operation; its parameters are those that it takes directly."""
    name, op = str(node.get("name", "")), str(node.get("op", ""))
    taken = node.get("inputs")
    inputs = [str(one) for one in taken[:_MOST_ROWS]] if isinstance(taken, list) else []
    shape = node.get("shape")
    return {
        "id": name,
        "label": name.rpartition("/")[2] if op in ("parameter", "buffer", "input") else op,
        "kind": op,
        "group": name.rpartition("/")[0],
        "inputs": inputs,
        "parameters": _size(node) if op == "parameter" else sum(sizes.get(one, 0) for one in inputs),
        "shape": [side for side in shape[:64] if type(side) is int] if isinstance(shape, list) else None,
    }


def _size(node: Mapping[str, Any]) -> int:
    shape = node.get("shape")
    is_shape = isinstance(shape, list) and all(type(side) is int and 0 <= side < 2**53 for side in shape[:64])
    return math.prod(shape[:64]) if is_shape and shape is not None else 0


def _table(folder: Path, content: Mapping[str, Any]) -> Json:
    held = json.loads(pictures.stored(folder, content["file"])) if "file" in content else content
    columns, rows = [str(name)[:_LONGEST_CELL] for name in held["columns"]], held["rows"]
    shown = [[_cell(cell) for cell in row[:_MOST_COLUMNS]] for row in rows[:_MOST_ROWS]]
    found: Json = {"columns": columns[:_MOST_COLUMNS], "rows": shown}
    if len(rows) > _MOST_ROWS:
        found |= {"shown": _MOST_ROWS, "total": len(rows)}
    if len(columns) > _MOST_COLUMNS:
        found |= {"shown_columns": _MOST_COLUMNS, "total_columns": len(columns)}
    return plain(found)  # type: ignore[no-any-return]


def _cell(cell: Any) -> Any:
    if cell is None or isinstance(cell, (bool, int, float)):
        return cell
    return str(cell)[:_LONGEST_CELL]


def _pr_curve(folder: Path, content: Mapping[str, Any]) -> Json:
    found: Json = {"thresholds": _numbers(content["thresholds"])}
    classes = content.get("classes")
    for name in ("precision", "recall"):
        held = content[name]
        found[name] = [_numbers(one) for one in held[:_MOST_CURVES]] if isinstance(classes, list) else _numbers(held)
    if isinstance(classes, list):
        found["classes"] = [str(name)[:_LONGEST_CELL] for name in classes[:_MOST_CURVES]]
        if len(classes) > _MOST_CURVES:
            found |= {"shown": _MOST_CURVES, "total": len(classes)}
    return plain(found)  # type: ignore[no-any-return]


def _confusion(folder: Path, content: Mapping[str, Any]) -> Json:
    return confusion(read(folder, content))


def confusion(report: ClassReport) -> Json:
    """A confusion matrix with the scores of its classes, and the pairs mixed up most.

    Of many classes those are shown in which most mistakes are made; ``shown`` are then their places.
    """
    total = len(report.classes)
    places = list(range(total))
    if total > _MOST_CLASSES:
        counts = np.array(report.confusion)
        wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
        places = sorted(np.argsort(-wrong, kind="stable")[:_MOST_CLASSES].tolist())
    scores = report.scores
    found: Json = {
        "classes": [report.classes[place] for place in places],
        "counts": [[report.confusion[row][column] for column in places] for row in places],
        "per_class": [vars(scores[place]) for place in places],
        "macro": vars(report.macro),
        "weighted": vars(report.weighted),
        "accuracy": report.accuracy,
        "samples": report.samples,
        "pairs": [
            {"class": one, "taken_for": other, "times": times} for one, other, times in report.confused(_MOST_PAIRS)
        ],
    }
    if len(places) < total:
        found |= {"shown": len(places), "total": total}
    return plain(found)  # type: ignore[no-any-return]


def _hparams(folder: Path, content: Mapping[str, Any]) -> Json:
    held = read(folder, content)
    return plain({"values": held["values"], "metrics": held["metrics"]})  # type: ignore[no-any-return]


_KINDS: dict[str, Callable[[Path, Mapping[str, Any]], Json]] = {
    "image": _image,
    "figure": _figure,
    "histogram": _histogram,
    "mesh": _mesh,
    "graph": _graph,
    "table": _table,
    "pr_curve": _pr_curve,
    "confusion_matrix": _confusion,
    "hparams": _hparams,
}
