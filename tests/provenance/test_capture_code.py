"""What is kept of a start's code, and what is left out and named."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from repositories import capture, commit, contents, in_git

from relume.provenance import git, restore_code, sources
from relume.provenance.code import capture_code, capture_repository
from relume.provenance.git import GitError
from relume.provenance.keeping import Keeper
from relume.provenance.record import Provenance, SourceTree
from relume.provenance.secrets import REDACTED, Redactor

HEX = "0123456789abcdef0123456789abcdef01234567"
PLANTED = {
    "settings.yaml": "password: hunter-canary-1\nlr: 0.1\n",
    "login.py": f'import wandb\nwandb.login(key="{HEX}")\nTOKEN = "hf_canaryCANARYcanaryCANARY"\n',
    "clone.sh": "git clone https://me:canary-url@example.org/x.git\n",
    ".env": "X=canary-env\n",
    "deploy/id_rsa": "canary-rsa\n",
    "server.pem": "canary-pem\n",
    "credentials.json": '{"a": "canary-credentials"}\n',
    ".netrc": "machine h login u password canary-netrc\n",
    "notes.md": "machine h\n  login u\n  password canary9netrc\n",
    "key.txt": "-----BEGIN PRIVATE KEY-----\ncanary-pem-body\n-----END PRIVATE KEY-----\n",
    "cloud.toml": 'aws = "AKIACANARYCANARYCANA"\n',
    "jwt.json": '{"x": "eyJjYW5hcnkiOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canarycanary"}\n',
}
CANARIES = ["canary", "CANARY", HEX, "eyJ"]


def assert_no_canary(folder: Path) -> None:
    for canary in CANARIES:
        found = subprocess.run(["grep", "-r", "-l", "-a", canary, str(folder)], capture_output=True, text=True)
        assert found.stdout == "", (canary, found.stdout)


@pytest.mark.parametrize("state", ["untracked", "added", "modified", "removed", "deleted"])
def test_no_planted_secret_gets_into_the_run(repository: Path, tmp_path: Path, state: str) -> None:
    def plant(after: str = "") -> None:
        for name, text in PLANTED.items():
            (repository / name).parent.mkdir(exist_ok=True)
            (repository / name).write_text(text + after)

    plant()
    if state != "untracked":
        in_git(repository, "add", "-A", "-f")
    if state in ("modified", "removed", "deleted"):
        in_git(repository, "commit", "-qm", "secrets")
        for name in PLANTED:
            (repository / name).unlink() if state == "deleted" else None
            (repository / name).write_text("clean = 1\n") if state == "removed" else None
        plant("changed = 1\n") if state == "modified" else None
    run = tmp_path / "runs" / "a"
    tree = capture(repository, run)
    assert_no_canary(tmp_path / "runs")
    if state == "deleted":
        assert len(tree.deleted) == len(PLANTED)
        return
    assert {entry.path for entry in tree.left_out} == {
        ".env",
        "deploy/id_rsa",
        "server.pem",
        "credentials.json",
        ".netrc",
    }
    assert all("holds secrets" in entry.why for entry in tree.left_out)
    redacted = {file.path for file in tree.files if file.redacted}
    assert redacted == (set() if state == "removed" else set(PLANTED) - {entry.path for entry in tree.left_out})
    done = restore_code(run, tmp_path / "new")
    assert not done.is_exact and not done.missing
    if state != "removed":
        assert any(text == "login.py: 2 secrets taken out" for text in done.differences)
        assert (tmp_path / "new" / "settings.yaml").read_text().startswith(f"password: {REDACTED}\nlr: 0.1\n")


@pytest.mark.parametrize("state", ["added", "removed"])
def test_the_patch_of_settings_has_no_bare_words_that_are_secrets(repository: Path, tmp_path: Path, state: str) -> None:
    texts = ["lr: 1\n", "lr: 1\npassword: wordcanary\n"]
    (repository / "settings.yaml").write_text(texts[state == "removed"])
    commit(repository)
    (repository / "settings.yaml").write_text(texts[state == "added"])
    tree = capture(repository, tmp_path / "runs" / "a")
    assert tree.patch is not None and tree.patch.redacted == 1
    assert_no_canary(tmp_path / "runs")


@pytest.mark.parametrize("state", ["untracked", "left out", "modified", "deleted"])
def test_a_token_in_the_name_of_a_file_does_not_get_into_the_run(repository: Path, tmp_path: Path, state: str) -> None:
    path = repository / f"hf_canaryCANARYcanaryCANARY{'.bin' if state == 'left out' else '.py'}"
    path.write_text("x = 1\n")
    if state in ("modified", "deleted"):
        commit(repository)
        path.unlink() if state == "deleted" else path.write_text("x = 2\n")
    tree = capture(repository, tmp_path / "runs" / "a")
    assert_no_canary(tmp_path / "runs")
    assert [entry.path.startswith(REDACTED) for entry in tree.left_out] == [True]
    assert not restore_code(tmp_path / "runs" / "a", tmp_path / "new").is_exact


def test_a_script_that_git_does_not_show_as_untracked_is_kept(repository: Path, tmp_path: Path) -> None:
    """As in a home folder whose settings are under version control."""
    in_git(repository, "config", "status.showUntrackedFiles", "no")
    (repository / "mine.py").write_text("import helper\n")
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    tree = SourceTree(path=str(repository))
    capture_repository(tree, repository, Keeper(run, Redactor()), [(repository / "mine.py", "script")], [], 0.0)
    assert [file.path for file in tree.files] == ["mine.py"]


def test_what_is_no_source_is_too_large_or_too_much_is_named_with_its_size(repository: Path, tmp_path: Path) -> None:
    (repository / "weights.pt").write_bytes(b"0" * 1000)
    (repository / "large.py").write_text("#" * 2001)
    for number in range(5):
        (repository / f"part{number}.py").write_text(f"{number}" * 1000)
    (repository / "train.py").write_text("#" * 3000)
    run = tmp_path / "runs" / "a"
    tree = capture(repository, run, file_bytes=2000, run_bytes=3500)
    left = {entry.path: (entry.size_bytes, entry.kind, entry.why) for entry in tree.left_out}
    assert left["weights.pt"] == (1000, "untracked", "it is no source file")
    assert (
        left["large.py"][0] == 2001
        and left["train.py"][:2] == (3000, "modified")
        and "larger than" in left["train.py"][2]
    )
    assert "together" in left["part3.py"][2] and len(tree.files) == 3
    assert sum(path.stat().st_size for path in (run / "code").rglob("*") if path.is_file()) <= 3500
    done = restore_code(run, tmp_path / "new")
    said = next(text for text in done.differences if text.startswith("train.py (modified, 3.0 kB) was not kept"))
    assert said.endswith("in its place is that of the commit")
    assert (tmp_path / "new" / "train.py").read_text().startswith("import lib.model")


def test_many_untracked_files_are_counted_and_not_all_named(repository: Path, tmp_path: Path) -> None:
    (repository / "data").mkdir()
    for number in range(300):
        (repository / "data" / f"{number}.bin").touch()
    tree = capture(repository, tmp_path / "runs" / "a")
    assert len(tree.left_out) == 200 and tree.more_left_out == 100


def test_data_beside_the_code_is_counted_and_does_not_hide_a_source(repository: Path, tmp_path: Path) -> None:
    for number in range(300):
        (repository / f"{number:03}.jpg").write_text("x")
    (repository / "zz.yaml").write_text("lr: 1\n")
    tree = capture(repository, tmp_path / "runs" / "a")
    assert [file.path for file in tree.files] == ["zz.yaml"]
    assert (len(tree.left_out), tree.more_left_out) == (200, 100)


def test_pipes_sockets_and_unreadable_things_are_left_alone(repository: Path, tmp_path: Path) -> None:
    os.mkfifo(repository / "pipe.py")
    with socket.socket(socket.AF_UNIX) as server:
        place = os.path.relpath(repository / "s.py")
        server.bind(place)
        (repository / "broken.py").symlink_to("nowhere")
        (repository / "nested").mkdir()
        in_git(repository / "nested", "init", "-q")
        (repository / "nested" / "inner.py").touch()
        tree = capture(repository, tmp_path / "runs" / "a")
    assert [file.path for file in tree.files] == ["broken.py"]


def test_equal_files_of_runs_side_by_side_are_one_on_the_disk(repository: Path, tmp_path: Path) -> None:
    (repository / "new.py").write_text("N = 1\n")
    first = capture(repository, tmp_path / "runs" / "a")
    second = capture(repository, tmp_path / "runs" / "b")
    place = first.files[0].stored
    assert second.files[0].stored == place
    assert (tmp_path / "runs" / "a" / place).samefile(tmp_path / "runs" / "b" / place)


def test_runs_in_the_repository_are_not_its_sources(repository: Path) -> None:
    capture(repository, repository / "runs" / "a")
    (repository / "runs" / "a" / "notes.txt").write_text("x")
    tree = capture(repository, repository / "runs" / "b")
    assert not tree.is_dirty and tree.left_out == []


def test_a_repository_that_shows_no_untracked_files_has_none(repository: Path, tmp_path: Path) -> None:
    """Such as one of the settings in a home folder."""
    in_git(repository, "config", "status.showUntrackedFiles", "no")
    (repository / "new.py").write_text("N = 1\n")
    assert capture(repository, tmp_path / "runs" / "a").files == []


def test_two_changed_halves_of_a_merge_are_kept_as_they_stand(repository: Path, tmp_path: Path) -> None:
    in_git(repository, "checkout", "-qb", "other")
    (repository / "train.py").write_text("other\n")
    commit(repository, "other")
    in_git(repository, "checkout", "-q", "main")
    (repository / "train.py").write_text("main\n")
    commit(repository, "main")
    subprocess.run(["git", "merge", "other"], cwd=repository, capture_output=True)
    expected = contents(repository)
    assert b"<<<<<<<" in expected["train.py"][0]
    capture(repository, tmp_path / "runs" / "a")
    restore_code(tmp_path / "runs" / "a", tmp_path / "new")
    assert contents(tmp_path / "new") == expected


def in_folder(folder: Path, run: Path, arguments: tuple[str, ...] = ()) -> object:
    run.mkdir(parents=True, exist_ok=True)
    return capture_code(Keeper(run, Redactor()), arguments, folder, 0.0)


def test_modules_are_kept_that_git_ignores_or_that_lie_elsewhere(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / ".gitignore").write_text("ignored_settings.py\n")
    (repository / "ignored_settings.py").write_text("A = 1\n")
    elsewhere = tmp_path / "elsewhere" / "outer_package"
    elsewhere.mkdir(parents=True)
    (elsewhere / "__init__.py").write_text("")
    (elsewhere / "inner_part.py").write_text("B = 1\n")
    (repository / "conf.yaml").write_text("lr: 1\n")
    monkeypatch.syspath_prepend(str(repository))
    monkeypatch.syspath_prepend(str(elsewhere.parent))
    __import__("ignored_settings")
    __import__("outer_package.inner_part")
    code = in_folder(repository, tmp_path / "runs" / "a", ("--config=conf.yaml", "none.yaml", "x" * 5000, "\0.yaml"))
    kept = {Path(tree.path, file.path): file.kind for tree in code.trees for file in tree.files}
    assert kept[repository / "ignored_settings.py"] == "ignored"
    assert kept[repository / "conf.yaml"] == "untracked"
    assert kept[elsewhere / "inner_part.py"] == "module"
    assert code.trees[0].path == str(repository)
    for name in ("ignored_settings", "outer_package", "outer_package.inner_part"):
        del sys.modules[name]


@pytest.mark.parametrize("state", ["bare", "broken", "no git"])
def test_where_git_cannot_help_the_modules_are_kept_as_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    folder = tmp_path / f"folder_{state[:2]}"
    folder.mkdir()
    name = f"module_of_{state[:2]}"
    (folder / f"{name}.py").write_text("A = 1\n")
    if state == "bare":
        in_git(folder, "init", "-q", "--bare")
    else:
        in_git(folder, "init", "-q")
    if state == "broken":
        (folder / ".git" / "HEAD").write_bytes(b"\xff\xff")
    if state == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(folder))
    __import__(name)
    code = in_folder(folder, tmp_path / "runs" / "a")
    tree = next(tree for tree in code.trees if tree.path == str(folder))
    assert [file.path for file in tree.files] == [f"{name}.py"] and not tree.is_git
    assert {"bare": "", "broken": "git: not a git repository", "no git": "git: there is no git program"}[
        state
    ] in tree.problem
    del sys.modules[name]


def test_a_damaged_index_leaves_the_commit_and_says_why(repository: Path, tmp_path: Path) -> None:
    (repository / ".git" / "index").write_bytes(b"garbage")
    tree = capture(repository, tmp_path / "runs" / "a")
    assert tree.commit == in_git(repository, "rev-parse", "HEAD") and "index" in tree.problem


def test_a_question_that_takes_too_long_or_answers_too_much_ends(repository: Path) -> None:
    with pytest.raises(GitError, match="git hash-object took longer than"):
        os.mkfifo(repository / "pipe")
        git.git(repository, "hash-object", "pipe", seconds=0.5)
    with pytest.raises(GitError, match="wrote more than 0 MB"):
        git.git(repository, "cat-file", "-p", "HEAD", limit=10)


def test_a_repository_of_another_owner_that_git_refuses_is_a_folder_of_files(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.name == "nt" or os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(repository, 12345, 12345)
    with pytest.raises(GitError, match="dubious ownership"):
        git.root_of(repository)


def test_sources_are_told_from_data_by_their_names() -> None:
    assert all(map(sources.is_source, ["a.py", "b/Makefile", "c.YAML".lower(), "d.ipynb", "x.cu", ".gitignore"]))
    assert not any(map(sources.is_source, ["a.pt", "b.png", "c.csv", "d.safetensors", "e"]))


def test_cells_become_a_notebook_and_a_script() -> None:
    cells = [(1, "import x\n%matplotlib inline"), (3, "%%time\nx = 1")]
    assert [c["execution_count"] for c in sources.as_notebook(cells)["cells"]] == [1, 3]
    script = sources.as_script(cells)
    assert script == "# %% [1]\nimport x\n# %matplotlib inline\n\n# %% [3]\n# %%time\n# x = 1\n"
    compile(script, "cells", "exec")


def test_the_record_names_fields_that_it_does_not_know_and_keeps_them(repository: Path, tmp_path: Path) -> None:
    import json

    from relume.errors import RunError

    run = tmp_path / "runs" / "a"
    capture(repository, run)
    data = json.loads((run / "provenance.json").read_text())
    data["segments"][0]["container"] = "docker"
    data["segments"][0]["code"]["trees"][0]["stash"] = 1
    (run / "provenance.json").write_text(json.dumps(data))
    record = Provenance.load(run)
    assert record.unknown() == ["segments.0.container", "segments.0.code.trees.0.stash"]
    record.save(run)
    assert json.loads((run / "provenance.json").read_text()) == data
    (run / "provenance.json").write_text(json.dumps(data | {"format": 2}))
    with pytest.raises(RunError, match="has the format 2, and this relume knows 1"):
        Provenance.load(run)
    (run / "provenance.json").write_text('{"format": 1')
    with pytest.raises(RunError, match="is damaged"):
        Provenance.load(run)
