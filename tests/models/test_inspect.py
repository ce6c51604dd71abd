"""relume.inspect_file: what it finds in files, and how it is shown."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from relume.errors import ModelFileError
from relume.models.contents import ModelFile
from relume.models.look import inspect_file
from relume.models.look.inspect import CHECKED_BYTES, inspect_opened
from relume.models.look.render import inspection_page
from relume.page import text_of


def opened(state: dict[str, torch.Tensor], **more: Any) -> ModelFile:
    return ModelFile(Path("model.safetensors"), "safetensors", state, size_bytes=1000, **more)


def shown(file: ModelFile, *, stats: bool = False, all_tensors: bool = False, width: int = 100) -> str:
    return text_of(inspection_page(inspect_opened(file, stats=stats), all_tensors=all_tensors), width)


def test_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    state = {"layer.weight": torch.ones(3, 2), "layer.bias": torch.zeros(3, dtype=torch.bfloat16), "n": torch.tensor(7)}
    save_file(state, path, {"made by": "a test"})
    found = inspect_file(path)
    assert (found.format, found.size_bytes, found.elements) == ("safetensors", path.stat().st_size, 10)
    assert found.dtypes == {"float32": (6, 24), "int64": (1, 8), "bfloat16": (3, 6)}
    assert found.metadata["made by"] == "a test" and found.not_finite == {} and found.stats is None
    assert "made by: a test" in str(found) and "3 x 2" in str(found) and "<table" in found._repr_html_()


def test_tied_and_equal_tensors() -> None:
    values = torch.randn(5, 5)
    state = {"a": values, "b": values, "c": values.clone(), "zeros": torch.zeros(4), "more": torch.zeros(4)}
    found = inspect_opened(opened(state), stats=True)
    assert found.tied == {"b": "a"} and found.duplicates == [["a", "c"]] and found.elements == 58
    assert "tied: b is a" in str(found) and "equal values, stored 2 times: a, c" in str(found)
    assert inspect_opened(opened(state)).duplicates == []


def test_values_that_are_not_finite_are_found_in_small_files_and_on_demand_in_large_ones() -> None:
    bad = torch.ones(5)
    bad[1], bad[3] = math.nan, -math.inf
    assert inspect_opened(opened({"bad": bad, "good": torch.ones(5)})).not_finite == {"bad": 2}
    assert "not finite: bad has 2 values" in shown(opened({"bad": bad}))
    large = {"bad": bad, "large": torch.zeros(CHECKED_BYTES // 4)}
    assert inspect_opened(opened(large)).not_finite is None and "not looked for" in shown(opened(large))
    found = inspect_opened(opened(large), stats=True)
    assert found.not_finite == {"bad": 2} and found.stats is not None and found.stats["bad"].nan == 1


def test_statistics_of_a_large_file_take_little_memory(tmp_path: Path) -> None:
    """A file of 400 MB; what is anonymous memory stays below 100 MB."""
    path = tmp_path / "large.safetensors"
    save_file({f"part.{number}": torch.randn(25_000_000) for number in range(4)}, path)
    code = """
import sys, threading, time, torch
from relume.models.look import inspect_file
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
before, peak, done = anonymous(), [0], threading.Event()
def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], anonymous())
threading.Thread(target=watch).start()
try:
    found = inspect_file(sys.argv[1], stats=True)
finally:
    done.set()
print(len(found.stats), peak[0] - before)
"""
    if sys.platform != "linux":
        pytest.skip("memory is read from /proc")
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    count, grown_kb = map(int, out.stdout.split())
    assert count == 4 and grown_kb < 100_000


def test_many_tensors_are_grouped_by_the_beginning_of_their_names() -> None:
    from torchvision.models import resnet50

    state = resnet50().state_dict()
    text = shown(opened(state))
    assert "layer3.0.*" in text and "--all lists" in text and len(text.splitlines()) < 60
    everything = shown(opened(state), all_tensors=True)
    assert all(name in everything for name in state)
    flat = {f"name{number}": torch.zeros(1) for number in range(500)}
    assert "and 460 more" in shown(opened(flat))


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("stats", [False, True])
def test_it_fits_the_terminal(width: int, stats: bool) -> None:
    from torchvision.models import resnet18

    text = shown(opened(resnet18().state_dict(), metadata={"note": "x" * 300}), stats=stats, width=width)
    assert max(map(len, text.splitlines())) <= width


HOSTILE = [
    "\x1b[2J\x1b]0;title\x07",
    "[red]markup[/red]",
    "<img src=x onerror=alert(1)>",
    "a\nb\rc",
    "\u202eright",
    "n" * 3_000_000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("stats", [False, True])
def test_hostile_text_reaches_neither_terminal_nor_notebook(name: str, stats: bool) -> None:
    bad = torch.tensor([math.nan, 1.0])
    file = opened(
        {name: bad, f"{name}2": bad}, metadata={name: name}, callables={name: 1}, suspicious=(f"calls {name}",)
    )
    found = inspect_opened(file, stats=stats)
    text, page = str(found), found._repr_html_()
    for raw in ("\x1b", "\r", "\x07", "\u202e"):
        assert raw not in text and raw not in page
    assert "<img" not in page and len(text) < 40_000 and len(page) < 40_000
    assert "a\nb" not in text
    if "markup" in name:
        assert "[red]markup[/red]" in text


def test_suspicious_files_say_so_first() -> None:
    text = shown(
        opened({"a": torch.ones(2)}, callables={"os.system": 1}, suspicious=("os.system('rm -rf /') at data.pkl",))
    )
    assert text.splitlines()[1] == "suspicious: os.system('rm -rf /') at data.pkl" and "Nothing of it was run" in text


def test_no_tensors_at_all() -> None:
    assert "no tensors" in shown(opened({})) and inspect_opened(opened({}), stats=True).duplicates == []


# ------------------------------------------------------------------------------------------------ files of torch.save


def test_a_classic_checkpoint(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 7,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "loss": 0.25,
        "val_acc": 0.9,
    }
    torch.save(content, tmp_path / "old.pt")
    found = inspect_file(tmp_path / "old.pt")
    assert found.format == "torch" and [entry.name for entry in found.tensors] == ["weight", "bias"]
    assert found.numbers == {"epoch": 7, "loss": 0.25, "val_acc": 0.9}
    assert found.states["optimizer"] == "1 group, 2 parameters, lr 0.01, with step, exp_avg, exp_avg_sq"
    assert not found.suspicious and not found.callables


def test_a_whole_model_shows_its_tree(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.save(resnet18(), tmp_path / "whole.pt")
    found = inspect_file(tmp_path / "whole.pt")
    kinds = {module.path: module.kind for module in found.modules}
    assert kinds["layer1.0.conv1"].endswith("Conv2d") and len(found.tensors) == 122
    assert next(m for m in found.modules if m.path == "fc").tensors == {"weight": (1000, 512), "bias": (1000,)}
    assert "Conv2d" in str(found) and not found.suspicious


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {self.canary}",)


def test_a_file_that_would_run_code_is_described_and_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save({"weight": torch.ones(2, 2), "bomb": Bomb(canary)}, tmp_path / "bomb.pt")
    found = inspect_file(tmp_path / "bomb.pt")
    assert any("system" in text for text in found.suspicious) and not canary.exists()
    assert "suspicious" in str(found)
    torch.load(tmp_path / "bomb.pt", weights_only=False)  # so that this test can fail
    assert canary.exists()


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04" + b"\0" * 100, b"\x80\x02." * 10])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="broken.pt"):
        inspect_file(path)
