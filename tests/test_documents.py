"""What the README, the docstrings and the examples show, runs."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import relume

PROJECT = Path(__file__).parent.parent
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(relume.__path__, "relume.") if not module.name.endswith("__main__")
)
EXAMPLES = sorted((PROJECT / "examples").glob("*.py"))
BLOCKS = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str, tmp_path: Path) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(importlib.import_module(name), extraglobs={"tmp_path": tmp_path}, optionflags=flags)
    assert found.failed == 0


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CI": "true"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_and_are_short(example: Path, tmp_path: Path) -> None:
    ended = run([sys.executable, "-W", "error", str(example)], tmp_path)
    assert ended.returncode == 0, ended.stderr
    text = example.read_text()
    assert len(text.splitlines()) < 100 and ended.stdout
    if ".fit(" in text or "relume.Run(" in text:
        assert list((tmp_path / "runs").iterdir())


def test_the_readmes_python_runs_from_top_to_bottom(tmp_path: Path) -> None:
    assert BLOCKS
    ended = run([sys.executable, "-W", "error", "-c", "\n".join(BLOCKS)], tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_the_readmes_commands_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    readme = (PROJECT / "README.md").read_text("utf-8")
    for target in re.findall(r"^make (\w[\w-]*)", readme, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile
    for command in re.findall(r"^relume (\w+)", readme, flags=re.MULTILINE):
        assert run([sys.executable, "-m", "relume", command, "--help"], PROJECT).returncode == 0
