"""``relume show --code`` and ``relume restore-code``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

import relume
from relume.cli.app import app
from relume.errors import ConfigurationError, RunError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one changed file and a run in it."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "part.py").write_text("A = 1\n")
    for command in (["init", "-qb", "main"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *command], cwd=folder, check=True)
    (folder / "part.py").write_text("A = 2  # [red]\x1b[31m\n")
    (folder / ".env").write_text("X=1\n")
    monkeypatch.chdir(folder)
    with relume.Run("a", quiet=True, tags=["fast", "[b]"], notes="a note\nof two lines"):
        pass
    return folder


def invoke(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, done.output
    return done.output


def test_show_tells_the_main_facts(project: Path) -> None:
    out = invoke("show", "a")
    assert "with 1 changed file" in out and "code" in out and "machine" in out
    assert "fast, [b]" in out and "a note\\nof two lines" in out
    facts = json.loads(invoke("show", "a", "--json"))
    assert facts["tags"] == ["fast", "[b]"] and facts["notes"] == "a note\nof two lines"


def test_show_code_tells_the_commit_the_files_and_the_patch_safely(project: Path) -> None:
    out = invoke("show", "a", "--code")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert f"commit {commit}" in out and "modified   part.py" in out
    assert "not kept   .env  4 B  (untracked: its name says that it holds secrets)" in out
    assert "-A = 1\n+A = 2  # [red]\\x1b[31m\n" in out and "\x1b" not in out
    data = json.loads(invoke("show", "a", "--code", "--json"))
    assert data["segment"] == 1 and "+A = 2" in data["patches"][str(project)]
    with pytest.raises(RunError, match="has no segment 9"):
        invoke("show", "a", "--code", "--segment", "9")


def test_restore_code_builds_the_tree_and_says_what_differs(project: Path, tmp_path: Path) -> None:
    out = invoke("restore-code", "a", str(tmp_path / "new"))
    assert "each verified by its hash: but not exactly what ran" in out
    assert (tmp_path / "new" / "part.py").read_text() == "A = 2  # [red]\x1b[31m\n"
    with pytest.raises(ConfigurationError, match="is not empty"):
        invoke("restore-code", "a", str(tmp_path / "new"))
    facts = json.loads(invoke("restore-code", "a", str(tmp_path / "other"), "--json", "--segment", "1"))
    assert facts["missing"] == [] and any(text.startswith(".env") for text in facts["differences"])


def test_restore_code_ends_with_an_error_where_the_commit_is_gone(project: Path, tmp_path: Path) -> None:
    (project / ".git").rename(tmp_path / "kept.git")
    facts = json.loads(invoke("restore-code", "a", str(tmp_path / "part"), "--json", status=1))
    assert "relume restore-code RUN DIR --repository CLONE" in facts["missing"][0]
    invoke("restore-code", "a", str(tmp_path / "whole"), "--repository", str(tmp_path / "kept.git"))
    assert (tmp_path / "whole" / "part.py").exists()
    with pytest.raises(ConfigurationError, match="no git repository"):
        invoke("restore-code", "a", str(tmp_path / "other"), "--repository", str(tmp_path))


def test_a_damaged_record_is_said_and_the_rest_is_shown(project: Path) -> None:
    (project / "runs" / "a" / "provenance.json").write_text("{")
    assert "fast" in invoke("show", "a")
    with pytest.raises(RunError, match="is damaged"):
        invoke("show", "a", "--code")
