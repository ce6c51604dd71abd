"""What a report says of the machine that the runs are on: nothing. Names of runs, metrics and settings stay what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relume.errors import RelumeError
from relume.monitor import RunRecord
from relume.provenance import Provenance
from relume.provenance.portable import Portable

_OF_THE_MACHINE = ("host", "directory", "interpreter")
_WORDS = ("reason", "lineage", "code", "data", "problems", "checkpoints", "freeze", "packages")
"""Parts of an answer that are words of relume, of the code or of an error."""


def portable_of(folders: Sequence[Path]) -> Portable:
    """What takes absolute paths, the machine's names and secrets out of texts of these runs."""
    known: list[str | Path] = [Path.cwd()]
    for folder in folders:
        known += [folder.absolute(), folder.absolute().parent]
        try:
            record = RunRecord.load(folder)
            known += [Path(record.directory)] if record.directory else []
            known += [Path(segment.directory) for segment in Provenance.load(folder).segments if segment.directory]
        except (RelumeError, OSError, ValueError):  # of a damaged run nothing is known
            continue
    return Portable(known)


def row(found: Mapping[str, Any], clean: Portable) -> dict[str, Any]:
    """A row of the table of runs, or the answer on one run."""
    made = {**found, "config": _settings(found.get("config", {}), clean)}
    made["notes"] = clean.text(str(found.get("notes") or ""))
    for name in _WORDS:
        if name in found:
            made[name] = clean.value(found[name])
    if "folder" in made:
        made["folder"] = Path(str(made["folder"])).name
    return made


def run(found: Mapping[str, Any], clean: Portable) -> dict[str, Any]:
    """All that is said of one run."""
    made = row(found, clean)
    made.pop("started_in", None)
    made["argv"] = clean.arguments([str(word) for word in found.get("argv") or []])
    made["environment"] = _settings(
        {name: value for name, value in (found.get("environment") or {}).items() if name not in _OF_THE_MACHINE}, clean
    )
    return made


def compared(found: Mapping[str, Any], clean: Portable) -> dict[str, Any]:
    """A comparison of runs."""
    made = dict(found)
    for part in ("config", "code", "environment"):
        rows = [
            entry for entry in found.get(part) or [] if part != "environment" or entry["name"] not in _OF_THE_MACHINE
        ]
        made[part] = [{**entry, "values": clean.value(entry["values"])} for entry in rows]
    return made


def _settings(values: Mapping[str, Any], clean: Portable) -> dict[str, Any]:
    return {name: clean.value(value) for name, value in values.items()}
