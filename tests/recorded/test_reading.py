"""What was logged comes back as columns, dead branches where they are asked for, and as files of other programs."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from recorded_runs import make_resumed_run, make_run

from relume.errors import ConfigurationError, StorageError, UnknownNameError
from relume.monitor.journal import encode, values_line
from relume.recorded import history, write_table
from relume.recorded.reading import resumes
from relume.recorded.tables import as_csv


def test_columns_and_a_data_frame_are_the_same(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    folder = make_run(tmp_path, "a", 0.1)
    columns, frame = history(folder), history("a", root=tmp_path, as_="pandas")
    pandas.testing.assert_frame_equal(frame, pandas.DataFrame(columns))
    assert list(frame) == ["step", "epoch", "time", "train/loss", "val/accuracy", "val/loss"] and len(frame) == 60


def test_metrics_are_chosen_by_name_and_pattern(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a", 0.1)
    assert list(history(folder, metrics="val/*"))[3:] == ["val/accuracy", "val/loss"]
    assert len(history(folder, metrics=["val/loss"])["step"]) == 6
    with pytest.raises(UnknownNameError, match="no metric 'val/los' .*did you mean 'val/loss'"):
        history(folder, metrics=["val/los"])
    with pytest.raises(ConfigurationError, match="as_=\"?'?frame"):
        history(folder, as_="frame")  # type: ignore[call-overload]


def test_what_was_done_again_after_a_resume_is_a_branch_of_its_own(tmp_path: Path) -> None:
    folder = make_resumed_run(tmp_path)
    live = history(folder)
    assert live["loss"].tolist() == [float(e * 10 + s) for e in range(3) for s in range(5)]
    table = history(folder, branches=True)
    dead = table["branch"] == 1
    assert table["loss"][dead].tolist() == [20.0, 21.0, 22.0] and set(table["branch"].tolist()) == {0, 1}
    for name, column in live.items():
        np.testing.assert_array_equal(column, table[name][~dead])
    assert [place[:2] for place in resumes(folder)] == [(10, 2)]
    assert len(history(folder, metrics="new", branches=True)["step"]) == 5


def test_a_branch_that_alone_has_a_metric_and_one_within_another_are_found(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()

    def write(number: int, resumed: dict | None, steps: range, name: str) -> int:
        path = tmp_path / "journal" / f"{number:04d}.jsonl"
        path.write_bytes(encode({"journal": 1, "run": "x", "segment": number, "resumed": resumed}))
        with path.open("ab") as file:
            file.writelines(values_line(step, 0, 1.0, {name: float(step)}) for step in steps)
        return path.stat().st_size

    (tmp_path / "run.json").write_text("{}")
    middle = write(1, None, range(3), "a")
    write(1, None, range(5), "a")
    write(2, {"segment": 1, "position_bytes": middle}, range(3, 6), "branch")
    write(3, {"segment": 1, "position_bytes": middle}, range(3, 4), "a")
    table = history(tmp_path, branches=True)
    assert table["step"].tolist() == [0, 1, 2, 3, 3, 4, 3, 4, 5]
    assert table["branch"].tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    assert table["logged/branch"][6:].tolist() == [3.0, 4.0, 5.0]
    assert list(history(tmp_path, metrics=["branch"], branches=True))[-1] == "logged/branch"


def test_a_run_without_numbers_has_empty_columns(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "empty", 0.1, steps=0)
    assert {name: column.tolist() for name, column in history(folder).items()} == {"step": [], "epoch": [], "time": []}
    assert history(folder, branches=True)["branch"].tolist() == [] and len(history(folder, as_="pandas")) == 0
    assert as_csv(history(folder)) == "step,epoch,time\n"


def table() -> dict[str, np.ndarray]:
    values = np.array([0.1, math.nan, math.inf])
    return {"step": np.arange(3), "epoch": np.zeros(3, int), "time": np.arange(3.0), 'a,"b"\nc': values}


def test_csv_reads_back_exactly(tmp_path: Path) -> None:
    write_table(table(), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "epoch", "time", 'a,"b"\nc'] and [row[3] for row in rows[1:]] == ["0.1", "", "inf"]


def test_parquet_and_json_read_back_exactly(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write_table(table(), tmp_path / "a.parquet")
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "a.parquet"), pandas.DataFrame(table()))
    write_table(table(), tmp_path / "a.data", "json")
    assert json.loads((tmp_path / "a.data").read_text())['a,"b"\nc'] == [0.1, None, "Infinity"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.data", "a.parquet"]


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        write_table(table(), tmp_path / "missing" / "a.csv")
    with pytest.raises(ConfigurationError, match=r"'a.xlsx' does not say what it is"):
        write_table(table(), tmp_path / "a.xlsx")
    with pytest.raises(ConfigurationError, match="'xml' is no format"):
        write_table(table(), tmp_path / "a.csv", "xml")
