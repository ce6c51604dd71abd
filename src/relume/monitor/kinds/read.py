"""What was kept, read back."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from relume.errors import RunError
from relume.monitor.classes import ClassReport
from relume.monitor.journal import number
from relume.monitor.kinds.files import kept
from relume.monitor.kinds.pixels import pillow
from relume.text import printable


def read(run_folder: str | Path, content: Mapping[str, Any]) -> Any:
    """What the journal says of a logged thing, as what it was.

    Returns:
        image, figure: an image of Pillow. histogram, pr_curve, mesh: arrays by name. text: a ``str``. table: ``columns`` and
        ``rows``. graph: a list of nodes. confusion_matrix: a :class:`relume.ClassReport`. hparams: ``values`` and ``metrics``.

    Raises:
        RunError: a file is gone or damaged, or the content is none.

    Example:
        >>> from relume.monitor.kinds import Histogram
        >>> read(".", Histogram([1.0, 3.0], bins=2).content(Path()))["counts"]
        array([1, 1])
    """
    folder, kind = Path(run_folder), content.get("kind")
    if not isinstance(kind, str) or kind not in _READERS:
        raise RunError(f"{printable(kind)!r} is no kind that this relume knows: {', '.join(sorted(_READERS))}.")
    try:
        return _READERS[kind](folder, content)
    except RunError:
        raise
    except Exception as error:  # a decoder of files raises whatever comes to its mind
        raise RunError(f"a {kind} in {folder} is damaged ({type(error).__name__}: {error!s:.200}).") from error


def _image(folder: Path, content: Mapping[str, Any]) -> Any:
    image = pillow().open(io.BytesIO(kept(folder, content["file"])), formats=["PNG"])
    image.load()
    return image


def _text(folder: Path, content: Mapping[str, Any]) -> str:
    return str(content["text"]) if "text" in content else kept(folder, content["file"]).decode()


def _arrays(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: np.array(value) if isinstance(value, list) and name != "classes" else _number(value)
        for name, value in content.items()
        if name != "kind"
    }


def _number(value: Any) -> Any:
    """NaN and infinity are text in the journal."""
    return number(value) if isinstance(value, str) else value


def _mesh(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    from safetensors.numpy import load

    return dict(load(kept(folder, content["file"])))


def _graph(folder: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(json.loads(kept(folder, content["file"]))["nodes"])


def _table(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    held = json.loads(kept(folder, content["file"])) if "file" in content else content
    columns, rows = [str(name) for name in held["columns"]], [list(row) for row in held["rows"]]
    for place in range(len(columns)):
        cells = [row[place] for row in rows]
        if any(type(cell) is float for cell in cells) and all(_is_number(cell) for cell in cells):
            for row in rows:
                row[place] = _number(row[place])
    return {"columns": columns, "rows": rows}


def _is_number(cell: Any) -> bool:
    return cell is None or isinstance(cell, (int, float)) or cell in ("NaN", "Infinity", "-Infinity")


def _confusion(folder: Path, content: Mapping[str, Any]) -> ClassReport:
    return ClassReport(tuple(map(str, content["classes"])), tuple(tuple(map(int, row)) for row in content["counts"]))


def _hparams(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(content["values"])
    return {"values": values, "metrics": {name: _number(value) for name, value in content["metrics"].items()}}


_READERS = {
    "image": _image,
    "figure": _image,
    "text": _text,
    "histogram": _arrays,
    "pr_curve": _arrays,
    "mesh": _mesh,
    "graph": _graph,
    "table": _table,
    "confusion_matrix": _confusion,
    "hparams": _hparams,
}
