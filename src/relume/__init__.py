"""relume: train, monitor, checkpoint, resume, fine-tune and share PyTorch models.

The two ways in are :class:`relume.Trainer` and :class:`relume.Run`. Names are imported when they are first used, so that
``relume --help`` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from relume.errors import RelumeError, RelumeWarning
from relume.version import __version__

if TYPE_CHECKING:
    import relume.datasets as datasets
    import relume.errors as errors
    import relume.models as models
    from relume.checkpoint import Keep, Store
    from relume.checkup import doctor
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
    from relume.monitor.kept import media
    from relume.monitor.kinds import (
        ConfusionMatrix,
        Figure,
        Graph,
        Histogram,
        HParams,
        Image,
        Media,
        Mesh,
        PRCurve,
        Table,
        Text,
    )
    from relume.monitor.stored import StoredRun, runs
    from relume.provenance import Provenance, restore_code
    from relume.recorded import Comparison, choose, compare, history, plot
    from relume.recorded.imports import import_tensorboard, import_wandb
    from relume.run import EarlyStopping, Run
    from relume.seeds import seed_everything
    from relume.share.bundle import Bundle
    from relume.share.exchange import Pulled, Pushed, pull, push
    from relume.share.export import Exported, export
    from relume.share.pack import Packed, pack
    from relume.share.reproduce import Reproduction, reproduce
    from relume.share.unpacking import unpack
    from relume.trackers import Tracker
    from relume.trackers.mlflow import MLflow
    from relume.trackers.tensorboard import TensorBoard
    from relume.trackers.wandb import WandB
    from relume.train import Callback, Result, Trainer, accuracy, evaluate, predict
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
    from relume.watch import DeadUnits, GradientHealth, LearningRates, NonFinite, Speed, System, Watch

_WHERE = {
    "Bundle": "relume.share.bundle",
    "CachedFeatures": "relume.transfer",
    "Callback": "relume.train",
    "ClassCounts": "relume.train.classes",
    "ClassReport": "relume.monitor.classes",
    "Comparison": "relume.recorded",
    "ConfusionMatrix": "relume.monitor.kinds",
    "DeadUnits": "relume.watch",
    "EarlyStopping": "relume.run",
    "Exported": "relume.share.export",
    "Figure": "relume.monitor.kinds",
    "FreezeReport": "relume.transfer",
    "FreezeSchedule": "relume.transfer",
    "GradientHealth": "relume.watch",
    "Graph": "relume.monitor.kinds",
    "HParams": "relume.monitor.kinds",
    "HeadReport": "relume.transfer",
    "Histogram": "relume.monitor.kinds",
    "Image": "relume.monitor.kinds",
    "ImageClassifier": "relume.train.images",
    "InputSpec": "relume.transfer",
    "Keep": "relume.checkpoint",
    "LearningRates": "relume.watch",
    "LoadReport": "relume.models",
    "MLflow": "relume.trackers.mlflow",
    "Media": "relume.monitor.kinds",
    "Mesh": "relume.monitor.kinds",
    "NonFinite": "relume.watch",
    "PRCurve": "relume.monitor.kinds",
    "Packed": "relume.share.pack",
    "Phase": "relume.transfer",
    "Prediction": "relume.train.images",
    "PreflightReport": "relume.transfer.findings",
    "Provenance": "relume.provenance",
    "Pulled": "relume.share.exchange",
    "Pushed": "relume.share.exchange",
    "Reproduction": "relume.share.reproduce",
    "Result": "relume.train",
    "Run": "relume.run",
    "Speed": "relume.watch",
    "Stall": "relume.transfer",
    "Store": "relume.checkpoint",
    "StoredRun": "relume.monitor.stored",
    "Stream": "relume.data",
    "System": "relume.watch",
    "Table": "relume.monitor.kinds",
    "TensorBoard": "relume.trackers.tensorboard",
    "Text": "relume.monitor.kinds",
    "Tracker": "relume.trackers",
    "Trainer": "relume.train",
    "WandB": "relume.trackers.wandb",
    "Watch": "relume.watch",
    "accuracy": "relume.train",
    "backbone": "relume.transfer",
    "build": "relume.models",
    "builder": "relume.models",
    "cache_features": "relume.transfer",
    "choose": "relume.recorded",
    "class_report": "relume.train.classes",
    "compare": "relume.recorded",
    "convert": "relume.models",
    "diff": "relume.models",
    "doctor": "relume.checkup",
    "evaluate": "relume.train",
    "export": "relume.share.export",
    "fit_heads": "relume.train.heads",
    "freeze": "relume.transfer",
    "frozen": "relume.transfer",
    "head_of": "relume.transfer",
    "history": "relume.recorded",
    "import_tensorboard": "relume.recorded.imports",
    "import_wandb": "relume.recorded.imports",
    "input_of": "relume.transfer",
    "inspect_file": "relume.models",
    "load_model": "relume.models",
    "load_weights": "relume.models",
    "media": "relume.monitor.kept",
    "pack": "relume.share.pack",
    "parameter_groups": "relume.transfer",
    "plot": "relume.recorded",
    "predict": "relume.train",
    "predict_images": "relume.train.images",
    "preflight": "relume.transfer.preflight",
    "pull": "relume.share.exchange",
    "push": "relume.share.exchange",
    "read_state": "relume.models",
    "replace_head": "relume.transfer",
    "reproduce": "relume.share.reproduce",
    "restore_code": "relume.provenance",
    "runs": "relume.monitor.stored",
    "save_model": "relume.models",
    "save_weights": "relume.models",
    "seed_everything": "relume.seeds",
    "state_table": "relume.models",
    "summary": "relume.models",
    "unfreeze": "relume.transfer",
    "unpack": "relume.share.unpacking",
}
_MODULES = ("datasets", "errors", "models")

__all__ = [
    "Bundle",
    "CachedFeatures",
    "Callback",
    "ClassCounts",
    "ClassReport",
    "Comparison",
    "ConfusionMatrix",
    "DeadUnits",
    "EarlyStopping",
    "Exported",
    "Figure",
    "FreezeReport",
    "FreezeSchedule",
    "GradientHealth",
    "Graph",
    "HParams",
    "HeadReport",
    "Histogram",
    "Image",
    "ImageClassifier",
    "InputSpec",
    "Keep",
    "LearningRates",
    "LoadReport",
    "MLflow",
    "Media",
    "Mesh",
    "NonFinite",
    "PRCurve",
    "Packed",
    "Phase",
    "Prediction",
    "PreflightReport",
    "Provenance",
    "Pulled",
    "Pushed",
    "RelumeError",
    "RelumeWarning",
    "Reproduction",
    "Result",
    "Run",
    "Speed",
    "Stall",
    "Store",
    "StoredRun",
    "Stream",
    "System",
    "Table",
    "TensorBoard",
    "Text",
    "Tracker",
    "Trainer",
    "WandB",
    "Watch",
    "__version__",
    "accuracy",
    "backbone",
    "build",
    "builder",
    "cache_features",
    "choose",
    "class_report",
    "compare",
    "convert",
    "datasets",
    "diff",
    "doctor",
    "errors",
    "evaluate",
    "export",
    "fit_heads",
    "freeze",
    "frozen",
    "head_of",
    "history",
    "import_tensorboard",
    "import_wandb",
    "input_of",
    "inspect_file",
    "load_model",
    "load_weights",
    "media",
    "models",
    "pack",
    "parameter_groups",
    "plot",
    "predict",
    "predict_images",
    "preflight",
    "pull",
    "push",
    "read_state",
    "replace_head",
    "reproduce",
    "restore_code",
    "runs",
    "save_model",
    "save_weights",
    "seed_everything",
    "state_table",
    "summary",
    "unfreeze",
    "unpack",
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
