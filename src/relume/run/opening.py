"""The folder of a run that begins: a new one, or the one that is there, and the record of this execution in it."""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path
from typing import Any

from relume.checkpoint import Store, mirrored_run_id, restore_from_mirror
from relume.errors import ConfigurationError
from relume.monitor import Process, RunRecord, jsonable, make_run_folder
from relume.monitor.edits import FILE as EDITS
from relume.monitor.journal import segments
from relume.monitor.record import is_run, was_begun
from relume.provenance.keeping import kept_files
from relume.provenance.secrets import process_redactor
from relume.run.resuming import Origin


def choose_folder(
    store: Store, root: Path, name: str, resume: bool | str | int | Path | None, mirror: str | Path | None
) -> tuple[Path, bool]:
    """The run's folder, and whether it is new.

    Args:
        resume: ``False`` makes a new one beside one that is there; the number, name or path of a checkpoint needs that.
        mirror: what it has of the run is brought back first.
    """
    if mirror is not None and resume is not False and not _is_new(Path(mirror)):
        restore_from_mirror(mirror, store, f"{name}/checkpoints", older=False)
    is_there = is_run(root / name) or was_begun(root / name)
    if resume is not False and is_there:
        return root / name, False
    if chosen_of(resume) is not None:
        raise ConfigurationError(f"resume={resume!r}: there is no run {name!r} in {root} yet.")
    return make_run_folder(root, name, is_free=lambda name: _is_free(mirror, name)), True


def chosen_of(resume: bool | str | int | Path | None) -> str | int | Path | None:
    """The checkpoint that ``resume=`` names, by its number perhaps: 1 is no True."""
    return None if isinstance(resume, bool) else resume


def stored_record(folder: Path) -> RunRecord | None:
    return RunRecord.load(folder) if is_run(folder) else None


def new_record(
    before: RunRecord | None,
    origin: Origin | None,
    *,
    name: str,
    asked_name: str,
    seed: int,
    config: dict[str, Any],
    versions: dict[str, str],
    tags: tuple[str, ...],
    notes: str | None,
) -> RunRecord:
    """The record of this execution, in the place of the one ``before``."""
    lineage = before.lineage if before is not None else None
    lost_id = None  # where only its checkpoints have kept it
    if origin is not None and origin.is_own:
        lost_id = origin.meta.get("run_id")
    elif origin is not None:
        lineage = {"checkpoint": origin.name, "run": origin.meta.get("run"), "run_id": origin.meta.get("run_id")}
    redactor = process_redactor()
    return RunRecord(
        name=name,
        asked_name=asked_name,
        id=before.id if before is not None else lost_id or secrets.token_hex(8),
        created=before.created if before is not None else time.time(),
        seed=seed,
        config=config,
        argv=redactor.arguments(jsonable(sys.argv)),
        command=redactor.arguments(jsonable(list(getattr(sys, "orig_argv", [])))),
        directory=str(Path.cwd()),
        executable=sys.executable,
        versions=versions,
        process=Process.current(),
        lineage=lineage,
        tags=list(tags),
        notes=notes or "",
    )


def small_files(root: Path, folder: Path, name: str) -> list[Path]:
    """What of the run is mirrored besides its checkpoints, below the root."""
    edits = [path for path in [folder / EDITS] if path.is_file()]
    parts = (*segments(folder), *kept_files(folder), *edits)
    return [Path(name, "run.json"), *(path.relative_to(root) for path in parts)]


def _is_free(mirror: str | Path | None, name: str) -> bool:
    return mirror is None or mirrored_run_id(mirror, f"{name}/checkpoints") is None


def _is_new(mirror: Path) -> bool:
    """Whether nothing was mirrored there yet, though its drive is there."""
    return mirror.parent.is_dir() and not mirror.exists()
