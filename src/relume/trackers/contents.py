"""Contents of media lines, read back for the trackers: text, tables, curves and meshes. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rows:
    """A table: names of columns, and rows of texts, numbers, booleans and None."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def plain(text: object) -> str:
    r"""Text that any service takes: half of a surrogate pair, which no encoding knows, becomes a question mark.

    Example:
        >>> plain("caf\xe9 \ud800!")
        'café ?!'
    """
    encoded: bytes = str(text).encode("utf-8", "replace")
    return encoded.decode()


def plain_value(value: Any) -> Any:
    """``value`` with all its texts made plain, keys included; numbers, booleans and None as they are."""
    if isinstance(value, Mapping):
        return {plain(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    return plain(value) if isinstance(value, str) else value


def file_of(folder: Path, content: Mapping[str, Any], key: str = "file") -> Path:
    """The file that a content names. A journal may come from anywhere: it cannot name a file outside of its run.

    Raises:
        ValueError: it does.
    """
    path = folder / str(content[key])
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{str(content[key])!r:.200} is not a file of the run {folder.name}: it is not read.")
    return path


def text_of(folder: Path, content: Mapping[str, Any]) -> str:
    """The text of a ``text`` content, out of its line or its file."""
    if "text" in content:
        return str(content["text"])
    return file_of(folder, content).read_text("utf-8", "replace")


def as_rows(folder: Path, content: Mapping[str, Any]) -> Rows:
    """The table of a ``table`` content, out of its line or its file. Cells that are lists or mappings become JSON."""
    if "rows" not in content:
        content = json.loads(file_of(folder, content).read_text("utf-8"))
    columns = tuple(plain(column) for column in content["columns"])
    return Rows(columns, [tuple(_cell(cell) for cell in row) for row in content["rows"]])


def _cell(cell: Any) -> Any:
    if isinstance(cell, (list, dict)):
        return plain(json.dumps(cell, ensure_ascii=False))
    return plain(cell) if isinstance(cell, str) else cell


def graph_rows(folder: Path, content: Mapping[str, Any]) -> Rows:
    """A graph as a table: one row for each node, in the file's order."""
    nodes = json.loads(file_of(folder, content).read_text("utf-8"))["nodes"]
    rows = [
        (
            plain(node["name"]),
            plain(node.get("op", "")),
            plain(", ".join(str(name) for name in node.get("inputs", ()))),
            "×".join(str(size) for size in node.get("shape") or ()),
        )
        for node in nodes
    ]
    return Rows(("name", "op", "inputs", "shape"), rows)


def curve_rows(content: Mapping[str, Any]) -> Rows:
    """A precision-recall curve, or one for each class, as rows of class, threshold, recall and precision."""
    classes = [plain(name) for name in content.get("classes") or ()]
    recalls, precisions, thresholds = content["recall"], content["precision"], content["thresholds"]
    if not recalls or not isinstance(recalls[0], (list, tuple)):
        recalls, precisions = [recalls], [precisions]
    rows = []
    for index, (recall, precision) in enumerate(zip(recalls, precisions, strict=True)):
        name = classes[index] if index < len(classes) else str(index)
        own = thresholds[index] if thresholds and isinstance(thresholds[0], (list, tuple)) else thresholds
        for place, (x, y) in enumerate(zip(recall, precision, strict=True)):
            rows.append((name, own[place] if place < len(own) else None, x, y))
    return Rows(("class", "threshold", "recall", "precision"), rows)


def confusion_rows(content: Mapping[str, Any], columns: Sequence[str] = ("true", "predicted", "count")) -> Rows:
    """A confusion matrix as one row for each pair of classes: true, predicted, how many."""
    classes = [plain(name) for name in content["classes"]]
    counts = content["counts"]
    rows = [(true, other, counts[i][j]) for i, true in enumerate(classes) for j, other in enumerate(classes)]
    return Rows(tuple(columns), rows)


def mesh_arrays(folder: Path, content: Mapping[str, Any]) -> tuple[Any, Any | None, Any | None]:
    """Vertices (V, 3) float32, colours (V, 3) uint8 or None, faces (F, 3) int or None, as numpy arrays."""
    from safetensors.numpy import load_file

    arrays = load_file(file_of(folder, content))
    return arrays["vertices"], arrays.get("colors"), arrays.get("faces")


def flattened(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings as one level with dots; an empty mapping or list stays as it is.

    Example:
        >>> flattened({"lr": 0.1, "model": {"width": 8, "layers": [1, 2]}})
        {'lr': 0.1, 'model.width': 8, 'model.layers': [1, 2]}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{above}{plain(key)}"
        if isinstance(value, Mapping) and value:
            flat.update(flattened(value, f"{name}."))
        else:
            flat[name] = plain_value(value)
    return flat
