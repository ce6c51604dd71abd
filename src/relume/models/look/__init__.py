"""Looking at models and at their files: what is in them, how two differ, what a model is made of."""

from relume.models.look.convert import Conversion, convert
from relume.models.look.diff import Change, Diff, TensorDiff, diff
from relume.models.look.entries import Entry, StateTable, state_table
from relume.models.look.inspect import Inspection, inspect_file
from relume.models.look.numbers import Stats
from relume.models.look.summary import Layer, Memory, ModelSummary, summary

__all__ = [
    "Change",
    "Conversion",
    "Diff",
    "Entry",
    "Inspection",
    "Layer",
    "Memory",
    "ModelSummary",
    "StateTable",
    "Stats",
    "TensorDiff",
    "convert",
    "diff",
    "inspect_file",
    "state_table",
    "summary",
]
