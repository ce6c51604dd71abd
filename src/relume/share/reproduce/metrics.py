"""The stages that need data: whether they are the author's, and what the model measures on them."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from relume.errors import ConfigurationError, RelumeError
from relume.share import documents
from relume.share.documents import Claim, Claims, DataSet, Evaluation
from relume.share.reproduce.environment import threads_of
from relume.share.reproduce.numbers import METRIC_TOLERANCE, MOST_STATED, compare_value, is_counted, metric_tolerance
from relume.share.reproduce.subject import Subject, reason, unchecked
from relume.share.reproduce.told import card_numbers, class_names
from relume.share.reproduce.verdicts import Row, Stage, Verdict

if TYPE_CHECKING:
    from relume.share.measuring import Measured

_MOST_LABELS = 5_000_000


def data(subject: Subject) -> Stage:
    """Whether the data here are those that the claims were measured on: by fingerprint, and what is unlike if not."""
    try:
        needed, sets = _needed(subject), subject.data_sets().sets
    except RelumeError as error:
        return Stage(name="data", rows=[unchecked("data", error)])
    if not needed:
        return Stage(name="data", rows=[unchecked("data", "no claim says on which data it was measured")])
    rows = []
    for number in needed:
        if not 0 <= number < len(sets):
            subject.problems[number] = f"{documents.DATA} has no data set number {number}"
            rows.append(unchecked(f"data set {number}", subject.problems[number]))
            continue
        row, dataset = _compared(subject, sets[number])
        rows.append(row)
        rows += _names_of_classes(subject, sets[number], dataset)
        if dataset is not None and row.verdict is not Verdict.DIFFERENT:
            subject.datasets[number] = dataset
        else:
            subject.problems[number] = row.why
    why = "None: data are the same or they are not."
    return Stage(name="data", rows=rows, tolerance=why)


def _needed(subject: Subject) -> list[int]:
    claims = subject.claims()
    used = {claim.evaluation for claim in claims.claims}
    numbers = {one.data for index, one in enumerate(claims.evaluations) if index in used and one.data is not None}
    return sorted(numbers)


def name_of(facts: DataSet) -> str:
    """A data set in a few words: ``fashion-mnist (test)``. A sample in the bundle is called that, whatever it calls itself."""
    from relume.share.sampling import ROLE

    if facts.role == ROLE:
        return f"{documents.SAMPLE_FOLDER} (sample)"
    chosen = ", chosen samples" if "indices" in facts.options else ""
    return f"{facts.name or facts.kind} ({facts.split or facts.role}{chosen})"


def _names_of_classes(subject: Subject, facts: DataSet, dataset: Any) -> list[Row]:
    from relume.share.rows import base_of

    rows = list(class_names(subject, facts.classes, documents.DATA))
    known = getattr(base_of(dataset)[0], "classes", None) if dataset is not None else None
    if not rows and isinstance(known, (list, tuple)):
        rows += class_names(subject, [str(one) for one in known], "the data")
    return rows[:1]


def _compared(subject: Subject, facts: DataSet) -> tuple[Row, Any]:
    from relume.share.data import fingerprint

    claim = name_of(facts)
    claimed = f"{facts.samples:,} samples" if facts.samples is not None else ""
    try:
        dataset = opened(subject, facts)
        found, covers = fingerprint(dataset)
    except Exception as error:
        advice = "" if subject.data is not None else f" {facts.how_to_get or 'Say where they are: --data PATH.'}"
        return unchecked(claim, reason(error) + advice, claimed=claimed), None
    length = _length(dataset)
    here = f"{length:,} samples" if length is not None else ""
    if not facts.fingerprint:
        why = f"the bundle has no fingerprint of these data: they are taken as they are ({covers})"
        return unchecked(claim, why, claimed=claimed, found=here), dataset
    if facts.fingerprint == found and facts.samples is not None and length not in (None, facts.samples):
        why = f"the fingerprint is that of {length:,} samples, and the bundle speaks of {facts.samples:,}"
        return Row(claim=claim, claimed=claimed, found=here, verdict=Verdict.DIFFERENT, why=why), dataset
    if facts.fingerprint == found:
        text = f"{claimed}, {facts.fingerprint[:16]}".lstrip(", ")
        return Row(claim=claim, claimed=text, found="the same fingerprint", verdict=Verdict.EXACT), dataset
    why = "these are not the author's data: " + "; ".join(unlike(subject, facts, dataset))
    return Row(claim=claim, claimed=claimed, found=here, verdict=Verdict.DIFFERENT, why=why), dataset


def opened(subject: Subject, facts: DataSet) -> Any:
    """The dataset: what was given, or what the bundle's words and the given path lead to."""
    from relume.share.data import open_data
    from relume.share.sampling import ROLE, open_sample

    if facts.role == ROLE:
        return open_sample(subject.bundle)
    if subject.data is not None and not isinstance(subject.data, (str, os.PathLike)):
        return subject.data
    return open_data(facts, subject.preprocessing(), subject.path)


def unlike(subject: Subject, facts: DataSet, dataset: Any) -> Iterator[str]:
    """What is other than in the author's data, as far as a bundle without the data can tell."""
    from relume.share.rows import labels_fingerprint

    length = _length(dataset)
    if facts.samples is not None and length is not None and length != facts.samples:
        yield f"{length:,} samples where there were {facts.samples:,}"
        return
    labels = _labels(dataset)
    if labels is None:
        yield "the samples or their labels are others"
        return
    if facts.labels_fingerprint and labels_fingerprint(labels) == facts.labels_fingerprint:
        yield "the labels are the same: the samples themselves (pixels, values) are others"
        return
    counts, claimed = Counter(labels), _claimed_counts(subject, facts)
    if claimed is not None and any(counts[label] != count for label, count in enumerate(claimed)):
        label = next(label for label, count in enumerate(claimed) if counts[label] != count)
        yield f"other labels: {counts[label]:,} samples of class {_class(facts, label)} where there were {claimed[label]:,}"
        return
    if facts.labels_fingerprint:
        same = ", as many of each class: another order, or labels exchanged" if claimed is not None else ""
        yield f"other labels{same}"
        return
    yield from _by_examples(subject, labels) or ["the samples are others, or in another order"]


def _by_examples(subject: Subject, labels: list[Any]) -> list[str]:
    """The examples of the bundle are samples of the data: where they stand is known."""
    try:
        examples = subject.examples().examples
        known = [one for one in examples if one.index is not None and 0 <= one.index < len(labels)]
    except RelumeError:
        return []
    moved = [one for one in known if isinstance(one.label, int) and labels[one.index or 0] != one.label]
    if moved:
        one = moved[0]
        return [
            f"other labels, or another order: sample {one.index} has the label {labels[one.index or 0]}, not {one.label}"
        ]
    return []


def _claimed_counts(subject: Subject, facts: DataSet) -> list[int] | None:
    """How many samples each class had: the sums of the rows of the confusion matrix."""
    try:
        confusion = subject.claims().confusion
    except RelumeError:
        return None
    counts = [sum(row) for row in confusion] if confusion else None
    return counts if counts is not None and facts.samples in (None, sum(counts)) else None


def _class(facts: DataSet, label: int) -> str:
    return f"{facts.classes[label]!r:.60}" if label < len(facts.classes) else str(label)


def _labels(dataset: Any) -> list[int] | None:
    """All labels, where they are whole numbers."""
    from relume.share.rows import labels

    length = _length(dataset)
    return None if length is None or length > _MOST_LABELS else labels(dataset)


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None


# ------------------------------------------------------------------------------------------------------------ metrics


def metrics(subject: Subject) -> Stage:
    """The claimed numbers, measured again."""
    why = (
        f"Accuracy: none, an answer is right or wrong. Averages of floats such as losses: {METRIC_TOLERANCE:g} of the "
        f"claimed value, for sums in another order. More only where the claim itself states it, and at most {MOST_STATED:g}."
    )
    try:
        claims = subject.claims()
    except RelumeError as error:
        return Stage(name="metrics", rows=[unchecked("metrics", error)], tolerance=why)
    if not claims.claims:
        return Stage(name="metrics", rows=[unchecked("metrics", "the bundle claims no numbers")], tolerance=why)
    rows = [_claim(subject, claims, claim) for claim in claims.claims]
    names = names_of(claims, subject.samples())
    rows = [row.model_copy(update={"claim": name}) for row, name in zip(rows, names, strict=True)]
    rows += [*_confusion(subject, claims), *card_numbers(subject, claims)]
    return Stage(name="metrics", rows=rows, tolerance=why)


def names_of(claims: Claims, samples: Set[int] = frozenset()) -> list[str]:
    """What each claim is called; where a number was measured more than once, by when that was.

    Args:
        samples: data sets that are samples in the bundle: a number measured on one says so.
    """
    often = Counter(claim.name for claim in claims.claims)
    made = []
    for claim in claims.claims:
        is_known = 0 <= claim.evaluation < len(claims.evaluations)
        where = f" ({claims.evaluations[claim.evaluation].where})" if is_known and often[claim.name] > 1 else ""
        is_of_sample = is_known and claims.evaluations[claim.evaluation].data in samples
        of = " on a sample" if is_of_sample and not claim.name.startswith(documents.SAMPLE_FOLDER) else ""
        made.append(f"{claim.name}{of}{where}")
    return made


def _claim(subject: Subject, claims: Claims, claim: Claim) -> Row:
    claimed = repr(claim.value)
    if not 0 <= claim.evaluation < len(claims.evaluations):
        return unchecked(claim.name, "the bundle does not say how it was measured", claimed=claimed)
    evaluation = claims.evaluations[claim.evaluation]
    computed_by = evaluation.metrics.get(claim.name, "")
    if evaluation.data is None:
        return unchecked(claim.name, "the bundle does not say on which data it was measured", claimed=claimed)
    if evaluation.data not in subject.datasets:
        why = subject.problems.get(evaluation.data, "the data are not here")
        return unchecked(claim.name, f"without the author's data: {why}", claimed=claimed)
    if not computed_by:
        return unchecked(claim.name, "the bundle does not say what computes it", claimed=claimed)
    measured = measured_by(subject, claim.evaluation, evaluation)
    if isinstance(measured, str):
        return unchecked(claim.name, measured, claimed=claimed)
    if why := subject.failed.get((claim.evaluation, claim.name), ""):
        return unchecked(claim.name, why, claimed=claimed)
    if claim.name not in measured:
        return unchecked(claim.name, _unknown(subject, computed_by), claimed=claimed)
    allowed = metric_tolerance(computed_by, claim.value, claim.tolerance)
    answers = None
    if evaluation.where == "training" and is_counted(computed_by):
        answers = subject.measured[claim.evaluation].samples
    return compare_value(claim.name, claim.value, measured[claim.name], allowed, answers)


def measured_by(subject: Subject, number: int, evaluation: Evaluation) -> Mapping[str, float] | str:
    """The values of one evaluation, measured once; or why they cannot be."""
    if number not in subject.measured:
        model = subject.model
        if model is None or evaluation.data is None:
            return "the model could not be opened"
        try:
            subject.measured[number] = _each_measured(subject, model, number, evaluation)
        except Exception as error:
            subject.measured[number] = reason(error)
    found = subject.measured[number]
    return found if isinstance(found, str) else found.values


def _each_measured(subject: Subject, model: nn.Module, number: int, evaluation: Evaluation) -> Measured:
    """All metrics at once; each for itself where one of them cannot be computed, which says nothing of the others."""
    try:
        return measured(subject, model, evaluation)
    except ConfigurationError:
        found: list[Measured] = []
        for name, kind in evaluation.metrics.items():
            try:
                found.append(measured(subject, model, evaluation.model_copy(update={"metrics": {name: kind}})))
            except ConfigurationError as error:
                subject.failed[number, name] = reason(error)
        if not found:
            raise
        values = {name: value for one in found for name, value in one.values.items()}
        return replace(found[0], values=values)


def measured(subject: Subject, model: nn.Module, evaluation: Evaluation) -> Measured:
    """Measure what is known without the author's code, and what is in code that is trusted. Nothing else is called."""
    from relume.share.measuring import KNOWN, measure

    functions = _trusted_functions(subject, evaluation) if subject.trust else {}
    metrics = {name: kind for name, kind in evaluation.metrics.items() if kind in KNOWN or kind in functions}
    asked = evaluation.model_copy(update={"metrics": metrics})
    assert evaluation.data is not None
    with threads_of(evaluation.environment.get("threads")):
        classes = subject.preprocessing().classes if documents.INPUT in subject.bundle else []
        return measure(model, subject.datasets[evaluation.data], asked, classes, functions=functions)


def _trusted_functions(subject: Subject, evaluation: Evaluation) -> dict[str, Any]:
    """Functions of the bundle's own code, by ``module.function``."""
    from relume.share.measuring import KNOWN
    from relume.share.trust import trusted_code

    found = {}
    for kind in evaluation.metrics.values():
        module, _, name = kind.rpartition(".")
        if kind not in KNOWN and module:
            with contextlib.suppress(RelumeError, AttributeError, ImportError):
                found[kind] = getattr(trusted_code(subject.bundle).find(module, [name]), name)
    return found


def _unknown(subject: Subject, computed_by: str) -> str:
    if subject.trust:
        return f"{computed_by!r:.100} is known to neither relume nor the bundle's code"
    return (
        f"{computed_by!r:.100} is not known to relume; the bundle's code may have it, which runs only when it is trusted "
        "(--trust, trust=True)"
    )


def _confusion(subject: Subject, claims: Claims) -> list[Row]:
    """The confusion matrix, where there is one for the data that were measured."""
    if not claims.confusion:
        return []
    total = sum(map(sum, claims.confusion))
    claim, claimed = "confusion matrix", f"{total:,} answers"
    for found in subject.measured.values():
        matrix = getattr(found, "confusion", None)
        if matrix is None:
            continue
        matrix = [list(map(int, row)) for row in (matrix.tolist() if hasattr(matrix, "tolist") else matrix)]
        if sum(map(sum, matrix)) != total:
            continue
        if matrix == claims.confusion:
            return [Row(claim=claim, claimed=claimed, found="the same", verdict=Verdict.EXACT)]
        if len(matrix) != len(claims.confusion):
            why = f"it has {len(matrix)} classes here, and {len(claims.confusion)} in the claim"
            return [Row(claim=claim, claimed=claimed, verdict=Verdict.DIFFERENT, why=why)]
        unlike = sum(
            a != b
            for ours, theirs in zip(matrix, claims.confusion, strict=True)
            for a, b in zip(ours, theirs, strict=False)
        )
        why = f"{unlike} of its {len(matrix) ** 2} cells differ"
        return [Row(claim=claim, claimed=claimed, found=f"{unlike} cells differ", verdict=Verdict.DIFFERENT, why=why)]
    return [unchecked(claim, "it was not measured here", claimed=claimed)]
