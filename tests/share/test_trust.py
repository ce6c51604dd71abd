"""Bundled code runs when it is trusted and not otherwise, and meets nothing of the user's own."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from made_bundles import packed, recipe
from torch import nn

import relume
from relume.errors import BundleError, RecipeError
from relume.share.bundle import Bundle
from relume.share.opening import open_model
from relume.share.scripts import Script
from relume.share.trust import trusted_code
from relume.share.unpacking import unpack

SCRIPT = """
from __future__ import annotations
import os
from torch import nn
from model import Block
SIZES = {"out": 2}
SIZES["out"] = 3
class Net(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.block = Block(inputs, SIZES["out"])
    def forward(self, x):
        from model import double
        return double(self.block(x))
os.environ["CANARY"] = "the training ran"
for epoch in range(3):
    Net(2)
    raise SystemExit("training")
"""
MODEL = """
from torch import nn
import data.shapes
class Block(nn.Linear):
    places = data.shapes.PLACES
def double(x):
    return 2 * x
"""


def bundle(path: Path, script: str = SCRIPT, **files: str) -> tuple[Path, nn.Linear]:
    line = nn.Linear(2, 3)
    state = {f"block.{name}": value for name, value in line.state_dict().items()}
    code = {"project/train.py": script, "project/model.py": MODEL, "project/data/shapes.py": "PLACES = 4\n", **files}
    return packed(path, document=recipe("__main__:Net", 2), state=state, code=code, script="project/train.py"), line


@pytest.fixture(autouse=True)
def _no_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "")


def canary() -> str:
    import os

    return os.environ["CANARY"]


def test_a_class_of_a_script_without_a_guard_is_built_and_its_training_does_not_run(tmp_path: Path) -> None:
    path, line = bundle(tmp_path / "net.relume")
    with pytest.raises(RecipeError, match=r"Net in code/project/train.py \(18 lines\)\. It was not run"):
        relume.load_model(path)
    assert not [name for name in sys.modules if "bundled_" in name and "models.bundled" not in name and "net" in name]
    model = relume.load_model(path, trust=True)
    inputs = torch.rand(4, 2)
    assert torch.equal(model(inputs), 2 * line(inputs)) and not canary()


def test_the_users_own_modules_of_these_names_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = types.ModuleType("model")
    monkeypatch.setitem(sys.modules, "model", own)
    before, paths = dict(sys.modules), list(sys.path)
    path, line = bundle(tmp_path / "net.relume")
    model = relume.load_model(path, trust=True)
    assert torch.equal(model(torch.ones(1, 2)), 2 * line(torch.ones(1, 2)))
    added = {name for name in sys.modules.keys() - before.keys() if not name.startswith(("relume_bundled_", "torch."))}
    assert not added & {"model", "data", "data.shapes", "train", "project"}
    assert sys.modules["model"] is own and sys.path == paths


def test_copies_and_pickles_of_the_model_work_in_this_process(tmp_path: Path) -> None:
    model = relume.load_model(bundle(tmp_path / "net.relume")[0], trust=True)
    inputs = torch.ones(1, 2)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is type(model) and torch.equal(other(inputs), model(inputs))
    assert "class Net" in inspect.getsource(type(model))
    saved = relume.save_model(model, tmp_path / "again.safetensors")
    assert type(relume.load_model(saved)) is type(model)


def test_the_same_bundle_twice_gives_the_same_class(tmp_path: Path) -> None:
    path = bundle(tmp_path / "net.relume")[0]
    assert type(relume.load_model(path, trust=True)) is type(relume.load_model(path, trust=True))


def test_two_bundles_with_other_code_of_the_same_names_do_not_meet(tmp_path: Path) -> None:
    one = relume.load_model(bundle(tmp_path / "one.relume")[0], trust=True)
    two = relume.load_model(
        bundle(tmp_path / "two.relume", SCRIPT.replace("double(self", "double(3 * self"))[0], trust=True
    )
    two.load_state_dict(one.state_dict())
    assert torch.allclose(3 * one(torch.ones(1, 2)), two(torch.ones(1, 2)))


def test_a_compiled_file_beside_the_source_is_never_taken(tmp_path: Path) -> None:
    path, line = bundle(
        tmp_path / "net.relume", **{"project/model.pyc": "x", "project/__pycache__/model.cpython-311.pyc": "x"}
    )
    assert torch.equal(relume.load_model(path, trust=True)(torch.ones(1, 2)), 2 * line(torch.ones(1, 2)))


def test_a_module_of_a_package_is_imported_and_the_script_is_not(tmp_path: Path) -> None:
    state = nn.Linear(2, 3).state_dict()
    code = {
        "src/nets/__init__.py": "",
        "src/nets/line.py": "from .base import Base\nclass Line(Base): pass\n",
        "src/nets/base.py": "from torch import nn\nclass Base(nn.Linear): pass\n",
        "train.py": SCRIPT,
    }
    path = packed(
        tmp_path / "a.relume", document=recipe("nets.line:Line", 2, 3), state=state, code=code, script="train.py"
    )
    model = relume.load_model(path, trust=True)
    assert type(model).__name__ == "Line" and type(model).__module__.endswith(".nets.line") and not canary()


def test_a_script_within_a_package_finds_its_neighbours(tmp_path: Path) -> None:
    code = {
        "nets/__init__.py": "",
        "nets/base.py": "from torch import nn\nclass Base(nn.Linear): pass\n",
        "nets/train.py": "from .base import Base\nclass Line(Base): pass\nLine(2, 3).fit()\n",
    }
    state, document = nn.Linear(2, 3).state_dict(), recipe("__main__:Line", 2, 3)
    path = packed(tmp_path / "a.relume", document=document, state=state, code=code, script="nets/train.py")
    assert type(relume.load_model(path, trust=True)).__name__ == "Line"


def test_a_registered_builder_of_the_bundle_builds(tmp_path: Path) -> None:
    script = "import relume\nfrom torch import nn\n@relume.builder\ndef make(n):\n    return nn.Linear(n, 3)\nmake(2).fit()\n"
    state, document = nn.Linear(2, 3).state_dict(), recipe("__main__:make", 2)
    path = packed(tmp_path / "a.relume", document=document, state=state, code={"t.py": script}, script="t.py")
    assert isinstance(relume.load_model(path, trust=True), nn.Linear)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "import no_such_package\nclass Net(no_such_package.Net): pass\n",
            "It needs the package no_such_package, and environ",
        ),
        ("class Net(nn.Module): pass\n", r"fails here \(code/project/train.py, line 1\): NameError name 'nn'"),
        ("class Net(:\n", "SyntaxError"),
        ("raise_here = 1 / 0\nclass Net:\n    x = raise_here\n", r"line 1\): ZeroDivisionError"),
        ("import sys\nx = sys.exit('bye')\nclass Net:\n    y = x\n", "SystemExit bye"),
        ("class Other: pass\n", r"its code has no Net in __main__ \(project/train.py\)"),
    ],
)
def test_code_that_fails_is_named_with_its_place(tmp_path: Path, script: str, message: str) -> None:
    path, _ = bundle(tmp_path / "net.relume", script)
    with pytest.raises(BundleError, match=message):
        relume.load_model(path, trust=True)
    with pytest.raises(BundleError, match=message):  # and so again
        relume.load_model(path, trust=True)


def test_code_that_is_overwritten_while_the_bundle_is_open_does_not_run(tmp_path: Path) -> None:
    path, _ = bundle(tmp_path / "overwritten.relume")
    opened = Bundle.open(path)
    place = opened.place("code/project/model.py")
    with path.open("r+b") as file:
        file.seek(place.offset)
        file.write(b"import os; os.environ['CANARY'] = 'x' #"[: place.size_bytes])
    with pytest.raises(BundleError, match=r"code/project/model.py was changed while the bundle was open"):
        trusted_code(opened)
    assert not canary()


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_bundle_that_is_replaced_while_it_is_open_is_not_used(tmp_path: Path, is_folder: bool) -> None:
    path, _ = bundle(tmp_path / "net.relume")
    other, _ = bundle(tmp_path / "other.relume", SCRIPT + "# changed\n")
    place, other = (unpack(path, tmp_path / "a"), unpack(other, tmp_path / "b")) if is_folder else (path, other)
    opened = Bundle.open(place)
    if is_folder:
        (other / "model.safetensors").replace(place / "model.safetensors")
    else:
        other.replace(path)
    with pytest.raises(BundleError, match="was replaced or written to while it was open"):
        open_model(opened, trust=True)


def names_run(source: str, *wanted: str) -> set[str]:
    space: dict[str, object] = {}
    for code in Script(source, "s.py").needed(wanted):
        exec(code, space)
    return space.keys() - {"__builtins__"}


def test_of_a_script_only_what_a_definition_needs_is_run() -> None:
    source = """
import math, torch
from pathlib import Path
WIDTH = math.floor(3.5)
TABLE = {}
TABLE.update(a=WIDTH)
UNUSED = 1 / 0
try:
    import nothing_of_this_name as fast
except ImportError:
    fast = None
def helper(x): return later(x)
def later(x): return x + TABLE["a"]
class Net:
    width = WIDTH
    def call(self, UNUSED):
        Path = 3
        return helper(UNUSED), fast
Net.extra = 5
Net().call(1).training()
if __name__ == "__main__":
    WIDTH = 1 / 0
"""
    found = names_run(source, "Net")
    assert found == {"math", "torch", "WIDTH", "TABLE", "fast", "helper", "later", "Net"}


def test_definitions_that_are_asked_for_later_join_those_that_are_there() -> None:
    script = Script("class A: pass\nclass B(A): pass\nprint(1 / 0)\n", "s.py")
    space: dict[str, type] = {}
    for code in script.needed(["A"]):
        exec(code, space)
    first = space["A"]
    for code in script.needed(["B"]):
        exec(code, space)
    assert space["A"] is first and issubclass(space["B"], first) and not script.defines("C")
