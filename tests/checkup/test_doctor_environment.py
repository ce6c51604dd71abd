"""What the doctor finds around a script, and how it says it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from relume.checkup import Finding, Place, Report, doctor, environment, places
from relume.cli.app import app
from relume.errors import ConfigurationError


def whats(findings: Iterator[Finding]) -> list[str]:
    return [f"{finding.severity}: {finding.what}" for finding in findings]


def git(folder: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Clean, with a remote that has all of it."""
    folder = tmp_path / "code"
    folder.mkdir()
    git(tmp_path, "init", "-q", "--bare", "remote.git")
    git(folder, "init", "-q")
    (folder / "train.py").write_text("import torch\ntorch.manual_seed(0)\nmodel = torch.nn.Linear(2, 1)\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    git(folder, "remote", "add", "origin", str(tmp_path / "remote.git"))
    git(folder, "push", "-qu", "origin", "HEAD")
    return folder


# ------------------------------------------------------------------------------------------------------------- versions


@pytest.mark.parametrize(
    ("torch_version", "vision", "said"),
    [
        ("2.14.0+cu130", "0.29.0", []),
        ("2.6.0", "0.21.0+cu124", []),
        ("2.6.0", None, []),
        ("2.6.0", "0.20.1", ["stops: torchvision 0.20.1 does not belong to torch 2.6.0"]),
        ("2.9.1+cpu", "0.24.1+cu128", ["stops: torchvision 0.24.1+cu128 and torch 2.9.1+cpu are builds for different devices"]),
        ("3.0.0", "1.0.0", []),
        ("2.8.0a0+git1234", "0.23.0a0", []),
    ],
)  # fmt: skip
def test_torchvision_belongs_to_torch(torch_version: str, vision: str | None, said: list[str]) -> None:
    assert whats(environment._vision(torch_version, vision)) == said


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("2.5.1", ["stops: torch 2.5.1 is older than relume supports (2.6)"]),
        ("2.99.0", ["note: torch 2.99.0 is newer than relume was tested with (2.14)"]),
        ("2.6.0", []),
    ],
)
def test_a_torch_outside_of_what_is_supported(version: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(environment, "_version", lambda package: None)
    assert whats(environment._versions()) == said


# ------------------------------------------------------------------------------------------------------ variables, settings


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MKL_CBWR", "COMPATIBLE", "may: the environment has MKL_CBWR=COMPATIBLE"),
        ("NVIDIA_TF32_OVERRIDE", "0", "may: the environment has NVIDIA_TF32_OVERRIDE=0"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16", "may: the environment has ONEDNN_DEFAULT_FPMATH_MODE=BF16"),
        ("CUBLAS_WORKSPACE_CONFIG", ":0:0", "may: the environment has CUBLAS_WORKSPACE_CONFIG=:0:0"),
        ("PYTHONHASHSEED", "0", "note: the environment has PYTHONHASHSEED=0"),
    ],
)
def test_variables_that_change_numbers(name: str, value: str, said: str) -> None:
    assert whats(environment._variables({name: value})) == [said]


@pytest.mark.parametrize(
    ("name", "value"), [("CUBLAS_WORKSPACE_CONFIG", ":4096:8"), ("PYTHONHASHSEED", "random"), ("HOME", "/root")]
)
def test_variables_that_change_nothing(name: str, value: str) -> None:
    assert whats(environment._variables({name: value})) == []


def test_a_variable_with_escapes_moves_no_terminal() -> None:
    found = next(environment._variables({"MKL_CBWR": "\x1b[2J"}))
    assert "\x1b" not in found.what and r"\x1b[2J" in found.what


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(3)
    assert whats(environment._threads()) == ["note: torch takes as many threads as this machine has cores: 3"]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("MKL_NUM_THREADS", "4")
    assert whats(environment._threads()) == ["note: OMP_NUM_THREADS=2 and MKL_NUM_THREADS=4 differ"]


def test_settings_of_this_process() -> None:
    assert whats(environment._settings()) == []
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("high")
    try:
        assert whats(environment._settings()) == [
            "note: matrix products of float32 have the precision 'high'",
            "note: torch's default dtype is float64",
        ]
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")


def test_packages_from_this_machines_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "own_tools-1.0.dist-info"
    info.mkdir()
    (info / "direct_url.json").write_text(json.dumps({"url": "file:///home/me/tools", "dir_info": {"editable": True}}))
    other = tmp_path / "theirs-2.0.dist-info"
    other.mkdir()
    (other / "direct_url.json").write_text(
        json.dumps({"url": "https://example.org/theirs", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}})
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert whats(environment._packages()) == ["may: 1 package installed from this machine's own files: own-tools"]


# ------------------------------------------------------------------------------------------------------------ git, disk


@pytest.fixture(autouse=True)
def _code_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELUME_PROVENANCE", raising=False)


def test_a_clean_repository_has_no_finding(repository: Path) -> None:
    assert whats(places.of_code(repository)) == []


def test_what_is_not_committed_and_not_pushed(repository: Path) -> None:
    (repository / "train.py").write_text("changed = 1\n")
    (repository / "new.py").write_text("")
    said = "note: the code differs from its commit: 1 changed file and 1 file that git does not have"
    assert whats(places.of_code(repository)) == [said]
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "second")
    assert whats(places.of_code(repository)) == ["note: 1 commit not pushed to origin/main"]
    git(repository, "checkout", "-q", "--detach")
    assert whats(places.of_code(repository))[0].startswith("note: HEAD is detached at ")
    git(repository, "remote", "remove", "origin")
    assert whats(places.of_code(repository))[0] == "note: the repository has no remote"


def test_no_repository_no_commit_and_a_broken_one(tmp_path: Path) -> None:
    assert whats(places.of_code(tmp_path)) == ["note: the code is in no git repository"]
    git(tmp_path, "init", "-q")
    assert whats(places.of_code(tmp_path)) == ["note: the repository has no commit yet"]
    (tmp_path / ".git" / "HEAD").write_text("nonsense")
    assert whats(places.of_code(tmp_path))[0].startswith("may: git cannot be asked about the code: ")


def test_code_that_no_run_keeps(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_PROVENANCE", "off")
    assert whats(places.of_code(repository)) == ["stops: the environment has RELUME_PROVENANCE=off: runs keep no code"]


def test_the_root_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert whats(places.of_root(tmp_path / "a" / "b")) == []
    (tmp_path / "file").write_text("")
    assert whats(places.of_root(tmp_path / "file")) == [f"stops: {tmp_path}/file cannot be written"]
    for kind in ("nfs4", "fuse.sshfs", "cifs"):
        monkeypatch.setattr(places, "_file_system", lambda place, kind=kind: kind)
        said = f"may: {tmp_path}/ is on a file system of a network or a program ({kind})"
        assert whats(places.of_root(tmp_path)) == [said]
    monkeypatch.setattr(places, "_file_system", lambda place: "fuse.fuse-overlayfs")
    assert whats(places.of_root(tmp_path)) == []
    monkeypatch.setattr(places, "_LITTLE_BYTES", 1 << 80)
    assert whats(places.of_root(tmp_path))[0].startswith("may: only ")


def test_the_kind_of_this_file_system_is_known(tmp_path: Path) -> None:
    assert places._file_system(Path("/proc")) == "proc"


# -------------------------------------------------------------------------------------------------------------- the report


def report(*severities: Any) -> Report:
    return Report(tuple(Finding(severity, "script", "what", "why", "do") for severity in severities), ("all",), "a.py")


@pytest.mark.parametrize(
    ("severities", "said"),
    [
        ((), "Clean: nothing found that stands in the way of reproducing."),
        (("note",), "Clean: nothing found that stands in the way of reproducing; 1 note."),
        (("may", "note", "note"), "Nothing is known to stop reproducing, 1 thing may; 2 notes."),
        (("stops",), "1 thing stops reproducing."),
        (("stops", "stops", "may"), "2 things stop reproducing, 1 thing more may."),
    ],
)
def test_the_verdict_is_one_sentence(severities: Any, said: str) -> None:
    assert report(*severities).verdict() == said
    assert said in str(report(*severities))


def test_no_line_is_longer_than_the_terminal_and_hostile_names_do_nothing() -> None:
    where = tuple(Place("x" * 100 + "\x1b[31m.py", n, "code " * 50) for n in range(9))
    text = str(Report((Finding("may", "script", "w " * 200, "y " * 200, "d " * 200, where),), ("all",) * 50))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text and "and 5 more places" in text
    html = Report((Finding("may", "script", "<b>what</b>", "why", "do"),), ("all",))._repr_html_()
    assert "<b>" not in html


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("trian.py", r"there is no script '.*trian.py': did you mean 'train.py'"),
        (".", "is a folder: name the script in it"),
        ("book.ipynb", "is a notebook: call relume.doctor"),
    ],
)
def test_what_is_no_script_is_an_error(repository: Path, script: str, said: str) -> None:
    (repository / "book.ipynb").write_text("{}")
    with pytest.raises(ConfigurationError, match=said):
        doctor(repository / script)


def test_a_module_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="there is no module 'no.such.module' here"):
        doctor("no.such.module", is_module=True)


def test_the_command_says_it_in_its_exit_status(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setenv("COLUMNS", "80")
    run = CliRunner().invoke
    good = run(app, ["doctor", "train.py"])
    assert good.exit_code == 0, good.output
    assert max(map(len, good.output.splitlines())) <= 80
    (repository / "late.py").write_text(
        "from torch import nn\nimport torch\nmodel = nn.Linear(2, 1)\ntorch.manual_seed(0)\n"
    )
    bad = run(app, ["doctor", "late.py", "--json"])
    assert bad.exit_code == 1
    said = json.loads(bad.output)
    assert said["stops"] == 1 and said["script"] == "late.py"
    (finding,) = [f for f in said["findings"] if f["severity"] == "stops"]
    assert finding["places"] == [{"file": "late.py", "line": 3, "code": "model = nn.Linear(2, 1)"}]
    assert run(app, ["doctor", "-m", "late"]).exit_code == 1
    assert run(app, ["doctor"]).exit_code == 0
    assert not (repository / "runs").exists()
    assert "-m needs the name of a module" in str(run(app, ["doctor", "-m"]).exception)


def test_a_script_can_ask_about_itself(repository: Path) -> None:
    (repository / "self.py").write_text(
        "from relume.checkup import doctor\nimport torch\nx = torch.rand(1)\ntorch.manual_seed(0)\nprint(doctor().script, len(doctor().stops))\n"
    )
    done = subprocess.run([sys.executable, "self.py"], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout == "self.py 1\n"
