"""Real git repositories in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from repositories import commit, in_git


@pytest.fixture(autouse=True)
def _own_git_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "gitconfig"
    settings.write_text(
        '[user]\nname = A\nemail = a@example.org\n[init]\ndefaultBranch = main\n[protocol "file"]\nallow = always\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit of three files."""
    folder = tmp_path / "project"
    (folder / "lib").mkdir(parents=True)
    (folder / "train.py").write_text("import lib.model\nprint('train')\n")
    (folder / "lib" / "model.py").write_text("WIDTH = 8\n")
    (folder / "run.sh").write_text("#!/bin/sh\npython train.py\n")
    (folder / "run.sh").chmod(0o755)
    in_git(folder, "init", "-q")
    commit(folder)
    return folder
