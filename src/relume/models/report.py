"""What loading weights into a model came to: data, and the words for it."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from relume.errors import closest
from relume.models.matching import Prefix, Proposal, Shift
from relume.text import counted

if TYPE_CHECKING:
    from rich.text import Text

_SHOWN = 6
_NAMED = 60  # lines an error message may use for names
_HINTS = 5


@dataclass(frozen=True)
class Difference:
    """A tensor that the source and the model hold differently.

    Attributes:
        source, own: shape as a tuple, or dtype.
    """

    source: tuple[int, ...] | torch.dtype
    own: tuple[int, ...] | torch.dtype

    def __str__(self) -> str:
        return f"{_said(self.source)} in the source, {_said(self.own)} in the model"


@dataclass(frozen=True)
class LoadReport:
    """What `relume.load_weights` did, or found out. Names are the model's, without wrappers such as ``module.``.

    Attributes:
        model: the class of the model.
        source: where the tensors come from, in words.
        matched: names that were filled; in a report of an error, that would have been.
        missing: names that the source has not.
        unexpected: names of the source that the model has not.
        shape_mismatches, dtype_mismatches: what differs, by name. Another dtype was converted, another shape is not loaded.
        unusable: values that cannot come into the model's tensors, and why.
        tied: names that share a tensor with one that was filled, and that one's name.
        renamed: name in the source to name in the model, where they differ by more than the prefix.
        prefix_removed, prefix_added: what all names had too much or too little of.
        rivals: prefixes, removed or added, that fit equally well, none of which was taken.
        kept: names whose tensors are as they were: missing ones and those of another shape.
        left_out: names of the model that ``only=`` did not mean.
        proposed: names that probably belong together, and were not taken. See ``rename="auto"``.
        proposed_mismatches: of these, the names of the model whose shapes differ.
        shifts: layers that are counted from another number in the source than in the model; they are refused.
        parameters, parameters_total: how many numbers in parameters were filled, and are there; tied ones count once.
        size_bytes, size_bytes_total: the same in bytes, buffers included.
    """

    model: str
    source: str
    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shape_mismatches: Mapping[str, Difference] = field(default_factory=dict)
    dtype_mismatches: Mapping[str, Difference] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    prefix_removed: str = ""
    prefix_added: str = ""
    rivals: tuple[Prefix, ...] = ()
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    proposed: Proposal = field(default_factory=lambda: Proposal({}))
    proposed_mismatches: Mapping[str, Difference] = field(default_factory=dict)
    shifts: tuple[Shift, ...] = ()
    parameters: int = 0
    parameters_total: int = 0
    size_bytes: int = 0
    size_bytes_total: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether everything in the model was filled and everything in the source was used."""
        return not (self.kept or self.left_out or self.unexpected)

    @property
    def coverage(self) -> float:
        """Which part of the model's bytes was filled, from 0 to 1."""
        return self.size_bytes / self.size_bytes_total if self.size_bytes_total else 1.0

    def __str__(self) -> str:
        return "\n".join(_lines(self, _SHOWN))

    def __rich__(self) -> Text:
        from rich.text import Text

        first, *rest = _lines(self, _SHOWN)
        text = Text(first, "bold")
        for line in rest:
            text.append(f"\n{line[:_INDENT]}", "not bold dim").append(line[_INDENT:], f"not bold {_style(line)}")
        return text

    def _repr_html_(self) -> str:
        first, *rest = _lines(self, _SHOWN)
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(line[:_INDENT].strip())}</th>"
            f"<td style='text-align:left'>{html.escape(line[_INDENT:])}</td></tr>"
            for line in rest
        )
        table = f"<table>{rows}</table>" if rows else ""
        return f"<div><b>{html.escape(first)}</b>{table}</div>"


_INDENT = 14


def _style(line: str) -> str:
    bad = ("  missing", "  unexpected", "  other shape", "  unusable", "  shifted", "  ambiguous")
    return "red" if line.startswith(bad) else ""


def _lines(report: LoadReport, shown: int) -> list[str]:
    parts = f"{report.parameters:,} of {report.parameters_total:,} parameters"
    head = (
        f"{report.model} from {report.source}: {counted(len(report.matched), 'tensor')}, {parts} ({_percent(report)})"
    )
    lines = [head]
    if report.prefix_removed or report.prefix_added:
        words = [f"{report.prefix_removed!r} removed from the names" if report.prefix_removed else ""]
        words += [f"{report.prefix_added!r} put before them" if report.prefix_added else ""]
        lines.append(_row("prefix", " and ".join(word for word in words if word)))
    if report.rivals:
        several = " and ".join(map(_rival, report.rivals[:3])) + (" and others" if len(report.rivals) > 3 else "")
        lines.append(_row("prefix", f"none taken: {several} fit equally well"))
    lines += _rows("renamed", [f"{old} -> {new}" for old, new in report.renamed.items()], min(shown, 3))
    whole = [*report.matched, *report.kept, *report.left_out]
    lines += _rows("tied", [f"{name} is {other}" for name, other in report.tied.items()], shown)
    lines += _rows("converted", _conversions(report, whole), shown)
    said = {*report.missing, *report.shape_mismatches, *report.unusable}
    forgiven = [name for name in report.kept if name not in said]
    lines += _rows("missing", grouped(report.missing, set(whole) - set(forgiven)), shown)
    lines += _rows("unexpected", grouped(report.unexpected, [*report.unexpected, *report.matched]), shown)
    lines += _rows("other shape", [f"{name}: {d}" for name, d in report.shape_mismatches.items()], shown)
    lines += _rows("unusable", [f"{name}: {why}" for name, why in report.unusable.items()], shown)
    lines += _rows("kept", _by_leaf(forgiven), shown)
    lines += _rows("left out", grouped(report.left_out, whole), shown)
    lines += _rows("shifted", [str(shift) for shift in report.shifts], shown)
    return lines if report.shifts else lines + _proposal(report.proposed, report.proposed_mismatches, shown)


def _rival(prefix: Prefix) -> str:
    """The prefix, or both if one takes the other's place."""
    both = prefix.removed and prefix.added
    return f"{prefix.removed!r} as {prefix.added!r}" if both else repr(prefix.removed or prefix.added)


def _proposal(proposed: Proposal, mismatches: Mapping[str, Difference], shown: int) -> list[str]:
    lines = []
    if proposed.mapping:
        several = counted(len(proposed.mapping), "name")
        if len(mismatches) == len(proposed.mapping):
            said = f"{several} of the source may be others of the model, by their place: their shapes differ"
        else:
            said = f"{several} of the source would fit others of the model, by {proposed.basis}"
            said += f", but for {len(mismatches)} of another shape" if mismatches else ""
        lines.append(_row("proposed", said))
        pairs = [
            f"{old} -> {new}" + (f": {mismatches[new]}" if new in mismatches else "")
            for old, new in proposed.mapping.items()
        ]
        lines += _rows("", sorted(pairs, key=lambda pair: ": " not in pair), min(shown, 3))
    lines += _rows("ambiguous", _ambiguities(proposed, 4), min(shown, 8))
    if not proposed.is_ordered:
        lines.append(_row("order", "the source's is no help: it is sorted by name, or not that of the model's layers"))
    return lines


def _ambiguities(proposed: Proposal, names: int) -> list[str]:
    return [f"{_listed(one.source, names)} and {_listed(one.own, names)}: {one.why}" for one in proposed.ambiguous]


def explain(report: LoadReport, asked_auto: bool) -> str:
    """The report as the text of an error: every name, what it might be called, and what to do."""
    proposed = set(report.proposed.mapping.values())
    unknown = [name for name in report.missing if name not in proposed]
    lines = [f"{report.model} cannot take {report.source}: nothing was loaded."]
    lines += _lines(report, _NAMED if unknown or not proposed else _SHOWN)[1:]
    unused = report.unexpected or report.matched
    for name in unknown[:_HINTS]:
        near = closest(name, unused)
        if near.startswith("did you mean") and not report.shifts:
            lines.append(_row("", f"{name}: {near}"))
    return "\n".join([*lines, *(f"  {number}. {line}" for number, line in enumerate(_remedies(report, asked_auto), 1))])


def _remedies(report: LoadReport, asked_auto: bool) -> list[str]:
    if report.shifts:
        return [
            *(f"count as the model does: {shift.remedy}" for shift in report.shifts),
            "load them by the names that they have all the same: rename=lambda name: name, strict=False",
        ]
    remedies = []
    if report.rivals:
        first = report.rivals[0]
        side = "source" if first.removed else "model"
        remedies.append(f"choose the part of the {side}: rename={ {first.removed: first.added} }")
    if report.proposed.mapping and not report.proposed.ambiguous and not asked_auto:
        apply = f"apply the {counted(len(report.proposed.mapping), 'proposed name')}"
        if report.proposed_mismatches:
            both = f"{apply} and keep the model's own tensors where shapes differ (a new head)"
            remedies.append(f"{both}: rename='auto', skip_mismatched=True")
        else:
            remedies.append(f"{apply}: rename='auto'")
    if report.proposed.ambiguous:
        remedies.append("say which is which: rename={'name in the source': 'name in the model', ...}")
    if report.shape_mismatches:
        remedies.append("keep the model's own tensors where shapes differ (a new head): skip_mismatched=True")
    if report.missing or report.unexpected or report.unusable:
        remedies.append("load what fits and keep the rest: strict=False; or a part of the model: only='features.*'")
    return remedies


def _conversions(report: LoadReport, whole: Sequence[str]) -> list[str]:
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, d in report.dtype_mismatches.items():
        kinds.setdefault((_said(d.source), _said(d.own)), []).append(name)
    return [f"{old} to {new}: {_listed(grouped(names, whole), 4)}" for (old, new), names in kinds.items()]


def grouped(names: Iterable[str], whole: Iterable[str]) -> list[str]:
    """Names, with one line for each module all of whose tensors are among them.

    Example:
        >>> grouped(["fc.bias", "fc.weight", "conv.bias"], ["fc.bias", "fc.weight", "conv.bias", "conv.weight"])
        ['fc.* (2 tensors)', 'conv.bias']
    """
    chosen = list(dict.fromkeys(names))
    there = Counter(module for name in {*whole, *chosen} for module in _modules(name))
    here = Counter(module for name in chosen for module in _modules(name))
    lines: dict[str, None] = {}
    for name in chosen:
        full = next((m for m in _modules(name) if here[m] == there[m] and here[m] > 1), None)
        lines[name if full is None else f"{full}.* ({counted(here[full], 'tensor')})"] = None
    return list(lines)


def _by_leaf(names: Sequence[str]) -> list[str]:
    """Names, with one line for those that only differ in their module."""
    leaves = Counter(name.rpartition(".")[2] for name in names)
    lines = dict.fromkeys(
        f"*.{leaf} ({counted(leaves[leaf], 'tensor')})" if leaves[leaf := name.rpartition(".")[2]] > 1 else name
        for name in names
    )
    return list(lines)


def _modules(name: str) -> list[str]:
    """The modules that a tensor is in, outermost first."""
    parts = name.split(".")[:-1][:50]
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _rows(title: str, items: Sequence[str], shown: int) -> list[str]:
    rows = [_row("" if number else title, item) for number, item in enumerate(items[:shown])]
    if len(items) > shown:
        rows.append(_row("", f"and {len(items) - shown} more"))
    return rows


def _row(title: str, text: str) -> str:
    return f"  {title:<{_INDENT - 2}}{_printable(text)}"


def _printable(text: str) -> str:
    """Names come from files: no control characters reach a terminal, and no line is endless."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= 300 else f"{clean[:300]}…"


def _listed(names: Sequence[str], shown: int) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _said(value: tuple[int, ...] | torch.dtype) -> str:
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else str(tuple(value))


def _percent(report: LoadReport) -> str:
    share = 100 * report.coverage
    return "100%" if report.size_bytes == report.size_bytes_total else f"{min(share, 99.9):.1f}%"
