"""relume: train, monitor, checkpoint, resume, fine-tune and share PyTorch models.

The two ways in are :class:`relume.Trainer` and :class:`relume.Run`. Names are imported when they are first used, so that
``relume --help`` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from relume.errors import RelumeError, RelumeWarning

if TYPE_CHECKING:
    import relume.datasets as datasets
    import relume.errors as errors
    import relume.models as models
    from relume.checkpoint import Keep, Store
    from relume.data import Stream
    from relume.models import (
        LoadReport,
        build,
        builder,
        convert,
        diff,
        inspect_file,
        load_model,
        load_weights,
        read_state,
        save_model,
        save_weights,
        state_table,
        summary,
    )
    from relume.monitor.classes import ClassReport
    from relume.run import EarlyStopping, Run
    from relume.seeds import seed_everything
    from relume.train import Callback, Result, Trainer, accuracy, evaluate, history, predict
    from relume.train.classes import ClassCounts, class_report
    from relume.train.heads import fit_heads
    from relume.train.images import ImageClassifier, Prediction, predict_images
    from relume.transfer import (
        CachedFeatures,
        FreezeReport,
        FreezeSchedule,
        HeadReport,
        InputSpec,
        Phase,
        Stall,
        backbone,
        cache_features,
        freeze,
        frozen,
        head_of,
        input_of,
        parameter_groups,
        replace_head,
        unfreeze,
    )
    from relume.transfer.findings import PreflightReport
    from relume.transfer.preflight import preflight

__version__ = "0.1.0"

_WHERE = {
    "CachedFeatures": "relume.transfer",
    "Callback": "relume.train",
    "ClassCounts": "relume.train.classes",
    "ClassReport": "relume.monitor.classes",
    "EarlyStopping": "relume.run",
    "FreezeReport": "relume.transfer",
    "FreezeSchedule": "relume.transfer",
    "HeadReport": "relume.transfer",
    "ImageClassifier": "relume.train.images",
    "InputSpec": "relume.transfer",
    "Keep": "relume.checkpoint",
    "LoadReport": "relume.models",
    "Phase": "relume.transfer",
    "Prediction": "relume.train.images",
    "PreflightReport": "relume.transfer.findings",
    "Result": "relume.train",
    "Run": "relume.run",
    "Stall": "relume.transfer",
    "Store": "relume.checkpoint",
    "Stream": "relume.data",
    "Trainer": "relume.train",
    "accuracy": "relume.train",
    "backbone": "relume.transfer",
    "build": "relume.models",
    "builder": "relume.models",
    "cache_features": "relume.transfer",
    "class_report": "relume.train.classes",
    "convert": "relume.models",
    "diff": "relume.models",
    "evaluate": "relume.train",
    "fit_heads": "relume.train.heads",
    "freeze": "relume.transfer",
    "frozen": "relume.transfer",
    "head_of": "relume.transfer",
    "history": "relume.train",
    "input_of": "relume.transfer",
    "inspect_file": "relume.models",
    "load_model": "relume.models",
    "load_weights": "relume.models",
    "parameter_groups": "relume.transfer",
    "predict": "relume.train",
    "predict_images": "relume.train.images",
    "preflight": "relume.transfer.preflight",
    "read_state": "relume.models",
    "replace_head": "relume.transfer",
    "save_model": "relume.models",
    "save_weights": "relume.models",
    "seed_everything": "relume.seeds",
    "state_table": "relume.models",
    "summary": "relume.models",
    "unfreeze": "relume.transfer",
}
_MODULES = ("datasets", "errors", "models")

__all__ = [
    "CachedFeatures",
    "Callback",
    "ClassCounts",
    "ClassReport",
    "EarlyStopping",
    "FreezeReport",
    "FreezeSchedule",
    "HeadReport",
    "ImageClassifier",
    "InputSpec",
    "Keep",
    "LoadReport",
    "Phase",
    "Prediction",
    "PreflightReport",
    "RelumeError",
    "RelumeWarning",
    "Result",
    "Run",
    "Stall",
    "Store",
    "Stream",
    "Trainer",
    "__version__",
    "accuracy",
    "backbone",
    "build",
    "builder",
    "cache_features",
    "class_report",
    "convert",
    "datasets",
    "diff",
    "errors",
    "evaluate",
    "fit_heads",
    "freeze",
    "frozen",
    "head_of",
    "history",
    "input_of",
    "inspect_file",
    "load_model",
    "load_weights",
    "models",
    "parameter_groups",
    "predict",
    "predict_images",
    "preflight",
    "read_state",
    "replace_head",
    "save_model",
    "save_weights",
    "seed_everything",
    "state_table",
    "summary",
    "unfreeze",
]


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext relume``: adds the magic ``%relume`` to a notebook."""
    importlib.import_module("relume.notebook").load_ipython_extension(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext relume``."""
    importlib.import_module("relume.notebook").unload_ipython_extension(shell)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"relume.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'relume' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_WHERE[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
