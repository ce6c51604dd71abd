"""What a look at an environment or a script found, for people and for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from relume.page import Block, Shown, heading, line
from relume.text import counted

Severity = Literal["stops", "may", "note"]
"""``stops``: others get other numbers, or nothing. ``may``: it depends. ``note``: good to know."""
Area = Literal["environment", "packages", "code", "files", "script"]

_TITLES: dict[Severity, tuple[str, str]] = {
    "stops": ("Stops reproducing", "bold red"),
    "may": ("May stop reproducing", "bold yellow"),
    "note": ("Good to know", "bold"),
}
_PLACES_SHOWN = 4
_WIDTH = 78


@dataclass(frozen=True)
class Place:
    """A line of a source file."""

    file: str
    line: int
    code: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code}"


@dataclass(frozen=True)
class Finding:
    """One thing that stands in the way, or is good to know.

    Attributes:
        severity: how much it matters.
        area: what it was found in.
        what: in one sentence, without a full stop.
        why: what follows from it.
        remedy: what to type or change.
        places: where, in a script.
    """

    severity: Severity
    area: Area
    what: str
    why: str
    remedy: str
    places: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Report(Shown):
    """The findings, those that matter most first. Shows itself as text and in notebooks.

    Attributes:
        script: what was looked at besides the environment, or "".
        looked_at: what was looked at, in words.
    """

    findings: tuple[Finding, ...]
    looked_at: tuple[str, ...]
    script: str = ""

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    @property
    def stops(self) -> tuple[Finding, ...]:
        """What stops others from reproducing it."""
        return self.of("stops")

    @property
    def is_clean(self) -> bool:
        """Whether nothing stops it, and nothing may."""
        return not self.stops and not self.of("may")

    def verdict(self) -> str:
        """The report in a sentence."""
        stops, may, notes = (len(self.of(severity)) for severity in ("stops", "may", "note"))
        and_notes = f"; {counted(notes, 'note')}" if notes else ""
        if stops:
            also = f", {counted(may, 'thing')} more may" if may else ""
            return f"{counted(stops, 'thing')} {'stops' if stops == 1 else 'stop'} reproducing{also}{and_notes}."
        if may:
            return f"Nothing is known to stop reproducing, {counted(may, 'thing')} may{and_notes}."
        return f"Clean: nothing found that stands in the way of reproducing{and_notes}."

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "script": self.script,
            "verdict": self.verdict(),
            "stops": len(self.stops),
            "findings": [asdict(finding) for finding in self.findings],
            "looked_at": list(self.looked_at),
        }

    def page(self, width: int = _WIDTH) -> Iterator[Block]:
        """The report, no line longer than ``width``."""
        yield heading(f"relume doctor {self.script}".rstrip())
        yield line(self.verdict(), "bold red" if self.stops else "bold yellow" if not self.is_clean else "bold green")
        for severity, (title, style) in _TITLES.items():
            found = self.of(severity)
            if found:
                yield line("")
                yield line(title, style)
            for finding in found:
                yield from _lines(finding, width)
        yield line("")
        for row in _wrapped("Looked at: ", "; ".join(self.looked_at), width, indent=0):
            yield line(row, "dim")


def _lines(finding: Finding, width: int) -> Iterator[Block]:
    for row in _wrapped("- ", finding.what, width):
        yield line(row)
    for place in finding.places[:_PLACES_SHOWN]:
        yield line(textwrap.shorten(f"{'':4}{place}", 10_000)[: width - 4].join(("    ", "")), "cyan")
    more = len(finding.places) - _PLACES_SHOWN
    if more > 0:
        yield line(f"    and {counted(more, 'more place')}", "dim")
    for row in _wrapped("  why: ", finding.why, width):
        yield line(row, "dim")
    for row in _wrapped("  do:  ", finding.remedy, width):
        yield line(row)


def _wrapped(first: str, text: str, width: int, indent: int | None = None) -> list[str]:
    """Lines of at most ``width``; the first begins with ``first``, the others stand below its text."""
    rest = " " * (len(first) + 2 if indent is None else indent + 2)
    start = first if indent is not None else "  " + first
    return textwrap.wrap(text, width, initial_indent=start, subsequent_indent=rest, break_on_hyphens=False)
