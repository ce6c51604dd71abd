"""The journal loses nothing, and an error while writing it stops nothing."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relume import RelumeWarning
from relume.errors import ConfigurationError
from relume.monitor.index import columns, index, metric_summary
from relume.monitor.journal import Journal, encode, last_line, read_lines, values_line
from relume.monitor.values import split


def make(folder: Path) -> Journal:
    (folder / "journal").mkdir(exist_ok=True)
    return Journal(folder / "journal" / "0001.jsonl", {"run": "x", "segment": 1})


def fill(journal: Journal, steps: range) -> None:
    for step in steps:
        journal.values(step, 1, {"loss": 1.0 / (step + 1)}, None)


def lines(folder: Path) -> list[dict]:
    return [line for _, line in read_lines(folder / "journal" / "0001.jsonl") if line is not None]


@given(
    st.dictionaries(st.text(min_size=1), st.floats() | st.integers(-(2**60), 2**60), min_size=1),
    st.integers(0, 2**40),
)
def test_a_line_of_metrics_reads_back_exactly(values: dict, step: int) -> None:
    line = json.loads(values_line(step, 3, 1.5, dict(values)))
    assert (line["step"], line["epoch"], line["time"]) == (step, 3, 1.5)
    for name, value in values.items():
        read = line["values"][name]
        assert read == value or float(read) == value or (math.isnan(value) and read == "NaN")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_every_line_is_strict_json_without_a_line_break(content: object) -> None:
    data = encode({"event": "note", "content": content})
    assert data.count(b"\n") == 1
    json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_what_was_logged_survives_a_sigkill(tmp_path: Path) -> None:
    script = f"""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_journal import make, fill
        fill(make(Path({str(tmp_path)!r})), range(500))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [line["step"] for line in lines(tmp_path)[1:]] == list(range(500))


def test_a_line_that_was_cut_off_is_not_read_and_harms_no_other(tmp_path: Path) -> None:
    journal = make(tmp_path)
    fill(journal, range(3))
    journal.close()
    with (tmp_path / "journal" / "0001.jsonl").open("ab") as file:
        file.write(b'{"step":3,"epo')
    assert len(columns(tmp_path)["step"]) == 3
    assert (last_line(tmp_path / "journal" / "0001.jsonl") or {})["step"] == 2


def test_a_damaged_line_in_the_middle_is_counted_and_left_out(tmp_path: Path) -> None:
    journal = make(tmp_path)
    fill(journal, range(3))
    journal.close()
    path = tmp_path / "journal" / "0001.jsonl"
    parts = path.read_bytes().split(b"\n")
    parts[2] = b"\xff\x00{{{"
    path.write_bytes(b"\n".join(parts))
    assert columns(tmp_path)["step"].tolist() == [0, 2]
    with index(tmp_path) as connection:
        assert connection.execute("SELECT damaged FROM fold").fetchone() == (1,)


def test_a_full_disk_gives_one_warning_and_everything_is_written_when_there_is_room(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = make(tmp_path)
    try:
        fill(journal, range(10))
        room = journal.position_bytes + 90  # not a whole number of lines: the kernel writes a part of one
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        with pytest.warns(RelumeWarning, match="cannot be written .* Training goes on") as caught:
            fill(journal, range(10, 60))
        assert len(caught) == 1
        assert [line["step"] for line in lines(tmp_path)[1:]] == list(range(len(lines(tmp_path)) - 1))
        assert 11 <= len(lines(tmp_path)) < 15
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        fill(journal, range(60, 61))
        assert [line["step"] for line in lines(tmp_path)[1:]] == list(range(61))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
        journal.close()


def test_a_disk_that_stays_full_says_what_was_lost(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    journal = make(tmp_path)
    os.dup2(os.open("/dev/full", os.O_WRONLY), journal._descriptor)
    with pytest.warns(RelumeWarning, match="cannot be written .No space left on device."):
        fill(journal, range(5))
    with pytest.warns(RelumeWarning, match="5 lines could not be written and are lost"):
        journal.close()


# ------------------------------------------------------------------------------------------------------------------ index


def test_the_index_can_be_deleted_damaged_or_behind(tmp_path: Path) -> None:
    journal = make(tmp_path)
    fill(journal, range(5))
    assert len(columns(tmp_path)["step"]) == 5
    fill(journal, range(5, 8))
    assert len(columns(tmp_path)["step"]) == 8
    (tmp_path / "metrics.db").unlink()
    assert len(columns(tmp_path)["step"]) == 8
    (tmp_path / "metrics.db").write_bytes(b"this is no database, " * 300)
    assert columns(tmp_path)["loss"].tolist() == [1.0 / (s + 1) for s in range(8)]
    journal.close()


def test_the_index_is_made_again_when_the_journal_got_shorter(tmp_path: Path) -> None:
    journal = make(tmp_path)
    fill(journal, range(5))
    columns(tmp_path)
    journal.close()
    path = tmp_path / "journal" / "0001.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert columns(tmp_path)["step"].tolist() == [0, 1]


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path: Path) -> None:
    journal = make(tmp_path)
    fill(journal, range(5))
    journal.close()
    (tmp_path / "metrics.db").mkdir()  # even root cannot open that as a file
    assert len(columns(tmp_path)["step"]) == 5


def test_two_readers_at_once_count_no_line_twice(tmp_path: Path) -> None:
    journal = make(tmp_path)
    fill(journal, range(3000))
    code = """
from pathlib import Path
import sys
from relume.monitor.index import columns
print(len(columns(Path(sys.argv[1]))['step']))
"""
    readers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(3)]
    assert [int(reader.communicate()[0]) for reader in readers] == [3000] * 3
    assert metric_summary(tmp_path)["loss"]["count"] == 3000
    journal.close()


def test_nan_and_infinities_come_back(tmp_path: Path) -> None:
    journal = make(tmp_path)
    for step, value in enumerate((1.0, math.nan, math.inf, -math.inf)):
        journal.values(step, 1, {"loss": value}, None)
    journal.close()
    read = columns(tmp_path)["loss"].tolist()
    assert read[0] == 1.0 and math.isnan(read[1]) and read[2:] == [math.inf, -math.inf]
    assert metric_summary(tmp_path)["loss"]["min"] == -math.inf


def test_columns_have_one_row_a_step_and_nan_where_nothing_was_logged(tmp_path: Path) -> None:
    journal = make(tmp_path)
    journal.values(2, 1, {"a": 1.0}, None)
    journal.values(1, 1, {"a": 0.5, "b": 7}, None)
    journal.values(2, 1, {"b": 8}, None)
    journal.close()
    table = columns(tmp_path)
    assert table["step"].tolist() == [1, 2] and table["a"].tolist() == [0.5, 1.0] and table["b"].tolist() == [7, 8]
    assert list(columns(tmp_path, ["b"])) == ["step", "epoch", "time", "b"]


# ----------------------------------------------------------------------------------------------------------------- values


def test_numbers_of_all_kinds_are_logged_as_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    ready, arriving = split(
        {
            "a": 1,
            "b": 2.5,
            "c": torch.tensor(3),
            "d": numpy.float32(0.5),
            "e": True,
            "f": {"g": torch.tensor([4.0])},
            "h": numpy.array(7),
        }
    )
    assert ready == {"a": 1, "b": 2.5, "c": 3, "d": 0.5, "e": 1, "f/g": 4.0, "h": 7.0} and arriving is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2), r"shape \(2,\) is no single number"),
        ("high", "a str is no number"),
        (None, "a NoneType is no number"),
    ],
)
def test_what_is_no_number_is_refused_by_name(value: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot log 'loss': .*{message}"):
        split({"loss": value})


class Late:
    """Values on a device that takes its time."""

    def __init__(self, values: dict) -> None:
        self.values, self.there = values, False

    def is_ready(self) -> bool:
        return self.there

    def read(self) -> dict:
        return self.values


def test_values_that_arrive_late_keep_their_place_in_the_journal(tmp_path: Path) -> None:
    journal = make(tmp_path)
    first, third = Late({"loss": 1.0}), Late({"loss": 3.0})
    assert list(journal.values(1, 1, {}, first)) == []
    assert list(journal.values(2, 1, {"loss": 2.0}, None)) == []
    assert list(journal.values(3, 1, {}, third)) == []
    first.there = True
    assert list(journal.values(4, 1, {"loss": 4.0}, None)) == [(1, 1, {"loss": 1.0}), (2, 1, {"loss": 2.0})]
    journal.close()  # waits for the third
    assert [(line["step"], line["values"]["loss"]) for line in lines(tmp_path)[1:]] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 4.0),
    ]


@pytest.mark.cuda
def test_a_tensor_on_a_device_is_not_waited_for(tmp_path: Path) -> None:
    journal = make(tmp_path)
    torch.cuda._sleep(200_000_000)
    ready, arriving = split({"loss": torch.ones((), device="cuda") * 3})
    assert arriving is not None and not arriving.is_ready()
    assert list(journal.values(1, 1, ready, arriving)) == []
    journal.close()
    assert lines(tmp_path)[1]["values"] == {"loss": 3.0}
