"""Reports, as runs see them. What makes them lies above, in `relume.ui`, and is asked for by name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MAKER = "relume.ui.report"
"""The one arrow that goes up: every run can report on itself, and only those who ask for it pay for the import."""


def report(folders: Sequence[Path], path: str | os.PathLike[str] | None, height: int, **options: Any) -> Path | None:
    """Show a report of runs in the cell of a notebook, or write it: see `relume.ui.report.show`."""
    shown: Path | None = importlib.import_module(_MAKER).show(folders, path, height, **options)
    return shown
