"""The index of numbers: fast, bounded, the same from many processes and whenever it is made again."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.errors import ConfigurationError, UnknownNameError
from relume.monitor import index as index_module
from relume.monitor.buckets import buckets
from relume.monitor.index import columns, fold, index, metric_summary
from relume.monitor.journal import encode, read_lines, values_line


def write(
    folder: Path, lines: list[tuple[int, dict[str, float]]], segment: int = 1, resumed: dict | None = None
) -> Path:
    (folder / "journal").mkdir(exist_ok=True)
    path = folder / "journal" / f"{segment:04d}.jsonl"
    header = encode({"journal": 1, "run": "x", "segment": segment, "resumed": resumed})
    data = [values_line(step, step // 10, 1000.0 + step, values) for step, values in lines]
    path.write_bytes(header + b"".join(data))
    return path


def test_a_long_series_comes_back_whole_and_in_order_over_many_pieces_and_folds(tmp_path: Path) -> None:
    path = write(tmp_path, [(step, {"loss": step / 7, "b": -step}) for step in range(2500)])
    fold(tmp_path)
    with path.open("ab") as file:
        for step in range(2500, 6000):
            file.write(values_line(step, 1, 1000.0 + step, {"loss": step / 7}))
    table = columns(tmp_path)
    assert table["step"].tolist() == list(range(6000))
    assert table["loss"].tolist() == [step / 7 for step in range(6000)]
    assert np.isnan(table["b"][2500:]).all() and table["b"][2499] == -2499
    with index(tmp_path) as connection:
        assert connection.execute("SELECT count(*) FROM piece").fetchone()[0] == 6 + 3


def test_steps_in_any_order_are_sorted_and_the_newest_of_a_step_counts(tmp_path: Path) -> None:
    steps = list(range(3000))
    random.Random(0).shuffle(steps)
    write(tmp_path, [(step, {"a": float(step)}) for step in steps] + [(5, {"a": -1.0})])
    table = columns(tmp_path)
    assert table["step"].tolist() == list(range(3000)) and table["a"][5] == -1.0 and table["a"][6] == 6.0
    assert metric_summary(tmp_path)["a"]["step"] == 2999


def test_the_index_made_again_gives_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_PART", 700)
    numbers = random.Random(1)
    path = write(tmp_path, [(s, {f"m{s % 3}": numbers.random()}) for s in range(500)])
    fold(tmp_path)
    position = path.stat().st_size
    with path.open("ab") as file:
        for step in range(500, 900):
            file.write(values_line(step, 1, 0.0, {"dead": 1.0, "m0": 2.0}))
    fold(tmp_path)
    write(tmp_path, [(s, {"m1": numbers.random(), "new": math.nan}) for s in range(500, 2500)], 2, {"segment": 1, "position_bytes": position})  # fmt: skip
    first = (columns(tmp_path), metric_summary(tmp_path), buckets(tmp_path, "m1", 50))
    (tmp_path / "metrics.db").unlink()
    second = (columns(tmp_path), metric_summary(tmp_path), buckets(tmp_path, "m1", 50))
    assert list(first[0]) == list(second[0]) == ["step", "epoch", "time", "m0", "m1", "m2", "new"]
    for name, column in first[0].items():
        np.testing.assert_array_equal(column, second[0][name])
    assert json.dumps(first[1]) == json.dumps(second[1]) and "dead" not in first[1]
    for name in vars(first[2]):
        np.testing.assert_array_equal(getattr(first[2], name), getattr(second[2], name))


def test_a_journal_that_was_cut_and_has_grown_again_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path, [(step, {"a": 1.0}) for step in range(5)])
    fold(tmp_path)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:2]) + values_line(9, 0, 0.0, {"another": 123.456}) * 40)
    assert columns(tmp_path)["step"].tolist() == [0, 9]


def test_many_processes_fold_one_journal_while_it_grows(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    code = """
import sys
from pathlib import Path
from relume.monitor import index
index._PART = 500
for _ in range(6):
    steps = index.columns(Path(sys.argv[1]))["step"].tolist()
    assert steps == list(range(len(steps))), steps[:20]
print(len(index.columns(Path(sys.argv[1]))["step"]))
"""
    readers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(3)]
    with path.open("ab", buffering=100) as file:
        for step in range(20_000):
            file.write(values_line(step, 0, 0.0, {"a": 1.0, "b": 2.0}))
    assert all(reader.communicate()[0] and reader.returncode == 0 for reader in readers)
    assert columns(tmp_path)["step"].tolist() == list(range(20_000))
    assert metric_summary(tmp_path)["b"]["count"] == 20_000


def test_an_index_that_others_hold_for_long_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    path = write(tmp_path, [(1, {"a": 1.0})])
    fold(tmp_path)
    with path.open("ab") as file:
        file.write(values_line(2, 0, 0.0, {"a": 2.0}))
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **(k | {"timeout": 0.05})))
    holder = connect(tmp_path / "metrics.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    before = (tmp_path / "metrics.db").stat().st_ino
    assert columns(tmp_path)["a"].tolist() == [1.0, 2.0]
    assert (tmp_path / "metrics.db").stat().st_ino == before
    holder.close()


def test_ten_thousand_names_are_folded_and_found(tmp_path: Path) -> None:
    write(tmp_path, [(step, {f"weird {step}/\x1b[31m é\U0001f600": float(step)}) for step in range(10_000)])
    summary = metric_summary(tmp_path)
    assert len(summary) == 10_000 and summary["weird 77/\x1b[31m é\U0001f600"]["last"] == 77.0
    assert columns(tmp_path, ["weird 77/\x1b[31m é\U0001f600"])["step"].tolist() == [77]


@given(st.lists(st.tuples(st.integers(-50, 50), st.floats()), min_size=1, max_size=60), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_no_spike_hides_in_a_bucket(tmp_path_factory: pytest.TempPathFactory, series: list, count: int) -> None:
    folder = tmp_path_factory.mktemp("run")
    write(folder, [(step, {"a": value}) for step, value in series])
    found = buckets(folder, "a", count)
    values = np.array([value for _, value in series])
    assert len(found) <= count and found.count.sum() == len(series)
    assert found.nan.sum() == np.isnan(values).sum()
    if not np.isnan(values).all():
        assert np.nanmin(found.min) == np.nanmin(values) and np.nanmax(found.max) == np.nanmax(values)
        ordered = [value for _, value in sorted(series, key=lambda point: point[0]) if not math.isnan(value)]
        is_known = ~np.isnan(found.first)
        assert found.first[is_known][0] == ordered[0] and found.last[is_known][-1] == ordered[-1]
    for name in vars(found):
        assert len(getattr(found, name)) == len(found)


def test_a_zoom_shows_only_its_steps_and_finer(tmp_path: Path) -> None:
    write(tmp_path, [(step, {"a": math.sin(step)}) for step in range(10_000)])
    near = buckets(tmp_path, "a", 1000, first_step=4000, last_step=4099)
    assert near.x.tolist() == list(range(4000, 4100)) and near.max.tolist() == [math.sin(s) for s in range(4000, 4100)]
    assert len(buckets(tmp_path, "a", 1000, first_step=20_000)) == 0
    by_epoch = buckets(tmp_path, "a", 10, axis="epoch")
    assert by_epoch.count.sum() == 10_000 and by_epoch.x[0] == 0


def test_buckets_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [(1, {"val/loss": 1.0})])
    with pytest.raises(UnknownNameError, match="no metric 'val/los' .*did you mean 'val/loss'"):
        buckets(tmp_path, "val/los")
    with pytest.raises(ConfigurationError, match="0 buckets cannot be made"):
        buckets(tmp_path, "val/loss", 0)
    with pytest.raises(ConfigurationError, match='"steps?", "epoch" or "time"'):
        buckets(tmp_path, "val/loss", axis="hours")  # type: ignore[arg-type]


@given(st.floats() | st.integers(-(2**70), 2**70))
def test_a_number_is_read_back_to_the_last_bit(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = tmp_path_factory.mktemp("run") / "0001.jsonl"
    path.write_bytes(values_line(1, 1, 1.0, {"a": value}))
    ((_, line),) = read_lines(path)
    assert line is not None
    read = float(line["values"]["a"])
    assert read == float(value) or (math.isnan(read) and math.isnan(value))


def test_half_of_a_surrogate_pair_in_a_line_does_not_damage_it(tmp_path: Path) -> None:
    path = tmp_path / "0001.jsonl"
    path.write_bytes(
        encode({"event": "note", "text": "\ud800"}) + b'{"event":"note","text":"\xff"}\n' + b"[" * 9000 + b"\n"
    )
    assert [line and line["text"] for _, line in read_lines(path)] == ["\ud800", None, None]
