"""The rehearsal: the script undisturbed, the script with kills, the comparison, the cause."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from relume.checkpoint import Store
from relume.errors import ConfigurationError
from relume.monitor import runs_in
from relume.processes import ended_by_signals
from relume.rehearse import kills as killing
from relume.rehearse import scan
from relume.rehearse.causes import Diagnosis, diagnose
from relume.rehearse.compare import RunComparison, compare_roots
from relume.rehearse.runner import Command, Execution, Notice, execute

Verdict = Literal["exact", "differs", "fails", "no run", "unproven"]
_PATIENCE = 3.0
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """What is rehearsed, and how.

    Attributes:
        script: a file, or the name of a module.
        arguments: for the script.
        kills: how often to kill it.
        seed: of the moments.
        timeout_seconds: that one start may take; by default an undisturbed run may take for ever, and another one three
            times as long as that, and a minute.
        every: how often to save, such as ``"7 steps"``; by default as the script does, and often enough to fall
            between the kills in the run with kills.
        find_cause: whether to run the script again when something differs.
    """

    script: str
    arguments: Sequence[str] = ()
    is_module: bool = False
    kills: int = 5
    seed: int = 0
    timeout_seconds: float | None = None
    every: str | None = None
    find_cause: bool = True

    def command(self, timeout_seconds: float | None) -> Command:
        place = ("-m", self.script) if self.is_module else (self.script,)
        return Command((sys.executable, *place, *self.arguments), timeout_seconds)


@dataclass(frozen=True)
class Rehearsal:
    """What came of it.

    Attributes:
        verdict: ``"exact"``: a killed run is the undisturbed one to the last bit; ``"differs"``: it is not; ``"fails"``:
            the script fails by itself; ``"no run"``: it makes no run; ``"unproven"``: no kill was followed by a resume.
        every: how often the run with kills saved.
        reason: what went wrong when there was nothing to compare.
    """

    plan: Plan
    verdict: Verdict
    undisturbed: Execution
    killed: Execution | None = None
    every: str | None = None
    runs: list[RunComparison] = field(default_factory=list)
    diagnosis: Diagnosis | None = None
    reason: str = ""


def rehearse(plan: Plan, folder: Path, notice: Notice = lambda text: None) -> Rehearsal:
    """Prove, or disprove, that a script resumes exactly.

    Args:
        folder: an empty folder for roots and outputs, see `workspace`.
        notice: is told what is going on.

    Raises:
        ConfigurationError: there is no such script.
    """
    if not plan.is_module and not Path(plan.script).is_file():
        raise ConfigurationError(
            f"there is no script {plan.script!r}. Give the path of a Python file, or -m and a module."
        )
    notice("the script, undisturbed")
    undisturbed = execute(plan.command(plan.timeout_seconds), folder / "undisturbed", every=plan.every)
    if undisturbed.has_failed:
        return Rehearsal(plan, "fails", undisturbed, reason=_failure(undisturbed))
    if not runs_in(undisturbed.root):
        return Rehearsal(plan, "no run", undisturbed)
    command = plan.command(plan.timeout_seconds or _PATIENCE * undisturbed.seconds + _PATIENCE_SECONDS)
    every = plan.every or _every(undisturbed.root, plan.kills)
    planned = killing.plan(undisturbed.root, plan.kills, plan.seed)
    notice(f"the script, with {len(planned)} kills")
    killed = execute(command, folder / "killed", kills=planned, every=every, notice=notice)
    if killed.has_failed:
        when = f"started again after kill {len(killed.kills)}" if killed.kills else "run a second time"
        reason = f"{when}, {_failure(killed)}"
        return Rehearsal(plan, "differs", undisturbed, killed, every, reason=reason)
    runs = compare_roots(undisturbed.root, killed.root)
    differing = [comparison for comparison in runs if not comparison.is_same]
    if not differing:
        verdict: Verdict = "exact" if any(comparison.resumes for comparison in runs) else "unproven"
        return Rehearsal(plan, verdict, undisturbed, killed, every, runs)
    diagnosis = None
    if plan.find_cause:
        started: list[str] = []

        def again(purpose: str, environment: Mapping[str, str]) -> Execution:
            notice(f"looking for the cause: the script {purpose}")
            started.append(purpose)
            return execute(command, folder / f"again-{len(started)}", every=every, environment=environment)

        files = scan.sources(plan.script, plan.is_module, Path.cwd())
        diagnosis = diagnose(files, undisturbed, killed, differing, again)
    return Rehearsal(plan, "differs", undisturbed, killed, every, runs, diagnosis)


def _failure(execution: Execution) -> str:
    last = execution.starts[-1]
    if last.has_timed_out:
        return f"the script did not end within {last.seconds:.0f} seconds (--timeout)"
    if last.status < 0:
        return f"the script was ended by signal {-last.status}"
    return f"the script ended with status {last.status}"


def _every(root: Path, kills: int) -> str | None:
    """How often to save so that kills fall between checkpoints; None for runs without steps."""
    steps = killing.largest_step(root)
    if steps < 1:
        return None
    store = Store(root)
    newest = [store.list(folder)[-1] for folder in store.folders() if store.list(folder)]
    size_bytes = sum(store.manifest(checkpoint).total_bytes for checkpoint in newest)
    return f"{killing.spacing(steps, kills, size_bytes, shutil.disk_usage(root).free)} steps"


@contextmanager
def workspace(keep: bool = False) -> Iterator[Path]:
    """A temporary folder that goes when the block ends, however it ends, unless ``keep``."""
    folder = Path(tempfile.mkdtemp(prefix="relume-rehearsal-"))
    try:
        with ended_by_signals():
            yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
