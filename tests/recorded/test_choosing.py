"""Runs are chosen and ordered by what is known of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from recorded_runs import make_run

from relume.errors import ConfigurationError, UnknownNameError
from relume.recorded import choose, facts_below, value_of

RUNS = [
    {"name": "a", "status": "finished", "created": 1e9, "config": {"optimizer": {"lr": 0.1}, "depth": 3}, "metrics": {"val/loss": {"best": 0.5, "last": 0.9}}},
    {"name": "b", "status": "killed", "created": 2e9, "config": {"optimizer": {"lr": 0.01}}, "metrics": {"val/loss": {"best": 0.2, "last": 0.3}}},
    {"name": "c", "status": "failed", "created": 3e9, "config": {"lr": 1.0, "epochs": 2}, "metrics": {"val/loss": {"best": math.nan, "last": math.nan}, "depth": {"best": 7}}},
]  # fmt: skip


def names(*arguments: object, **more: object) -> str:
    return "".join(run["name"] for run in choose(RUNS, *arguments, **more))


def test_conditions_look_at_facts_settings_and_metrics() -> None:
    assert (
        names("lr < 1") == "ab" and names("optimizer/lr == 0.1") == "a" and names("config:optimizer.lr == 0.01") == "b"
    )
    assert names("val/loss < 0.4") == "b" and names("last:val/loss < 1") == "ab" and names("val/loss == nan") == "c"
    assert names("status == 'killed' or created > '2060-01-01'") == "bc"
    assert names("depth == 3") == "a" and names("best:depth == 7") == "c"


def test_orders_put_what_is_missing_or_nan_last_both_ways() -> None:
    assert names(None, "val/loss") == "bac" and names(None, "val/loss", descending=True) == "abc"
    assert names(None, "depth") == "acb" and names(None, "created", descending=True) == "cba"
    assert names(None, "name", descending=True) == "cba"


def test_a_name_that_no_run_has_is_an_error_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="no run has 'val/los': did you mean 'val/loss'"):
        choose(RUNS, "val/los < 1")
    with pytest.raises(UnknownNameError, match="no run has 'epoch s'"):
        choose(RUNS, None, "epoch s")
    with pytest.raises(ConfigurationError, match="the prefix 'lowest' is unknown"):
        choose(RUNS, "lowest:val/loss < 1")
    assert choose([], "anything < 1") == []


def test_real_runs_are_chosen_and_a_damaged_one_hides_no_other(tmp_path: Path) -> None:
    for number, lr in enumerate((0.1, 0.01, 0.05)):
        make_run(tmp_path, f"r{number}", lr)
    (tmp_path / "r1" / "run.json").write_text("{}")
    runs = facts_below(tmp_path)
    assert [run["name"] for run in choose(runs, "lr > 0", "val/accuracy", descending=True)] == ["r0", "r2"]
    assert [run["name"] for run in choose(runs, "status == 'damaged'")] == ["r1"]
    accuracy = value_of(runs[0], "val/accuracy")
    assert accuracy == value_of(runs[0], "max:val/accuracy") == 1 - math.exp(-59 * 0.1) / 2
