"""What was claimed, what was found, and the verdict; the form of the report that is sent back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from relume.errors import ConfigurationError, StoreWriteError
from relume.share.documents import Environment

REPRODUCED, DIFFERS, WRONG_USE, NOTHING_CHECKED = 0, 1, 2, 3
"""Exit status of ``relume reproduce``."""

STAGES = ("digests", "environment", "weights", "preprocessing", "outputs", "data", "metrics", "training")
"""All stages, in their order: what a later one shows rests on those before it."""

_PROOFS = ("outputs", "metrics", "training")
_INFORMS = ("environment",)


class Verdict(StrEnum):
    """What came of a claim."""

    EXACT = "EXACT"
    WITHIN = "WITHIN TOLERANCE"
    DIFFERENT = "DIFFERENT"
    UNCHECKED = "CANNOT CHECK"


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Row(_Part):
    """One claim.

    ``claimed`` and ``found`` are what people read; a float is written with as many digits as tell it from all others.
    """

    claim: str
    claimed: str = ""
    found: str = ""
    verdict: Verdict
    why: str = ""
    """For DIFFERENT and CANNOT CHECK always; else where there is something to say."""
    difference: float | None = None
    """The largest, in the claim's unit; None where there is none that is a finite number."""
    tolerance: float | None = None
    """What of it counts as none."""


class Stage(_Part):
    """The claims of one kind."""

    name: str
    rows: list[Row] = Field(default_factory=list)
    tolerance: str = ""
    """Which differences count as none, and why."""

    @property
    def verdict(self) -> Verdict:
        """Of what could be checked the worst; CANNOT CHECK where nothing could."""
        found = {row.verdict for row in self.rows}
        worst_first = (Verdict.DIFFERENT, Verdict.WITHIN, Verdict.EXACT)
        return next((verdict for verdict in worst_first if verdict in found), Verdict.UNCHECKED)

    @property
    def is_claim(self) -> bool:
        """Whether a difference here is one of the result: another environment is none, as long as its numbers are the same."""
        return self.name not in _INFORMS

    def count(self, verdict: Verdict) -> int:
        return sum(row.verdict is verdict for row in self.rows)

    @property
    def summary(self) -> str:
        """What is to be said of it on one line."""
        unlike = [row for row in self.rows if row.verdict is Verdict.DIFFERENT] or [
            row for row in self.rows if row.verdict is Verdict.UNCHECKED
        ]
        checked = len(self.rows) - self.count(Verdict.UNCHECKED)
        if self.verdict in (Verdict.EXACT, Verdict.WITHIN):
            names = ", ".join(row.claim for row in self.rows if row.verdict is not Verdict.UNCHECKED)
            return names if checked == len(self.rows) else f"{checked} of {len(self.rows)}: {names}"
        if self.name in _INFORMS:
            return ", ".join(row.claim for row in unlike)
        return "; ".join(f"{row.claim}: {row.why or row.found}" for row in unlike[:1])


class Reproduction(_Part):
    """What ``relume reproduce`` found; the report for people and for programs.

    Example:
        >>> row = Row(claim="accuracy", claimed="0.9", found="0.8", verdict=Verdict.DIFFERENT, why="other weights")
        >>> found = Reproduction(bundle="fashion", stages=[Stage(name="metrics", rows=[row])])
        >>> found.conclusion
        'Not reproduced: metrics is the first stage that differs.'
    """

    format: Literal[1] = 1
    kind: Literal["relume reproduction"] = "relume reproduction"
    bundle: str = ""
    """What the bundle calls itself."""
    digest: str = ""
    """Of the manifest: it stands for every byte of the bundle."""
    relume: str = ""
    """The version that checked it."""
    packed_by: str = ""
    """The version that packed it."""
    time: str = ""
    """When, as it was given."""
    options: dict[str, bool] = Field(default_factory=dict)
    """``data`` given, ``retrain``, ``trust``, ``fresh_environment``."""
    author: Environment | None = None
    here: Environment | None = None
    stages: list[Stage] = Field(default_factory=list)
    first_difference: str = ""
    """The first stage that differs; empty where none does."""
    reasons: list[str] = Field(default_factory=list)
    """Why that may be, the most probable first."""
    advice: list[str] = Field(default_factory=list)
    """What to try."""
    exit_status: int = NOTHING_CHECKED

    @property
    def conclusion(self) -> str:
        """The result in one sentence."""
        return conclusion(self.stages)

    def stage(self, name: str) -> Stage | None:
        """The stage of this name, if it was reached."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def to_json(self) -> str:
        """For programs. The same bytes for the same finding at the same time."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        return text.encode("utf-8", "backslashreplace").decode("utf-8")  # half characters, which JSON can name

    def to_markdown(self) -> str:
        """For issues and mails."""
        from relume.share.reproduce.report import markdown

        return markdown(self)

    def to_html(self) -> str:
        """One page that needs nothing else."""
        from relume.share.reproduce.page import html_page

        return html_page(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as its ending says: ``.md``, ``.html`` or ``.json``.

        Raises:
            ConfigurationError: another ending.
            StoreWriteError: the file cannot be written; says why.
        """
        path = Path(path)
        text = {".md": self.to_markdown, ".html": self.to_html, ".json": self.to_json}[checked_ending(path)]()
        try:
            path.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise StoreWriteError(f"the report cannot be written to {path}: {error.strerror or error}.") from error
        return path


def checked_ending(path: Path) -> str:
    """The ending of a report's file, known; raises ConfigurationError."""
    if path.suffix.lower() not in (".md", ".html", ".json"):
        raise ConfigurationError(f"{path}: a report is written as .md, .html or .json; its name must end so.")
    return path.suffix.lower()


def first_difference(stages: Iterable[Stage]) -> str:
    """The name of the first stage that differs, in the order of the stages; empty where none does."""
    return next((stage.name for stage in stages if stage.is_claim and stage.verdict is Verdict.DIFFERENT), "")


def exit_status(stages: Sequence[Stage]) -> int:
    """0: nothing differs, and outputs, metrics or the training were checked; 1: something differs; 3: none was checked."""
    if first_difference(stages):
        return DIFFERS
    checked = {stage.name for stage in stages if stage.verdict in (Verdict.EXACT, Verdict.WITHIN)}
    return REPRODUCED if checked.intersection(_PROOFS) else NOTHING_CHECKED


def conclusion(stages: Sequence[Stage]) -> str:
    """The result in one sentence."""
    if first := first_difference(stages):
        return f"Not reproduced: {first} is the first stage that differs."
    if exit_status(stages) == NOTHING_CHECKED:
        return "Nothing was proven: neither outputs nor metrics could be checked."
    claims = [stage for stage in stages if stage.is_claim]
    proven = [stage.name for stage in claims if stage.verdict in (Verdict.EXACT, Verdict.WITHIN)]
    is_exact = all(stage.verdict is not Verdict.WITHIN for stage in claims)
    left = sum(stage.count(Verdict.UNCHECKED) for stage in claims)
    more = f" {left} claim{'s' if left > 1 else ''} could not be checked." if left else ""
    how = "exactly" if is_exact else "within tolerance"
    return f"Reproduced {how}: {', '.join(name for name in proven if name != 'digests')}.{more}"
