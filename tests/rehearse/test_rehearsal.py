"""The whole rehearsal of real scripts, and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rehearsed

from relume.errors import ConfigurationError
from relume.rehearse import Plan, rehearse, workspace


def relume(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1", "TMPDIR": str(cwd)}
    environment.pop("PYTHONHASHSEED", None)
    command = [sys.executable, "-m", "relume", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(400)
def test_a_training_with_every_generator_is_proven_to_resume_exactly(tmp_path: Path) -> None:
    rehearsed.write(tmp_path)
    ended = relume("rehearse", "--kills", "3", "--json", "train.py", "2", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    (run,) = found["runs"]
    assert found["verdict"] == "exact" and run["resumes"] >= 1 and len(found["kills"]) >= 2
    assert run["state"]["compared"]["models"]["tensors"] == 9 and run["logged"]["values"] == 34
    assert run["logged"]["differ_by_nature"] == ["seconds"]
    assert not (tmp_path / "runs").exists() and not list(tmp_path.glob("relume-rehearsal-*"))


@pytest.mark.timeout(400)
def test_an_untracked_generator_is_caught_and_named(tmp_path: Path) -> None:
    rehearsed.write(tmp_path, "untracked generator")
    ended = relume("rehearse", "--kills", "2", "--keep", "train.py", "2", cwd=tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    for text in (
        "models.model.0.bias: ",
        "train/loss: ",
        "a random generator of the script's own begins from its seed again after each start",
        "train.py:37: rng = np.random.default_rng(0)",
        'track={"rng": rng}',
    ):
        assert text in ended.stdout
    (kept,) = tmp_path.glob("relume-rehearsal-*")
    assert f"kept in {kept}" in ended.stderr and (kept / "killed" / "noisy" / "run.json").is_file()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("mistake", "cause"),
    [
        ("unseeded", "numpy's or random's global generator is used without a seed"),
        ("order of a set", "the order of a set"),
        ("time", "the time of day is part of the computation"),
        ("sum over an epoch", "a number or a container that grows"),
        ("new runs", "begins a new run instead of carrying on"),
        ("new names", "the name of the run is another one at each start"),
        ("fails again", "run a second time, the script ended with status 1"),
    ],
)
def test_each_mistake_is_caught_with_its_cause(tmp_path: Path, mistake: str, cause: str) -> None:
    rehearsed.write(tmp_path, mistake)
    ended = relume("rehearse", "--kills", "2", "train.py", cwd=tmp_path)
    assert ended.returncode == 1 and cause in ended.stdout, ended.stdout + ended.stderr


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_kills_at_many_moments_change_nothing(tmp_path: Path, seed: int) -> None:
    rehearsed.write(tmp_path)
    ended = relume(
        "rehearse", "--kills", "12", "--seed", str(seed), "--every", "2 steps", "train.py", "6", cwd=tmp_path
    )
    assert ended.returncode == 0 and "It resumes exactly" in ended.stdout, ended.stdout + ended.stderr


def test_a_script_without_a_run_is_told_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("print('nothing here')")
    ended = relume("rehearse", "script.py", cwd=tmp_path)
    assert ended.returncode == 2 and "with relume.Run(" in ended.stdout


def test_a_script_that_fails_by_itself_is_shown_failing(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys\nprint(sys.argv[1:])\nraise ValueError('no data')")
    ended = relume("rehearse", "script.py", "--lr", "1", "--json", cwd=tmp_path)
    assert ended.returncode == 3
    for text in ("Undisturbed, the script ended with status 1", "['--lr', '1', '--json']", "ValueError: no data"):
        assert text in ended.stdout


def test_a_module_is_started_as_one(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").write_text("import sys\nsys.exit(f'{__package__} {sys.argv[1]}')")
    ended = relume("rehearse", "-m", "project.train", "7", cwd=tmp_path)
    assert ended.returncode == 3 and "project 7" in ended.stdout


def test_a_script_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no script 'missing.py'"):
        rehearse(Plan("missing.py"), tmp_path)


TINY = """
import sys
sys.path.insert(0, {folder!r})
import torch
from tiny_run import TinyRun
run = TinyRun("line", every=1000)
run.state["models"] = {{"model": {{"weight": torch.zeros(2)}}}}
for step in run.steps(10):
    run.log({{"loss": 1.0}})
"""


def test_nothing_is_called_proven_when_no_kill_was_followed_by_a_resume(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TINY.format(folder=str(Path(__file__).parent)))
    rehearsal = rehearse(Plan(str(script), kills=1, every="1000 steps"), tmp_path / "work")
    assert rehearsal.verdict == "unproven"


def test_a_script_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import time\ntime.sleep(60)")
    rehearsal = rehearse(Plan(str(tmp_path / "script.py"), timeout_seconds=0.5), tmp_path / "work")
    assert rehearsal.verdict == "fails" and "did not end within" in rehearsal.reason


def test_the_temporary_folder_goes_unless_it_is_kept() -> None:
    with pytest.raises(KeyError), workspace() as folder:
        raise KeyError
    assert not folder.exists()
    with workspace(keep=True) as folder:
        pass
    assert folder.is_dir()
    folder.rmdir()
