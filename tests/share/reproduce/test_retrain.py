"""A training that is done again gives the same weights, in a folder that goes, and nothing runs without trust."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from altered_bundles import altered, images_of, row_of, run_relume, verdicts, write_images

from relume.errors import BundleError
from relume.share import documents
from relume.share.pack import pack
from relume.share.reproduce import Row, Verdict, reproduce
from relume.share.reproduce.fresh import Fresh, fresh_environment
from relume.share.reproduce.retrain import _in_fresh, variables

SCRIPT = Path(__file__).parent / "script_for_retrain.py"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are: it must be empty at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def hanging(own: Path, tmp_path: Path) -> Path:
    """The bundle of a script that says its process and does not end."""
    text = f"import os, pathlib, time\npathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\ntime.sleep(90)\n"
    return altered(own, tmp_path / "hanging.relume", {f"{documents.CODE_FOLDER}train.py": text.encode()})


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("relume-reproduce")]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a user's script with a class of its own."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copy(SCRIPT, folder / "train.py")
    environment = {key: value for key, value in os.environ.items() if key != "RELUME_PROVENANCE"}
    done = subprocess.run(
        [sys.executable, "train.py", "2"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return pack("own", folder / "own.relume", root=folder / "runs", graph=False).path


def test_relume_train_gives_the_same_weights_without_trust(bundle: Path, images: Path, temporary: Path) -> None:
    found = reproduce(bundle, images, retrain=True)
    assert found.exit_status == 0
    weights = row_of(found, "training", "weights")
    assert weights.verdict is Verdict.EXACT and weights.claimed == weights.found and len(weights.found) == 64
    assert verdicts(found, "training") == {Verdict.EXACT}
    assert len(found.stage("training").rows) == 3  # type: ignore[union-attr]
    assert not left(temporary)


def test_another_seed_is_found(bundle: Path, images: Path, tmp_path: Path) -> None:
    path = altered(bundle, tmp_path / "a.relume", {documents.RUN: lambda d: d["command"].append("--seed=1")})
    found = reproduce(path, images, retrain=True)
    assert (found.first_difference, found.exit_status) == ("training", 1)
    assert (
        "the same processor and versions gave other weights. Largest difference"
        in row_of(found, "training", "weights").why
    )


def test_fewer_epochs_end_without_the_checkpoint(bundle: Path, images: Path, tmp_path: Path) -> None:
    path = altered(bundle, tmp_path / "a.relume", {documents.RUN: lambda d: d["command"].append("--epochs=1")})
    found = reproduce(path, images, retrain=True)
    assert found.first_difference == "training"
    assert (
        "ended without a checkpoint at epoch 2, step 8: it made 000001-epoch=1"
        in row_of(found, "training", "checkpoint").why
    )


def test_elsewhere_other_weights_are_no_failure_but_other_metrics_are(
    bundle: Path, images: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        documents.ENVIRONMENT: lambda d: d.update(cpu="Another"),
        documents.RUN: lambda d: d["command"].append("--lr=0.3"),
    }
    found = reproduce(altered(bundle, tmp_path / "a.relume", changes), images, retrain=True)
    weights = row_of(found, "training", "weights")
    assert weights.verdict is Verdict.UNCHECKED and "another processor (Another; here is" in weights.why
    assert found.first_difference == "training" and row_of(found, "training", "val/loss").verdict is Verdict.DIFFERENT


def test_a_script_runs_only_when_it_is_trusted(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setenv("SCRIPT_TEST_MARK", str(tmp_path / "mark"))
    found = reproduce(own, retrain=True)
    assert not (tmp_path / "mark").exists()
    assert "runs only when it is trusted (--trust" in row_of(found, "training", "training again").why
    found = reproduce(own, retrain=True, trust=True)
    assert row_of(found, "training", "weights").verdict is Verdict.EXACT, found.stage("training")
    assert row_of(found, "training", "val/accuracy").verdict is Verdict.EXACT
    assert found.exit_status == 0 and "training" in found.conclusion  # the bundle has neither examples nor a graph
    assert not left(temporary) and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"raise SystemExit('no data here')", "exit status 1.* no data here"), (b"print(1)", "it made no checkpoint")],
)
def test_a_script_that_fails_says_its_last_lines(own: Path, tmp_path: Path, content: bytes, says: str) -> None:
    import re

    path = altered(own, tmp_path / "a.relume", {f"{documents.CODE_FOLDER}train.py": content})
    stage = reproduce(path, retrain=True, trust=True).stage("training")
    assert stage is not None and re.search(says, stage.rows[0].why)


def test_a_timeout_ends_the_training(hanging: Path, tmp_path: Path, temporary: Path) -> None:
    found = reproduce(hanging, retrain=True, trust=True, timeout_seconds=3)
    assert "it was ended after 3 s without the checkpoint" in row_of(found, "training", "training again").why
    assert not left(temporary)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_a_signal_ends_the_training_too_and_its_folder_goes(
    hanging: Path, tmp_path: Path, number: int, temporary: Path
) -> None:
    command = [sys.executable, "-m", "relume", "reproduce", str(hanging), "--retrain", "--trust"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _wait_for(
            lambda: process.poll() is not None or ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        )
        process.send_signal(number)
        assert process.wait(30) == (130 if number == signal.SIGINT else 143), process.stderr
    finally:
        process.kill()
        process.communicate()
    child = int((tmp_path / "pid").read_text())
    _wait_for(lambda: not psutil.pid_exists(child))
    assert not left(temporary)


def _wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_other_training_data_give_another_training(bundle: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "data")
    pixels, labels = images_of(images)
    write_images(tmp_path / "data", pixels.repeat(2, 1, 1), labels * 2, train=True)
    found = reproduce(bundle, tmp_path / "data", retrain=True)
    assert found.first_difference == "training" and "training data" in " ".join(found.reasons)


def test_the_new_training_gets_threads_and_nothing_that_leads_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RELUME_TRACKERS", "RELUME_RESUME", "RELUME_EVERY", "WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "x")
    made = variables(tmp_path, documents.Environment(threads=3), tmp_path / "data", False)
    assert made["OMP_NUM_THREADS"] == "3" and made["RELUME_ROOT"] == str(tmp_path)
    assert made["RELUME_DATA"] == str(tmp_path / "data") and made["RELUME_PROVENANCE"] == "off"
    assert not {"RELUME_TRACKERS", "RELUME_RESUME", "RELUME_EVERY", "WANDB_API_KEY", "MLFLOW_TRACKING_URI"} & set(made)


# ---------------------------------------------------------------------------------------------- fresh environments


def wheel(folder: Path, name: str, version: str) -> None:
    """A package with one module, as pip takes it."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


@pytest.mark.long
def test_a_fresh_environment_has_the_exact_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1.0", "2.0"):
        wheel(tmp_path / "wheels", "tinythings", version)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    made = fresh_environment(tmp_path, {"tinythings": "1.0", "relume": "0.0.1", "mine": "1 (file:///x)"})
    code = "import tinythings, sys; print(tinythings.VERSION, 'torch' in sys.modules)"
    said = subprocess.run([str(made.python), "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["1.0", "False"] and made.left_out == ["mine 1 (file:///x)"] and made.installed == 1
    assert list(tmp_path.glob("environment/lib/*/site-packages/relume/share/reproduce/fresh.py"))


def test_a_fresh_environment_alone_proves_nothing() -> None:
    """The row of the weights says where it was trained, and keeps its verdict."""
    row = Row(claim="weights", verdict=Verdict.UNCHECKED, why="another processor")
    found = _in_fresh(Fresh(Path("python"), 3, ["mine 1"]), row)
    assert found.verdict is Verdict.UNCHECKED and found.why.startswith(
        "another processor; in a fresh environment with 3"
    )


@pytest.mark.long
def test_pip_that_fails_is_a_reason(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    path = altered(
        own, tmp_path / "a.relume", {documents.ENVIRONMENT: lambda d: d.update(packages={"tinythings": "9.9"})}
    )
    found = reproduce(path, retrain=True, trust=True, fresh_environment=True)
    row = row_of(found, "training", "training again")
    assert (
        row.verdict is Verdict.UNCHECKED
        and "pip install failed with status 1" in row.why
        and "tinythings==9.9" in row.why
    )
    assert not left(temporary)


def test_an_environment_without_packages_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"names no packages with versions: there is nothing to install"):
        fresh_environment(tmp_path, {"relume": "1"})


def test_the_programs_report(bundle: Path, images: Path, tmp_path: Path) -> None:
    """The command: a line a stage, the table, the report, the exit status; within 80 columns."""
    done = run_relume(
        tmp_path, "reproduce", str(bundle), "--data", str(images), "-o", "r.md", "-o", "r.html", "-o", "r.json"
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stderr.splitlines()[:7]] == [
        "digests", "environment", "weights", "preprocessing", "outputs", "data", "metrics",
    ]  # fmt: skip
    assert max(map(len, (done.stdout + done.stderr).splitlines())) <= 80
    assert all((tmp_path / f"r.{ending}").stat().st_size > 1000 for ending in ("md", "html", "json"))
    for arguments, says in (
        (["nothing.relume"], "there is no bundle"),
        ([str(bundle), "-o", "r.txt"], "is written as .md"),
    ):
        done = run_relume(tmp_path, "reproduce", *arguments)
        assert done.returncode == 2 and says in done.stderr
