"""What a rehearsal found, for people and for programs."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from relume.rehearse.causes import Diagnosis, place_of
from relume.rehearse.compare import RunComparison
from relume.rehearse.kills import describe
from relume.rehearse.rehearsal import Rehearsal
from relume.rehearse.runner import Execution
from relume.rehearse.states import Counts

EXIT_STATUS = {"exact": 0, "differs": 1, "no run": 2, "unproven": 2, "fails": 3}
_DIFFERENCES_SHOWN = 2
_HOW_TO_RUN = """The script makes no relume run, so there is nothing that could resume. Open one around the training:

    with relume.Run("name", model=model, optimizer=optimizer) as run:
        for epoch in run.epochs(10):
            for x, y in run.batches(loader):
                ...

or name the run in Trainer.fit(..., run="name")."""


def render(rehearsal: Rehearsal) -> RenderableType:
    """The report for a terminal."""
    plan = rehearsal.plan
    place = ["-m", plan.script] if plan.is_module else [plan.script]
    lines = [
        _row("script", shlex.join([*place, *plan.arguments]), "bold"),
        _executed("undisturbed", rehearsal.undisturbed),
    ]
    if rehearsal.killed is not None:
        lines.append(_executed("with kills", rehearsal.killed, rehearsal.every))
        for number, start in enumerate(rehearsal.killed.kills, 1):
            if start.kill is not None:
                lines.append(_row(f"  kill {number}", describe(start.kill, list(start.steps.items())), "dim"))
        missed = plan.kills - len(rehearsal.killed.kills)
        if missed > 0:
            lines.append(
                _row("", f"{missed} of {plan.kills} kills came too late: the script had ended by itself", "dim")
            )
    for comparison in rehearsal.runs:
        lines += _run(comparison)
    lines += [Text(), _verdict(rehearsal)]
    if rehearsal.diagnosis is not None:
        lines += _diagnosis(rehearsal.diagnosis)
    return Group(*lines)


def _row(name: str, text: str, style: str = "") -> Text:
    return Text.assemble((f"{name:<14}", "dim"), (text, style))


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _executed(name: str, execution: Execution, every: str | None = None) -> Text:
    text = f"{execution.seconds:.1f} s, {_count(len(execution.starts), 'start')}"
    return _row(name, text + (f", a checkpoint each {every}" if every else ""))


def _run(comparison: RunComparison) -> list[Text]:
    lines = [Text(), _row("run", comparison.name, "bold")]
    if comparison.problem is not None:
        return [*lines, _row("  differs", comparison.problem, "red")]
    lines.append(_row("  resumed", "never" if not comparison.resumes else _count(comparison.resumes, "time")))
    state, journal = comparison.state, comparison.journal
    if state is None:
        lines.append(_row("  state", "no checkpoint in either", "yellow"))
    for part, counts in (state.counts if state is not None else {}).items():
        differing = [d for d in state.differences if d.path[0] == part] if state is not None else []
        if counts.leaves:
            lines.append(_compared(f"  {part}", _counted(counts), len(differing)))
        lines += [_row("", f"{d.place}: {d.text}", "red") for d in differing[:_DIFFERENCES_SHOWN]]
        if len(differing) > _DIFFERENCES_SHOWN:
            lines.append(_row("", f"and {len(differing) - _DIFFERENCES_SHOWN} more", "red"))
    values = f"{_count(journal.values, 'value')} in {_count(journal.lines, 'line')}"
    lines.append(_compared("  logged", values, journal.different_lines))
    if journal.first is not None:
        metric = f"{journal.first.metric}: " if journal.first.metric else ""
        lines.append(_row("", f"first at {place_of(journal.first)}: {metric}{journal.first.text}", "red"))
    by_nature = dict.fromkeys((*journal.by_nature, *(state.by_nature if state is not None else ())))
    if by_nature:
        lines.append(_row("", f"differ by nature, and do not count: {', '.join(by_nature)}", "dim"))
    return lines


def _counted(counts: Counts) -> str:
    if not counts.tensors:
        return _count(counts.leaves, "value")
    others = counts.leaves - counts.tensors
    text = f"{_count(counts.tensors, 'tensor')} ({counts.size_bytes:,} bytes)"
    return text + (f", {_count(others, 'value')}" if others else "")


def _compared(name: str, text: str, differing: int) -> Text:
    result = (f"{differing:,} differ", "red") if differing else ("the same", "green")
    return Text.assemble(_row(name, f"{text}: "), result)


def _verdict(rehearsal: Rehearsal) -> Text:
    match rehearsal.verdict:
        case "exact":
            return Text("It resumes exactly: killed and undisturbed runs are the same to the last bit.", "bold green")
        case "differs" if rehearsal.reason:
            tail = rehearsal.killed.starts[-1].tail if rehearsal.killed is not None else ""
            return Text.assemble((f"It does not resume: {rehearsal.reason}. Its last output:\n", "bold red"), tail)
        case "differs":
            return Text("It does not resume exactly (the undisturbed run's values stand first).", "bold red")
        case "fails":
            tail = rehearsal.undisturbed.starts[-1].tail
            return Text.assemble((f"Undisturbed, {rehearsal.reason}. Its last output:\n", "bold red"), tail)
        case "no run":
            return Text(_HOW_TO_RUN, "yellow")
        case _:
            return Text(
                "Nothing differs, but nothing is proven: no start after a kill found a checkpoint to carry on from. "
                "Let the script run longer, or save more often: --every '5 steps'.",
                "bold yellow",
            )


def _diagnosis(diagnosis: Diagnosis) -> list[Text]:
    lines = [Text(), _row("likely cause", diagnosis.cause, "bold")]
    lines += [_row("  where" if not i else "", str(place), "cyan") for i, place in enumerate(diagnosis.places)]
    lines += [_row("  seen" if not i else "", text) for i, text in enumerate(diagnosis.evidence)]
    return [*lines, _row("  remedy", diagnosis.remedy)]


def to_dict(rehearsal: Rehearsal) -> dict[str, Any]:
    """The same for programs, as JSON can hold it."""
    plan, killed = rehearsal.plan, rehearsal.killed
    diagnosis = rehearsal.diagnosis
    return {
        "verdict": rehearsal.verdict,
        "exit_status": EXIT_STATUS[rehearsal.verdict],
        "reason": rehearsal.reason,
        "script": plan.script,
        "arguments": list(plan.arguments),
        "every": rehearsal.every,
        "undisturbed_seconds": rehearsal.undisturbed.seconds,
        "starts": len(killed.starts) if killed is not None else 0,
        "kills": [
            {"moment": start.kill.moment, "steps": dict(start.steps)}
            for start in (killed.kills if killed is not None else [])
            if start.kill is not None
        ],
        "runs": [_run_dict(comparison) for comparison in rehearsal.runs],
        "cause": None
        if diagnosis is None
        else {
            "kind": diagnosis.kind,
            "cause": diagnosis.cause,
            "evidence": diagnosis.evidence,
            "places": [
                {"kind": h.kind, "file": str(h.file), "line": h.line, "code": h.code, "name": h.name}
                for h in diagnosis.places
            ],
            "remedy": diagnosis.remedy,
        },
        "output_tail": (killed or rehearsal.undisturbed).starts[-1].tail,
    }


def _run_dict(comparison: RunComparison) -> dict[str, Any]:
    state, journal = comparison.state, comparison.journal
    return {
        "name": comparison.name,
        "is_same": comparison.is_same,
        "problem": comparison.problem,
        "resumes": comparison.resumes,
        "state": None
        if state is None
        else {
            "compared": {part: asdict(counts) for part, counts in state.counts.items()},
            "differences": [{"place": d.place, "text": d.text} for d in state.differences],
        },
        "logged": {
            "lines": journal.lines,
            "values": journal.values,
            "different_lines": journal.different_lines,
            "first": None
            if journal.first is None
            else {
                "step": journal.first.step,
                "epoch": journal.first.epoch,
                "metric": journal.first.metric,
                "text": journal.first.text,
            },
            "differ_by_nature": journal.by_nature,
        },
    }
