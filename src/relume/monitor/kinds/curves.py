"""Precision and recall at many thresholds, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from relume.errors import ConfigurationError
from relume.monitor.classes import ClassReport
from relume.monitor.kinds.arrays import Array, Snapshot, snapshot
from relume.monitor.kinds.base import Content, Media

_THRESHOLDS = 127  # as TensorBoard has it
_MOST_THRESHOLDS = 1024
_MOST_CLASSES = 4096


class PRCurve(Media):
    """Precision and recall of a classifier at thresholds from 0 to 1.

    A sample counts as positive where its score is at least the threshold. Where none does, the precision is 1; where there
    are no positive samples at all, the recall is 0.

    Args:
        true: shape (N,): whether each sample is positive; with scores of shape (N, K), the number of its class.
        scores: shape (N,): the probability of being positive, or (N, K): that of each class, which gives a curve a class.
            Values outside of 0 to 1 are taken as logits.
        classes: the names of the K classes.
        thresholds: how many.

    Raises:
        ConfigurationError: shapes or types that do not belong together.

    Example:
        >>> curve = PRCurve([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], thresholds=3).content(Path())
        >>> curve["thresholds"], curve["precision"], curve["recall"]
        ([0.0, 0.5, 1.0], [0.5, 0.5, 1.0], [1.0, 0.5, 0.0])
    """

    kind = "pr_curve"

    def __init__(
        self, true: Any, scores: Any, classes: Sequence[str] | None = None, *, thresholds: int = _THRESHOLDS
    ) -> None:
        self._true, self._scores = snapshot(true, "PRCurve: true"), snapshot(scores, "PRCurve: scores")
        if isinstance(thresholds, bool) or not isinstance(thresholds, int) or not 2 <= thresholds <= _MOST_THRESHOLDS:
            raise ConfigurationError(f"PRCurve: thresholds must be from 2 to {_MOST_THRESHOLDS}, not {thresholds!r}.")
        shape = self._scores.shape
        if len(shape) not in (1, 2) or self._true.shape != shape[:1] or not shape[0]:
            raise ConfigurationError(
                f"PRCurve: true has the shape {self._true.shape} and scores {shape}. Give true of shape (N,), and scores of "
                "shape (N,), or (N, K) for K classes."
            )
        if classes is not None and (len(shape) != 2 or len(classes) != shape[1]):
            raise ConfigurationError(f"PRCurve: {len(classes)} names of classes for scores of shape {shape}.")
        if len(shape) == 2 and not self._true.is_whole:
            raise ConfigurationError(f"PRCurve: true must be the numbers of classes, not {self._true.dtype}.")
        self._classes = None if classes is None else [str(name) for name in classes]
        self._thresholds = np.linspace(0.0, 1.0, thresholds)

    def describe(self, folder: Path) -> Content:
        true, scores = self._true.read(), probabilities(self._scores.read())
        if np.isnan(scores).any():
            raise ConfigurationError("PRCurve: there are NaN among the scores.")
        if scores.ndim == 1:
            return _with_rates(self._thresholds, *_counts(true > 0, scores, self._thresholds))
        pairs = [_counts(true == label, scores[:, label], self._thresholds) for label in range(scores.shape[1])]
        tp, fp, tn, fn = (np.stack(part) for part in zip(*pairs, strict=True))
        names = self._classes or [str(label) for label in range(scores.shape[1])]
        return {**_with_rates(self._thresholds, tp, fp, tn, fn), "classes": names}


def probabilities(scores: Array) -> Array:
    """Scores as probabilities: logits where one is outside of 0 to 1, or a row of them does not sum up to 1."""
    scores = scores.astype(np.float64)
    if scores.ndim == 1:
        is_logits = bool((scores < 0).any() or (scores > 1).any())
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-scores)) if is_logits else scores
    if not (scores < 0).any() and not (scores > 1 + 1e-3).any() and (abs(scores.sum(1) - 1) < 1e-2).all():
        return scores
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    softmax: Array = shifted / shifted.sum(1, keepdims=True)
    return softmax


def _counts(is_positive: Array, scores: Array, thresholds: Array) -> tuple[Array, Array, Array, Array]:
    """True and false positives, true and false negatives at each threshold."""
    bucket = np.searchsorted(thresholds, scores, side="right") - 1  # the highest threshold that it reaches
    sides = []
    for side in (is_positive, ~is_positive):
        reached = np.bincount(bucket[side & (bucket >= 0)], minlength=len(thresholds))
        sides.append(reached[::-1].cumsum()[::-1])
    tp, fp = sides
    return tp, fp, int((~is_positive).sum()) - fp, int(is_positive.sum()) - tp


def _with_rates(thresholds: Array, tp: Array, fp: Array, tn: Array, fn: Array) -> Content:
    precision = np.divide(tp, tp + fp, out=np.ones(tp.shape), where=tp + fp > 0)
    recall = np.divide(tp, tp + fn, out=np.zeros(tp.shape), where=tp + fn > 0)
    named = {"thresholds": thresholds, "precision": precision, "recall": recall, "tp": tp, "fp": fp, "tn": tn, "fn": fn}
    return {name: values.tolist() for name, values in named.items()}


class ConfusionMatrix(Media):
    """How many samples of each class (row) were predicted as each class (column).

    Args:
        true: shape (N,), the number of each sample's class; those below 0 are left out, as losses do it. Or a
            :class:`relume.ClassReport`, which holds a matrix already.
        predicted: shape (N,), numbers of classes, or (N, K), scores, of which the largest counts.
        class_names: the names; without them, as many classes as occur.

    Raises:
        ConfigurationError: shapes or types that do not belong together, or a class without a name.

    Example:
        >>> ConfusionMatrix([0, 0, 1], [0, 1, 1], ["cat", "dog"]).content(Path())["counts"]
        [[1, 1], [0, 1]]
    """

    kind = "confusion_matrix"

    def __init__(self, true: Any, predicted: Any = None, class_names: Sequence[str] | None = None) -> None:
        self._report = true if isinstance(true, ClassReport) else None
        if self._report is not None:
            return
        if predicted is None:
            raise ConfigurationError("ConfusionMatrix: predicted= is missing.")
        self._true, self._predicted = labels(true, "true"), labels(predicted, "predicted")
        self._classes = None if class_names is None else [str(name) for name in class_names]
        if self._true.shape[0] != self._predicted.shape[0] or len(self._true.shape) != 1:
            raise ConfigurationError(
                f"ConfusionMatrix: true has the shape {self._true.shape} and predicted {self._predicted.shape}. Give N of each."
            )
        if self._true.is_ready() and self._predicted.is_ready():
            self._count()

    def _count(self) -> ClassReport:
        if self._report is None:
            true, predicted = self._true.read().astype(np.int64), chosen(self._predicted.read())
            true, predicted = true[true >= 0], predicted[true >= 0]
            highest = int(max(true.max(initial=0), predicted.max(initial=0)))
            count = len(self._classes) if self._classes is not None else max(highest + 1, _width(self._predicted))
            if highest >= count or predicted.min(initial=0) < 0:
                raise ConfigurationError(f"ConfusionMatrix: there are {count} classes, and a label is {highest}.")
            if count > _MOST_CLASSES:
                raise ConfigurationError(f"ConfusionMatrix: {count:,} classes are too many; at most {_MOST_CLASSES:,}.")
            counts = np.bincount(true * count + predicted, minlength=count * count).reshape(count, count)
            names = self._classes or [str(label) for label in range(count)]
            self._report = ClassReport(tuple(names), tuple(map(tuple, counts.tolist())))
        return self._report

    def describe(self, folder: Path) -> Content:
        report = self._count()
        return {"classes": list(report.classes), "counts": [list(row) for row in report.confusion]}


def labels(value: Any, what: str) -> Snapshot:
    """Numbers of classes of shape (N,), or scores of shape (N, K).

    Raises:
        ConfigurationError: they are neither.
    """
    made = snapshot(value, what)
    if len(made.shape) == 2 and made.shape[1]:
        return made
    if len(made.shape) != 1 or (made.size and not made.is_whole):
        raise ConfigurationError(
            f"{what} has the shape {made.shape} and is of {made.dtype}. Give numbers of classes (whole, of shape (N,))"
            + (", or scores of shape (N, classes)." if what == "predicted" else ".")
        )
    return made


def chosen(values: Array) -> Array:
    """The classes that scores speak for, or the classes themselves: int64 of shape (N,)."""
    return values.argmax(1).astype(np.int64) if values.ndim == 2 else values.astype(np.int64)


def _width(predicted: Snapshot) -> int:
    return predicted.shape[1] if len(predicted.shape) == 2 else 1
