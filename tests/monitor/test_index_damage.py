"""An index that is damaged where it is read is made again: the answers stay those of the journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from relume.monitor.buckets import buckets
from relume.monitor.index import columns, fold, metric_summary
from relume.monitor.journal import encode, values_line
from relume.monitor.kept import media
from relume.recorded.reading import history


def write(folder: Path, steps: int) -> None:
    (folder / "journal").mkdir()
    (folder / "run.json").write_text("{}")
    lines = [values_line(step, 0, 1000.0 + step, {"a": step / 7, "b": -1.0 * step}) for step in range(steps)]
    said = encode({"step": 3, "epoch": 0, "time": 1.0, "media": {"said": {"kind": "text", "text": "three cats"}}})
    header = encode({"journal": 1, "run": "x", "segment": 1, "resumed": None})
    (folder / "journal" / "0001.jsonl").write_bytes(header + b"".join(lines) + said)


def answers(folder: Path) -> list[object]:
    table, found = columns(folder), buckets(folder, "b", 50)
    read = {name: column.tolist() for name, column in history(folder, metrics=["a", "b"]).items()}
    tables = [{name: column.tolist() for name, column in table.items()}, read, found.min.tolist(), found.max.tolist()]
    return [*tables, metric_summary(folder), [one.name for one in media(folder)]]


def run_sql(*statements: str) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return harm


def scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(8192, len(data) - 4096, 40960):
        data[at : at + 4096] = bytes((byte * 7 + at) % 256 for byte in range(4096))
    path.write_bytes(data)


def flip_a_bit_of_a_number(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        (content,) = connection.execute("SELECT points FROM piece WHERE metric=1 LIMIT 1").fetchone()
        changed = bytearray(content)
        changed[60] ^= 0x10
        connection.execute("UPDATE piece SET points=? WHERE points=?", (bytes(changed), content))


HARMS = {
    "pages of noise": scribble,
    "a flipped bit": flip_a_bit_of_a_number,
    "a table is gone": run_sql("DROP TABLE piece"),
    "another table is gone": run_sql("DROP TABLE media"),
    "a piece is cut": run_sql("UPDATE piece SET points=substr(points, 1, 33) WHERE rowid=1"),
    "a metric has lost its name": run_sql("DROP TABLE metric"),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_a_damage_that_only_reading_finds_changes_no_answer(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    write(tmp_path, 9000)
    fold(tmp_path)
    right = answers(tmp_path)
    harm(tmp_path / "metrics.db")
    assert answers(tmp_path) == right
    (tmp_path / "metrics.db").unlink()
    assert answers(tmp_path) == right


@pytest.mark.parametrize("ask", [columns, metric_summary, media, lambda folder: buckets(folder, "a")])
@pytest.mark.parametrize("table", ["piece", "metric", "media"])
def test_each_question_mends_the_index_itself(tmp_path: Path, ask: Callable[[Path], object], table: str) -> None:
    write(tmp_path, 50)
    fold(tmp_path)
    right = repr(ask(tmp_path))
    run_sql(f"DROP TABLE {table}")(tmp_path / "metrics.db")
    assert repr(ask(tmp_path)) == right


@pytest.mark.parametrize("is_there", [True, False])
def test_an_index_that_leads_elsewhere_is_not_followed(tmp_path: Path, is_there: bool) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "photos.db"
    folder.mkdir()
    write(folder, 50)
    right = answers(folder)
    (folder / "metrics.db").unlink()
    (folder / "metrics.db").symlink_to(elsewhere)
    if is_there:
        with closing(sqlite3.connect(elsewhere)) as connection, connection:
            connection.execute("CREATE TABLE event AS SELECT 'precious' AS said")
    before = elsewhere.read_bytes() if is_there else b""
    assert answers(folder) == right
    assert elsewhere.exists() == is_there
    assert not is_there or elsewhere.read_bytes() == before
