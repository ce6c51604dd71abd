"""Features of all samples as one table, batches of it, and how a batch of samples becomes one of features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from relume import tree
from relume.data.memory import NotEligible, Table

_TARGETS = ("labels", "label", "targets", "target", "y")


class FeatureTable(Table):
    """A batch of all samples, with features in the place of what the model takes.

    Args:
        rows: the form of a batch, each tensor with ``views`` times ``count`` rows, view after view.
        count: how many samples there are.
        views: how many times each sample was augmented; epoch ``e`` reads view ``e % views``.
        dtypes: what the features were computed in; where they are stored smaller, a batch has this dtype again.

    Attributes:
        key: its fingerprint, or nothing where there is none.
        is_mapped: whether it lies in a file and not in memory.
        epoch: which epoch is read; set by whoever reads.
    """

    def __init__(self, rows: Any, count: int, *, views: int = 1, dtypes: tuple[torch.dtype, ...] = ()) -> None:
        super().__init__(rows, count, is_filled=True)
        self.views = views
        self.dtypes = dtypes
        self.key: str | None = None
        self.is_mapped = False
        self.epoch = 0
        stored = [t.dtype for t in tree.tensors(features_in(rows, len(dtypes)))]
        self._is_smaller = stored != list(dtypes)

    def batch(self, indices: list[int]) -> Any:
        """The rows of some samples as a fresh batch."""
        if self.views > 1:
            first = (self.epoch % self.views) * self.count
            indices = [first + index for index in indices]
        batch = super().batch(indices)
        return self._widened(batch) if self._is_smaller else batch

    def _widened(self, batch: Any) -> Any:
        features = features_in(batch, len(self.dtypes))
        wide = [one.to(dtype) for one, dtype in zip(features, self.dtypes, strict=True)]
        return with_features(wide, target_in(batch, len(self.dtypes)), isinstance(batch, Mapping))

    @property
    def bytes_a_sample(self) -> int:
        """What the features of one sample take, its target not counted."""
        features = features_in(self.rows, len(self.dtypes))
        return sum(t[:1].numel() * t.element_size() for t in features)


def inputs_of(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any, str | None]:
    """What of a batch goes into the model (positional, by name), the target, and the target's name in a dict.

    Raises:
        NotEligible: the batch has no target, or something beside tensors.
    """
    if not tree.only_tensors(batch):
        raise NotEligible("its batches hold more than tensors")
    if isinstance(batch, Mapping):
        name = next((name for name in _TARGETS if name in batch), None)
        if name is None:
            raise NotEligible("its batches have no target, so that the loss may look at the input")
        return (), {k: v for k, v in batch.items() if k != name}, batch[name], name
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise NotEligible("its batches have no target, so that the loss may look at the input")
    return tuple(batch[:-1]), {}, batch[-1], None


def with_features(features: Any, target: Any, is_mapping: bool, name: str | None = None) -> Any:
    """A batch with features in the place of the inputs."""
    if is_mapping:
        return {f"feature_{number}": one for number, one in enumerate(features)} | {name or "labels": target}
    return [*features, target]


def features_in(batch: Any, count: int) -> list[torch.Tensor]:
    """The features of a batch of features."""
    if isinstance(batch, Mapping):
        return [batch[f"feature_{number}"] for number in range(count)]
    return list(batch[:count])


def target_in(batch: Any, count: int) -> Any:
    """The target of a batch of features."""
    return batch["labels"] if isinstance(batch, Mapping) else batch[count]


class FeatureDataset(torch.utils.data.Dataset[Any]):
    """The rows of a table as samples: a feature, or several, and the target."""

    def __init__(self, table: FeatureTable) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.count

    def __getitem__(self, index: int) -> Any:
        return tree.map_tensors(lambda t: t[0], self.table.batch(self.table.places([int(index)])))

    def relume_rows(self) -> Any:
        """All samples as one batch, so that a stream reads them a batch at a time."""
        if self.table.views > 1 or self.table.is_mapped:
            return self.table.batch(np.arange(self.table.count).tolist())
        return self.table.rows
