"""Which class a model takes for which: counted while a Trainer evaluates, or over a loader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from relume.data.calls import inputs_and_target
from relume.errors import ConfigurationError, RunError
from relume.monitor.classes import ClassReport
from relume.train.callbacks import Callback
from relume.train.evaluation import for_each_output
from relume.train.metrics import accuracy
from relume.train.precision import Precision

if TYPE_CHECKING:
    from relume.train.trainer import Trainer


class ClassCounts(Callback):
    """Counts which class was taken for which while a Trainer evaluates, and costs no evaluation of its own.

    It is a metric, the accuracy, and a callback at once: give it to both.

    Args:
        classes: the names; the label is the position.

    Example:
        >>> counts = ClassCounts(["cat", "dog"])
        >>> counts(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1])), counts.report(epoch=1).confusion
        (tensor(0.5000), ((1, 0), (1, 0)))
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._counts: torch.Tensor | None = None

    def on_evaluation_start(self, trainer: Any) -> None:
        self._counts = None

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        counts = count_classes(output, target, len(self.classes))
        self._counts = counts if self._counts is None else self._counts + counts
        return accuracy(output, target)

    def report(self, epoch: int | None = None) -> ClassReport | None:
        """That of the newest evaluation; None when there was none yet."""
        return None if self._counts is None else _report(self.classes, self._counts, epoch)


def class_report(
    model: nn.Module,
    loader: Any,
    classes: Sequence[str],
    *,
    precision: str = "float32",
    in_memory: bool | None = None,
    epoch: int | None = None,
) -> ClassReport:
    """Count over all samples of ``loader`` which class was taken for which.

    Args:
        model: gives scores of shape (N, classes); evaluated as :func:`relume.evaluate` does it.
        loader: batches with a target: class numbers of shape (N), or one-hot or soft labels of shape (N, classes).
        classes: the names; the label is the position.
        epoch: what the report says of the time at which it was made.

    Raises:
        ConfigurationError: the outputs are no scores of so many classes, or there are no targets.
        EmptyLoaderError: the loader yields no batch.

    Example:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> loader = DataLoader(TensorDataset(torch.eye(2), torch.tensor([0, 0])))
        >>> class_report(nn.Identity(), loader, ["cat", "dog"]).confusion
        ((1, 1), (0, 0))
    """
    counts: list[torch.Tensor] = []

    def visit(batch: Any, output: Any) -> None:
        found = count_classes(output, inputs_and_target(batch)[2], len(classes))
        counts[:] = [counts[0] + found] if counts else [found]

    for_each_output(model, loader, visit, Precision.named(precision), in_memory)
    return _report(tuple(classes), counts[0], epoch)


def final_report(trainer: Trainer, counts: ClassCounts, loader: Any, folder: Path, epoch: int) -> ClassReport:
    """The report of a run that is done: of its last evaluation, else the one stored then, else of a new evaluation."""
    stored = _stored(folder)
    made = counts.report(epoch)
    if made is None and stored is not None and stored.epoch == epoch and stored.classes == counts.classes:
        return stored
    if made is None:
        trainer.model.to(trainer.device)
        made = class_report(
            trainer.model,
            loader,
            counts.classes,
            precision=trainer.precision_name,
            in_memory=trainer.in_memory,
            epoch=epoch,
        )
    made.save(folder)
    return made


def _stored(folder: Path) -> ClassReport | None:
    try:
        return ClassReport.load(folder)
    except RunError:  # it is made anew
        return None


def count_classes(output: Any, target: Any, classes: int) -> torch.Tensor:
    """How often each class (row) was predicted as each (column): int64 of shape (classes, classes), on the device.

    Negative targets, which losses leave out, are left out.

    Raises:
        ConfigurationError: these are no scores and targets of so many classes.
    """
    if not isinstance(output, torch.Tensor) or output.dim() < 2 or output.shape[1] != classes:
        given = f"of shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise ConfigurationError(f"there are {classes} classes, and the model's output is {given}: not (N, {classes}).")
    if not isinstance(target, torch.Tensor):
        raise ConfigurationError("the batches have no target: nothing tells which class is right.")
    labels = target.argmax(1) if target.shape == output.shape else target
    if labels.shape != output.shape[:1] + output.shape[2:] or labels.is_floating_point():
        raise ConfigurationError(
            f"targets of shape {tuple(target.shape)} and {str(target.dtype).removeprefix('torch.')} are no classes for "
            f"outputs of shape {tuple(output.shape)}."
        )
    labels, predicted = labels.flatten().long(), output.argmax(1).flatten()
    is_kept = labels >= 0
    pairs = labels[is_kept] * classes + predicted[is_kept]
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _report(classes: tuple[str, ...], counts: torch.Tensor, epoch: int | None) -> ClassReport:
    return ClassReport(classes, tuple(map(tuple, counts.tolist())), epoch)
