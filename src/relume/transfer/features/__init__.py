"""Features: what the frozen part of a model gives for each sample, computed once."""

from relume.transfer.features.byhand import CachedFeatures, cache_features
from relume.transfer.features.cache import FeatureCache, cache_for
from relume.transfer.features.constant import NoCut, NothingConstant
from relume.transfer.features.cut import Cut, find_cut
from relume.transfer.features.kept import FeatureGarbage, collect_features
from relume.transfer.features.setting import Setting
from relume.transfer.features.table import FeatureDataset, FeatureTable

__all__ = [
    "CachedFeatures",
    "Cut",
    "FeatureCache",
    "FeatureDataset",
    "FeatureGarbage",
    "FeatureTable",
    "NoCut",
    "NothingConstant",
    "Setting",
    "cache_features",
    "cache_for",
    "collect_features",
    "find_cut",
]
