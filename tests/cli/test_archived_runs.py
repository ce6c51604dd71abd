"""Archived runs on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import relume
from relume.cli.app import app
from relume.monitor.edits import edit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("kept", "put-away"):
        with relume.Run(name, root=tmp_path, quiet=True, config={"lr": 0.1}) as run:
            run.log({"val/loss": 0.5}, step=1)
    edit(tmp_path / "put-away", archived=True, notes="too slow", tags=["old"])
    return tmp_path


def out(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_table_hides_them_and_says_so(root: Path) -> None:
    text = out("runs", "--root", root)
    assert "kept" in text and "put-away" not in text
    assert "1 archived run is hidden: --all shows all." in text


def test_all_and_a_condition_show_them(root: Path) -> None:
    for arguments in (("--all",), ("--where", "lr > 0")):
        text = out("runs", "--root", root, *arguments)
        assert "kept" in text and "put-away" in text and "hidden" not in text
    assert "kept" not in out("runs", "--root", root, "--where", "archived")


def test_json_and_csv_hide_them_too(root: Path) -> None:
    assert [row["name"] for row in json.loads(out("runs", "--root", root, "--json"))] == ["kept"]
    assert "put-away" not in out("runs", "--root", root, "--csv")
    assert [row["archived"] for row in json.loads(out("runs", "--root", root, "--json", "--all"))] == [False, True]


def test_where_all_are_archived_the_table_says_only_that(root: Path) -> None:
    edit(root / "kept", archived=True)
    assert out("runs", "--root", root) == "2 archived runs are hidden: --all shows all.\n"


def test_one_run_shows_its_notes_and_tags(root: Path) -> None:
    text = out("show", "put-away", "--root", root)
    assert "archived" in text and "too slow" in text and "old" in text
    found = json.loads(out("show", "put-away", "--root", root, "--json"))
    assert (found["notes"], found["tags"], found["archived"]) == ("too slow", ["old"], True)
