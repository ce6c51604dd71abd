"""The commands on checkpoints, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import portalocker
import pytest
import torch

from relume.checkpoint import Store
from saved_runs import describe, flip, make_run, packs, save_run

Command = Callable[..., tuple[int, str, str]]


def test_checkpoints_are_listed_in_80_columns(relume: Command, tmp_path: Path) -> None:
    save_run(tmp_path / "runs", "fashion", [0.5, 0.2, 0.3])
    state, meta = {"w": torch.ones(3)}, describe(3, 35, {"val/loss": 0.4, "val/accuracy": 0.6}, batch=5)
    Store("runs").save(state, meta | {"reason": "SIGTERM"}, folder="fashion/checkpoints")
    status, out, _ = relume("checkpoints", "fashion")
    assert status == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    assert rows[1][:5] == ["2", "2", "20", "0.2*", "0.8*"]
    assert rows[3][:6] == ["4", "3+5", "35", "0.4", "0.6", "SIGTERM"]
    assert rows[4][:2] == ["4", "checkpoints:"] and "if each had its own tensors" in lines[-1]
    assert "3+5: 3 epochs and 5 batches" in out


def test_more_metrics_are_shown_where_there_is_room(
    relume: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_run(tmp_path / "runs", "fashion")
    _, out, _ = relume("checkpoints", "fashion")
    assert "train/" in out and " lr " not in out
    monkeypatch.setenv("COLUMNS", "120")
    assert " lr " in relume("checkpoints", "fashion")[1]
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = relume("checkpoints", "fashion")
    assert "accuracy" not in out and max(map(len, out.splitlines()[:6])) <= 60


def test_checkpoints_as_json(relume: Command, tmp_path: Path) -> None:
    saved = save_run(tmp_path / "runs", "fashion", [0.5, float("nan")])
    flip(save_run(tmp_path / "runs", "other", [0.1])[0].path)
    listed = json.loads(relume("checkpoints", "fashion", "--json")[1])
    assert [(one["number"], one["epoch"], one["step"]) for one in listed] == [(1, 1, 10), (2, 2, 20)]
    assert listed[1]["metrics"]["val/loss"] is None and listed[0]["path"] == str(saved[0].path)
    assert "own digest" in json.loads(relume("checkpoints", "other", "--json")[1])[0]["problem"]


def test_a_damaged_manifest_is_a_row_of_its_own(relume: Command, tmp_path: Path) -> None:
    flip(save_run(tmp_path / "runs", "fashion")[1].path)
    status, out, _ = relume("checkpoints", "fashion")
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert status == 0 and rows[1] == ["2", "damaged"] and rows[2][:2] == ["3", "3"]
    assert "step=20.json does not match its own digest" in out


def test_runs_without_checkpoints_and_unknown_runs_are_said(relume: Command, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "fashion")
    assert relume("checkpoints", "fashion")[:2] == (0, "The run fashion has no checkpoints.\n")
    assert relume("checkpoints", "fashion", "--json")[:2] == (0, "[]\n")
    status, _, errors = relume("checkpoints", "fashon")
    assert status == 1 and "there is no run 'fashon' in runs: did you mean 'fashion'?" in errors


def test_verify_says_what_was_read(relume: Command, tmp_path: Path) -> None:
    save_run(tmp_path / "runs", "fashion")
    save_run(tmp_path / "runs", "other", [0.1], seed=1)
    status, out, _ = relume("verify")
    assert status == 0 and out.startswith("4 checkpoints, ") and "in 4 packs: " in out
    assert "All of it is what was saved." in out
    assert relume("verify", "other")[1].startswith("1 checkpoint, ")
    report = json.loads(relume("verify", "fashion", "--json")[1])
    assert (report["ok"], report["checkpoints"], report["problems"]) == (True, 3, [])
    held = json.loads(relume("verify", "--json")[1])
    assert 0 < report["read_bytes"] < held["read_bytes"] < sum(path.stat().st_size for path in packs(tmp_path / "runs"))


def test_verify_names_the_checkpoints_that_a_damage_hits(relume: Command, tmp_path: Path) -> None:
    first, second, third = save_run(tmp_path / "runs", "fashion")
    (other,) = save_run(tmp_path / "runs", "other", [0.1], seed=1)
    first_pack, _, third_pack, _ = packs(tmp_path / "runs")
    flip(first_pack)  # its last byte: a short tensor that only the first save needs
    status, out, _ = relume("verify")
    assert status == 1
    assert out.count("damaged: ") == 1 and "tensors differ" in out
    assert f"needed by fashion/checkpoints/{first}" in out
    assert f"In fashion/checkpoints the newest good one is {third}." in out
    third_pack.unlink()
    flip(other.path)
    status, out, _ = relume("verify", "fashion")
    assert status == 1 and "is gone, and no other pack holds" in out and f"the newest good one is {second}" in out
    status, out, _ = relume("verify", "other")
    assert status == 1 and out.count("damaged: ") == 1 and "In other/checkpoints no checkpoint is good." in out
    report = json.loads(relume("verify", "--json")[1])
    assert [len(problem["checkpoints"]) for problem in report["problems"]] and not report["ok"]
    hit = {path for problem in report["problems"] for path in problem["checkpoints"]}
    assert hit == {str(first.path), str(third.path), str(other.path)}


def test_verify_of_one_run_is_not_stopped_by_another(relume: Command, tmp_path: Path) -> None:
    save_run(tmp_path / "runs", "fashion")
    before = set(packs(tmp_path / "runs"))
    save_run(tmp_path / "runs", "other", [0.1], seed=1)
    (own,) = set(packs(tmp_path / "runs")) - before
    own.write_bytes(b"not a pack")
    assert relume("verify", "fashion")[0] == 0
    status, out, _ = relume("verify", "other")
    assert status == 1 and "is not a pack" in out and "needed by other/checkpoints/000001" in out


def test_damage_that_no_checkpoint_needs_is_said_to_be_harmless(relume: Command, tmp_path: Path) -> None:
    (checkpoint,) = save_run(tmp_path / "runs", "fashion", [0.5])
    Store("runs").delete(checkpoint)
    flip(packs(tmp_path / "runs")[0])
    status, out, _ = relume("verify")
    assert status == 1 and "No checkpoint is lost by it. It goes when nothing needs it: relume gc --delete" in out
    assert relume("gc", "--delete")[0] == 0
    assert relume("verify")[:2] == (0, "There are no checkpoints in runs.\n")


def test_gc_frees_nothing_unless_told_to(relume: Command, tmp_path: Path) -> None:
    (checkpoint,) = save_run(tmp_path / "runs", "fashion", [0.5])
    (pack,) = packs(tmp_path / "runs")
    assert relume("gc")[:2] == (0, "There is nothing to free in runs.\n")
    Store("runs").delete(checkpoint)
    (tmp_path / "runs" / "store" / "staging" / "left").write_bytes(bytes(500))
    status, out, _ = relume("gc")
    assert status == 0 and pack.exists()
    assert (
        f"Would free {(pack.stat().st_size + 500) / 1000:.1f} kB" in out
        and "1 pack that no checkpoint needs" in out
        and "--delete does it" in out
    )
    assert "1 file that killed writers left (500 B)" in out
    planned = json.loads(relume("gc", "--json")[1])
    assert planned["packs"] == [str(pack)] and planned["freed_bytes"] == pack.stat().st_size + 500
    status, out, _ = relume("gc", "--delete")
    assert status == 0 and out.startswith("Freed 5.") and not pack.exists()
    assert relume("gc", "--yes")[1] == "There is nothing to free in runs.\n"


def test_gc_deletes_no_pack_beside_a_damaged_manifest(relume: Command, tmp_path: Path) -> None:
    flip(save_run(tmp_path / "runs", "fashion", [0.5])[0].path)
    status, out, _ = relume("gc", "--delete")
    assert status == 1 and "No pack is deleted while 1 manifest cannot be read" in out
    assert len(packs(tmp_path / "runs")) == 1


def test_gc_does_not_touch_a_store_in_use(relume: Command, tmp_path: Path) -> None:
    (checkpoint,) = save_run(tmp_path / "runs", "fashion", [0.5])
    Store("runs").delete(checkpoint)
    with (tmp_path / "runs" / "store" / "lock").open("a") as file:
        portalocker.lock(file, portalocker.LockFlags.SHARED)
        status, _, errors = relume("gc", "--delete", "--wait", "0")
    assert status == 1 and "is locked by another process" in errors and "Wait for it" in errors
    assert len(packs(tmp_path / "runs")) == 1


@pytest.mark.parametrize("command", ["verify", "gc"])
def test_folders_without_a_store_are_said(relume: Command, command: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    status, out, _ = relume(command, "--root", "empty")
    assert status == 0 and out.startswith("There ") and "in empty." in out
    for root in ("nowhere", "file"):
        status, out, errors = relume(command, "--root", root)
        assert (status, out) == (2, "") and f"there is no folder {root}" in errors


def test_verify_takes_wrong_runs_for_wrong_usage(relume: Command, tmp_path: Path) -> None:
    save_run(tmp_path / "runs", "fashion", [0.5])
    save_run(tmp_path / "else", "mnist", [0.5])
    status, _, errors = relume("verify", "fashion", "fashon")
    assert status == 2 and "there is no run 'fashon' in runs: did you mean 'fashion'?" in errors
    status, _, errors = relume("verify", "else/mnist")
    assert status == 2 and "else/mnist is not in runs: give its folder with --root" in errors


def test_export_writes_what_was_asked_for(relume: Command, tmp_path: Path) -> None:
    save_run(tmp_path / "runs", "fashion")
    status, out, _ = relume("export", "fashion@best", "best.pt")
    assert status == 0 and out.startswith("best.pt  ") and "from fashion/checkpoints/000002-epoch=2-step=20" in out
    assert "model_state_dict, optimizer_state_dict" in out
    assert torch.load("best.pt", weights_only=True)["epoch"] == 2
    assert relume("export", "fashion@best", "last.safetensors", "--monitor", "train/loss")[0] == 0
    status, out, errors = relume("export", "fashion", "best.pt")
    assert (status, out) == (1, "") and "best.pt exists. Choose another name, or overwrite it with --force" in errors
    assert relume("export", "fashion", "best.pt", "--force")[0] == 0
    assert torch.load("best.pt", weights_only=True)["epoch"] == 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("fashion", "x.bin"), 1, "'x.bin' ends in '.bin'. The ending says what is written: .pt or .pth"),
        (("fashion", "x"), 1, "ends in 'nothing'"),
        (("fashon@best", "x.pt"), 1, "did you mean 'fashion'"),
        (("fashion@7", "x.pt"), 1, "there is no checkpoint '7'"),
        (("fashion", "x.safetensors", "--model", "critic"), 1, "there is no model 'critic'"),
        (("fashion",), 2, "Missing argument 'OUT'"),
    ],
)
def test_exports_that_make_no_sense_are_explained(
    relume: Command, tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    save_run(tmp_path / "runs", "fashion", [0.5])
    ended, out, errors = relume("export", *arguments)
    assert (ended, out) == (status, "") and message.lower() in errors.lower()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.mark.filterwarnings("default::relume.errors.RelumeWarning")
def test_a_damaged_newest_checkpoint_is_passed_over_loudly(relume: Command, tmp_path: Path) -> None:
    save_run(tmp_path / "runs", "fashion")
    flip(packs(tmp_path / "runs")[-1])
    status, out, errors = relume("export", "fashion", "x.pt")
    assert status == 0 and "from fashion/checkpoints/000002" in out
    assert "Warning: 000003-epoch=3-step=30 is newer than 000002" in errors


def test_the_commands_work_in_a_pipe(tmp_path: Path) -> None:
    save_run(tmp_path / "runs", "fashion", [0.5])
    program = f"{sys.executable} -m relume"
    ended = subprocess.run(
        f"{program} verify | cat && {program} checkpoints fashion | head -n 2",
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.startswith("1 checkpoint, ") and ended.stderr == "" and "\x1b" not in ended.stdout
