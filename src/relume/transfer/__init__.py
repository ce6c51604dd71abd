"""Transfer learning: backbones and heads; parts of a model are frozen, so that they stay as they are, and others are trained.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relume.transfer.backbones import backbone, loaded
    from relume.transfer.classifiers import head_of, heads_of
    from relume.transfer.features import CachedFeatures, cache_features
    from relume.transfer.findings import PreflightReport
    from relume.transfer.freezing import freeze, frozen, held_modules, hold_modules, set_trainable, settle, unfreeze
    from relume.transfer.groups import parameter_groups
    from relume.transfer.heads import HeadReport, replace_head
    from relume.transfer.inputs import InputSpec, expect_input, input_of, known_input
    from relume.transfer.ledger import Ledger
    from relume.transfer.phases import Phase, Stall
    from relume.transfer.report import Block, FreezeReport
    from relume.transfer.schedule import FreezeSchedule
    from relume.transfer.selection import Anatomy, Part, Selection

_WHERE = {
    "Anatomy": "selection",
    "Block": "report",
    "CachedFeatures": "features",
    "FreezeReport": "report",
    "FreezeSchedule": "schedule",
    "HeadReport": "heads",
    "InputSpec": "inputs",
    "Ledger": "ledger",
    "Part": "selection",
    "Phase": "phases",
    "PreflightReport": "findings",
    "Selection": "selection",
    "Stall": "phases",
    "backbone": "backbones",
    "cache_features": "features",
    "expect_input": "inputs",
    "freeze": "freezing",
    "frozen": "freezing",
    "head_of": "classifiers",
    "heads_of": "classifiers",
    "held_modules": "freezing",
    "hold_modules": "freezing",
    "input_of": "inputs",
    "known_input": "inputs",
    "loaded": "backbones",
    "parameter_groups": "groups",
    "replace_head": "heads",
    "set_trainable": "freezing",
    "settle": "freezing",
    "unfreeze": "freezing",
}

__all__ = [
    "Anatomy",
    "Block",
    "CachedFeatures",
    "FreezeReport",
    "FreezeSchedule",
    "HeadReport",
    "InputSpec",
    "Ledger",
    "Part",
    "Phase",
    "PreflightReport",
    "Selection",
    "Stall",
    "backbone",
    "cache_features",
    "expect_input",
    "freeze",
    "frozen",
    "head_of",
    "heads_of",
    "held_modules",
    "hold_modules",
    "input_of",
    "known_input",
    "loaded",
    "parameter_groups",
    "replace_head",
    "set_trainable",
    "settle",
    "unfreeze",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'relume.transfer' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"relume.transfer.{_WHERE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
