"""What a script's source says."""

from __future__ import annotations

from pathlib import Path

import pytest

from relume.rehearse.scan import logged_names, nondeterministic, sources, untracked


def found(tmp_path: Path, text: str) -> tuple[list[str], list[str]]:
    path = tmp_path / "script.py"
    path.write_text("import random, time, os, uuid, secrets\nimport numpy as np\nimport torch\n" + text)
    return [hint.kind for hint in nondeterministic([path])], [f"{h.kind} {h.name}" for h in untracked([path])]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("x = time.time()", ["time"]),
        ("from time import perf_counter as now\nx = now()", ["time"]),
        ("from datetime import datetime\nx = datetime.now()", ["time"]),
        ("x = os.urandom(8)", ["entropy"]),
        ("x = secrets.token_hex()", ["entropy"]),
        ("g = torch.Generator()\ng.seed()", ["entropy"]),
        ("rng = np.random.default_rng()", ["unseeded"]),
        ("from numpy.random import default_rng\nrng = default_rng(None)", ["unseeded"]),
        ("rng = random.Random()", ["unseeded"]),
        ("rng = np.random.default_rng(0)", []),
        ("x = np.random.rand(3)", ["global"]),
        ("np.random.seed(0)\nx = np.random.rand(3)", []),
        ("import relume\nrelume.seed_everything(1)\nx = random.random()", []),
        ("import relume\nwith relume.Run('a', seed=1) as run:\n    x = random.random()", []),
        ("names = {'a', 'b'}", ["set"]),
        ("names = set(x)", ["set"]),
        ("this is no python", []),
    ],
)
def test_what_differs_from_start_to_start_is_found(tmp_path: Path, text: str, kinds: list[str]) -> None:
    assert found(tmp_path, text)[0] == kinds


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("rng = np.random.default_rng(0)\nfor b in run.batches(loader):\n    b + rng.normal()", ["generator rng"]),
        ("rng = np.random.default_rng(0)\nrun = Run('a', track={'rng': rng})\nfor b in x:\n    rng.normal()", []),
        ("rng = np.random.default_rng(0)\nx = rng.normal()", []),
        ("g = torch.Generator().manual_seed(0)\ndef f(x):\n    return torch.rand(3, generator=g)", ["generator g"]),
        ("g = torch.Generator().manual_seed(0)\nfor _ in x:\n    DataLoader(d, generator=g)", []),
        ("class D(Dataset):\n    def __init__(self):\n        self.rng = random.Random(0)\n    def __getitem__(self, i):\n        return self.rng.random()", ["generator rng"]),
        ("ema = AveragedModel(model)\nfor b in x:\n    ema.update(b)", ["average ema"]),
        ("helper = ModelEMA(model)\nfor b in x:\n    helper.step(b)", ["average helper"]),
        ("class Mean:\n    def add(self, x):\n        self.total = x\nmean = Mean()\nfor b in x:\n    mean.add(b)", ["object mean"]),
        ("class Fixed:\n    def get(self):\n        return 1\nfixed = Fixed()\nfor b in x:\n    fixed.get()", []),
        ("total = 0\nfor b in run.batches(loader):\n    total += b", ["accumulator total"]),
        ("for e in run.epochs(3):\n    seen = []\n    for b in tqdm(run.batches(loader)):\n        seen.append(b)", ["accumulator seen"]),
        ("for e in run.epochs(3):\n    total = 0\n    for b in held_out:\n        total += b", []),
        ("history = []\ndef note(x):\n    history.append(x)", ["accumulator history"]),
        ("def collect(x):\n    history = []\n    history.append(x)", []),
        ("for b in run.batches(loader):\n    open('log.txt', 'a')", ["file "]),
    ],
)  # fmt: skip
def test_what_a_kill_forgets_is_found(tmp_path: Path, text: str, names: list[str]) -> None:
    assert found(tmp_path, text)[1] == names


def test_the_variables_of_a_logged_value_are_found(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text('run.log({"loss": loss, "mean": total / self.count})')
    assert logged_names([path], "mean") == {"total", "self", "count"}


def test_the_projects_own_modules_are_read_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    for name, text in {
        "train.py": "import torch, relume, pkg.model\nfrom helper import thing",
        "helper.py": "import train",
        "pkg/__init__.py": "",
        "pkg/model.py": "from pkg import layers",
        "pkg/layers.py": "",
        "pkg/unused.py": "",
    }.items():
        (tmp_path / name).write_text(text)
    names = {path.relative_to(tmp_path.resolve()).as_posix() for path in sources("train.py", False, tmp_path)}
    assert names == {"train.py", "helper.py", "pkg/__init__.py", "pkg/model.py", "pkg/layers.py"}
    assert next(path.name for path in sources("pkg.model", True, tmp_path)) == "model.py"
    assert sources("missing.py", False, tmp_path) == []
