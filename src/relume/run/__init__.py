"""Runs: where a training stands, what it logs, its checkpoints, and the loop around it."""

from relume.run.arguments import as_config, check_epochs
from relume.run.cursor import Cursor, as_named
from relume.run.run import Run
from relume.run.stopping import EarlyStopping

__all__ = ["Cursor", "EarlyStopping", "Run", "as_config", "as_named", "check_epochs"]
