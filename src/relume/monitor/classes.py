"""How well a classifier tells its classes apart: the confusion matrix, and precision and recall of each class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relume.errors import RunError
from relume.monitor.record import write_whole
from relume.page import WIDTH, Grid, Page, html_of, line, text_of
from relume.text import counted, printable

FILE = "classes.json"
"""Where it is kept in a run's folder."""

_FORMAT = 1
_LARGEST_MATRIX = 20
_SHOWN_PAIRS = 10
_SHOWN_CLASSES = 40
_NAME_WIDTH = 24
_LEGEND = "Which class (row) was taken for which (column):"


@dataclass(frozen=True)
class ClassScore:
    """One class, or a mean over classes.

    Attributes:
        precision: of the samples predicted as this class, the share that are; 0 where none was.
        recall: of the samples of this class, the share that was found; 0 where there are none.
        f1: their harmonic mean.
        support: how many samples of this class there are.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ClassReport:
    """The confusion matrix of a classifier, and what follows from it.

    Attributes:
        classes: the names; the label is the position.
        confusion: how many samples of each class (row) were predicted as each class (column).
        epoch: epochs done when it was made; None where there is no run.

    Example:
        >>> report = ClassReport(("cat", "dog"), ((8, 2), (1, 9)))
        >>> report.accuracy, report.scores[0].recall
        (0.85, 0.8)
    """

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    epoch: int | None = None

    @property
    def samples(self) -> int:
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """The share of samples whose class was found; NaN without samples."""
        right = sum(row[label] for label, row in enumerate(self.confusion))
        return right / self.samples if self.samples else float("nan")

    @property
    def scores(self) -> list[ClassScore]:
        """Each class, in their order."""
        predicted = [sum(column) for column in zip(*self.confusion, strict=True)]
        found = []
        for label, row in enumerate(self.confusion):
            precision, recall = _share(row[label], predicted[label]), _share(row[label], sum(row))
            f1 = _share(2 * row[label], sum(row) + predicted[label])
            found.append(ClassScore(self.classes[label], precision, recall, f1, sum(row)))
        return found

    @property
    def macro(self) -> ClassScore:
        """The plain mean over the classes that occur, as samples or as predictions (as scikit-learn has it)."""
        columns = zip(*self.confusion, strict=True)
        occurs = [sum(row) + sum(column) > 0 for row, column in zip(self.confusion, columns, strict=True)]
        scores = [score for score, is_there in zip(self.scores, occurs, strict=True) if is_there]
        return _mean("macro mean", scores, [1] * len(scores))

    @property
    def weighted(self) -> ClassScore:
        """The mean over the classes, weighted by how many samples each has."""
        return _mean("weighted mean", self.scores, [score.support for score in self.scores])

    def confused(self, count: int = _SHOWN_PAIRS) -> list[tuple[str, str, int]]:
        """The pairs (class, predicted as, how often) that were mixed up most often."""
        pairs = [
            (-number, row, column)
            for row, numbers in enumerate(self.confusion)
            for column, number in enumerate(numbers)
            if number and row != column
        ]
        return [(self.classes[row], self.classes[column], -number) for number, row, column in sorted(pairs)[:count]]

    def page(self, width: int = WIDTH) -> Page:
        """The report as tables: the confusion matrix where it is small enough, else the pairs mixed up most."""
        when = "" if self.epoch is None else f", after {counted(self.epoch, 'epoch')}"
        title = f"{counted(self.samples, 'sample')} of {counted(len(self.classes), 'class', 'classes')}{when}"
        matrix = _matrix(self)
        fits = len(self.classes) <= _LARGEST_MATRIX and _width(matrix) <= width
        if not fits:
            return [line(title, "bold"), _table(self), *_pairs(self)]
        return [line(title, "bold"), _table(self), line(_LEGEND, "dim"), matrix]

    def as_json(self) -> dict[str, Any]:
        """For programs: all numbers, those that follow from others too."""
        return {
            "format": _FORMAT,
            "epoch": self.epoch,
            "samples": self.samples,
            "accuracy": self.accuracy if self.samples else None,
            "classes": list(self.classes),
            "confusion": [list(row) for row in self.confusion],
            "per_class": [vars(score) for score in self.scores],
            "macro": vars(self.macro),
            "weighted": vars(self.weighted),
        }

    def save(self, folder: str | Path) -> Path:
        """Write it into a run's folder, whole or not at all."""
        path = Path(folder, FILE)
        write_whole(path, json.dumps(self.as_json(), ensure_ascii=False) + "\n")
        return path

    @classmethod
    def load(cls, folder: str | Path) -> ClassReport | None:
        """The report in a run's folder; None where there is none.

        Raises:
            RunError: it is damaged.
        """
        path = Path(folder, FILE)
        try:
            held = json.loads(path.read_text("utf-8"))
            report = cls(tuple(held["classes"]), tuple(map(tuple, held["confusion"])), held["epoch"])
            _check(report)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(f"{path} is damaged ({error!s:.200}). Delete it; the training writes it anew.") from error
        return report

    def __str__(self) -> str:
        return text_of(self.page())

    def _repr_html_(self) -> str:
        return html_of(self.page())


def _check(report: ClassReport) -> None:
    """What was read from a file."""
    names, rows = report.classes, report.confusion
    if not all(isinstance(name, str) for name in names) or len(rows) != len(names) or not names:
        raise ValueError("its classes and its matrix do not belong together")
    if not all(len(row) == len(names) and all(type(n) is int and n >= 0 for n in row) for row in rows):
        raise ValueError("its matrix is not one of counts")
    if report.epoch is not None and type(report.epoch) is not int:
        raise ValueError("its epoch is no number")


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _mean(name: str, scores: Sequence[ClassScore], weights: Sequence[int]) -> ClassScore:
    total = sum(weights)

    def mean(values: Sequence[float]) -> float:
        return _share(sum(value * weight for value, weight in zip(values, weights, strict=True)), total)

    precision, recall, f1 = ([getattr(s, field) for s in scores] for field in ("precision", "recall", "f1"))
    return ClassScore(name, mean(precision), mean(recall), mean(f1), sum(score.support for score in scores))


def _table(report: ClassReport) -> Grid:
    grid = Grid(("class", "precision", "recall", "F1", "samples"))
    scores = report.scores
    for score in scores[:_SHOWN_CLASSES]:
        grid.rows.append(_row(score))
    if len(scores) > _SHOWN_CLASSES:
        grid.rows.append((f"… {len(scores) - _SHOWN_CLASSES:,} more", "", "", "", ""))
    grid.rows += [_row(report.macro), _row(report.weighted)]
    if report.samples:
        grid.note = f"accuracy {report.accuracy:.4f}"
    return grid


def _row(score: ClassScore) -> tuple[str, ...]:
    numbers = (f"{value:.3f}" for value in (score.precision, score.recall, score.f1))
    return printable(score.name, _NAME_WIDTH), *numbers, f"{score.support:,}"


def _matrix(report: ClassReport) -> Grid:
    """A row for each class; the columns have numbers, which the rows explain."""
    grid = Grid(("class", *(str(label) for label in range(len(report.classes)))))
    for label, (name, row) in enumerate(zip(report.classes, report.confusion, strict=True)):
        grid.rows.append((f"{label:>2} {printable(name, _NAME_WIDTH)}", *(str(n) if n else "." for n in row)))
    return grid


def _pairs(report: ClassReport) -> Page:
    pairs = report.confused()
    if not pairs:
        return [line("No mistakes.", "dim")]
    grid = Grid(("class", "taken for", "times"))
    grid.rows += [(printable(a, _NAME_WIDTH), printable(b, _NAME_WIDTH), f"{n:,}") for a, b, n in pairs]
    mixed = sum(n for _, _, n in report.confused(len(report.classes) ** 2))
    shown = sum(n for _, _, n in pairs)
    return [line(f"The pairs mixed up most, {shown:,} of {counted(mixed, 'mistake')}:", "dim"), grid]


def _width(grid: Grid) -> int:
    cells: list[Sequence[Any]] = [grid.columns, *grid.rows]
    return sum(max(len(str(row[place])) for row in cells) + 1 for place in range(len(grid.columns)))
