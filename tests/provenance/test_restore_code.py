"""A source tree is built again from what a run kept: byte for byte, from real repositories in every state."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from repositories import capture, commit, contents, in_git

from relume.errors import ConfigurationError, RootError, RunError
from relume.provenance import Provenance, restore_code


def test_a_clean_tree_needs_nothing_but_its_commit(repository: Path, tmp_path: Path) -> None:
    tree = capture(repository, tmp_path / "runs" / "a")
    assert not tree.is_dirty and tree.patch is None and tree.branch == "main" and tree.problem == ""
    assert tree.commit == in_git(repository, "rev-parse", "HEAD")
    assert not (tmp_path / "runs" / "a" / "code").exists()
    done = restore_code(tmp_path / "runs" / "a", tmp_path / "new")
    assert done.is_exact and done.files == 3 and done.start == "python train.py"
    assert contents(tmp_path / "new") == contents(repository)


def test_changed_deleted_staged_untracked_binary_linked_and_executable_files_come_back(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "train.py").write_bytes(b"print('changed')\r\n\xff not UTF-8\n")
    (repository / "run.sh").unlink()
    (repository / "lib" / "staged.py").write_text("A = 1\n")
    in_git(repository, "add", "lib/staged.py")
    (repository / "lib" / "staged.py").write_text("A = 2\n")
    (repository / "new folder").mkdir()
    (repository / "new folder" / "ünïcode ☃.py").write_text("B = 1")
    (repository / "tool.sh").write_text("#!/bin/sh\n")
    (repository / "tool.sh").chmod(0o755)
    (repository / "link.py").symlink_to("lib/model.py")
    (repository / "table.json").write_bytes(b"\0\1\2binary")
    (repository / "empty.py").touch()
    (repository / os.fsdecode(b"odd \xff\n\x1b name.py")).write_text("C = 1\n")
    (repository / "-rf.py").write_text("D = 1\n")
    (repository / ":(top)x.py").write_text("E = 1\n")
    expected = contents(repository)
    tree = capture(repository, tmp_path / "runs" / "a")
    assert tree.deleted == ["run.sh"] and tree.left_out == [] and tree.problem == ""
    assert b"+print('changed')" in (tmp_path / "runs" / "a" / tree.patch.stored).read_bytes()
    for path in list(repository.iterdir()):  # what comes back must not come from the working tree
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    done = restore_code(tmp_path / "runs" / "a", tmp_path / "new")
    assert done.is_exact, done
    assert contents(tmp_path / "new") == expected


@pytest.mark.parametrize("how", ["--assume-unchanged", "--skip-worktree"])
def test_changes_that_git_was_told_not_to_look_at_come_back(repository: Path, tmp_path: Path, how: str) -> None:
    in_git(repository, "update-index", how, "train.py", "run.sh")
    (repository / "train.py").write_text("print('another')\n")
    tree = capture(repository, tmp_path / "runs" / "a")
    assert [file.path for file in tree.files] == ["train.py"]
    done = restore_code(tmp_path / "runs" / "a", tmp_path / "new")
    assert done.is_exact and contents(tmp_path / "new") == contents(repository)


@pytest.mark.parametrize("how", ["attributes", "setting"])
def test_line_ends_that_git_converts_come_back_as_they_were(repository: Path, tmp_path: Path, how: str) -> None:
    if how == "attributes":
        (repository / ".gitattributes").write_text("*.txt text eol=crlf\n")
    else:
        in_git(repository, "config", "core.autocrlf", "true")
    (repository / "mine.txt").write_bytes(b"one\r\ntwo\r\n")
    (repository / "mixed.txt").write_bytes(b"one\r\ntwo\n")
    (repository / "changed.txt").write_bytes(b"one\r\n")
    commit(repository)
    (repository / "changed.txt").write_bytes(b"two\r\n")
    capture(repository, tmp_path / "runs" / "a")
    done = restore_code(tmp_path / "runs" / "a", tmp_path / "new")
    assert done.is_exact and contents(tmp_path / "new") == contents(repository)


def test_a_file_that_was_taken_out_of_git_and_is_ignored_comes_back(repository: Path, tmp_path: Path) -> None:
    (repository / ".gitignore").write_text("train.py\n")
    in_git(repository, "rm", "-q", "--cached", "train.py")
    capture(repository, tmp_path / "runs" / "a")
    done = restore_code(tmp_path / "runs" / "a", tmp_path / "new")
    assert done.is_exact and contents(tmp_path / "new") == contents(repository)


def test_the_patch_is_one_that_git_applies(repository: Path, tmp_path: Path) -> None:
    (repository / "train.py").write_text("print('changed')\n")
    (repository / "lib" / "model.py").write_bytes(b"\0\1\2")
    run = tmp_path / "runs" / "a"
    tree = capture(repository, run)
    clone = tmp_path / "clone"
    in_git(tmp_path, "clone", "-q", str(repository), str(clone))
    in_git(clone, "apply", str(run / tree.patch.stored))
    assert contents(clone) == contents(repository)


def test_a_repository_without_a_commit_is_kept_whole(tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    in_git(folder, "init", "-q")
    (folder / "train.py").write_text("1\n")
    (folder / "other.py").write_text("2\n")
    in_git(folder, "add", "other.py")
    tree = capture(folder, tmp_path / "runs" / "a")
    assert tree.is_git and tree.commit == "" and tree.branch == "main" and len(tree.files) == 2
    assert restore_code(tmp_path / "runs" / "a", tmp_path / "new").is_exact
    assert contents(tmp_path / "new") == contents(folder)


def test_a_detached_head_and_a_worktree_are_repositories_like_any_other(repository: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    in_git(repository, "worktree", "add", "-q", "--detach", str(second))
    (second / "train.py").write_text("print('second')\n")
    tree = capture(second, tmp_path / "runs" / "a")
    assert tree.branch == "" and tree.commit and [file.path for file in tree.files] == ["train.py"]
    assert restore_code(tmp_path / "runs" / "a", tmp_path / "new").is_exact
    assert contents(tmp_path / "new") == contents(second)


def test_where_the_repository_is_gone_the_remote_is_named_and_a_clone_is_taken(
    repository: Path, tmp_path: Path
) -> None:
    in_git(repository, "remote", "add", "origin", "https://me:sesame@example.org/project.git")
    (repository / "train.py").write_text("print('changed')\n")
    (repository / "new.py").write_text("N = 1\n")
    expected = contents(repository)
    run = tmp_path / "runs" / "a"
    tree = capture(repository, run)
    repository.rename(tmp_path / "moved")
    done = restore_code(run, tmp_path / "part")
    assert not done.is_exact and len(done.missing) == 1 and "sesame" not in str(done)
    assert "git clone https://example.org/project.git" in done.missing[0] and tree.commit in done.missing[0]
    assert sorted(contents(tmp_path / "part")) == ["new.py", "relume-changes.patch", "train.py"]
    done = restore_code(run, tmp_path / "whole", repository=tmp_path / "moved")
    assert done.is_exact and contents(tmp_path / "whole") == expected
    with pytest.raises(ConfigurationError, match="no git repository"):
        restore_code(run, tmp_path / "other", repository=tmp_path / "runs")


def test_a_commit_that_was_thrown_away_is_said(repository: Path, tmp_path: Path) -> None:
    capture(repository, tmp_path / "runs" / "a")
    shutil.rmtree(repository / ".git")
    in_git(repository, "init", "-q")
    done = restore_code(tmp_path / "runs" / "a", tmp_path / "new")
    assert "is not here" in done.missing[0] and "it had no remote" in done.missing[0]


def test_submodules_are_trees_of_their_own_in_their_places(repository: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    in_git(inner, "init", "-q")
    (inner / "part.py").write_text("P = 1\n")
    commit(inner)
    in_git(repository, "submodule", "--quiet", "add", str(inner), "vendor/inner")
    commit(repository, "submodule")
    tree = capture(repository, tmp_path / "runs" / "a")
    assert not tree.is_dirty
    done = restore_code(tmp_path / "runs" / "a", tmp_path / "new")
    assert any("vendor/inner is a submodule, at its commit" in text for text in done.missing)


def test_a_damaged_file_of_the_run_is_found(repository: Path, tmp_path: Path) -> None:
    (repository / "new.py").write_text("N = 1\n")
    run = tmp_path / "runs" / "a"
    tree = capture(repository, run)
    (run / tree.files[0].stored).write_text("N = 2\n")
    with pytest.raises(RunError, match="not what the run kept: it was changed or damaged"):
        restore_code(run, tmp_path / "new")
    (run / tree.files[0].stored).unlink()
    with pytest.raises(RunError, match="the code of this run is not complete any more"):
        restore_code(run, tmp_path / "newer")


@pytest.mark.parametrize(
    "path", ["../out.py", "/tmp/out.py", "a/../../out.py", ".git/hooks/post-checkout", "a/.GIT/config", "", "a//b"]
)
def test_a_path_that_leads_elsewhere_is_refused(repository: Path, tmp_path: Path, path: str) -> None:
    (repository / "new.py").write_text("N = 1\n")
    run = tmp_path / "runs" / "a"
    capture(repository, run)
    record = Provenance.load(run)
    record.segments[0].code.trees[0].files[0].path = path
    record.save(run)
    with pytest.raises(RunError, match="such a path is not written"):
        restore_code(run, tmp_path / "deep" / "new")
    assert not (tmp_path / "deep" / "out.py").exists() and not (tmp_path / "out.py").exists()


@pytest.mark.parametrize("stored", ["../../../etc/passwd", "run.json", "code/files/00/" + "0" * 64])
def test_a_file_that_is_none_of_the_code_is_not_read(repository: Path, tmp_path: Path, stored: str) -> None:
    (repository / "new.py").write_text("N = 1\n")
    run = tmp_path / "runs" / "a"
    capture(repository, run)
    record = Provenance.load(run)
    record.segments[0].code.trees[0].files[0].stored = stored
    record.save(run)
    with pytest.raises(RunError, match="as a file of the code, which it cannot be"):
        restore_code(run, tmp_path / "new")


def test_links_are_made_last_so_that_nothing_is_written_through_them(repository: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (repository / "a").symlink_to(outside)
    (repository / "x.py").write_text("X = 1\n")
    run = tmp_path / "runs" / "a"
    capture(repository, run)
    record = Provenance.load(run)
    files = record.segments[0].code.trees[0].files
    next(file for file in files if file.path == "x.py").path = "a/x.py"
    record.save(run)
    with pytest.raises(RootError, match="cannot be made a link: File exists"):
        restore_code(run, tmp_path / "new")
    assert list(outside.iterdir()) == []


def test_the_folder_must_be_new_or_empty(repository: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    capture(repository, run)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ConfigurationError, match="is not empty"):
        restore_code(run, tmp_path / "full")
    with pytest.raises(ConfigurationError, match="is a file"):
        restore_code(run, tmp_path / "full" / "x")
    (tmp_path / "empty").mkdir()
    assert restore_code(run, tmp_path / "empty").is_exact


def test_a_segment_that_is_not_there_is_named_with_those_that_are(repository: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    capture(repository, run)
    with pytest.raises(RunError, match=r"has no segment 7: there is 1\."):
        restore_code(run, tmp_path / "new", segment=7)


def test_a_run_without_provenance_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="made by an older relume"):
        restore_code(tmp_path, tmp_path / "new")


def test_files_out_of_repositories_come_back_as_they_were(tmp_path: Path) -> None:
    from relume.provenance.code import capture_files
    from relume.provenance.keeping import Keeper
    from relume.provenance.record import Code, Segment, SourceTree
    from relume.provenance.secrets import Redactor

    folder, run = tmp_path / "plain", tmp_path / "runs" / "a"
    folder.mkdir()
    run.mkdir(parents=True)
    (folder / "train.py").write_text("1\n")
    tree = SourceTree(path=str(folder))
    capture_files(tree, folder, Keeper(run, Redactor()), [(folder / "train.py", "script")], 0.0)
    elsewhere = SourceTree(path="/somewhere/else/lib", files=tree.files)
    Provenance(run="a", id="x", segments=[Segment(segment=1, started=0, code=Code(trees=[tree, elsewhere]))]).save(run)
    assert restore_code(run, tmp_path / "new").is_exact
    assert sorted(contents(tmp_path / "new")) == ["_outside/lib/train.py", "train.py"]


def test_filters_hooks_and_monitors_of_the_repository_are_not_run(repository: Path, tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {marker}\ncat\n")
    script.chmod(0o755)
    for name in (
        "core.fsmonitor",
        "core.pager",
        "diff.external",
        "core.sshCommand",
        "core.askPass",
        "diff.evil.textconv",
        "diff.evil.command",
    ):
        in_git(repository, "config", name, str(script))
    (repository / ".git" / "hooks" / "post-index-change").write_text(script.read_text())
    (repository / ".git" / "hooks" / "post-index-change").chmod(0o755)
    (repository / ".git" / "info" / "attributes").write_text("*.py diff=evil\n")
    (repository / "train.py").write_text("print('changed')\n")
    tree = capture(repository, tmp_path / "runs" / "a")
    assert tree.patch is not None and tree.problem == ""
    assert restore_code(tmp_path / "runs" / "a", tmp_path / "new").is_exact
    assert not marker.exists()


def test_variables_that_lead_git_elsewhere_do_not_count(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    tree = capture(repository, tmp_path / "runs" / "a")
    assert tree.commit and tree.problem == ""


def test_capturing_changes_nothing_in_the_repository(repository: Path, tmp_path: Path) -> None:
    (repository / "train.py").write_text("print('changed')\n")
    (repository / "new.py").write_text("N = 1\n")

    def facts() -> list[tuple[str, bytes]]:
        return [(str(p), p.read_bytes()) for p in sorted((repository / ".git").rglob("*")) if p.is_file()]

    before = facts()
    capture(repository, tmp_path / "runs" / "a")
    assert facts() == before


def test_provenance_json_is_plain_json_whatever_the_names_are(repository: Path, tmp_path: Path) -> None:
    (repository / os.fsdecode(b"\xff\xfe.py")).write_text("1\n")
    run = tmp_path / "runs" / "a"
    capture(repository, run)
    data = json.loads((run / "provenance.json").read_text())
    assert data["segments"][0]["code"]["trees"][0]["files"][0]["path"] == "\\xff\\xfe.py"


@pytest.mark.parametrize(
    ("inner", "command", "start"),
    [
        ("", ["python", "train.py", "--config", "a.yaml"], "python train.py --config a.yaml"),
        ("lib", ["python", "../train.py", "--config", "a.yaml"], "cd lib && python ../train.py --config a.yaml"),
        ("", ["python", "-m", "train", "--config", "a.yaml"], "python -m train --config a.yaml"),
        ("", ["python", "train.py", "-m", "large"], "python train.py -m large"),
    ],
)
def test_the_command_is_given_as_it_works_in_the_new_folder(
    repository: Path, tmp_path: Path, inner: str, command: list[str], start: str
) -> None:
    run = tmp_path / "runs" / "a"
    capture(repository, run)
    record = Provenance.load(run)
    entry = record.find()
    entry.directory, entry.command = str(repository / inner), command
    entry.argv = ["train.py", *command[-2:]]
    record.save(run)
    assert restore_code(run, tmp_path / "new").start == start
