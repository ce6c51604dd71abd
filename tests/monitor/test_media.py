"""The writer of media: in order, bounded, and never in the way."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from relume import RelumeWarning
from relume.monitor.journal import Journal, read_lines
from relume.monitor.kinds import Histogram, Media, Text
from relume.monitor.media import MediaWriter


class Held(Media):
    """Text that is encoded when it is let go."""

    kind = "text"

    def __init__(self, text: str, let_go: threading.Event) -> None:
        self.text, self.let_go = text, let_go

    def describe(self, folder: Path) -> dict:
        self.let_go.wait()
        if self.text == "broken":
            raise ValueError("cannot be encoded\nat all")
        return {"text": self.text}


@pytest.fixture
def writer(tmp_path: Path) -> MediaWriter:
    (tmp_path / "journal").mkdir()
    journal = Journal(tmp_path / "journal" / "0001.jsonl", {"run": "x", "segment": 1})
    notes: list[str] = []
    made = MediaWriter(tmp_path, journal, notes.append)
    made.notes = notes  # type: ignore[attr-defined]
    return made


def said(tmp_path: Path) -> list[tuple[int, str]]:
    found = [line for _, line in read_lines(tmp_path / "journal" / "0001.jsonl") if line and "media" in line]
    return [(line["step"], content["text"]) for line in found for content in line["media"].values()]


def test_lines_keep_the_order_of_the_calls_and_settle_waits_for_all(tmp_path: Path, writer: MediaWriter) -> None:
    let_go = threading.Event()
    for step in range(20):
        writer.put(step, 1, {"a": Held(f"{step}", let_go)})
    assert said(tmp_path) == []
    let_go.set()
    writer.settle()
    assert said(tmp_path) == [(step, f"{step}") for step in range(20)]
    writer.close()


def test_a_full_queue_makes_the_call_wait_and_loses_nothing(tmp_path: Path, writer: MediaWriter) -> None:
    let_go, done = threading.Event(), threading.Event()

    def log() -> None:
        for step in range(200):
            writer.put(step, 1, {"a": Held(f"{step}", let_go)})
        done.set()

    thread = threading.Thread(target=log)
    thread.start()
    assert not done.wait(0.2), "two hundred were taken, though the queue holds 64"
    let_go.set()
    thread.join()
    writer.close()
    assert [step for step, _ in said(tmp_path)] == [*range(200)]


def test_a_failure_is_one_warning_and_the_others_of_the_call_are_kept(tmp_path: Path, writer: MediaWriter) -> None:
    let_go = threading.Event()
    let_go.set()
    with pytest.warns(
        RelumeWarning, match="the text 'b' of step 4 was not kept .ValueError: cannot be encoded"
    ) as caught:
        writer.put(4, 1, {"a": Text("x"), "b": Held("broken", let_go)})
        writer.settle()
    assert said(tmp_path) == [(4, "x")] and len(caught) == len(writer.notes) == 1  # type: ignore[attr-defined]
    writer.close()


def test_closing_twice_is_fine_and_what_comes_later_is_written_in_the_call(tmp_path: Path, writer: MediaWriter) -> None:
    writer.put(1, 1, {"a": Text("before")})
    writer.close()
    writer.close()
    writer.put(2, 1, {"a": Text("after")})
    writer.settle()
    assert said(tmp_path) == [(1, "before"), (2, "after")]
    assert not [thread for thread in threading.enumerate() if thread.name == "relume-media"]


def test_no_thread_is_started_before_something_is_logged(writer: MediaWriter) -> None:
    writer.settle()
    writer.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "relume-media"]


def test_a_kind_that_changes_is_said_once(writer: MediaWriter) -> None:
    for step in range(4):
        writer.put(step, 1, {"a": Text("x") if step % 2 else Histogram([1.0])})
    writer.note_numbers({"a": 1.0, "b": 2.0})
    writer.close()
    (note,) = writer.notes  # type: ignore[attr-defined]
    assert note.startswith("'a' was logged as a histogram and is a text now: each kind is kept")
