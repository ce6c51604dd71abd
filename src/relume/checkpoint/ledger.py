"""What a run remembers, beside itself, of its mirror: which of its checkpoints were there.

A checkpoint that is in the ledger and no longer in the run was deleted here, and may go from the mirror. One that is
on the mirror and was never here belongs to another machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from blake3 import blake3
from pydantic import BaseModel, Field, ValidationError

from relume.checkpoint import files
from relume.checkpoint.layout import Checkpoint, Layout
from relume.checkpoint.loading import decode_meta
from relume.checkpoint.manifest import parse
from relume.errors import ManifestError


class Ledger(BaseModel):
    """The ledger of one run and one mirror.

    Attributes:
        owner: what marks this run's temporary files on the mirror.
        mirrored: names of manifests that were on the mirror, and the blake3 of their files.
    """

    owner: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")] = Field(default_factory=lambda: secrets.token_hex(4))
    mirrored: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """The ledger in a file; an empty one where there is none or it is damaged, and then nothing gets deleted."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return cls()

    def save(self, path: Path) -> None:
        """Replace the file. A local disk that is full does not keep the mirror from going on."""
        staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            files.make_folder(path.parent)
            files.remove(staged)
            files.write_new(staged, [self.model_dump_json(indent=1).encode()])
            files.publish(staged, path)


def ledger_path(store: Layout, folder: str, target: Path) -> Path:
    """Where the ledger of a run's folder of checkpoints and of a mirror lies."""
    name = f"mirror-{blake3(os.fsencode(target)).hexdigest(4)}.json"
    return store.manifests(folder).parent / name


def newest_run_id(checkpoints: Sequence[Checkpoint]) -> str | None:
    """The id of the run that made the newest of these checkpoints that can be read; None if it says none."""
    for checkpoint in reversed(checkpoints):
        with contextlib.suppress(ManifestError, FileNotFoundError):
            meta = decode_meta(parse(checkpoint.path.read_bytes(), checkpoint.path))
            found = meta.get("run_id") if isinstance(meta, dict) else None
            return found if isinstance(found, str) else None
    return None
