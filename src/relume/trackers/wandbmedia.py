"""Media of the journal as W&B's own types: pictures, histograms, 3D objects, tables and charts."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relume.trackers.contents import (
    Rows,
    as_rows,
    confusion_rows,
    curve_rows,
    file_of,
    graph_rows,
    mesh_arrays,
    plain,
    text_of,
)

KINDS = frozenset(
    ("image", "histogram", "text", "mesh", "graph", "table", "figure", "pr_curve", "confusion_matrix", "hparams")
)
_MOST_BINS = 512
_MOST_ROWS = 10_000


def shown(folder: Path, name: str, content: Mapping[str, Any]) -> Any:
    """What ``run.log({name: ...})`` of W&B is given for a media content of the journal; its files lie below ``folder``.

    Raises:
        ValueError: the content is of no kind that W&B can show.
        OSError: its file cannot be read.
    """
    import wandb

    kind = content["kind"]
    if kind in ("image", "figure"):
        caption = content.get("caption") or content.get("title")
        return wandb.Image(str(file_of(folder, content)), caption=plain(caption) if caption else None)
    if kind == "histogram":
        return wandb.Histogram(np_histogram=_binned(content["counts"], content["edges"]))
    if kind == "text":
        body = f"<pre style='white-space: pre-wrap'>{html.escape(plain(text_of(folder, content)))}</pre>"
        return wandb.Html(body, inject=False)
    if kind == "mesh":
        return _object(folder, content)
    if kind == "graph":
        return _table(graph_rows(folder, content))
    if kind == "table":
        return _table(as_rows(folder, content))
    if kind == "pr_curve":
        return wandb.plot_table(
            "wandb/area-under-curve/v0",
            _table(curve_rows(content)),
            {"x": "recall", "y": "precision", "class": "class"},
            {"title": name, "x-axis-title": "Recall", "y-axis-title": "Precision"},
        )
    if kind == "confusion_matrix":
        return wandb.plot_table(
            "wandb/confusion_matrix/v1",
            _table(confusion_rows(content, ("Actual", "Predicted", "nPredictions"))),
            {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
            {"title": name},
        )
    raise ValueError(f"W&B cannot show {name!r}: its kind is {kind!r}.")


def _binned(counts: Sequence[float], edges: Sequence[float]) -> Any:
    """Counts and edges with at most 512 bins, which is what W&B takes: neighbours are added up."""
    together = -(-len(counts) // _MOST_BINS)
    if together <= 1:
        return list(counts), list(edges)
    starts = range(0, len(counts), together)
    return [sum(counts[i : i + together]) for i in starts], [*(edges[i] for i in starts), edges[-1]]


def _table(rows: Rows) -> Any:
    import wandb

    data = [list(row) for row in rows.rows[:_MOST_ROWS]]
    return wandb.Table(columns=list(rows.columns), data=data, allow_mixed_types=True)


def _object(folder: Path, content: Mapping[str, Any]) -> Any:
    """Faces as a Wavefront file with coloured vertices, points alone as W&B's point cloud."""
    import numpy as np
    import wandb

    vertices, colors, faces = mesh_arrays(folder, content)
    if faces is None or not len(faces):
        return wandb.Object3D(vertices if colors is None else np.concatenate([vertices, colors], axis=1))
    shades = None if colors is None else colors / 255.0
    lines = []
    for index, point in enumerate(vertices):
        values = [*point, *([] if shades is None else shades[index])]
        lines.append("v " + " ".join(f"{value:.6g}" for value in values))
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]
    return wandb.Object3D(io.StringIO("\n".join(lines) + "\n"), file_type="obj")
