"""Checkpoints on disk: what only changed is written, what was committed stays, nothing is executed.

This package knows tensors and files, and nothing of training.
"""

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
