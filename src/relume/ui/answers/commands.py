"""Commands to copy: what a person may do with a run, as they would type it where they are."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relume.errors import RunError
from relume.monitor import launch_again


def commands(
    folder: Path,
    root: Path,
    row: Mapping[str, Any],
    saved: Sequence[Mapping[str, Any]],
    directory: Path | None = None,
) -> list[dict[str, str]]:
    """Each with its ``label``, the ``command``, and a ``note`` where there is something to know first.

    Args:
        row: what is known of the run.
        saved: its checkpoints, see `checkpoints`.
        directory: in which they are typed; by default where this process is.
    """
    at = _root_option(root, Path.cwd() if directory is None else directory)
    name = folder.name
    good = [one for one in saved if not one["problem"]]
    chosen = f"{name}@best" if any(one["is_best"] for one in good) else name
    found = _resume(folder, name, at, row)
    found.append(_command("show", "relume", "show", name, *at))
    if good:
        bundle = f"{name}.relume"
        packing = _typed("relume", "pack", chosen, "-o", bundle, *at)
        found.append({"label": "pack", "command": packing, "note": "one file that others can open and check"})
        found.append(_command("export the weights", "relume", "export", chosen, f"{name}.safetensors", *at))
        found.append(_command("export as ONNX", "relume", "export", chosen, f"{name}.onnx", *at))
        # A bundle of its own: the one that was packed to be given away may be there, and stays.
        checked = f"{name}-check.relume"
        packing = _typed("relume", "pack", chosen, "-o", checked, "--force", *at)
        checking = f"{packing} && {_typed('relume', 'reproduce', checked)}"
        found.append({"label": "reproduce", "command": checking, "note": "checks what the bundle claims"})
        found.append(_command("list the checkpoints", "relume", "checkpoints", name, *at))
    if (folder / "provenance.json").is_file():
        found.append(_command("take out the code", "relume", "restore-code", name, f"{name}-code", *at))
    found.append(_command("report as one file", "relume", "report", name, "-o", f"{name}.html", *at))
    return found


def _resume(folder: Path, name: str, at: Sequence[str], row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The way to go on; where there is none, why."""
    if row["status"] in ("running", "damaged"):
        return []
    epochs = 2 * max(1, row.get("epochs") or 0, row.get("epoch") or 0)
    extra = ["--", "--epochs", str(epochs)] if row["status"] == "finished" else []
    try:
        launch_again(folder, extra)
    except RunError as error:
        return [{"label": "resume", "command": "", "note": str(error)}]
    note = "it is finished: more epochs extend it, where its script takes --epochs" if extra else ""
    return [{**_command("resume", "relume", "resume", name, *at, *extra), "note": note}]


def _command(label: str, *words: str) -> dict[str, str]:
    return {"label": label, "command": _typed(*words), "note": ""}


def _typed(*words: str) -> str:
    return shlex.join(words)


def _root_option(root: Path, directory: Path) -> list[str]:
    """``--root``, unless the runs are where relume looks by itself."""
    place = os.path.relpath(root, directory)
    if place == "runs":
        return []
    return ["--root", str(root) if place.startswith("..") else place]
