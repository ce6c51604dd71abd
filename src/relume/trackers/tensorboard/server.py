"""TensorBoard's own server, on the folders of runs."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from relume.errors import RelumeError
from relume.trackers.packages import require


def command(folder: Path, port: int | None = None, host: str = "127.0.0.1") -> list[str]:
    """What starts TensorBoard on a folder of event files.

    The reader in Python is taken (``--load_fast=false``): the fast one drops numbers where steps go backwards, and does
    not forget what a run went back behind.

    Raises:
        MissingPackageError: TensorBoard is not installed.
    """
    require("tensorboard")
    which_port = [] if port is None else ["--port", str(port)]
    options = ["--logdir", str(folder), "--host", host, *which_port, "--load_fast", "false"]
    return [sys.executable, "-m", "tensorboard.main", *options]


@contextlib.contextmanager
def folder_of(runs: Sequence[Path], root: Path) -> Iterator[Path]:
    """A folder for TensorBoard that has these runs, or all below ``root``; for several, links stand in it while it is used.

    Raises:
        RelumeError: a run has no files for TensorBoard.
    """
    for run in runs:
        if not any(run.glob("**/*tfevents*")):
            raise RelumeError(
                f"{run} has nothing for TensorBoard: it was made without that tracker. Give it what the run logged with: "
                f"relume sync {run} --to tensorboard"
            )
    if not runs:
        yield root
    elif len(runs) == 1:
        yield runs[0]
    else:
        with tempfile.TemporaryDirectory(prefix="relume-tensorboard-") as folder:
            for run in runs:
                _link(Path(folder, run.name), run)
            yield Path(folder)


def _link(path: Path, run: Path) -> None:
    number = 2
    while path.is_symlink():  # two runs of one name, from two roots
        path, number = path.with_name(f"{run.name}-{number}"), number + 1
    path.symlink_to(run.absolute(), target_is_directory=True)
