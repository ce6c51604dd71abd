"""Looking at everything that can stand in the way, the script included. No line of the script is run."""

from __future__ import annotations

from pathlib import Path

from relume.checkup import environment, places, rules
from relume.checkup.findings import Report, Severity
from relume.checkup.project import Project
from relume.errors import ConfigurationError, closest
from relume.provenance.sources import script as running_script
from relume.rehearse import scan
from relume.run.options import ROOT
from relume.text import counted

_ORDER: tuple[Severity, ...] = ("stops", "may", "note")


def doctor(script: str | Path | None = None, *, root: str | Path = ROOT, is_module: bool = False) -> Report:
    """Find what stands in the way of reproducing: in this environment, and in a script and what it imports.

    Args:
        script: a Python file; by default the one that is running, if one is. It is read as text and never run.
        root: the folder that holds the runs, or will.
        is_module: ``script`` is the name of a module, as for ``python -m``.

    Each finding says why, and what to do. It is a look and no proof: ``relume rehearse`` and ``relume reproduce`` try it.

    Raises:
        ConfigurationError: there is no such script, or it is no Python file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "train.py")
        >>> _ = path.write_text("import torch; model = torch.nn.Linear(2, 1); torch.manual_seed(0)")
        >>> [finding.what for finding in doctor(path).findings if finding.area == "script"]
        ['random numbers are drawn before the seed is set']
    """
    files = _files(script, is_module)
    project = Project.read(files)
    findings = [
        *environment.findings(),
        *places.of_code(files[0].parent if files else Path.cwd()),
        *places.of_root(Path(root)),
        *rules.findings(project),
    ]
    looked_at = [
        "versions of Python, torch and torchvision",
        "threads",
        "variables and settings that change numbers",
        "installed packages",
        "git",
        f"the disk of {Path(root)}/",
    ]
    if files:
        others = f" and {counted(len(files) - 1, 'file')} that it imports" if len(files) > 1 else ""
        looked_at.append(f"{files[0].name}{others}, as text")
    else:
        looked_at.append("no script: give one")
    findings.sort(key=lambda finding: _ORDER.index(finding.severity))
    return Report(tuple(findings), tuple(looked_at), files[0].name if files else "")


def _files(script: str | Path | None, is_module: bool) -> list[Path]:
    """The script's file and those of the project that it imports."""
    if script is None:
        script = running_script()
        if script is None:
            return []
    path = Path(script)
    if not is_module:
        if path.is_dir():
            raise ConfigurationError(f"{script} is a folder: name the script in it that trains.")
        if not path.is_file():
            folder = path.parent if path.parent.is_dir() else Path()
            here = sorted(file.name for file in folder.glob("*.py"))
            raise ConfigurationError(f"there is no script {str(script)!r}: {closest(path.name, here)}")
        if path.suffix == ".ipynb":
            raise ConfigurationError(
                f"{script} is a notebook: call relume.doctor() in it, or convert it: jupyter nbconvert --to script {script}"
            )
    found = scan.sources(str(script), is_module, Path.cwd())
    if not found:
        raise ConfigurationError(f"there is no module {str(script)!r} here: give the file, or start from its folder.")
    return found
