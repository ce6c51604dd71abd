"""Checkpoints on disk: what only changed is written, what was committed stays, nothing is executed.

This package knows tensors and files, and nothing of training. Names are imported when they are first used, so that a look at
manifests (`manifest`, `layout`, `retention`) does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relume.checkpoint.checking import Problem, VerifyReport
    from relume.checkpoint.codec import decode, encode
    from relume.checkpoint.fetching import mirrored_run_id, restore_from_mirror
    from relume.checkpoint.garbage import GcReport
    from relume.checkpoint.layout import CHECKPOINTS, Checkpoint
    from relume.checkpoint.manifest import Manifest
    from relume.checkpoint.mirror import Mirror, MirrorStatus
    from relume.checkpoint.restore import restore_module, without_values
    from relume.checkpoint.retention import Candidate, Keep, infer_mode
    from relume.checkpoint.snapshot import Snapshot, Snapshotter
    from relume.checkpoint.store import Loaded, Store
    from relume.checkpoint.writer import Writer

_WHERE = {
    "CHECKPOINTS": "relume.checkpoint.layout",
    "Candidate": "relume.checkpoint.retention",
    "Checkpoint": "relume.checkpoint.layout",
    "GcReport": "relume.checkpoint.garbage",
    "Keep": "relume.checkpoint.retention",
    "Loaded": "relume.checkpoint.store",
    "Manifest": "relume.checkpoint.manifest",
    "Mirror": "relume.checkpoint.mirror",
    "MirrorStatus": "relume.checkpoint.mirror",
    "Problem": "relume.checkpoint.checking",
    "Snapshot": "relume.checkpoint.snapshot",
    "Snapshotter": "relume.checkpoint.snapshot",
    "Store": "relume.checkpoint.store",
    "VerifyReport": "relume.checkpoint.checking",
    "Writer": "relume.checkpoint.writer",
    "decode": "relume.checkpoint.codec",
    "encode": "relume.checkpoint.codec",
    "infer_mode": "relume.checkpoint.retention",
    "mirrored_run_id": "relume.checkpoint.fetching",
    "restore_from_mirror": "relume.checkpoint.fetching",
    "restore_module": "relume.checkpoint.restore",
    "without_values": "relume.checkpoint.restore",
}

__all__ = [
    "CHECKPOINTS",
    "Candidate",
    "Checkpoint",
    "GcReport",
    "Keep",
    "Loaded",
    "Manifest",
    "Mirror",
    "MirrorStatus",
    "Problem",
    "Snapshot",
    "Snapshotter",
    "Store",
    "VerifyReport",
    "Writer",
    "decode",
    "encode",
    "infer_mode",
    "mirrored_run_id",
    "restore_from_mirror",
    "restore_module",
    "without_values",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
