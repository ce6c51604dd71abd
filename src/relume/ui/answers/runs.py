"""All runs below a root, as rows of the page's table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relume.recorded import facts_below
from relume.recorded.facts import flat


def all_runs(root: Path) -> dict[str, Any]:
    """The rows, and the names of all metrics and settings that any of them has."""
    rows = facts_below(root)
    for row in rows:
        row["config"] = flat(row.get("config", {}))
    metrics = dict.fromkeys(name for row in rows for name in row["metrics"])
    settings = dict.fromkeys(name for row in rows for name in row["config"])
    return {"root": root.name, "runs": rows, "metrics": list(metrics), "settings": list(settings)}
