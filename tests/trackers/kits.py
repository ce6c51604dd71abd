"""All trackers, each with how it is made and what it shows afterwards: what the conformance suite runs over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.trackers.recording import Mine, ToFile, seen
from tests.trackers.services import mlflow_end, mlflow_numbers, mlflow_server, wandb_end, wandb_numbers

from relume.trackers.mlflow import MLflow
from relume.trackers.tensorboard import TensorBoard
from relume.trackers.tracker import Tracker
from relume.trackers.wandb import WandB

Numbers = dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Kit:
    """One kind of tracker.

    Attributes:
        make: a new tracker object; called again for a new process.
        numbers: what the tracker's own reader shows of a run: for each metric its (step, value), in its order.
        ended: the status it shows, as a word of its own; empty where it shows none.
        endings: relume's status and the tracker's word for it.
        is_exact: whether its numbers are 64-bit.
        forgets_kills: whether nothing is there twice when the worker itself was killed with SIGKILL.
    """

    name: str
    make: Callable[[], Tracker]
    numbers: Callable[[Path], Numbers]
    ended: Callable[[Path], str] = lambda folder: ""
    endings: dict[str, str] = field(default_factory=dict)
    is_exact: bool = True
    forgets_kills: bool = True


def _file_numbers(folder: Path) -> Numbers:
    found: Numbers = {}
    for line in seen(folder / "seen.jsonl"):
        if line["call"] == "values":
            for name, value in line["values"].items():
                found.setdefault(name, []).append((line["step"], float(value)))
    return found


def _file_end(folder: Path) -> str:
    return next((line["status"] for line in reversed(seen(folder / "seen.jsonl")) if line["call"] == "close"), "")


def board_numbers(folder: Path) -> Numbers:
    """What a cold start of TensorBoard's own reader finds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"] if tag != "epoch"}


def _board_end(folder: Path) -> str:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import api_pb2, metadata

    held = EventAccumulator(str(folder / "tensorboard")).Reload()
    content = held.PluginTagToContent("hparams").get(metadata.SESSION_END_INFO_TAG)
    if content is None:
        return ""
    return api_pb2.Status.Name(metadata.parse_session_end_info_plugin_data(content).status)


def _mine() -> Mine:
    return _MINE


def _mine_numbers(folder: Path) -> Numbers:
    found: Numbers = {}
    for _, (name, step, value) in _MINE.values_given():
        found.setdefault(name, []).append((step, value))
    return found


def _mine_end(folder: Path) -> str:
    return next((str(what) for call, what in reversed(_MINE.calls) if call == "close" and what), "")


_MINE = Mine()
_TESTS = 0
_SAME = {status: status for status in ("finished", "interrupted", "failed", "killed")}

TENSORBOARD = Kit(
    "tensorboard",
    TensorBoard,
    board_numbers,
    _board_end,
    {"finished": "STATUS_SUCCESS", "failed": "STATUS_FAILURE", "killed": "STATUS_FAILURE"},
    is_exact=False,
)
KITS = [
    TENSORBOARD,
    Kit("tofile", ToFile, _file_numbers, _file_end, _SAME),
    Kit("mine", _mine, _mine_numbers, _mine_end, _SAME, forgets_kills=False),
    Kit(
        "wandb",
        lambda: WandB(mode="offline", artifacts=False),
        wandb_numbers,
        wandb_end,
        {"finished": "0", "failed": "1", "killed": "1"},
    ),
    Kit(
        "mlflow",
        lambda: MLflow(mlflow_server(), experiment=f"conformance {_TESTS}"),
        mlflow_numbers,
        mlflow_end,
        {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"},
    ),
]


def fresh() -> None:
    """Before each test."""
    global _TESTS
    _TESTS += 1  # all their runs have one id
    _MINE.calls.clear()
