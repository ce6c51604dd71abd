"""Notes, tags and archiving: what a person says of a run since."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import relume
from relume.errors import ConfigurationError, RunError
from relume.monitor import RunRecord
from relume.monitor.edits import FILE, Edits, edit, edits_of
from relume.monitor.record import was_begun
from relume.recorded import choose, facts_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with relume.Run("fashion", root=tmp_path, quiet=True, tags=["paper"], notes="first try") as run:
        run.log({"train/loss": 0.5}, step=1)
    return run.folder


def test_a_run_nobody_touched_has_what_it_was_started_with(folder: Path) -> None:
    facts = facts_of(folder)
    assert (facts["tags"], facts["notes"], facts["archived"]) == (["paper"], "first try", False)
    assert edits_of(folder) == Edits()


def test_what_is_not_given_stays(folder: Path) -> None:
    edit(folder, notes="the one of the paper")
    assert (facts_of(folder)["tags"], facts_of(folder)["notes"]) == (["paper"], "the one of the paper")
    edit(folder, tags=[])
    edit(folder, archived=True)
    assert edits_of(folder) == Edits(notes="the one of the paper", tags=[], archived=True)
    assert RunRecord.load(folder).tags == []


def test_tags_are_stripped_and_kept_once_in_their_order(folder: Path) -> None:
    assert edit(folder, tags=[" b", "a", "b", "  ", "ünïcode 🎉"]).tags == ["b", "a", "ünïcode 🎉"]


def test_half_of_a_surrogate_pair_becomes_a_question_mark(folder: Path) -> None:
    assert edit(folder, notes="\ud800", tags=["\udfff"]) == Edits(notes="?", tags=["?"])
    assert edits_of(folder).notes == "?"


@pytest.mark.parametrize(
    "changes",
    [
        {"notes": "a" * 20_001},
        {"notes": 3},
        {"tags": ["a"] * 51},
        {"tags": ["a" * 101]},
        {"tags": "paper"},
        {"tags": [1]},
        {"tags": [["a"]]},
        {"archived": 1},
        {"archived": "yes"},
        {"seed": 3},
    ],
)
def test_what_is_no_note_tag_or_mark_is_refused(folder: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="There are notes"):
        edit(folder, **changes)
    assert not (folder / FILE).exists()


def test_a_damaged_file_hides_nothing(folder: Path) -> None:
    for damage in (b"", b"{", b"\xff", b"[]", b"null", b'{"tags": 3}', b'{"notes": "x"', b"[" * 100_000):
        (folder / FILE).write_bytes(damage)
        assert facts_of(folder)["notes"] == "first try"
    assert edit(folder, notes="again").notes == "again"


def test_what_a_newer_relume_added_is_no_damage(folder: Path) -> None:
    (folder / FILE).write_text('{"notes": "mine", "stars": 5}')
    assert facts_of(folder)["notes"] == "mine"


def test_a_run_that_goes_on_loses_nothing_and_is_not_disturbed(tmp_path: Path) -> None:
    with relume.Run("live", root=tmp_path, quiet=True) as run:
        run.log({"loss": 1.0}, step=1)
        edit(run.folder, notes="looks good", tags=["keep"])
        run.log({"loss": 0.5}, step=2)
    with relume.Run("live", root=tmp_path, quiet=True, resume=True, tags=["other"]) as run:
        run.log({"loss": 0.25}, step=3)
    assert (facts_of(run.folder)["notes"], facts_of(run.folder)["tags"]) == ("looks good", ["keep"])
    assert facts_of(run.folder)["status"] == "finished"


def test_edits_at_the_same_time_lose_none_of_each_other(folder: Path) -> None:
    changes = [{"notes": "n"}, {"tags": ["t"]}, {"archived": True}] * 5
    threads = [threading.Thread(target=edit, args=(folder,), kwargs=change) for change in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert edits_of(folder) == Edits(notes="n", tags=["t"], archived=True)
    assert not list(folder.glob(".*"))


def test_a_folder_that_takes_no_file_says_so(folder: Path) -> None:
    (folder / FILE).mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        edit(folder, notes="x")


def test_a_condition_can_ask_for_archived_runs(folder: Path) -> None:
    edit(folder, archived=True)
    assert choose([facts_of(folder)], "archived") and not choose([facts_of(folder)], "not archived")


def test_the_file_is_one_of_a_runs_own(folder: Path) -> None:
    edit(folder, notes="x")
    (folder / "run.json").unlink()
    assert was_begun(folder)


def test_the_mirror_has_it_too(tmp_path: Path) -> None:
    with relume.Run("fashion", root=tmp_path / "runs", quiet=True, mirror=tmp_path / "drive") as run:
        run.log({"loss": 1.0}, step=1)
        edit(run.folder, notes="mirrored")
    assert edits_of(tmp_path / "drive" / "fashion").notes == "mirrored"
