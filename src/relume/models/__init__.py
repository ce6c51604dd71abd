"""Models and their files: making them, saving and loading weights and whole models, looking into files.

Names are imported when they are first used: training needs none of the readers of files.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relume.models.contents import ModelFile
    from relume.models.files import open_model_file, read_state, save_weights
    from relume.models.load import load_weights
    from relume.models.look.convert import convert
    from relume.models.look.diff import diff
    from relume.models.look.entries import state_table
    from relume.models.look.inspect import inspect_file
    from relume.models.look.summary import summary
    from relume.models.make import make_model
    from relume.models.recipe import build, builder
    from relume.models.report import LoadReport
    from relume.models.small import CNN, MLP
    from relume.models.whole import load_model, save_model

_WHERE = {
    "CNN": "small",
    "LoadReport": "report",
    "MLP": "small",
    "ModelFile": "contents",
    "build": "recipe",
    "builder": "recipe",
    "convert": "look.convert",
    "diff": "look.diff",
    "inspect_file": "look.inspect",
    "load_model": "whole",
    "load_weights": "load",
    "make_model": "make",
    "open_model_file": "files",
    "read_state": "files",
    "save_model": "whole",
    "save_weights": "files",
    "state_table": "look.entries",
    "summary": "look.summary",
}

__all__ = [
    "CNN",
    "MLP",
    "LoadReport",
    "ModelFile",
    "build",
    "builder",
    "convert",
    "diff",
    "inspect_file",
    "load_model",
    "load_weights",
    "make_model",
    "open_model_file",
    "read_state",
    "save_model",
    "save_weights",
    "state_table",
    "summary",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'relume.models' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"relume.models.{_WHERE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
