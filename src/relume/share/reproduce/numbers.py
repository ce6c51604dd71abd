"""Comparing numbers: bit for bit first, then by the largest difference. No tolerance is wider than it says here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from relume.share.reproduce.verdicts import Row, Verdict

OUTPUT_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Of the largest output in size. Sums in another order, as other processors and versions take them, differ by some
hundred roundings (float32: 1.2e-7 each) after the layers of a deep network."""

INPUT_TOLERANCE = 1e-6
"""Of the largest input in size: preprocessing is a handful of operations, so a few roundings of float32, and no grey level
(1/255) of difference."""

METRIC_TOLERANCE = 1e-5
"""Of the claimed value, for averages of floats such as losses. An answer that is right or wrong counts as a whole, so
that what counts answers (accuracy) has no tolerance."""

MOST_STATED = 1e-3
"""Of the claimed value, or of 1: as far as a tolerance that a claim states itself is believed. A number measured in bfloat16
or on a GPU states so much; more would make a claim of anything."""

_COUNT_ROUNDING = 1e-7
"""How far a share that was averaged over batches in float32 is from the fraction that it stands for."""

_COUNTED = re.compile(r"accuracy|error rate|\btop[\W_]?\d")
"""Metrics that count answers have one of these words in the name of what computes them."""


@dataclass(frozen=True)
class Difference:
    """How far values are apart.

    Attributes:
        largest: in absolute terms; infinite where one is not a number and the other is.
        scale: the largest claimed value in size.
        where: the place of the largest difference.
    """

    largest: float
    scale: float
    where: str = ""


def leaves(value: Any, place: str = "output") -> Iterator[tuple[str, Any]]:
    """The tensors and plain values in nested lists and dicts, with their places."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from leaves(item, f"{place}.{number}")
    else:
        yield place, value


def compare(claim: str, claimed: Any, found: Any, tolerance: float | None = None, name: str = "output") -> Row:
    """The verdict on tensors, or nested lists and dicts of them: every value of every one is compared.

    Args:
        tolerance: of the largest claimed value in size; by default by dtype, see `OUTPUT_TOLERANCE`.
    """
    expected, got = dict(leaves(claimed, name)), dict(leaves(found, name))
    if list(expected) != list(got):
        text = f"other parts: {_named(got)} where {_named(expected)} were stored"
        return Row(claim=claim, claimed=_named(expected), found=_named(got), verdict=Verdict.DIFFERENT, why=text)
    if not any(value.numel() if isinstance(value, torch.Tensor) else True for value in expected.values()):
        return Row(claim=claim, verdict=Verdict.UNCHECKED, why="nothing is stored to compare with")
    rows = [_compared(claim, place, expected[place], got[place], tolerance) for place in expected]
    order = (Verdict.DIFFERENT, Verdict.WITHIN, Verdict.UNCHECKED, Verdict.EXACT)
    return min(rows, key=lambda row: (order.index(row.verdict), -(row.difference or 0.0)))


def compare_value(claim: str, claimed: float, found: float, tolerance: float, answers: int | None = None) -> Row:
    """The verdict on one number. A claim that float32 holds exactly was recorded in float32, and is compared so.

    Args:
        answers: of how many answers it is the right share, for what was averaged batch by batch in float32: the same count
            is the same number.

    Example:
        >>> compare_value("accuracy", 0.9, 0.9, 0.0).verdict.value, compare_value("loss", 0.5, 0.500001, 1e-5).verdict.value
        ('EXACT', 'WITHIN TOLERANCE')
    """
    fields: dict[str, Any] = {"claim": claim, "claimed": repr(claimed), "found": repr(found), "tolerance": tolerance}
    if not math.isfinite(claimed):
        return Row(**fields, verdict=Verdict.UNCHECKED, why=f"the claim is {claimed!r}, and no number can confirm that")
    if not math.isfinite(found):
        return Row(**fields, verdict=Verdict.DIFFERENT, why=f"it is {found!r} here")
    apart = abs(claimed - found)
    if apart == 0:
        return Row(**fields, verdict=Verdict.EXACT, difference=0.0)
    if float(np.float32(claimed)) == claimed == float(np.float32(found)):
        why = f"{found!r} here: the same number in float32, in which it was recorded"
        return Row(**(fields | {"found": repr(claimed)}), verdict=Verdict.EXACT, difference=apart, why=why)
    if answers is not None and (count := _count(claimed, answers)) is not None and count == _count(found, answers):
        why = f"{count:,} of {answers:,} answers in both; the claim was averaged in float32"
        return Row(**fields, verdict=Verdict.EXACT, difference=apart, why=why)
    text = f"differs by {apart:.3g}" + (f"; the tolerance is {tolerance:.3g}" if tolerance else "; none is allowed")
    verdict = Verdict.WITHIN if apart <= tolerance else Verdict.DIFFERENT
    return Row(**fields, verdict=verdict, difference=apart, why=text)


def _count(share: float, answers: int) -> int | None:
    """How many of the answers a share stands for; None where its digits do not tell."""
    count = round(share * answers)
    is_told = 0 <= count <= answers and _COUNT_ROUNDING * answers < 0.1
    return count if is_told and abs(share - count / answers) <= _COUNT_ROUNDING else None


def is_counted(computed_by: str) -> bool:
    """Whether a metric counts answers, each of which is right or wrong."""
    return _COUNTED.search(computed_by.lower()) is not None


def metric_tolerance(computed_by: str, claimed: float, stated: float) -> float:
    """How far a metric may be off: what the claim states; for averages of floats at least `METRIC_TOLERANCE` of it.

    A stated tolerance that is no finite number of at least 0 counts as 0, and none for more than `MOST_STATED`.

    Example:
        >>> metric_tolerance("accuracy", 0.9, 0.0), metric_tolerance("cross entropy", 0.5, 0.0)
        (0.0, 5e-06)
    """
    stated = stated if math.isfinite(stated) and stated > 0 else 0.0
    if not math.isfinite(claimed):
        return stated
    stated = min(stated, MOST_STATED * max(1.0, abs(claimed)))
    if is_counted(computed_by):
        return stated
    return max(stated, METRIC_TOLERANCE * abs(claimed))


def _compared(claim: str, place: str, claimed: Any, found: Any, tolerance: float | None) -> Row:
    if not isinstance(claimed, torch.Tensor) or not isinstance(found, torch.Tensor):
        is_same = type(claimed) is type(found) and claimed == found
        verdict = Verdict.EXACT if is_same else Verdict.DIFFERENT
        why = "" if is_same else f"{place} is another value"
        return Row(claim=claim, claimed=f"{claimed!r:.60}", found=f"{found!r:.60}", verdict=verdict, why=why)
    claimed, found = claimed.detach().cpu(), found.detach().cpu()
    if claimed.dtype != found.dtype or claimed.shape != found.shape:
        kinds = [f"{str(v.dtype).removeprefix('torch.')} {tuple(v.shape)}" for v in (claimed, found)]
        why = f"{place} has another form"
        return Row(claim=claim, claimed=kinds[0], found=kinds[1], verdict=Verdict.DIFFERENT, why=why)
    if same_bits(claimed, found):
        what = f"{claimed.numel():,} values"
        if claimed.is_floating_point() and claimed.numel() and not torch.isfinite(claimed).any():
            why = f"all of {place} are NaN or infinite: equal bits prove nothing"
            return Row(claim=claim, claimed=what, verdict=Verdict.UNCHECKED, why=why)
        return Row(claim=claim, claimed=what, found="the same bits", verdict=Verdict.EXACT, difference=0.0)
    return _by_size(claim, place, claimed, found, tolerance)


def _by_size(claim: str, place: str, claimed: torch.Tensor, found: torch.Tensor, tolerance: float | None) -> Row:
    apart = difference(claimed, found)
    share = OUTPUT_TOLERANCE.get(claimed.dtype, 0.0) if tolerance is None else tolerance
    allowed = share * apart.scale
    is_within = claimed.is_floating_point() and apart.largest <= allowed
    limit = f"the tolerance is {allowed:.2g}" if allowed else "none is allowed"
    return Row(
        claim=claim,
        claimed=f"{claimed.numel():,} values up to {apart.scale:.4g}",
        found=f"largest difference {apart.largest:.3g}",
        verdict=Verdict.WITHIN if is_within else Verdict.DIFFERENT,
        why=f"{place} differs by up to {apart.largest:.3g} at {apart.where}; {limit}",
        difference=apart.largest if math.isfinite(apart.largest) else None,
        tolerance=allowed,
    )


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether every bit is the same, those of NaN and of zeros included."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    flat = [value.contiguous().reshape(-1) for value in (a, b)]
    return torch.equal(*(value.view(torch.uint8) if value.numel() else value for value in flat))


def difference(claimed: torch.Tensor, found: torch.Tensor) -> Difference:
    """The largest difference of two tensors of one shape."""
    wide = torch.complex128 if claimed.is_complex() else torch.float64
    a, b = (value.reshape(-1).to(wide) for value in (claimed, found))
    apart = (a - b).abs()
    same = (a == b) | (torch.isnan(a) & torch.isnan(b))
    apart[same] = 0.0
    apart[torch.isnan(apart)] = math.inf
    finite = a.abs()[torch.isfinite(a.abs())]
    place = int(apart.argmax())
    where = str([int(i) for i in torch.unravel_index(torch.tensor(place), claimed.shape)]) if claimed.dim() else "0"
    return Difference(float(apart[place]), float(finite.max()) if finite.numel() else 0.0, where)


def _named(parts: Mapping[str, Any]) -> str:
    return ", ".join(list(parts)[:6]) + (f" and {len(parts) - 6} more" if len(parts) > 6 else "") or "nothing"
