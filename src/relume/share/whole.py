"""The whole checkpoint in a bundle: a root of runs with this one, which training goes on from when it is unpacked."""

from __future__ import annotations

from pathlib import Path

from relume.checkpoint import CHECKPOINTS
from relume.checkpoint.index import Index
from relume.checkpoint.layout import Layout
from relume.checkpoint.manifest import Manifest, to_bytes
from relume.checkpoint.pack import pack_path
from relume.errors import BundleError
from relume.monitor import Process, RunRecord
from relume.share.archive import Parts, file_parts
from relume.share.documents import CHECKPOINT_FOLDER
from relume.share.gather import Source


def whole_checkpoint(source: Source) -> dict[str, Parts]:
    """The files of a root with the checkpoint alone. Its tensors are verified, and paths of the machine taken out.

    Raises:
        CheckpointError: something of it is damaged.
        BundleError: it is of no run.
    """
    if source.record is None:
        raise BundleError(
            f"{source.checkpoint.path} is of no run, and a whole checkpoint is packed with its run: leave checkpoint out."
        )
    source.store.load(source.checkpoint, verify=True)
    manifest = source.store.manifest(source.checkpoint)
    clean = manifest.model_copy(update={"meta": source.portable.value(manifest.meta)})
    name = source.record.name
    place = f"{CHECKPOINT_FOLDER}{name}/{CHECKPOINTS}/{source.checkpoint.path.name}"
    content, record = to_bytes(clean), _record(source, source.record)
    files: dict[str, Parts] = {place: lambda: [content], f"{CHECKPOINT_FOLDER}{name}/run.json": lambda: [record]}
    layout = Layout(source.store.root)
    for path in _packs(manifest, layout):
        files[f"{CHECKPOINT_FOLDER}{path.relative_to(layout.root).as_posix()}"] = file_parts(path)
    return files


def _record(source: Source, record: RunRecord) -> bytes:
    clean = source.portable
    made = RunRecord(
        name=record.name,
        id=record.id,
        created=record.created,
        seed=record.seed,
        config=clean.value(record.config),
        asked_name=record.asked_name,
        versions=record.versions,
        tags=record.tags,
        notes=clean.text(record.notes),
        process=Process(pid=0, started=0.0, host="", boot=""),
    )
    return (made.model_dump_json(indent=1) + "\n").encode()


def _packs(manifest: Manifest, layout: Layout) -> list[Path]:
    """The files that hold its tensors, wherever they were moved to since."""
    found: set[Path] = set()
    index: Index | None = None
    for entry in manifest.entries:
        for piece in entry.pieces:
            path = pack_path(layout.packs, manifest.packs[piece.pack])
            if not path.is_file():
                if index is None:
                    index = Index(layout.packs)
                    index.refresh()
                path = next(iter(index.holders(piece.hash))).path
            found.add(path)
    return sorted(found)
