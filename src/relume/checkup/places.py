"""Where code and runs lie: git, and the file system below the root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from relume.checkup.findings import Finding
from relume.provenance.capture import OFF
from relume.provenance.git import GitError, root_of, state_of
from relume.text import counted, size

_LITTLE_BYTES = 2 << 30
_REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "lustre", "beegfs", "glusterfs", "drvfs", "davfs", "fuse.")
_LOCAL_FUSE = ("fuse.overlayfs", "fuse.fuse-overlayfs", "fuse.ntfs", "fuse.exfat")


def of_code(folder: Path) -> Iterator[Finding]:
    """What git knows of the code."""
    if os.environ.get(OFF, "").strip().lower() in ("off", "0", "false", "no"):
        yield Finding(
            "stops",
            "code",
            f"the environment has {OFF}={os.environ[OFF]}: runs keep no code",
            "Nobody can run again what is not kept, and a bundle of such a run has no code in it.",
            f"unset {OFF}",
        )
    try:
        root = root_of(folder.resolve())
        state = None if root is None else state_of(root)
    except GitError as error:
        yield Finding(
            "may",
            "code",
            f"git cannot be asked about the code: {error}",
            "Which version ran is then known only by the files that the run keeps.",
            f"make `git -C {folder} status` work",
        )
        return
    if state is None:
        yield Finding(
            "note",
            "code",
            "the code is in no git repository",
            "A run keeps its source files, but not how they came about, and others have nowhere to look for more.",
            'git init && git add . && git commit -m "What is trained"',
        )
        return
    if state.problem:
        yield Finding(
            "may", "code", f"git: {state.problem}", "What differs from the commit is not known.", "git status"
        )
    if not state.commit:
        yield Finding(
            "note",
            "code",
            "the repository has no commit yet",
            "A run has no version of its code to name.",
            "git commit",
        )
        return
    if state.changes:
        new = sum(change.kind == "untracked" for change in state.changes)
        changed = len(state.changes) - new
        parts = [counted(changed, "changed file")] if changed else []
        parts += [f"{counted(new, 'file')} that git does not have"] if new else []
        yield Finding(
            "note",
            "code",
            f"the code differs from its commit: {' and '.join(parts)}",
            "The commit alone is not what runs. A run keeps what differs with it, but not large files and data.",
            "git add -A && git commit, before the training whose numbers you will publish",
        )
    if not state.remote:
        yield Finding(
            "note",
            "code",
            "the repository has no remote",
            "The name of the commit tells nothing to others; the code in the bundle does.",
            "git remote add origin URL && git push -u origin HEAD",
        )
    elif state.ahead:
        yield Finding(
            "note",
            "code",
            f"{counted(state.ahead, 'commit')} not pushed to {state.upstream}",
            "Others do not have the commit that the run names.",
            "git push",
        )
    if not state.branch:
        yield Finding(
            "note",
            "code",
            f"HEAD is detached at {state.commit[:10]}",
            "Commits made now belong to no branch, and git forgets them in time.",
            "git switch -c NAME",
        )


def of_root(root: Path) -> Iterator[Finding]:
    """The file system on which the runs are."""
    place = root.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        yield Finding(
            "stops",
            "files",
            f"{root} cannot be written",
            "Without a folder for the runs there is nothing to reproduce from.",
            "name another folder: root= of Run, --root, or the variable RELUME_ROOT",
        )
        return
    kind = _file_system(place.resolve())
    if kind.startswith(_REMOTE) and not kind.startswith(_LOCAL_FUSE):
        yield Finding(
            "may",
            "files",
            f"{root}/ is on a file system of a network or a program ({kind})",
            "Locks and fsync may promise more there than they hold, and a checkpoint can be lost with the connection.",
            'keep the runs on a local disk, and copy checkpoints there: Run(…, mirror="FOLDER ON THE MOUNT")',
        )
    free = shutil.disk_usage(place).free
    if free < _LITTLE_BYTES:
        yield Finding(
            "may",
            "files",
            f"only {size(free)} are free where {root}/ is",
            "A full disk ends the saving of checkpoints.",
            "free some space, or `relume gc` what no run needs any more",
        )


def _file_system(place: Path) -> str:
    """Its kind, such as ``ext4`` or ``nfs4``; "" where that is not known."""
    best, kind = -1, ""
    for partition in psutil.disk_partitions(all=True):
        mount = Path(partition.mountpoint)
        if len(mount.parts) > best and (place == mount or place.is_relative_to(mount)):
            best, kind = len(mount.parts), partition.fstype.lower()
    return kind
