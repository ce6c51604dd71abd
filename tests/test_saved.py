"""Which checkpoints a run has, which is the best, and which one a user means."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from relume.checkpoint import Store
from relume.errors import ConfigurationError, RelumeWarning, UnknownCheckpointError, UnknownNameError
from relume.saved import find_checkpoint, saves_of
from saved_runs import describe, flip, make_run, packs, save_run


def test_a_runs_checkpoints_are_described(tmp_path: Path) -> None:
    save_run(tmp_path, "fashion")
    saves = saves_of(Store(tmp_path), "fashion/checkpoints")
    assert [(saved.epoch, saved.batch, saved.step, saved.reason) for saved in saves.saved] == [
        (1, 0, 10, "1 epoch"),
        (2, 0, 20, "1 epoch"),
        (3, 0, 30, "1 epoch"),
    ]
    assert saves.metrics == ["val/loss", "val/accuracy", "train/loss", "lr"]
    first, second, _ = saves.saved
    assert first.stored_bytes > 4 * 20 * 30 > second.stored_bytes > 0  # the frozen layer is there once
    assert first.total_bytes == second.total_bytes
    manifests = sum(saved.checkpoint.path.stat().st_size for saved in saves.saved)
    assert saves.apart_bytes == manifests + 3 * first.total_bytes
    held = sum(path.stat().st_size for path in packs(tmp_path))
    assert manifests < saves.disk_bytes < manifests + held


def test_the_best_is_told_by_each_metrics_direction(tmp_path: Path) -> None:
    save_run(tmp_path, "fashion", [math.nan, 0.3, 0.2, 0.2])
    saves = saves_of(Store(tmp_path), "fashion/checkpoints")
    for metric in ("val/loss", "val/accuracy"):
        best = saves.best(metric)
        assert best is not None and best.epoch == 3
    assert saves.best("lr") is None and saves.best("no/loss") is None


def test_what_says_little_of_itself_is_listed_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for meta in (None, [1], {"cursor": 3, "metrics": {"x": "high"}}):
        store.save({"w": torch.ones(2)}, meta)
    assert [(saved.epoch, saved.metrics) for saved in saves_of(store, "checkpoints").saved] == [(None, {})] * 3


def test_a_damaged_manifest_hides_no_other(tmp_path: Path) -> None:
    flip(save_run(tmp_path, "fashion")[1].path)
    saves = saves_of(Store(tmp_path), "fashion/checkpoints")
    assert [saved.epoch for saved in saves.saved] == [1, None, 3]
    assert "does not match its own digest" in str(saves.saved[1].problem)


def test_a_checkpoint_is_found_by_all_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = save_run(tmp_path / "runs", "fashion")
    (other,) = save_run(tmp_path / "runs", "other", [0.1], seed=1)
    monkeypatch.chdir(tmp_path)
    for name, expected in {
        "fashion": third,
        "runs/fashion": third,
        "fashion@1": first,
        "fashion:000002": second,
        f"fashion@{first}": first,
        "fashion@best": second,
        f"runs/fashion/checkpoints/{second}.json": second,
        str(first.path): first,
        f"{third}": third,
        "runs/other@best": other,
    }.items():
        store, found = find_checkpoint(name)
        assert (store.root, found) == (tmp_path / "runs", expected), name
    assert find_checkpoint("fashion@best", monitor="train/loss")[1] == second


def test_a_run_may_have_an_at_in_its_name(tmp_path: Path) -> None:
    _, best, newest = save_run(tmp_path, "me@home")
    assert find_checkpoint("me@home", tmp_path)[1] == newest
    assert find_checkpoint("me@home@best", tmp_path)[1] == best


def test_a_checkpoint_that_is_not_there_is_said(tmp_path: Path) -> None:
    save_run(tmp_path, "fashion")
    save_run(tmp_path, "again")
    make_run(tmp_path, "empty")
    with pytest.raises(UnknownNameError, match="there is no run 'fashon' in .*: did you mean 'fashion'"):
        find_checkpoint("fashon@best", tmp_path)
    with pytest.raises(UnknownCheckpointError, match="there is no checkpoint '9' in .*There are: 000001-epoch=1"):
        find_checkpoint("fashion@9", tmp_path)
    with pytest.raises(UnknownNameError, match="has the metric 'val/los': did you mean 'val/loss'"):
        find_checkpoint("fashion@best", tmp_path, monitor="val/los")
    with pytest.raises(ConfigurationError, match="is the best cannot be told: no name among lr says.*1, 2, 3"):
        find_checkpoint("fashion@best", tmp_path, monitor="lr")
    with pytest.raises(
        ConfigurationError, match=r"several checkpoints are called '000001-epoch=1-step=10'. Give the path"
    ):
        find_checkpoint("000001-epoch=1-step=10", tmp_path)
    for name in ("empty", "empty@best"):
        with pytest.raises(UnknownCheckpointError, match="there is no checkpoint in"):
            find_checkpoint(name, tmp_path)
    stray = tmp_path / "stray.json"
    stray.write_text("{}")
    with pytest.raises(UnknownCheckpointError, match=r"stray.json is no checkpoint of a store"):
        find_checkpoint(str(stray), tmp_path)


def test_damaged_checkpoints_are_passed_over_loudly(tmp_path: Path) -> None:
    _, second, third = save_run(tmp_path, "fashion")
    flip(packs(tmp_path)[-1])
    with pytest.warns(RelumeWarning, match="000003.* is newer than 000002.*, and is left out because it is damaged"):
        assert find_checkpoint("fashion", tmp_path)[1] == second
    flip(second.path)
    with pytest.warns(RelumeWarning, match="000002.* is not compared: .*own digest"):
        assert find_checkpoint("fashion@best", tmp_path)[1] == third


def test_a_metric_of_an_unknown_direction_is_no_measure(tmp_path: Path) -> None:
    make_run(tmp_path, "odd")
    Store(tmp_path).save({}, describe(1, 1, {"lr": 0.1}), folder="odd/checkpoints")
    Store(tmp_path).save({}, describe(1, 1, {}), folder="bare/checkpoints")
    with pytest.raises(
        ConfigurationError, match="no name among lr says whether small is good. Give one of the numbers 1"
    ):
        find_checkpoint("odd@best", tmp_path)
