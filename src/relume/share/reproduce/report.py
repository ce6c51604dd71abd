"""The report as Markdown. Whatever comes from the bundle is text in it, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relume.share.documents import Environment
from relume.share.reproduce.verdicts import Reproduction, Row, Stage, Verdict
from relume.text import printable

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$@-]|:(?=//))")
_CELL = 300
MARKS = {Verdict.EXACT: "✓", Verdict.WITHIN: "≈", Verdict.DIFFERENT: "✗", Verdict.UNCHECKED: "?"}


def markdown(found: Reproduction) -> str:
    """The whole report."""
    lines = [
        f"# Reproduction of {escaped(found.bundle or 'a bundle')}",
        "",
        f"**{escaped(found.conclusion)}**",
        "",
        *_pairs(found),
        "",
        *_next(found),
        "## Claims",
        "",
        "| stage | claim | claimed | found | verdict |",
        "|---|---|---|---|---|",
        *(_row(stage, row) for stage in found.stages for row in shown_rows(stage)),
        "",
        "## Tolerances",
        "",
        *(f"- {stage.name}: {escaped(stage.tolerance)}" for stage in found.stages if stage.tolerance),
        "",
        "## Environments",
        "",
        "| | there | here |",
        "|---|---|---|",
        *(f"| {name} | {_cell(there)} | {_cell(here)} |" for name, there, here in environments(found)),
    ]
    return "\n".join(lines) + "\n"


def facts(found: Reproduction) -> list[tuple[str, str]]:
    """What the report is about."""
    given = [name.replace("_", " ") for name, value in found.options.items() if value]
    return [
        ("bundle", found.bundle or "not readable"),
        ("digest", found.digest or "not readable"),
        ("packed by", f"relume {found.packed_by}" if found.packed_by else "not said"),
        ("checked by", f"relume {found.relume}"),
        ("time", found.time),
        ("options", ", ".join(given) or "none"),
        ("exit status", str(found.exit_status)),
    ]


def environments(found: Reproduction) -> Iterator[tuple[str, str, str]]:
    """Both environments, line by line."""
    there, here = found.author or Environment(), found.here or Environment()
    for name in ("python", "system", "cpu", "device", "threads", "cuda", "cudnn", "deterministic"):
        yield name, _said(getattr(there, name)), _said(getattr(here, name))
    yield "GPUs", ", ".join(there.gpus), ", ".join(here.gpus)
    for name in sorted(there.packages, key=str.lower):
        yield name, there.packages[name], here.packages.get(name, "")


def shown_rows(stage: Stage) -> list[Row]:
    """All claims of a stage; of the environment, which is told in full elsewhere, what differs."""
    unlike = [row for row in stage.rows if row.verdict is Verdict.DIFFERENT]
    if stage.is_claim or stage.verdict is Verdict.UNCHECKED:
        return list(stage.rows)
    same = stage.count(Verdict.EXACT)
    row = Row(
        claim="versions and machine", claimed=f"{same} of {len(stage.rows)}", found="the same", verdict=Verdict.EXACT
    )
    return unlike or [row]


def claimed_and_found(row: Row) -> tuple[str, str]:
    """Both sides; long digests are cut where they are the same, and where they differ from their beginning."""
    return _short(row.claimed), _short(row.found)


def _short(text: str) -> str:
    return f"{text[:16]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text


def escaped(text: str) -> str:
    """Text on one line in which nothing is Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", printable(text, 2000)).replace("\\-", "-")


def _cell(text: str) -> str:
    return escaped(printable(text, _CELL)) or " "


def _pairs(found: Reproduction) -> list[str]:
    return [f"- {name}: {escaped(value)}" for name, value in facts(found)]


def _next(found: Reproduction) -> Iterator[str]:
    if found.first_difference:
        yield from [f"## First difference: {found.first_difference}", ""]
    elif found.advice:
        yield from ["## To check more", ""]
    if found.reasons:
        yield from ["Most probable reasons:", "", *(f"1. {escaped(text)}" for text in found.reasons), ""]
    if found.advice:
        yield from ["What to try:", "", *(f"- {escaped(text)}" for text in found.advice), ""]


def _row(stage: Stage, row: Row) -> str:
    claimed, got = claimed_and_found(row)
    why = f": {_cell(row.why)}" if row.why else ""
    return f"| {stage.name} | {_cell(row.claim)} | {_cell(claimed)} | {_cell(got)} | {MARKS[row.verdict]} {row.verdict}{why} |"


def _said(value: object) -> str:
    return "" if value is None else str(value)
