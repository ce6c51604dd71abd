"""What the doctor finds in a script: each rule finds what it is for, and leaves alone what only looks like it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from relume.checkup.project import Project
from relume.checkup.rules import findings
from relume.rehearse.scan import sources

HEAD = "import os, random, time, uuid, secrets, glob, pickle, argparse\nimport numpy as np\nimport torch\nfrom torch import nn\nimport relume\n"
TRAINED = "trainer = relume.Trainer(model, seed=0)\ntrainer.fit(loader, epochs=1)\n"


def found(tmp_path: Path, text: str, *, head: str = HEAD) -> list[str]:
    path = tmp_path / "script.py"
    path.write_text(head + text)
    return [f"{f.severity}: {f.what}" for f in findings(Project.read(sources("script.py", False, tmp_path)))]


NO_SEED = "stops: no seed is set"
LATE = "stops: random numbers are drawn before the seed is set"
CHANCE = "stops: a seed comes from the clock or from the operating system"
UNSEEDED = "stops: a random generator is given no seed"
GLOBAL = "stops: numpy's or Python's own random numbers are drawn without a seed"
SET = "may: the order of a set is used"
HASH = "may: hash() is used as a number"
FILES = "may: files are taken in the order in which the disk has them"
LOADER = "note: the order of a shuffled loader hangs on all random numbers drawn before"
WORKERS = "may: a dataset holds a random generator, and workers each have a copy of it"
CUDNN = "may: cuDNN chooses its algorithms by trying which is the fastest"
REDUCED = "note: float32 is computed in fewer bits where the device can"
COMPILED = "note: the model is compiled"
PICKLE = "may: a pickle is read that may hold any code"
PATH = "may: paths of this machine are written into the script"
EVAL = "may: the model is asked without gradients, and nobody calls model.eval()"
DEFAULT = "may: the default of an argument hangs on the machine or its environment"
VARIABLE = "note: variables of the environment are read that a run does not keep"


@pytest.mark.parametrize(
    ("text", "whats"),
    [
        ("", []),
        ("loss.backward()", [NO_SEED]),
        ("with relume.Run('a', model=model) as run:\n    pass", [NO_SEED]),
        ("with relume.Run('a') as run:\n    run.log({'a': 1})", []),  # nothing is trained
        ("torch.manual_seed(0)\nloss.backward()", []),
        ("def fix():\n    torch.manual_seed(0)\nfix()\nmodel = nn.Linear(2, 1)\nloss.backward()", []),
        ("model = nn.Linear(2, 1)\ntorch.manual_seed(0)", [LATE]),
        ("x = torch.randn(3)\nrelume.seed_everything(0)", [LATE]),
        ("x = torch.randn(3, generator=g)\nrelume.seed_everything(0)", []),
        ("loss = nn.CrossEntropyLoss()\nflat = nn.Flatten()\ntorch.manual_seed(0)\nmodel = nn.Linear(2, 1)", []),
        ("class Net(nn.Module):\n    pass\nclass Deep(Net):\n    pass\nmodel = Deep()\n" + TRAINED, [LATE]),
        ("def main():\n    model = nn.Linear(2, 1)\n    relume.Trainer(model, seed=0).fit(x)\nmain()", [LATE]),
        ("torch.manual_seed(0)\nmodel = nn.Linear(2, 1)\n" + TRAINED, []),
        ("def build():\n    return nn.Linear(2, 1)\ntorch.manual_seed(0)\nmodel = build()", []),
        ("model = nn.Linear(2, 1)\nmodel.load_state_dict(state)\n" + TRAINED, []),
        ("g = torch.Generator()\nmodel = nn.Linear(2, 1)\ng.manual_seed(0)", []),
        ("torch.manual_seed(int(time.time()))", [CHANCE]),
        ("seed = secrets.randbits(32)\ntorch.manual_seed(seed)", [CHANCE]),
        ("rng = np.random.default_rng(uuid.uuid4().int)", [CHANCE]),
        ("relume.Trainer(model, seed=int.from_bytes(os.urandom(4)))", [CHANCE]),
        ("start = time.time()\ntorch.manual_seed(0)\nprint(time.time() - start)", []),
        ("name = uuid.uuid4().hex", []),
        ("rng = np.random.default_rng()", [UNSEEDED]),
        ("x = np.random.rand(3)", [GLOBAL]),
        ("torch.manual_seed(0)\nx = random.random()", [GLOBAL]),
        ("np.random.seed(0)\nx = np.random.rand(3)", []),
        ("state = random.getstate(), np.random.get_state()", []),
        ("relume.seed_everything(0)\nx = np.random.rand(3)", []),
        ("import timm as t\nt.utils.set_seed(0)\nloss.backward()", []),
        ("g = torch.Generator()\ng.manual_seed(0)\nloss.backward()", [NO_SEED]),
    ],
)
def test_seeds(tmp_path: Path, text: str, whats: list[str]) -> None:
    assert found(tmp_path, text) == whats


def test_a_seed_set_by_a_file_beside_it_counts(tmp_path: Path) -> None:
    (tmp_path / "utils.py").write_text("import torch\n\ndef fix(n):\n    torch.manual_seed(n)\n")
    assert found(tmp_path, "import utils\nutils.fix(0)\nloss.backward()") == []


@pytest.mark.parametrize(
    "seeding",
    ["from transformers import set_seed\nset_seed(0)", "import lightning.pytorch as pl\npl.seed_everything(0)"],
)
def test_random_numbers_of_numpy_are_seeded_by_other_libraries_too(tmp_path: Path, seeding: str) -> None:
    whats = found(tmp_path, f"{seeding}\nx = np.random.rand(3)\nloss.backward()")  # they may be missing here
    assert GLOBAL not in whats and NO_SEED not in whats


@pytest.mark.parametrize(
    ("text", "whats"),
    [
        ("names = list(set(labels))", [SET]),
        ("names = set(labels)\nclasses = {n: i for i, n in enumerate(names)}", [SET]),
        ("table = {}\nfor name in set(labels):\n    table[name] = len(table)", [SET]),
        ("names = sorted(set(labels))\nif a in {'x', 'y'}:\n    pass\nn = len(set(labels))", []),
        ("known = {'a', 'b'}\nfor name in known:\n    print(name)", []),
        ("total = sum(count[n] for n in set(labels))", []),
        ("for i in {1, 2}:\n    x.append(i)", []),
        ("x = hash('a') % 10", [HASH]),
        ("class A:\n    def __hash__(self):\n        return hash(self.a)", []),
        ("files = os.listdir(folder)\nfor f in files:\n    x.append(f)", [FILES]),
        ("files = [f for f in folder.glob('*.png')]", [FILES]),
        ("class D:\n    def __init__(self, folder):\n        self.files = list(folder.rglob('*.png'))", [FILES]),
        ("files = sorted(folder.glob('*.png'))\nothers = glob.glob('*.py')\nothers.sort()", []),
        ("for f in folder.glob('*.tmp'):\n    f.unlink()", []),
        ("n = len(list(folder.iterdir()))\nfiles = folder.glob('*')\nn = sum(f.stat().st_size for f in files)", []),
        ("loader = torch.utils.data.DataLoader(d, shuffle=True)\ntorch.manual_seed(0)\nfor x in loader:\n    loss.backward()", [LOADER]),
        ("loader = torch.utils.data.DataLoader(d, shuffle=True)\ntorch.manual_seed(0)\nfor x in run.batches(loader):\n    loss.backward()", []),
        ("loader = torch.utils.data.DataLoader(d, shuffle=True, generator=g)\ntorch.manual_seed(0)\nfor i, x in enumerate(loader):\n    loss.backward()", []),
        ("class D:\n    def __init__(self):\n        self.rng = np.random.default_rng(0)\n    def __getitem__(self, i):\n        return self.rng.random()\nl = DataLoader(D(), num_workers=2)", [WORKERS]),
        ("class D:\n    def __init__(self):\n        self.x = torch.randn(3, generator=torch.Generator().manual_seed(0))\n    def __getitem__(self, i):\n        return self.x\nl = DataLoader(D(), num_workers=2)", []),
        ("class D:\n    def __init__(self):\n        self.rng = np.random.default_rng(0)\n    def __getitem__(self, i):\n        return self.rng.random()\nl = DataLoader(D(), num_workers=0)", []),
    ],
)  # fmt: skip
def test_order(tmp_path: Path, text: str, whats: list[str]) -> None:
    assert found(tmp_path, text) == whats


@pytest.mark.parametrize(
    ("text", "whats"),
    [
        ("torch.backends.cudnn.benchmark = True", [CUDNN]),
        ("torch.backends.cudnn.benchmark = True\nrelume.Trainer(model, seed=0, deterministic=True)", []),
        ("torch.backends.cudnn.benchmark = False", []),
        ("torch.backends.cuda.matmul.allow_tf32 = True", [REDUCED]),
        ("torch.set_float32_matmul_precision('high')", [REDUCED]),
        ("torch.set_float32_matmul_precision('highest')", []),
        ("model = torch.compile(model)", [COMPILED]),
        ("torch.manual_seed(0)\nrelume.Trainer(model, seed=0, compile=True)", [COMPILED]),
        ("x = torch.load('a.pt', weights_only=False)", [PICKLE]),
        ("x = torch.load('a.pt')", []),
        ("x = pickle.load(open('a.pkl', 'rb'))", [PICKLE]),
        ("x = open('/home/me/data.csv')", [PATH]),
        ("p = argparse.ArgumentParser()\np.add_argument('--data', default='/scratch/data')", [PATH]),
        ("'''/home/me/a docstring'''\nprint('/home/me/data')\nx = '/tmp/x/y'\ny = 'a/b'\nz = '/health'", []),
        ("m = nn.Dropout()\nwith torch.no_grad():\n    y = model(x)", [EVAL]),
        ("m = nn.Dropout()\nmodel.eval()\nwith torch.no_grad():\n    y = model(x)", []),
        ("m = nn.Linear(2, 1)\nwith torch.no_grad():\n    y = model(x)", []),
        ("p.add_argument('--batch-size', default=os.cpu_count())", [DEFAULT]),
        ("p.add_argument('--workers', default=os.cpu_count())", []),
        ("lr = float(os.environ.get('LR', 1))", [VARIABLE]),
        ("rank = os.environ.get('RANK')", []),
    ],
)
def test_numbers_and_others(tmp_path: Path, text: str, whats: list[str]) -> None:
    assert found(tmp_path, text) == whats


@pytest.mark.parametrize(
    "text",
    [
        "x.index_add_(0, i, y)",
        "x = torch.bincount(y, weights=w)",
        "x = nn.functional.interpolate(x, size=3, mode='bilinear')",
        "x = nn.CTCLoss()",
        "x.index_put_((i,), y, accumulate=True)",
    ],
)
def test_operations_that_add_in_any_order_on_cuda(tmp_path: Path, text: str) -> None:
    assert [what.partition(": ")[2] for what in found(tmp_path, text)] == [
        "operations that are not deterministic on CUDA"
    ]
    assert found(tmp_path, text + "\ntorch.use_deterministic_algorithms(True)") == []
    assert found(tmp_path, "device = 'cuda:0'\n" + text)[0].startswith(("may", "note"))


@pytest.mark.parametrize("text", ["x = torch.bincount(y)", "x = nn.functional.interpolate(x, mode='nearest')"])
def test_operations_that_repeat_themselves_are_not_named(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == []


def test_a_function_that_is_only_imported_along_does_not_make_it_a_training(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("def train(m):\n    m.backward()\ndef load():\n    return 1\n")
    assert found(tmp_path, "from helpers import load\nload()") == []
    assert found(tmp_path, "import helpers\nhelpers.train(model)") == [NO_SEED]


def test_modules_that_are_missing_and_code_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (project / "deep").mkdir(parents=True)
    elsewhere.mkdir()
    subprocess.run(["git", "init", "-q", project], check=True)
    (elsewhere / "shared_tools_of_mine.py").write_text("raise SystemExit('it was run')\n")
    (project / "deep" / "near.py").write_text("")
    monkeypatch.syspath_prepend(elsewhere)
    (project / "deep" / "script.py").write_text("")
    subprocess.run(["git", "add", "-A"], cwd=project, check=True)
    text = "import json\nimport numpy\nimport near\nimport no_such_module_anywhere\nfrom shared_tools_of_mine import x\ntry:\n    import no_such_either\nexcept ImportError:\n    pass\n"
    assert found(project / "deep", text, head="") == [
        "stops: 1 module cannot be imported here: no_such_module_anywhere",
        "may: code from outside of the project: shared_tools_of_mine",
    ]


def test_files_that_git_does_not_have_are_named(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    (tmp_path / "ignored.py").write_text("")
    (tmp_path / "script.py").write_text("import ignored\n")
    subprocess.run(["git", "add", "script.py"], cwd=tmp_path, check=True)
    assert found(tmp_path, "import ignored\n", head="") == ["note: git does not have ignored.py"]


def test_what_is_no_python_is_said_and_nothing_is_run(tmp_path: Path) -> None:
    assert found(tmp_path, "def (:", head="") == ["stops: script.py cannot be read as Python"]
    assert found(tmp_path, "x = " + "(" * 5000 + ")" * 5000, head="") == ["stops: script.py cannot be read as Python"]
    (tmp_path / "evil.py").write_text("raise SystemExit('it was run')\n")
    assert found(tmp_path, "import evil\nraise SystemExit('it was run')\n", head="") == []


def test_a_script_in_another_encoding_is_read_as_python_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_bytes("# -*- coding: latin-1 -*-\n# Größe\nx = hash('a')\n".encode("latin-1"))
    assert [f.what for f in findings(Project.read([path]))] == ["hash() is used as a number"]
    path.write_bytes(b"\xef\xbb\xbfx = hash('a')\n")
    assert [f.what for f in findings(Project.read([path]))] == ["hash() is used as a number"]
