"""Which lines of a run's journals count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relume.monitor import Journal
from relume.rehearse.journals import live_lines, live_segments, newest_step


def write(folder: Path, number: int, steps: list[int], resumed: dict[str, Any] | None = None) -> list[int]:
    """A segment with a line a step; the positions behind these."""
    (folder / "journal").mkdir(parents=True, exist_ok=True)
    header = {"segment": number} | ({"resumed": resumed} if resumed else {})
    journal = Journal(folder / "journal" / f"{number:04d}.jsonl", header)
    positions = []
    for step in steps:
        journal.values(step, 1, {"loss": float(number)}, None)
        positions.append(journal.position_bytes)
    journal.close()
    return positions


def seen(folder: Path) -> list[tuple[int, int]]:
    return [(line.step, line.segment.number) for line in live_lines(folder)]


def test_lines_behind_the_checkpoint_of_a_resume_do_not_count(tmp_path: Path) -> None:
    first = write(tmp_path, 1, [1, 2, 3, 4])
    second = write(tmp_path, 2, [3, 4, 5, 6], {"segment": 1, "position_bytes": first[1]})
    write(tmp_path, 3, [6, 7], {"segment": 2, "position_bytes": second[2]})
    assert seen(tmp_path) == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 3)]
    assert [segment.is_resumed for segment in live_segments(tmp_path)] == [False, True, True]


def test_a_resume_may_go_back_over_several_segments(tmp_path: Path) -> None:
    first = write(tmp_path, 1, [1, 2])
    write(tmp_path, 2, [2, 3], {"segment": 1, "position_bytes": first[0]})
    write(tmp_path, 3, [2, 3], {"segment": 1, "position_bytes": first[0]})
    assert seen(tmp_path) == [(1, 1), (2, 3), (3, 3)]


def test_a_start_from_nothing_begins_anew(tmp_path: Path) -> None:
    write(tmp_path, 1, [1, 2])
    write(tmp_path, 2, [1, 2, 3])
    assert seen(tmp_path) == [(1, 2), (2, 2), (3, 2)]


def test_a_segment_killed_before_its_first_line_counts_for_nothing(tmp_path: Path) -> None:
    write(tmp_path, 1, [1, 2])
    (tmp_path / "journal" / "0002.jsonl").write_text('{"journal":1,"seg')
    assert seen(tmp_path) == [(1, 1), (2, 1)]
    assert newest_step(tmp_path) == -1


def test_the_newest_step_is_that_of_the_last_whole_line(tmp_path: Path) -> None:
    assert newest_step(tmp_path) == -1
    write(tmp_path, 1, [1, 2])
    with (tmp_path / "journal" / "0001.jsonl").open("a") as file:
        file.write('{"step":3,"val')
    assert newest_step(tmp_path) == 2
