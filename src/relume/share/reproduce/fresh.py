"""A fresh virtual environment with the exact versions of a bundle's environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relume.errors import BundleError
from relume.processes import child

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_OWN = {"relume", "pip", "setuptools", "wheel"}
_TORCH_BUILD = re.compile(r"\+(cpu|cu\d+|rocm[\d.]+|xpu)$")
_TAIL_LINES = 4


@dataclass(frozen=True)
class Fresh:
    """A virtual environment that was made.

    Attributes:
        python: its interpreter.
        installed: how many packages.
        left_out: those that no index has, in words.
    """

    python: Path
    installed: int
    left_out: Sequence[str]


def fresh_environment(folder: Path, packages: Mapping[str, str]) -> Fresh:
    """Make one below ``folder`` and let pip get the versions; relume itself is the one that runs now.

    Raises:
        BundleError: the bundle names no packages, or venv or pip failed; with the last lines that they said.
    """
    wanted, left_out = requirements(packages)
    if not wanted:
        raise BundleError("environment.json names no packages with versions: there is nothing to install")
    home = folder / "environment"
    log = folder / "pip.txt"
    _run([sys.executable, "-m", "venv", str(home)], log, "python -m venv")
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    listed = folder / "requirements.txt"
    listed.write_text("".join(f"{name}=={version}\n" for name, version in wanted.items()), encoding="utf-8")
    pip = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    _run([*pip, "-r", str(listed)], log, "pip install", _of_its_own_index(wanted))
    _place_relume(python)
    return Fresh(python, len(wanted), left_out)


def requirements(packages: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What pip can install by name and version, and what it cannot.

    Example:
        >>> requirements({"torch": "2.6.0+cpu", "mine": "0.1 (file:///home/ann/mine)", "relume": "0.1.0", "-r x": "1"})
        ({'torch': '2.6.0+cpu'}, ['-r x 1', 'mine 0.1 (file:///home/ann/mine)'])
    """
    wanted, left = {}, []
    for name, version in sorted(packages.items()):
        if name.lower() in _OWN:
            continue
        if _NAME.fullmatch(name) and _VERSION.fullmatch(version):
            wanted[name] = version
        else:
            left.append(f"{name} {version}")
    return wanted, left


def _of_its_own_index(wanted: Mapping[str, str]) -> str:
    """PyTorch's builds for one kind of machine are on an index of its own, which pip must be told of."""
    build = _TORCH_BUILD.search(wanted.get("torch", ""))
    where = "(https://pytorch.org/get-started/locally): set PIP_EXTRA_INDEX_URL"
    return f". torch {wanted['torch']} is on an index of its own {where}" if build else ""


def _run(arguments: Sequence[str], log: Path, name: str, advice: str = "") -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    with log.open("wb") as file, child(arguments, environment, file.fileno()) as process:
        status = process.wait()
    if status:
        lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise BundleError(f"{name} failed with status {status}: {' / '.join(errors[-_TAIL_LINES:])[:300]}{advice}")


def _place_relume(python: Path) -> None:
    """This relume, copied: the same program checks and trains, whatever an index has under its name."""
    question = "import sysconfig; print(sysconfig.get_path('purelib'))"
    said = subprocess.run([str(python), "-I", "-c", question], capture_output=True, text=True, check=True)
    source = Path(__file__).resolve().parents[2]
    shutil.copytree(source, Path(said.stdout.strip()) / "relume", ignore=shutil.ignore_patterns("__pycache__"))
