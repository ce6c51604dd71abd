"""How to start again what made a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relume.errors import RunError
from relume.monitor.record import RunRecord, status_of
from relume.text import REDACTED

RESUME_VARIABLE = "RELUME_RESUME"
"""``fashion/fashion-2``: where a script makes the run ``fashion``, it is to go on with ``fashion-2``."""

_WITH_VALUE = ("-X", "-W", "--check-hash-based-pycs")
_NOTEBOOKS = ("ipykernel", "ipykernel_launcher", "colab_kernel_launcher")


@dataclass(frozen=True)
class Launch:
    """A process to start: the command, where, and what to change in the environment."""

    command: Sequence[str]
    directory: Path
    environment: Mapping[str, str]

    def replace_this_process(self) -> None:
        """Become that process. Returns, with its end, only where the system cannot do so (Windows)."""
        os.chdir(self.directory)
        os.environ.update(self.environment)
        if sys.platform != "win32":
            os.execv(self.command[0], list(self.command))
        import subprocess

        sys.exit(subprocess.call(list(self.command)))


def launch_again(folder: Path, extra: Sequence[str] = ()) -> Launch | None:
    """How to start again what made the run in ``folder``; None for a run that is finished and is asked for nothing more.

    Args:
        extra: arguments to add.

    Raises:
        RunError: it cannot be started again (it is running, came from a notebook, its script is gone, …), and what to do.
    """
    record = RunRecord.load(folder)
    status, _ = status_of(folder)
    if status == "running":
        raise RunError(
            f"run {record.name!r} is running now, as process {record.process.pid} on {record.process.host}. Let it end, or "
            f"stop it first: kill {record.process.pid} lets it save and leave."
        )
    if status == "finished" and not extra:
        return None
    arguments = record.command[1:] if record.command else record.argv
    directory = Path(record.directory or ".").absolute()
    _check_command(record, arguments)
    _check_place(record, arguments, directory)
    executable = record.executable if Path(record.executable).is_file() else sys.executable
    environment = _environment(folder, directory)
    own: list[str] = []
    if _is_relume_train(arguments):
        own = ["--name", record.name, "--resume"]
    elif record.asked_name not in ("", record.name):
        environment[RESUME_VARIABLE] = f"{record.asked_name}/{record.name}"
    return Launch([executable, *arguments, *own, *extra], directory, environment)


def redirected(asked_name: str) -> str | None:
    """The run that `relume resume` wants continued where the script asks for ``asked_name``; it is answered once."""
    asked, _, name = os.environ.get(RESUME_VARIABLE, "").partition("/")
    if not name or asked != asked_name:
        return None
    del os.environ[RESUME_VARIABLE]
    return name


def _is_relume_train(arguments: Sequence[str]) -> bool:
    """Whether it is ``relume train``, which without a name would begin a new run beside a finished one."""
    kind, program = script_of(arguments)
    is_relume = program == "relume" if kind == "module" else kind == "script" and Path(program).stem == "relume"
    return is_relume and "train" in arguments[arguments.index(program) + 1 :][:1]


def _environment(folder: Path, directory: Path) -> dict[str, str]:
    """Where the runs are, unless the script finds them by itself: the root may have been moved since."""
    root = folder.resolve().parent
    return {} if root == (directory / "runs").resolve() else {"RELUME_ROOT": str(root)}


def _check_command(record: RunRecord, arguments: Sequence[str]) -> None:
    name = record.name
    if not record.command and not record.argv:
        raise RunError(f"run {name!r} does not say what started it. Start its script again yourself: it carries on.")
    if any(Path(part).stem in _NOTEBOOKS or Path(part).parent.name in _NOTEBOOKS for part in arguments):
        raise RunError(f"run {name!r} was made in a notebook. Open it and run the cells again: the run carries on.")
    if any(REDACTED in part for part in arguments):
        raise RunError(
            f"run {name!r} was started with a secret in its arguments, which is not stored. Start its script again yourself, "
            "with the same arguments: the run carries on. (A secret in a variable of the environment needs no argument.)"
        )
    kind, script = script_of(arguments)
    if kind == "none" or Path(script).stem in ("ipython", "ipython3") or script == "IPython":
        raise RunError(
            f"run {name!r} was made in an interactive session, or from a script read from a pipe. Type the same again, or "
            "put it in a file: the run carries on."
        )


def _check_place(record: RunRecord, arguments: Sequence[str], directory: Path) -> None:
    kind, script = script_of(arguments)
    remedy = "Start the script yourself from where it is now: a run of the same name and root carries on."
    if not directory.is_dir():
        raise RunError(f"run {record.name!r} was started in {directory}, which is not there any more. {remedy}")
    if kind == "script" and not (directory / script).exists():
        raise RunError(f"run {record.name!r} was made by {directory / script}, which is not there any more. {remedy}")


def script_of(arguments: Sequence[str]) -> tuple[str, str]:
    """What the arguments of an interpreter make it run: ``"script"``, ``"module"``, ``"code"`` or ``"none"``, and the thing.

    Example:
        >>> script_of(["-X", "dev", "-u", "train.py", "--lr", "1"])
        ('script', 'train.py')
        >>> script_of(["-m", "project.train"])
        ('module', 'project.train')
    """
    waiting = iter(arguments)
    for argument in waiting:
        if argument in ("-m", "-c"):
            return ("module" if argument == "-m" else "code"), next(waiting, "")
        if argument in _WITH_VALUE:
            next(waiting, None)
        elif argument == "-":
            break
        elif not argument.startswith("-"):
            return "script", argument
    return "none", ""
