"""Runs: where a training stands, what it logs, and the loop around it."""

from relume.run.cursor import Cursor, as_named
from relume.run.run import Run, as_config, check_epochs

__all__ = ["Cursor", "Run", "as_config", "as_named", "check_epochs"]
