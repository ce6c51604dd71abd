"""What runs: the script or the notebook's cells, the modules of the user's own, and files that the arguments name."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_RELUME = Path(__file__).resolve().parents[1]
"""A library, also where it is found through PYTHONPATH."""
SUFFIXES = frozenset([
    ".py", ".pyi", ".pyx", ".pxd", ".ipynb", ".yaml", ".yml", ".toml", ".json", ".json5", ".jsonc", ".jsonnet", ".cfg",
    ".ini", ".conf", ".txt", ".md", ".rst", ".sh", ".bash", ".zsh", ".fish", ".c", ".cc", ".cpp", ".cxx", ".h", ".hh",
    ".hpp", ".cu", ".cuh", ".metal", ".cl", ".rs", ".go", ".js", ".ts", ".jsx", ".tsx", ".html", ".css", ".sql",
    ".jinja", ".j2", ".tmpl", ".proto", ".gin", ".lock", ".r", ".R", ".jl", ".m", ".lua", ".java", ".scala", ".kt",
    ".swift", ".bat", ".ps1", ".mk", ".cmake", ".dockerfile", ".tex", ".bib", ".patch", ".diff", ".in", ".properties",
    ".xml", ".graphql", ".fx", ".triton", ".slurm", ".sbatch", ".pbs", ".env.example",
])  # fmt: skip
NAMES = frozenset([
    "Makefile", "Dockerfile", "Containerfile", "Snakefile", "Procfile", "Justfile", "justfile", "Pipfile", "LICENSE",
    "README", ".gitignore", ".gitattributes", ".gitmodules", ".dockerignore", ".python-version", ".editorconfig",
    ".flake8", ".pylintrc",
])  # fmt: skip


def is_source(path: str) -> bool:
    """Whether a file's name is one of code, settings or text that belongs to code."""
    name = path.rpartition("/")[2]
    return name in NAMES or PurePath(name).suffix in SUFFIXES


def is_own(path: Path) -> bool:
    """Whether a file is the user's: not of the interpreter, not where packages are installed, and not relume's own."""
    if not _INSTALLED.isdisjoint(path.parts) or path.is_relative_to(_RELUME):
        return False
    return not any(path.is_relative_to(folder) for folder in _interpreter())


@functools.cache
def _interpreter() -> list[Path]:
    found = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "scripts")]
    return [Path(folder).resolve() for folder in found if folder]


def script() -> Path | None:
    """The file that was started, where it is the user's own; ``None`` in a notebook, an interactive session, a program."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(file, str) or in_notebook():
        return None
    try:
        path = Path(file).resolve()
    except OSError:
        return None
    return path if path.is_file() and is_own(path) else None


@dataclass(frozen=True)
class Module:
    """A module of the user's own, and the folder that it was found in."""

    path: Path
    base: Path


def local_modules() -> list[Module]:
    """The imported modules that are neither of the interpreter nor installed, by their files."""
    found: dict[Path, Module] = {}
    is_known: dict[str, bool] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith((".py", ".so", ".pyd", ".pyx")) or name == "__main__":
            continue
        folder = file.rpartition(os.sep)[0]
        if folder not in is_known:  # thousands of modules lie in some hundred folders
            is_known[folder] = is_own(Path(folder).absolute()) and is_own(Path(folder).resolve())
        if not is_known[folder]:
            continue
        path = Path(file).resolve()
        depth = name.count(".") + (path.name == "__init__.py")
        base = path.parents[min(depth, len(path.parents) - 1)]
        if path.is_file():
            found.setdefault(path, Module(path, base))
    return list(found.values())


def argument_files(arguments: Sequence[str], directory: Path) -> list[Path]:
    """Files such as ``--config train.yaml`` that the arguments name."""
    found = []
    for argument in arguments[:500]:
        for part in {argument, argument.partition("=")[2]}:
            if not part or len(part) > 1000 or "\0" in part or not is_source(part):
                continue
            try:
                path = (directory / part).resolve()
                if path.is_file() and is_own(path):
                    found.append(path)
            except (OSError, ValueError):
                continue
    return found


# ------------------------------------------------------------------------------------------------------------ notebooks


def _shell() -> Any:
    """IPython's shell, where there is one. IPython is not imported for that."""
    ipython = sys.modules.get("IPython")
    get = getattr(ipython, "get_ipython", None)
    return get() if callable(get) else None


def in_notebook() -> bool:
    return _shell() is not None


@dataclass(frozen=True)
class Cells:
    """The cells of an interactive session, as executed: number and text; and the notebook's file where it is known."""

    cells: list[tuple[int, str]]
    path: str = ""


def executed_cells() -> Cells | None:
    """What was typed into IPython so far, magics included; ``None`` where there is no IPython."""
    shell = _shell()
    history = getattr(getattr(shell, "history_manager", None), "input_hist_raw", None)
    if shell is None or not isinstance(history, list):
        return None
    cells = [(number, str(text)) for number, text in enumerate(history) if number and text]
    names = getattr(shell, "user_ns", {})
    path = names.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME", "")
    return Cells(cells, str(path) if str(path).endswith(".ipynb") else "")


def as_notebook(cells: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Executed cells as an ``.ipynb`` document (nbformat 4.5), without outputs."""
    entries = [
        {
            "cell_type": "code",
            "execution_count": number,
            "id": f"cell-{number}",
            "metadata": {},
            "outputs": [],
            "source": text.splitlines(keepends=True),
        }
        for number, text in cells
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": entries, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def as_script(cells: Sequence[tuple[int, str]]) -> str:
    """Executed cells as a script in the percent format, which editors and jupytext read; magics are comments in it."""
    parts = []
    for number, text in cells:
        lines = [f"# {line}" if line.lstrip().startswith(("%", "!")) else line for line in text.splitlines()]
        if text.startswith("%%"):
            lines = [f"# {line}".rstrip() for line in text.splitlines()]
        parts.append("\n".join([f"# %% [{number}]", *lines]) + "\n")
    return "\n".join(parts)
