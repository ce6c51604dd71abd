"""Transfer learning: parts of a model are frozen, so that they stay as they are, and others are trained."""

from relume.transfer.freezing import freeze, frozen, held_modules, hold_modules, set_trainable, settle, unfreeze
from relume.transfer.report import Block, FreezeReport
from relume.transfer.selection import Anatomy, Part, Selection

__all__ = [
    "Anatomy",
    "Block",
    "FreezeReport",
    "Part",
    "Selection",
    "freeze",
    "frozen",
    "held_modules",
    "hold_modules",
    "set_trainable",
    "settle",
    "unfreeze",
]
