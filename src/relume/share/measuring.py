"""Numbers measured in one documented way, so that the same model and data give the same everywhere.

Evaluation mode, no gradients, float32, one fixed batch size, in the order of the data. What is counted is summed as whole
numbers and what is averaged as float64, one sample after the other in order.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import default_collate

from relume import tree
from relume.data.calls import call_model, inputs_and_target
from relume.errors import ConfigurationError, DataError
from relume.generators import isolated
from relume.share.documents import Evaluation
from relume.share.rows import length
from relume.train.evaluation import evaluation_mode
from relume.train.metrics import accuracy

ACCURACY, CROSS_ENTROPY, SQUARED, ABSOLUTE = "accuracy", "cross entropy", "mse", "mae"
KNOWN = (ACCURACY, CROSS_ENTROPY, SQUARED, ABSOLUTE)
_SMALL_BATCH, _LARGE_BATCH = 500, 32
_SMALL_ELEMENTS = 3 * 64 * 64

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        values: each number by its name.
        confusion: rows are what it is, columns what it was taken for; None where nothing was classified.
        samples: how many there were.
    """

    values: dict[str, float]
    confusion: list[list[int]] | None
    samples: int


def measure(
    model: nn.Module,
    dataset: Any,
    evaluation: Evaluation,
    classes: Sequence[str] = (),
    *,
    collate: Callable[[list[Any]], Any] = default_collate,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Measure a model, on the CPU where it lies there.

    Args:
        dataset: of (input, target), in the order in which it is measured.
        evaluation: ``metrics`` says what is measured, by name; ``batch_size`` how many samples are computed at once.
        classes: names of the classes; with them it is counted which was taken for which.
        functions: of the author's own code, by ``module.function``: those that are to be called. Others are looked for among
            what is imported already; nothing is imported.
        progress: called after each batch with the samples done and all of them.

    Raises:
        ConfigurationError: a metric that is not known, or cannot be computed of such outputs.
        DataError: there are no samples, or they are none for this model.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.eye(3), torch.tensor([0, 1, 1]))
        >>> measure(nn.Identity(), data, Evaluation(metrics={"val/accuracy": "accuracy"}, batch_size=2)).values
        {'val/accuracy': 0.6666666666666666}
    """
    count = length(dataset)
    if not count:
        raise DataError("there are no samples to measure on.")
    sums = {name: _sum_of(name, kind, functions or {}) for name, kind in evaluation.metrics.items()}
    table = _Table(len(classes)) if len(classes) > 1 else None
    done = 0
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    with evaluation_mode(model), torch.no_grad(), isolated(0):
        for batch in batches(dataset, evaluation.batch_size, collate):
            batch = tree.move(batch, device)
            inputs, named, target = inputs_and_target(batch)
            output = call_model(model, inputs, named, batch)
            for name, one in sums.items():
                _add(name, one, output, target, tree.samples(batch))
            if table is not None:
                table.add(output, target)
            done = min(done + evaluation.batch_size, count)
            if progress is not None:
                progress(done, count)
    confusion = table.rows() if table is not None else None
    return Measured({name: one.value() for name, one in sums.items()}, confusion, count)


def batches(dataset: Any, batch_size: int, collate: Callable[[list[Any]], Any] = default_collate) -> Iterator[Any]:
    """The samples in order, so many at once."""
    count = length(dataset)
    for start in range(0, count, batch_size):
        yield collate([dataset[index] for index in range(start, min(start + batch_size, count))])


def batch_size_for(sample: Any) -> int:
    """How many samples are computed at once: many small ones, few large ones."""
    size = sum(tensor.numel() for tensor in tree.tensors(sample))
    return _SMALL_BATCH if size <= _SMALL_ELEMENTS else _LARGE_BATCH


def environment() -> dict[str, Any]:
    """Where it is computed: what makes the last digits."""
    from relume.provenance.machine import machine

    return {
        "torch": torch.__version__,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "cpu": machine().cpu,
        "precision": "float32",
    }


class _Sum:
    """A number over all samples."""

    def __init__(self, per_batch: Callable[[Any, Any], torch.Tensor | float], *, is_counted: bool = False) -> None:
        self._per_batch, self._is_counted = per_batch, is_counted
        self._parts: list[float] = []
        self._weight = 0

    def add(self, output: Any, target: Any, samples: int) -> None:
        value = self._per_batch(output, target)
        if isinstance(value, torch.Tensor) and value.dim():  # one a sample
            self._parts += value.double().tolist()
            self._weight += len(value)
            return
        number = float(value)
        if self._is_counted:
            samples = output.numel() // output.shape[1] if output.dim() > 1 else output.numel()
            self._parts.append(round(number * samples))
        else:
            self._parts.append(number * samples)
        self._weight += samples

    def value(self) -> float:
        """The mean; the sum of float64 numbers is exact, whatever their order."""
        finite = all(map(math.isfinite, self._parts))
        return (math.fsum(self._parts) if finite else sum(self._parts)) / self._weight


def _sum_of(name: str, kind: str, functions: Mapping[str, Callable[..., Any]]) -> _Sum:
    known: dict[str, Callable[[Any, Any], torch.Tensor]] = {
        CROSS_ENTROPY: _cross_entropy,
        SQUARED: lambda output, target: _difference(output, target).square().mean(1),
        ABSOLUTE: lambda output, target: _difference(output, target).abs().mean(1),
    }
    if kind == ACCURACY:
        return _Sum(accuracy, is_counted=True)
    if kind in known:
        return _Sum(known[kind])
    return _Sum(functions[kind] if kind in functions else _imported(name, kind))


def _cross_entropy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    loss = functional.cross_entropy(
        output.double(), target.double() if target.is_floating_point() else target, reduction="none"
    )
    return loss.flatten(1).mean(1) if loss.dim() > 1 else loss


def _difference(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Of each sample's numbers, shape (samples, numbers)."""
    if output.shape != target.shape:
        raise ValueError(f"outputs of shape {tuple(output.shape)} for targets of shape {tuple(target.shape)}")
    return (output.double() - target.double()).reshape(len(output), -1)


def _imported(name: str, kind: str) -> Callable[..., Any]:
    place, _, function = kind.rpartition(".")
    found = getattr(sys.modules.get(place), function, None) if place else None
    if not callable(found):
        raise ConfigurationError(
            f"{name} is computed by {kind or 'something unknown'}, which is not known here: relume knows {', '.join(KNOWN)}; "
            "functions of the author's own code are in the bundle's code/ and need its code to be trusted."
        )
    return found  # type: ignore[no-any-return]


def _add(name: str, one: _Sum, output: Any, target: Any, samples: int) -> None:
    try:
        one.add(output, target, samples)
    except (RuntimeError, IndexError, ValueError, AttributeError, TypeError) as error:
        shape = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else f"type {type(output).__name__}"
        given = f"shape {tuple(target.shape)}" if isinstance(target, torch.Tensor) else f"type {type(target).__name__}"
        raise ConfigurationError(
            f"{name} cannot be computed of outputs of {shape} and targets of {given}: {str(error).splitlines()[0]:.200}"
        ) from error


class _Table:
    """Which class was taken for which."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._counts: torch.Tensor | None = torch.zeros(classes * classes, dtype=torch.int64)

    def add(self, output: Any, target: Any) -> None:
        """Count a batch; outputs that are no scores of the classes end the counting."""
        count = self._classes
        is_scores = isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor) and output.dim() == 2
        if self._counts is None or not is_scores or output.shape[1] != count or target.shape != output.shape[:1]:
            self._counts = None
            return
        is_labels = not target.is_floating_point() and bool(((target >= 0) & (target < count)).all())
        if not is_labels:
            self._counts = None
            return
        self._counts += torch.bincount((target.long() * count + output.argmax(1)).cpu(), minlength=count * count)

    def rows(self) -> list[list[int]] | None:
        if self._counts is None or not int(self._counts.sum()):
            return None
        found: list[list[int]] = self._counts.view(self._classes, self._classes).tolist()
        return found
