"""Each start of a run keeps its provenance: in this process, in others that are killed, and in a notebook's kernel."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pydantic
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import relume
from relume.errors import ConfigurationError, RunError
from relume.monitor import RunRecord, launch_again
from relume.provenance import Provenance, restore_code
from relume.provenance.secrets import REDACTED

CANARY = "ca" + "nary"  # in one piece it stands in no file
TOKEN = "hf_" + "Xy9" * 8
SCRIPT = """
import os, signal, sys, torch, relume, helper
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(torch.ones(8, 2), torch.ones(8, 1)), batch_size=4)
with relume.Run("line", model=model, optimizer=optimizer, quiet=True, config={"helper": helper.VALUE}) as run:
    if "kill" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    for epoch in run.epochs(int(sys.argv[1])):
        for x, y in run.batches(loader):
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward(); optimizer.step(); optimizer.zero_grad()
    if "fail" in sys.argv:
        raise ValueError("no access to https://me:CANARY-fail@example.org")
""".replace("CANARY", CANARY)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "helper.py").write_text("VALUE = 1\n")
    git(folder, "init", "-qb", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "train.py", *arguments]
    return subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)


def code_at(run: Path, target: Path, segment: int) -> dict[str, str]:
    restore_code(run, target, segment)
    return {name: (target / name).read_text() for name in ("train.py", "helper.py")}


def test_a_script_resumed_with_changed_code_keeps_both_states(project: Path, tmp_path: Path) -> None:
    run = project / "runs" / "line"
    assert (
        start(
            project, "1", "--token", f"{CANARY}-argv", SECRET_TOKEN=f"{CANARY}-environment", OMP_NUM_THREADS="1"
        ).returncode
        == 0
    )
    (project / "helper.py").write_text(f"VALUE = 2  # {CANARY}-environment\n")
    assert start(project, "2", SECRET_TOKEN=f"{CANARY}-environment").returncode == 0
    (project / "helper.py").write_text("VALUE = 3\n")
    record = Provenance.load(run)
    first, second = record.segments
    assert [entry.segment for entry in record.segments] == [1, 2] and first.missing == second.missing == []
    assert first.argv == ["train.py", "1", "--token", REDACTED] and first.environment["OMP_NUM_THREADS"] == "1"
    assert not first.code.trees[0].is_dirty and first.code.trees[0].commit == git(project, "rev-parse", "HEAD")
    assert [file.path for file in second.code.trees[0].files] == ["helper.py"] and second.resumed_from.startswith(
        "line@"
    )
    assert (first.status, first.reason, first.config) == ("finished", "1 epoch done", {"helper": 1})
    assert first.seconds > 0 and first.ended > first.started and first.machine.cores == os.cpu_count()
    assert first.packages["torch"] and first.datasets[0].length == 8 and len(first.datasets) == 1
    assert code_at(run, tmp_path / "one", 1) == {"train.py": SCRIPT, "helper.py": "VALUE = 1\n"}
    assert code_at(run, tmp_path / "two", 2) == {"train.py": SCRIPT, "helper.py": f"VALUE = 2  # {REDACTED}\n"}
    assert subprocess.run(["grep", "-r", CANARY, str(run)], capture_output=True, text=True).stdout == ""
    with pytest.raises(RunError, match="no segment 3: there is 1, 2"):
        restore_code(run, tmp_path / "three", 3)


def test_a_run_that_is_killed_at_once_says_what_it_kept_and_what_is_missing(project: Path, tmp_path: Path) -> None:
    killed = start(project, "1", f"--api-key={CANARY}", "kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = project / "runs" / "line"
    entry = Provenance.load(run).find()
    assert entry.argv == ["train.py", "1", f"--api-key={REDACTED}", "kill"]
    assert entry.status == "" and entry.config == {"helper": 1}
    if entry.code is None:
        assert entry.missing == ["code", "machine", "packages"]
        with pytest.raises(
            RunError, match=r"kept no code when it started \(segment 1\): it ended before that was done"
        ):
            restore_code(run, tmp_path / "new")
    else:
        assert restore_code(run, tmp_path / "new").files >= 2
    with pytest.raises(RunError, match="started with a secret in its arguments, which is not stored"):
        launch_again(run)


def test_a_failed_run_keeps_its_reason_without_what_is_secret_in_it(project: Path) -> None:
    assert start(project, "1", "fail").returncode == 1
    run = project / "runs" / "line"
    entry = Provenance.load(run).find()
    assert entry.status == "failed" and entry.reason == f"ValueError: no access to https://{REDACTED}@example.org"
    assert subprocess.run(["grep", "-r", CANARY, str(run / "journal")], capture_output=True, text=True).stdout == ""


@dataclass
class Inner:
    api_key: str = CANARY
    width: int = 8


@dataclass
class Settings:
    lr: float = 0.1
    inner: Inner = field(default_factory=Inner)


class Model(pydantic.BaseModel):
    lr: float = 0.1
    inner: dict[str, object] = {"api_key": CANARY, "width": 8}


@pytest.mark.parametrize(
    "config",
    [
        {"lr": 0.1, "inner": {"api_key": CANARY, "width": 8}},
        Settings(),
        Model(),
        argparse.Namespace(lr=0.1, inner=argparse.Namespace(api_key=CANARY, width=8)),
        {"lr": 0.1, "inner": Inner()},
    ],
    ids=["dict", "dataclass", "pydantic", "argparse", "mixed"],
)
def test_settings_of_every_form_are_kept_nested_and_without_secrets(
    config: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with relume.Run("a", root=tmp_path / "runs", config=config, quiet=True) as run:
        assert run.config == {"lr": 0.1, "inner": {"api_key": REDACTED, "width": 8}}
    assert Provenance.load(run.folder).find().config == RunRecord.load(run.folder).config == run.config


def test_tags_and_notes_stay_and_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(1, 1)

    def record(**more: object) -> RunRecord:
        with relume.Run("a", model=model, root=tmp_path / "runs", quiet=True, **more) as run:
            pass
        return RunRecord.load(run.folder)

    first = record(tags=["x", "y", "x"], notes="why\nnot")
    assert (first.tags, first.notes) == (["x", "y"], "why\nnot")
    assert (record().tags, record().notes) == (["x", "y"], "why\nnot")
    again = record(tags="z", notes="other")
    assert (again.tags, again.notes) == (["x", "y", "z"], "other")
    data = json.loads((tmp_path / "runs" / "a" / "run.json").read_text())
    del data["tags"], data["notes"]  # as an older relume wrote it
    (tmp_path / "runs" / "a" / "run.json").write_text(json.dumps(data))
    assert (record().tags, record().notes) == ([], "")


@pytest.mark.parametrize("tags", [3, [""], ["a\nb"], ["x" * 101], [1], [str(n) for n in range(101)]])
def test_tags_that_are_none_are_refused(tags: object) -> None:
    with pytest.raises(ConfigurationError, match=r"tags must be at most 100 words|a tag must be a text of one line"):
        relume.Run("a", tags=tags)


def test_notes_must_be_a_text() -> None:
    with pytest.raises(ConfigurationError, match="notes must be a text, not int"):
        relume.Run("a", notes=3)


def test_the_trainer_takes_tags_and_notes(tmp_path: Path, model: nn.Module, loader: DataLoader) -> None:
    trainer = relume.Trainer(
        model, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1), quiet=True
    )
    trainer.fit(loader, epochs=1, run="a", root=tmp_path, tags=("x",), notes="text")
    record = RunRecord.load(tmp_path / "a")
    assert (record.tags, record.notes) == (["x"], "text")
    entry = Provenance.load(tmp_path / "a").find()
    assert [(data.length, data.batch_size) for data in entry.datasets] == [(50, 16)]
    with (
        relume.Run("b", root=tmp_path, quiet=True) as run,
        pytest.raises(ConfigurationError, match="belong to the Run"),
    ):
        trainer.fit(loader, epochs=1, run=run, tags="x")


def test_an_unreadable_record_is_kept_aside_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(1, 1)
    with relume.Run("a", model=model, root=tmp_path / "runs", quiet=True) as run:
        pass
    (run.folder / "provenance.json").write_text("{")
    with relume.Run("a", model=model, root=tmp_path / "runs", quiet=True) as run:
        pass
    assert [path.read_text() for path in run.folder.glob("provenance-unread-*.json")] == ["{"]
    assert Provenance.load(run.folder).find().segment == 2
    assert "is damaged" in (run.folder / "journal" / "0002.jsonl").read_text()


def test_code_can_be_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_PROVENANCE", "off")
    with relume.Run("a", root=tmp_path / "runs", quiet=True) as run:
        pass
    entry = Provenance.load(run.folder).find()
    assert entry.code is None and entry.machine is not None and not (run.folder / "code").exists()
    with pytest.raises(RunError, match="kept no code when it started .*turned off by RELUME_PROVENANCE"):
        restore_code(run.folder, tmp_path / "new")


def test_a_capture_that_fails_is_noted_and_the_training_goes_on(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "new.py").write_text("N = 1\n")
    folder = tmp_path / "runs" / "a"
    (folder / "journal").mkdir(parents=True)
    (folder / "code").touch()  # where a folder must be
    with relume.Run("a", model=nn.Linear(1, 1), root=tmp_path / "runs", quiet=True) as run:
        run.log({"x": 1})
    entry = Provenance.load(folder).find()
    assert run.status == entry.status == "finished" and run.folder == folder
    assert len(entry.missing) == 1 and entry.missing[0].startswith("code: ") and entry.packages
    with pytest.raises(RunError, match="kept no code when it started .segment 1.: (NotADirectory|FileExists)Error"):
        restore_code(folder, tmp_path / "new")


def test_cells_of_a_notebook_are_kept_as_executed(tmp_path: Path) -> None:
    client = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cells = [
        "%config InlineBackend.close_figures = False\nimport relume\ntoken = '" + TOKEN + "'",
        "run = relume.Run('cells', quiet=True)\nrun.__enter__();",
        "run.log({'x': 1})",
        "run.__exit__(None, None, None)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    client.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    run = tmp_path / "runs" / "cells"
    entry = Provenance.load(run).find()
    assert entry.code.notebook.cells == 4 and entry.code.notebook.redacted == 1 and entry.code.script == ""
    done = restore_code(run, tmp_path / "new")
    assert "the cells: 1 secret taken out" in done.differences
    assert not [file.path for tree in entry.code.trees for file in tree.files if file.kind == "argument"]
    written = nbformat.read(tmp_path / "new" / "executed_cells.ipynb", 4)
    nbformat.validate(written)
    assert [cell.source for cell in written.cells] == [
        cells[0].replace(TOKEN, REDACTED),
        *cells[1:],
    ]
    text = (tmp_path / "new" / "executed_cells.py").read_text()
    assert "run.log({'x': 1})" in text and "# %config" in text
    compile(text, "cells", "exec")
    assert subprocess.run(["grep", "-r", TOKEN, str(run)], capture_output=True, text=True).stdout == ""


def test_the_capture_waits_for_nothing_in_the_training(tmp_path: Path) -> None:
    """The thread is behind the training, and is done before the first checkpoint names a place in the journal."""
    model = nn.Linear(1, 1)
    with relume.Run("a", model=model, root=tmp_path, quiet=True) as run:
        assert (run.folder / "provenance.json").exists()
        run.checkpoint()
        entry = Provenance.load(run.folder).find()
        assert entry.missing == [] and entry.code is not None and entry.capture_seconds is not None


def test_a_mirror_has_the_provenance_too(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    (project / "helper.py").write_text("VALUE = 2\n")
    (tmp_path / "drive").mkdir()
    with relume.Run(
        "a", model=nn.Linear(1, 1), root=tmp_path / "runs", mirror=tmp_path / "drive" / "runs", quiet=True
    ) as run:
        run.checkpoint()
    there = tmp_path / "drive" / "runs" / "a"
    tree = Provenance.load(there).find().code.trees[0]
    assert (there / tree.files[0].stored).read_text() == "VALUE = 2\n"
