"""A model that a script built by itself, without relume.build, is packed by the call of its class in the code."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.errors import BundleError
from relume.share import documents as named
from relume.share.bundle import Bundle
from relume.share.opening import open_model
from relume.share.pack import pack

_SCRIPT = """
import torch, relume
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class Inner(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(4, width)
    def forward(self, x):
        return self.layer(x).relu()

class Net(nn.Module):
    def __init__(self, width=7, power=1):
        super().__init__()
        self.inner = Inner(5)
        self.outer = nn.Linear(5, 3)
        self.power = power
    def forward(self, x):
        return self.outer(self.inner(x)) ** self.power

if __name__ == "__main__":
    width = 5
    model = Net(CALL)
    data = TensorDataset(torch.randn(30, 4), torch.arange(30) % 3)
    trainer = relume.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                             metrics={"accuracy": relume.accuracy}, quiet=True, device="cpu", seed=3)
    trainer.fit(DataLoader(data, 10), DataLoader(data, 10), epochs=1, run="own")
    torch.save((data.tensors[0], model.eval()(data.tensors[0])), "outputs.pt")
"""


def run_script(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.delenv("RELUME_PROVENANCE", raising=False)
    (folder / "train.py").write_text(_SCRIPT.replace("CALL", call))
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True, capture_output=True)


def test_a_class_that_is_called_plainly_is_found_in_the_code_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_script(tmp_path, monkeypatch, "power=3")
    with pytest.raises(BundleError, match=r"has Net\(power=3\) in code/train.py: add --trust"):
        pack("own", tmp_path / "one.relume", root=tmp_path / "runs")
    assert not list(tmp_path.glob("*.relume"))
    inputs, outputs = torch.load(tmp_path / "outputs.pt")
    data = (inputs, torch.zeros(len(inputs), dtype=torch.int64))
    found = pack("own", tmp_path / "one.relume", root=tmp_path / "runs", data=data, trust=True)
    assert found.model.needs_code == "__main__.Net" and found.model.has_graph and found.model.architectures == ["Net"]
    for options in ({"through": "graph"}, {"through": "code", "trust": True}):
        model = open_model(Bundle.open(tmp_path / "one.relume"), **options).eval()
        with torch.no_grad():
            assert torch.allclose(model(inputs), outputs, atol=1e-6)


def test_without_data_it_is_packed_with_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_script(tmp_path, monkeypatch, "")
    done = [sys.executable, "-m", "relume", "pack", "own", "--trust"]
    for name in ("one", "two"):
        subprocess.run([*done, "-o", f"{name}.relume"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "one.relume").read_bytes() == (tmp_path / "two.relume").read_bytes()
    bundle = Bundle.open(tmp_path / "one.relume")
    assert b"relume_bundled" not in bundle.read(named.MODEL) + bytes(bundle.buffer(named.WEIGHTS))
    assert sum(p.numel() for p in open_model(bundle, trust=True).parameters()) == 4 * 5 + 5 + 5 * 3 + 3


@pytest.mark.parametrize("call", ["width", "power=1); Net(power=2"])
def test_a_call_that_does_not_tell_how_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    run_script(tmp_path, monkeypatch, call)
    with pytest.raises(BundleError, match=r"relume\.pack\(result, data.*relume\.build\(Net"):
        pack("own", tmp_path / "one.relume", root=tmp_path / "runs", trust=True)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).tanh()


def test_a_result_and_a_run_have_the_model_that_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_PROVENANCE", "off")
    model, data = Small(), TensorDataset(torch.randn(8, 4), torch.arange(8) % 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = relume.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, quiet=True, device="cpu")
    result = trainer.fit(DataLoader(data, 4), epochs=1, run="small", root=tmp_path / "runs")
    assert pack(result, tmp_path / "one.relume", data=data).model.has_graph
    assert pickle.loads(pickle.dumps(result)).models == {} and result.models["model"] is model
    with relume.Run("other", root=tmp_path / "runs", model=Small()) as run:
        run.checkpoint()
    assert pack(run, tmp_path / "two.relume", data=data).model.has_graph


def test_relume_in_a_checkout_is_no_code_of_the_author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(relume.__file__).parents[1]))
    run_script(tmp_path, monkeypatch, "")
    pack("own", tmp_path / "one.relume", root=tmp_path / "runs", trust=True, data=None)
    assert list(Bundle.open(tmp_path / "one.relume").members(named.CODE_FOLDER)) == ["code/train.py"]
