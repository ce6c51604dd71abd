"""``relume resume``, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import argparse, os, signal
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import relume

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--stop-at", type=int, default=0)
options = parser.parse_args()
torch.manual_seed(0)
model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(torch.ones(8, 2), torch.ones(8, 1)), batch_size=2, shuffle=True)
with relume.Run("line", model=model, optimizer=optimizer, every="1 steps", quiet=True) as run:
    print("from step", run.cursor.step, "in", os.getcwd())
    for epoch in run.epochs(options.epochs):
        for x, y in run.batches(loader):
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward(); optimizer.step(); optimizer.zero_grad()
            run.log({"train/loss": loss})
            if run.cursor.step == options.stop_at and not os.path.exists("stopped"):
                open("stopped", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
print("to step", run.cursor.step)
"""


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_run_carries_on_with_its_own_command_from_any_folder(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "else where"
    project.mkdir()
    elsewhere.mkdir()
    (project / "train.py").write_text(SCRIPT)
    assert python("-u", "train.py", "--stop-at", "6", cwd=project).returncode == -9
    resumed = python("-m", "relume", "resume", str(project / "runs" / "line"), cwd=elsewhere)
    assert resumed.returncode == 0, resumed.stderr
    first, *rest = resumed.stdout.splitlines()
    assert first.startswith(f"cd {project} && ") and first.endswith(" -u train.py --stop-at 6")
    assert (
        rest[0].startswith("from step ") and rest[0] != f"from step 0 in {project}" and rest[0].endswith(str(project))
    )
    assert rest[-1] == "to step 8"
    finished = python("-m", "relume", "resume", "line", cwd=project)
    assert finished.returncode == 0 and "line is finished. To extend it" in finished.stdout
    extended = python("-m", "relume", "resume", "line", "--", "--epochs", "3", cwd=project)
    assert extended.returncode == 0 and extended.stdout.splitlines()[1:] == [f"from step 8 in {project}", "to step 12"]
    (project / "train.py").unlink()
    gone = python("-m", "relume", "resume", "line", "--", "--epochs", "4", cwd=project)
    assert gone.returncode == 1 and "train.py, which is not there any more" in gone.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_run_beside_one_of_its_name_is_the_one_that_carries_on(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT.replace("quiet=True)", "quiet=True, resume=False)"))
    assert python("train.py", cwd=tmp_path).returncode == 0
    assert python("train.py", "--stop-at", "6", cwd=tmp_path).returncode == -9
    resumed = python("-m", "relume", "resume", "line-2", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    _, begin, end = resumed.stdout.splitlines()
    assert not begin.startswith("from step 0 ") and end == "to step 8"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["line", "line-2", "store"]


def test_a_run_of_relume_train_is_extended_by_its_own_options(tmp_path: Path) -> None:
    quick = ("--epochs", "1", "--batch-size", "500", "--quiet")
    assert python("-m", "relume", "train", "fashion-mnist", *quick, cwd=tmp_path).returncode == 0
    extended = python("-m", "relume", "resume", "fashion-mnist", "--", "--epochs", "2", cwd=tmp_path)
    assert extended.returncode == 0 and "-m relume train fashion-mnist" in extended.stdout, extended.stderr
    shown = json.loads(python("-m", "relume", "show", "fashion-mnist", "--json", cwd=tmp_path).stdout)
    assert (shown["status"], shown["epoch"]) == ("finished", 2)
