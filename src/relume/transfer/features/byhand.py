"""Features by hand: a loader of them, and the part of the model that takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader

from relume.data.memory import NotEligible
from relume.errors import FeatureCacheError, NoMatchError, closest
from relume.names import unwrap
from relume.transfer.features.cache import FeatureCache, cache_for
from relume.transfer.features.constant import NoCut
from relume.transfer.features.setting import Setting, check_storage
from relume.transfer.features.table import FeatureDataset


@dataclass(frozen=True)
class CachedFeatures:
    """What `cache_features` gives.

    Attributes:
        loader: batches of ``(features, targets)``, in the order and number of the loader that was given.
        head: what takes the features; its modules and parameters are the model's own.
        lower: what gives them, without gradients.
        report: one line that says what is cached and what it cost.
        notes: what else there is to say; usually empty.
        is_exact: whether both parts together gave the bits of the whole model for some samples.
    """

    loader: DataLoader[Any]
    head: nn.Module
    lower: nn.Module
    report: str
    notes: tuple[str, ...] = ()
    is_exact: bool = True
    cache: FeatureCache | None = field(default=None, repr=False)

    def use_view(self, epoch: int) -> None:
        """With views: let ``loader`` give those of this epoch."""
        if self.cache is not None:
            self.cache.table.epoch = epoch


def cache_features(
    model: nn.Module,
    loader: DataLoader[Any],
    cut: str | None = None,
    *,
    root: str | Path | None = None,
    views: int | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> CachedFeatures:
    """Compute what the frozen part of a model gives for each sample of a loader, once.

    Args:
        model: partly frozen, in the mode that it will be trained in (``model.train()``), on its device.
        loader: a ``DataLoader`` of inputs and targets, with torch's own collate function.
        cut: the name of the module after which to cut; by default as late as can be.
        root: where features are kept for other runs and processes, below ``store/features``; by default in memory.
        views: with random augmentation: how many seeded views of each sample are kept.
        dtype: what features are stored in, such as ``torch.float16``.
        seed: with which views are drawn.

    Raises:
        FeatureCacheError: nothing of the model is a function of the sample alone, or the samples are not the same each
            time they are fetched; says which module or why.
        ConfigurationError: ``views`` or ``dtype`` makes no sense.
        NoMatchError: ``cut`` is no module of the model.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from relume.transfer import freeze
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> report = freeze(model, "0")
        >>> loader = DataLoader(TensorDataset(torch.ones(8, 4), torch.zeros(8, dtype=torch.long)), batch_size=4)
        >>> cached = cache_features(model, loader)
        >>> features, targets = next(iter(cached.loader))
        >>> features.shape, cached.head(features).shape
        (torch.Size([4, 3]), torch.Size([4, 2]))
    """
    check_storage(dtype, views)
    names = [name for name, _ in unwrap(model).named_modules() if name]
    if cut is not None and cut not in names:
        raise NoMatchError(f"cut={cut!r} is no module of {type(model).__name__}: {closest(str(cut), names)}")
    first = next((tensor for tensor in model.parameters()), None)
    setting = Setting(torch.device("cpu") if first is None else first.device, dtype=dtype)
    try:
        found = cache_for(
            model,
            loader,
            setting,
            epochs=1,
            root=None if root is None else Path(root),
            insist=True,
            views=views,
            seed=seed,
            after=cut,
        )
    except (NoCut, NotEligible) as reason:
        raise FeatureCacheError(f"no features of {type(model).__name__}: {reason}.") from None
    text = f"{found.text.partition(' instead of ')[0]}"
    return CachedFeatures(
        _loader_like(loader, FeatureDataset(found.table)),
        found.cut.upper,
        found.cut.lower,
        text,
        tuple(found.notes),
        found.is_exact,
        found,
    )


def _loader_like(loader: DataLoader[Any], dataset: FeatureDataset) -> DataLoader[Any]:
    """A loader with the same batches of the same numbers."""
    more: dict[str, Any] = {"generator": loader.generator, "pin_memory": loader.pin_memory}
    if type(loader.batch_sampler) is BatchSampler:
        return DataLoader(
            dataset, batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last, **more
        )
    return DataLoader(dataset, batch_sampler=loader.batch_sampler, **more)
