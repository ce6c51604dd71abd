"""Media of the journal as files that MLflow's artifact view shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relume.trackers.contents import Rows, as_rows, confusion_rows, curve_rows, file_of, graph_rows, text_of
from relume.trackers.mlflownames import allowed_name

KINDS = frozenset(("image", "text", "mesh", "graph", "table", "figure", "pr_curve", "confusion_matrix", "hparams"))
"""All but histograms, of which a training makes thousands and for which MLflow has no view."""


def write_artifact(target: Path, run_folder: Path, name: str, step: int, content: Mapping[str, Any]) -> Path | None:
    """Write a media content below ``target`` as ``<kind>/<name>/<step>.<ending>``; returns its folder.

    None where there is nothing to write: hyperparameters are params and metrics already.
    """
    kind = content["kind"]
    if kind == "hparams":
        return None
    folder = target / f"{kind}s" / allowed_name(name.replace(":", "_"))
    folder.mkdir(parents=True)
    stem = folder / f"step-{step:08d}"
    if kind in ("image", "figure", "mesh"):
        for key in ("file", "svg"):
            if content.get(key):
                source = file_of(run_folder, content, key)
                shutil.copyfile(source, stem.with_suffix(source.suffix))
        if content.get("caption"):
            _write(stem.with_suffix(".txt"), str(content["caption"]))
    elif kind == "text":
        _write(stem.with_suffix(".txt"), text_of(run_folder, content))
    else:
        _write(stem.with_suffix(".json"), _table(_rows(run_folder, content)))
    return folder


def _rows(run_folder: Path, content: Mapping[str, Any]) -> Rows:
    kind = content["kind"]
    if kind == "graph":
        return graph_rows(run_folder, content)
    if kind == "pr_curve":
        return curve_rows(content)
    return confusion_rows(content) if kind == "confusion_matrix" else as_rows(run_folder, content)


def _table(rows: Rows) -> str:
    """The form in which MLflow's own ``log_table`` writes tables."""
    return json.dumps({"columns": rows.columns, "data": rows.rows}, ensure_ascii=False)


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8", "replace")
