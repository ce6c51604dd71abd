"""The program, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

QUICK = ("--epochs", "1", "--batch-size", "500")


def relume(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relume", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run."""
    folder = tmp_path_factory.mktemp("project")
    ended = relume("train", "fashion-mnist", *QUICK, "--name", "first", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert "epoch 1/1  batch 100/" in ended.stdout and "val/accuracy 0." in ended.stdout
    assert "stored in runs/first" in ended.stdout
    assert "fashion-mnist:" in ended.stderr  # which files were used
    return folder


def test_a_run_is_listed_and_shown(folder: Path) -> None:
    listed = relume("runs", cwd=folder)
    assert listed.returncode == 0 and "first" in listed.stdout and "finished" in listed.stdout
    shown = relume("show", "first", cwd=folder)
    for text in ("first  finished (1 epoch done)", "val/accuracy", "optimizer", "Adam", "batch_size", "torch 2"):
        assert text in shown.stdout
    assert relume("show", "runs/first", cwd=folder).stdout.splitlines()[0] == shown.stdout.splitlines()[0]


def test_programs_get_json(folder: Path) -> None:
    (run,) = json.loads(relume("runs", "--json", cwd=folder).stdout)
    assert (run["name"], run["status"], run["epoch"]) == ("first", "finished", 1)
    assert run["metrics"]["val/accuracy"]["best"] > 0.5
    shown = json.loads(relume("show", "first", "--json", cwd=folder).stdout)
    assert shown["config"]["batch_size"] == 500 and shown["seed"] == 0


def test_a_training_has_trackers_tags_and_notes(tmp_path: Path) -> None:
    options = ("--tracker", "tensorboard", "--tag", "a", "--tag", "b", "--notes", "first try", "--in-memory")
    ended = relume("train", "fashion-mnist", *QUICK, "--name", "shown", *options, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert list((tmp_path / "runs" / "shown" / "tensorboard").glob("events.out.tfevents.*"))
    shown = json.loads(relume("runs", "--json", "--where", "'b' in tags and notes ~ 'first*'", cwd=tmp_path).stdout)
    assert [run["name"] for run in shown] == ["shown"]
    refused = relume("train", "fashion-mnist", *QUICK, "--tracker", "tensorbord", cwd=tmp_path)
    assert refused.returncode == 1 and "did you mean 'tensorboard'?" in refused.stderr


def test_the_same_seed_gives_the_same_run(folder: Path) -> None:
    assert relume("train", "fashion-mnist", *QUICK, "--name", "again", "--quiet", cwd=folder).returncode == 0
    first, again = (
        trained(json.loads(relume("show", name, "--json", cwd=folder).stdout)) for name in ("first", "again")
    )
    assert first == again and "val/accuracy" in first


def trained(shown: dict[str, Any]) -> dict[str, Any]:
    """The metrics without the machine's own, which come by the clock."""
    return {name: entry for name, entry in shown["metrics"].items() if not name.startswith("system/")}


def test_quiet_says_nothing(folder: Path) -> None:
    ended = relume("train", "fashion-mnist", *QUICK, "--name", "silent", "-q", cwd=folder)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "sgd", "--lr", "0.1", "--momentum", "0.9", "--schedule", "onecycle"),
        (
            "--optimizer",
            "adamw",
            "--schedule",
            "cosine",
            "--accumulate",
            "4",
            "--clip-norm",
            "1",
            "--no-in-memory",
            "--workers",
            "2",
        ),
    ],
)
def test_options_reach_the_training(folder: Path, options: tuple[str, ...]) -> None:
    ended = relume("train", "fashion-mnist", *QUICK, "--name", "options", "--no-resume", *options, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    accuracy = float(ended.stdout.split("val/accuracy ")[1].split()[0])
    assert accuracy > 0.5


def test_a_folder_of_images_trains(tmp_path: Path) -> None:
    from PIL import Image

    for name, shade in (("dark", 30), ("light", 220)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (16, 16), (shade + number % 5,) * 3).save(tmp_path / "pictures" / name / f"{number}.png")
    options = ("--model", "cnn", "--epochs", "2", "--batch-size", "4", "--precision", "bf16")
    ended = relume("train", "pictures", *options, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "stored in runs/pictures" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("train", "fashon-mnist"), 1, "did you mean 'fashion-mnist'"),
        (("train", "fashion-mnist", "--model", "mpl"), 1, "did you mean 'mlp'"),
        (("train", "fashion-mnist", "--model", "timm/resnet1"), 1, "did you mean"),
        (("train", "fashion-mnist", "--name", "a/b"), 1, "cannot be the name of a run"),
        (("train", "fashion-mnist", "--epochs", "0"), 1, "epochs must be a whole number of at least 1"),
        (("train", "fashion-mnist", "--device", "cuda:77"), 1, "device 'cuda:77' cannot be used"),
        (("train", "fashion-mnist", "--root", "/proc/x"), 1, "cannot be stored in /proc/x"),
        (("train", "fashion-mnist", "--lr", "1e30", "--epochs", "1"), 1, "the loss is"),
        (("train", "fashion-mnist", "--optimizer", "sdg"), 2, "'sdg' is not one of"),
        (("train", "fashion-mnist", "--batch-size", "x"), 2, "valid integer"),
        (("train",), 2, "Missing argument 'DATASET'"),
        (("show", "nothing"), 1, "there is no run 'nothing'"),
        (("tarin",), 2, "No such command 'tarin'"),
    ],
)
def test_wrong_arguments_are_explained(tmp_path: Path, arguments: tuple[str, ...], status: int, message: str) -> None:
    ended = relume(*arguments, cwd=tmp_path)
    assert ended.returncode == status
    assert message.lower() in " ".join(ended.stderr.replace("│", " ").split()).lower()
    assert "Traceback" not in ended.stderr


def test_an_empty_folder_has_no_runs(tmp_path: Path) -> None:
    ended = relume("runs", cwd=tmp_path)
    assert ended.returncode == 0 and "There are no runs in runs" in ended.stdout
    assert relume("runs", "--json", cwd=tmp_path).stdout.strip() == "[]"


def test_ctrl_c_ends_cleanly_and_marks_the_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "relume", "train", "fashion-mnist", "--epochs", "500", "--name", "long"]
    child: Any = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with child:
        while "epoch 1/500  batch" not in child.stdout.readline():
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        rest, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted after" in rest and "Traceback" not in errors
    (run,) = json.loads(relume("runs", "--json", cwd=tmp_path).stdout)
    assert (run["status"], run["reason"]) == ("interrupted", "Ctrl-C")


def test_help_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = "import sys; sys.argv=['relume','--help']; import relume.cli.app as app; app._status(); assert 'torch' not in sys.modules"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "train" in ended.stdout
    helped = relume("train", "--help", cwd=tmp_path)
    for option in (
        "--epochs",
        "--batch-size",
        "--lr",
        "--optimizer",
        "--model",
        "--device",
        "--precision",
        "--seed",
        "--name",
        "--workers",
    ):
        assert option in helped.stdout
    assert "[default: 5]" in helped.stdout


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    ended = subprocess.run(
        f"{sys.executable} -m relume show first --json | head -n 1",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "{\n" and "Traceback" not in ended.stderr


def test_runs_can_be_listed_while_one_is_training(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "relume", "train", "fashion-mnist", "--epochs", "500", "--name", "long", "-q"]
    child = subprocess.Popen(command, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        facts: list[dict[str, Any]] = []
        while time.monotonic() < deadline and not (facts and facts[0]["step"] > 10):
            facts = json.loads(relume("runs", "--json", cwd=tmp_path).stdout)
        assert facts[0]["status"] == "running" and facts[0]["metrics"]["train/loss"]["count"] > 5
    finally:
        child.kill()
        child.wait()
    assert json.loads(relume("runs", "--json", cwd=tmp_path).stdout)[0]["status"] == "killed"
