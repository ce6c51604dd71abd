"""The page's own files: modules and styles, as the server sends them and as a report holds them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
STYLES = ("vendor/uplot.css", "style.css")
"""In the order in which they count."""


def modules() -> dict[str, Path]:
    """Each module by the name under which the others import it: ``relume/views/runs.js``, in the order of the names."""
    return {f"relume/{path.relative_to(STATIC).as_posix()}": path for path in sorted(STATIC.rglob("*.js"))}


def styles() -> list[Path]:
    """The vendored style and all of the page's own: ``style.css`` first, then one for each part that has one."""
    own = [STATIC / name for name in STYLES]
    return own + sorted(path for path in STATIC.rglob("*.css") if path not in own)


def read(path: Path) -> bytes:
    """A file of the page; read once, and again when it has changed."""
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(256)
def _read(path: Path, _changed: int) -> bytes:
    return path.read_bytes()
