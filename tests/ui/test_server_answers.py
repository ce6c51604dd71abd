"""What the page asks is answered, and what makes no sense is refused with a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import ask, post

import relume
from relume.monitor.edits import edits_of
from relume.ui.answers.frames import decode
from relume.ui.server import Address, running


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, loss in (("a", 0.5), ("b", float("nan"))):
        with relume.Run(name, root=tmp_path, quiet=True, config={"lr": 0.1, "odd": float("inf")}) as run:
            for step in range(10):
                run.log({"train/loss": loss + step}, step=step)
    return tmp_path


@pytest.fixture
def server(root: Path) -> Iterator[Address]:
    with running(root) as address:
        yield address


def test_numbers_of_several_runs_come_in_one_frame(server: Address) -> None:
    answer = ask(server, "/api/series?run=a&run=b&run=a&metric=train%2Floss&axis=epoch&low=&buckets=100")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert [(one.about["run"], len(one)) for one in decode(answer.body)] == [("a", 10), ("b", 10)]


def test_what_was_added_to_several_metrics_comes_in_one_frame(server: Address) -> None:
    query = "run=a&metric=train%2Floss&since=7&metric=none&since=-1&metric=train%2Floss&since=8"
    assert [one.columns["step"].tolist() for one in decode(ask(server, f"/api/series?{query}").body)] == [[8, 9], [9]]


def test_a_run_that_has_gone_since_does_not_take_the_others_along(server: Address) -> None:
    assert [one.about["run"] for one in decode(ask(server, "/api/series?run=gone&run=b&metric=train%2Floss").body)] == [
        "b"
    ]
    assert ask(server, "/api/series?run=gone&metric=train%2Floss").status == 404


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("run=a", "metric= is missing"),
        ("run=a&metric=train%2Floss&axis=seconds", "axis=seconds: there are step, epoch, time"),
        ("run=a&metric=train%2Floss&buckets=many", "buckets=many is no finite number"),
        ("run=a&metric=train%2Floss&buckets=0", "no whole number from 1 to"),
        ("run=a&metric=train%2Floss&buckets=1e9", "no whole number from 1 to"),
        ("run=a&metric=train%2Floss&buckets=1.5", "no whole number from 1 to"),
        ("run=a&metric=train%2Floss&low=nan", "low=nan is no finite number"),
        ("run=a&metric=train%2Floss&high=1e999", "is no finite number"),
        ("run=a&metric=train%2Floss&since=1e30", "no whole number"),
        ("run=a&metric=train%2Floss&metric=val&since=1", "does not stand beside each"),
        ("metric=a&" + "&".join(f"run={number}" for number in range(1001)), "more than can be asked for at once"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_with_a_sentence(server: Address, query: str, sentence: str) -> None:
    answer = ask(server, f"/api/series?{query}")
    assert answer.status == 400 and sentence in answer.json["error"]


def test_all_answers_are_json_that_browsers_read(server: Address) -> None:
    for target in (
        *("/api/runs", "/api/run/a", "/api/run/b", "/api/run/a/console", "/api/run/a/media"),
        *("/api/choose?where=lr%20%3E%200&sort=train%2Floss", "/api/marks?run=a&run=b", "/api/compare?run=a&run=b"),
    ):
        answer = ask(server, target)
        assert answer.status == 200, answer.body
        assert b"NaN" not in answer.body.replace(b'"NaN"', b"") and b":Infinity" not in answer.body
    rows = {row["name"]: row for row in ask(server, "/api/runs").json["runs"]}
    assert rows["a"]["archived"] is False


@pytest.mark.parametrize("target", ["/api/run/none", "/api/run/none/console", "/api/none", "/none"])
def test_what_is_not_there_is_said(server: Address, target: str) -> None:
    answer = ask(server, target)
    assert answer.status == 404 and "there is no" in answer.json["error"].lower()


def test_notes_tags_and_archiving_are_kept(server: Address, root: Path) -> None:
    answer = post(server, "/api/run/a/edit", {"notes": "good <b>", "tags": [" paper ", "paper"]})
    assert answer.status == 200, answer.body
    assert (answer.json["name"], answer.json["notes"], answer.json["tags"]) == ("a", "good <b>", ["paper"])
    assert post(server, "/api/run/a/edit", {"archived": True}).json["archived"] is True
    rows = {row["name"]: row for row in ask(server, "/api/runs").json["runs"]}
    assert (rows["a"]["notes"], rows["a"]["archived"], rows["b"]["notes"]) == ("good <b>", True, "")
    assert edits_of(root / "a").tags == ["paper"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"notes"', 400),
        (b"[" * 60_000, 400),
        (b'{"notes": 1}', 400),
        (b'{"seed": 1}', 400),
        (b'{"folder": "/tmp"}', 400),
        (b'{"tags": [{}]}', 400),
        (b"\xff", 400),
        (b'{"notes": "\\ud800"}', 200),
    ],
)
def test_what_is_sent_is_checked(server: Address, sent: bytes, status: int) -> None:
    answer = post(server, "/api/run/a/edit", sent)
    assert answer.status == status and ("error" in answer.json) == (status == 400)


def test_a_run_that_does_not_exist_takes_no_notes(server: Address, root: Path) -> None:
    assert post(server, "/api/run/none/edit", {"notes": "x"}).status == 404
    assert not (root / "none").exists()


def test_a_journal_that_is_no_file_leaves_the_others(server: Address, root: Path) -> None:
    (segment,) = (root / "a" / "journal").glob("*.jsonl")
    segment.unlink()
    segment.mkdir()
    shown = decode(ask(server, "/api/series?run=a&run=b&metric=train%2Floss").body)
    assert {one.about["run"]: len(one) for one in shown if len(one)} == {"b": 10}
    for part in ("console", "media"):
        assert ask(server, f"/api/run/a/{part}").status == 200
    assert len(ask(server, "/api/runs").json["runs"]) == 2


def test_damage_to_one_run_leaves_the_others(server: Address, root: Path) -> None:
    (root / "a" / "run.json").write_text("{")
    (root / "a" / "metrics.db").write_bytes(b"garbage" * 1000)
    rows = {row["name"]: row["status"] for row in ask(server, "/api/runs").json["runs"]}
    assert rows == {"a": "damaged", "b": "finished"}
    assert ask(server, "/api/series?run=a&run=b&metric=train%2Floss").status == 200
    assert ask(server, "/api/run/a").json["status"] == "damaged"
