"""The package from outside: its names, what importing it loads, its measurements."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import relume

PROJECT = Path(__file__).parent.parent


def test_the_public_names_are_these() -> None:
    assert sorted(relume.__all__) == [
        "Bundle", "CachedFeatures", "Callback", "ClassCounts", "ClassReport", "Comparison", "ConfusionMatrix",
        "DeadUnits", "EarlyStopping", "Exported", "Figure", "FreezeReport", "FreezeSchedule",
        "GradientHealth", "Graph", "HParams", "HeadReport", "Histogram", "Image", "ImageClassifier",
        "InputSpec", "Keep", "LearningRates", "LoadReport", "MLflow", "Media", "Mesh", "NonFinite", "PRCurve",
        "Packed", "Phase", "Prediction", "PreflightReport", "Provenance", "Pulled", "Pushed", "RelumeError",
        "RelumeWarning", "Reproduction", "Result", "Run", "Speed", "Stall", "Store", "StoredRun", "Stream",
        "System", "Table", "TensorBoard", "Text", "Tracker", "Trainer", "WandB", "Watch", "__version__",
        "accuracy", "backbone", "build", "builder", "cache_features", "choose", "class_report", "compare",
        "convert", "datasets", "diff", "doctor", "errors", "evaluate", "export", "fit_heads", "freeze",
        "frozen", "head_of", "history", "import_tensorboard", "import_wandb", "input_of", "inspect_file",
        "load_model", "load_weights", "media", "models", "pack", "parameter_groups", "plot", "predict",
        "predict_images", "preflight", "pull", "push", "read_state", "replace_head", "reproduce",
        "restore_code", "runs", "save_model", "save_weights", "seed_everything", "state_table", "summary",
        "unfreeze", "unpack",
    ]  # fmt: skip
    for name in relume.__all__:
        assert getattr(relume, name) is not None
    assert set(relume.__all__) == set(dir(relume))
    with pytest.raises(AttributeError, match="module 'relume' has no attribute 'trainer'"):
        _ = relume.trainer


def test_importing_relume_loads_nothing_heavy() -> None:
    heavy = ["torchvision", "timm", "torchmetrics", "torch._dynamo", "pandas", "matplotlib", "IPython", "PIL"]
    names = "relume.Trainer, relume.Run, relume.evaluate, relume.datasets, relume.models"
    code = f"import sys, relume; {names}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_error_is_in_the_drawn_tree() -> None:
    drawn = relume.errors.__doc__ or ""
    for name, kind in vars(relume.errors).items():
        if isinstance(kind, type) and issubclass(kind, relume.RelumeError):
            assert name in drawn


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "command",
    [
        ["loop.py", "--quick", "--threads", "1", "--only", "tensors/trainer*", "--only", "loader/run*"],
        ["end_to_end.py", "--quick"],
        ["stream.py", "--quick"],
        ["imports.py", "--quick"],
        ["monitor.py", "--quick", "--repeats", "1", "--only", "relume", "aim", "--cases", "10 values", "million"],
    ],
    ids=lambda command: command[0],
)
def test_the_benchmarks_run(command: list[str], tmp_path: Path) -> None:
    script, *options = command
    ended = subprocess.run(
        [sys.executable, str(PROJECT / "bench" / script), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
