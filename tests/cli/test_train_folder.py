"""``relume train`` on a folder of images: fine-tuning, the split, what is kept with the run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relume import load_model, read_state
from relume.errors import RelumeWarning
from relume.monitor import RunRecord
from relume.monitor.classes import ClassReport

Command = Callable[..., tuple[int, str, str]]
SMALL = ("--image-size", "16", "--batch-size", "16", "--epochs", "1")


@pytest.fixture
def garments(project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(project / "garments", tmp_path / "garments"))


def config_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "run.json").read_text())["config"]


def test_it_says_the_split_what_is_frozen_and_how_well_each_class_is_told(project: Path) -> None:
    said = (project / "said.txt").read_text()
    for text in (
        "garments: 54 training and 6 test images from garments (a tenth of each class held out)",
        "ResNet: 1,539 of 11,178,051 parameters trainable",
        "6 samples of 3 classes, after 2 epochs",
        "macro mean",
        "Which class (row) was taken for which (column):",
    ):
        assert text in said
    assert max(map(len, said.splitlines())) <= 80 or "stored in" in said


def test_classes_and_input_are_kept_with_the_run(project: Path) -> None:
    config = config_of(project / "runs" / "garments")
    assert config["classes"] == ["pullover", "shirt", "trousers"]
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert config["input"] == {"size": 32, "channels": 3} | imagenet
    report = ClassReport.load(project / "runs" / "garments")
    assert report is not None and report.samples == 6 and report.epoch == 2


def test_only_the_head_was_trained(project: Path) -> None:
    before = read_state(project / "pretrained.safetensors")
    after = load_model(str(project / "runs" / "garments")).state_dict()
    assert all(after[name].equal(before[name]) for name in before if not name.startswith("fc."))
    assert after["fc.weight"].shape == (3, 512)


def test_show_has_the_report(project: Path, relume: Command) -> None:
    status, out, _ = relume("show", "garments", "--root", str(project / "runs"))
    assert status == 0 and "6 samples of 3 classes" in out and "weighted mean" in out
    status, out, _ = relume("show", "garments", "--root", str(project / "runs"), "--json")
    assert sum(map(sum, json.loads(out)["classes"]["confusion"])) == 6


def test_show_survives_a_damaged_report(project: Path, tmp_path: Path, relume: Command) -> None:
    shutil.copytree(project / "runs" / "garments", tmp_path / "runs" / "garments")
    (tmp_path / "runs" / "garments" / "classes.json").write_text('{"classes": ["a"], "confusion": [[1, 2]]}')
    status, out, err = relume("show", "garments")
    assert status == 0 and "val/accuracy" in out
    assert "classes.json is damaged" in err


def test_a_finished_run_called_again_shows_its_report_without_training(garments: Path, relume: Command) -> None:
    command = ("train", "garments", "--model", "cnn", *SMALL, "--name", "again")
    first, second = relume(*command), relume(*command)
    assert first[0] == second[0] == 0
    assert "after 1 epoch" in second[1] and "epoch 1/1  done" not in second[1]
    (garments.parent / "runs" / "again" / "classes.json").unlink()
    assert "after 1 epoch" in relume(*command)[1]  # it is evaluated anew
    assert ClassReport.load(garments.parent / "runs" / "again") is not None


def test_validation_share_and_seed_of_the_split(garments: Path, relume: Command) -> None:
    said = []
    for seed in ("0", "1"):
        options = ("--model", "cnn", *SMALL, "--val-share", "0.5", "--split-seed", seed, "--name", f"s{seed}", "-q")
        status, _, err = relume("train", "garments", *options)
        assert status == 0, err
        report = ClassReport.load(garments.parent / "runs" / f"s{seed}")
        assert report is not None and [score.support for score in report.scores] == [10, 10, 10]
        said.append(report)
        config = RunRecord.load(garments.parent / "runs" / f"s{seed}").config
        assert config["val_share"] == 0.5 and config.get("split_seed", 0) == int(seed)


def test_parts_of_the_folder_are_taken_as_they_are(garments: Path, relume: Command) -> None:
    for part in ("train", "val"):
        shutil.copytree(garments, garments.parent / "parts" / part)
    status, _, err = relume("train", "parts", "--model", "cnn", *SMALL, "--augment")
    assert status == 0, err
    assert "60 training and 60 test images from parts/train and parts/val" in err
    status, _, err = relume("train", "parts", "--model", "cnn", *SMALL, "--val-share", "0.2")
    assert status == 1 and "parts is split already" in err


def test_the_backbone_is_unfrozen_after_some_epochs(project: Path, garments: Path, relume: Command) -> None:
    weights = str(project / "pretrained.safetensors")
    options = ("--model", "torchvision/resnet18", "--weights", weights, "--freeze", "backbone", *SMALL[:4])
    late = ("--unfreeze-at", "1", "--lr-backbone", "1e-4", "--lr", "1e-2", "--epochs", "2", "--every", "1 epoch")
    status, _, err = relume("train", "garments", *options, *late)
    assert status == 0, err
    before = read_state(weights)
    first, second = (load_model(f"runs/garments@{number}").state_dict() for number in (1, 2))
    assert all(first[name].equal(before[name]) for name in before if not name.startswith("fc."))
    assert not second["conv1.weight"].equal(before["conv1.weight"])
    assert second["bn1.running_mean"].equal(before["bn1.running_mean"])  # statistics stay, as small batches need
    assert config_of(garments.parent / "runs" / "garments")["unfreeze_at"] == 1


def test_the_feature_cache_changes_nothing_but_the_time(project: Path, garments: Path, relume: Command) -> None:
    options = ("--model", "torchvision/resnet18", "--weights", str(project / "pretrained.safetensors"), *SMALL)
    losses = []
    for choice in ("--cache-features", "--no-cache-features"):
        status, out, err = relume("train", "garments", *options, "--freeze", "backbone", choice, "--name", choice[2:])
        assert status == 0, err
        assert ("features: train: cached" in out) == (choice == "--cache-features")
        _, shown, _ = relume("show", choice[2:], "--json")
        losses.append(json.loads(shown)["metrics"]["val/loss"]["last"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_runs_checkpoint_is_where_another_begins(garments: Path, relume: Command) -> None:
    assert relume("train", "garments", "--model", "cnn", *SMALL, "--name", "first", "-q")[0] == 0
    options = ("--weights", "first@best", "--freeze", "backbone", "--name", "second")
    status, _, err = relume("train", "garments", "--model", "cnn", *SMALL, *options)
    assert status == 0, err
    first, second = (load_model(f"runs/{name}").state_dict() for name in ("first", "second"))
    assert [name for name in first if not first[name].equal(second[name])] == [
        "classifier.2.weight",
        "classifier.2.bias",
    ]


def test_patterns_freeze_parts(garments: Path, relume: Command) -> None:
    with pytest.warns(RelumeWarning, match="freezes new weights, which know nothing"):
        status, _, err = relume("train", "garments", "--model", "cnn", *SMALL, "--freeze", "features.[0-3]*")
    assert status == 0, err
    assert "parameters trainable" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--unfreeze-at", "1"), "--unfreeze-at 1: nothing is frozen"),
        (("--freeze", "backbone", "--weights", "x.pt", "--unfreeze-at", "9"), "would never happen: the training has 1"),
        (("--freeze", "backbone", "--weights", "x.pt", "--lr-backbone", "1e-4"), "--unfreeze-at after how many epochs"),
        (("--lr-backbone", "0"), "a learning rate is above 0"),
        (("--weights", "missing.safetensors"), "missing.safetensors"),
        (("--weights", "IMAGENET"), "weights 'IMAGENET'"),
        (("--val-share", "1.5"), "held out for validation is 1.5"),
        (("--cache-features",), "--cache-features: nothing is frozen"),
        (("--cache-features", "--freeze", "backbone", "--augment"), "--cache-features: --augment makes other images"),
    ],
)
def test_options_that_make_no_sense(garments: Path, relume: Command, options: tuple[str, ...], message: str) -> None:
    status, _, err = relume("train", "garments", "--model", "torchvision/resnet18", *SMALL, *options)
    assert status == 1 and message in err
    assert not (garments.parent / "runs").exists()


def test_a_pattern_that_matches_nothing_names_the_closest(project: Path, garments: Path, relume: Command) -> None:
    weights = ("--weights", str(project / "pretrained.safetensors"))
    status, _, err = relume(
        "train", "garments", "--model", "torchvision/resnet18", *SMALL, *weights, "--freeze", "layr1"
    )
    assert status == 1 and "'layr1' matches nothing in ResNet: did you mean 'layer1'" in err


def test_weights_of_another_architecture_are_refused(project: Path, garments: Path, relume: Command) -> None:
    weights = ("--weights", str(project / "pretrained.safetensors"))
    status, _, err = relume("train", "garments", "--model", "torchvision/resnet34", *SMALL, *weights)
    assert status == 1 and "missing" in err


def test_what_is_killed_in_the_middle_goes_on(garments: Path) -> None:
    command = [sys.executable, "-m", "relume", "train", "garments", "--model", "cnn", *SMALL[:4], "--epochs", "20"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CI": "true"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=garments.parent, env=environment) as child:
        assert child.stdout is not None
        while "epoch 2/20  done" not in child.stdout.readline():
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    assert not (garments.parent / "runs" / "garments" / "classes.json").exists()
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=garments.parent, env=environment, check=False, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    assert "resumes from" in ended.stdout + ended.stderr and "after 20 epochs" in ended.stdout
    assert [folder.name for folder in (garments.parent / "runs").iterdir() if folder.name != "store"] == ["garments"]
