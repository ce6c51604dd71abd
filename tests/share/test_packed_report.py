"""A bundle holds the run's report, and its card links to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.share import contents
from relume.share import documents as named
from relume.share.bundle import Bundle
from relume.share.pack import pack

LINK = "[report.html](report.html)"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reported") / "runs"
    data = TensorDataset(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3)
    model = relume.build(nn.Sequential, nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = relume.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, device="cpu", quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELUME_PROVENANCE", "off")
        trainer.fit(DataLoader(data, 5), epochs=1, run="small", root=root)
    return root


def test_the_report_is_in_the_bundle_and_the_card_links_to_it(root: Path, tmp_path: Path) -> None:
    made = pack("small", tmp_path / "a.relume", root=root, title="Small one")
    bundle = Bundle.open(tmp_path / "a.relume")
    report = bundle.read(named.REPORT)
    assert b"<title>Small one</title>" in report and str(root).encode() not in report
    assert LINK in bundle.read(named.CARD).decode()
    assert made.files[named.REPORT] == len(report)
    pack("small", tmp_path / "b.relume", root=root, title="Small one")
    assert (tmp_path / "b.relume").read_bytes() == (tmp_path / "a.relume").read_bytes()


def test_a_bundle_without_it_is_whole(root: Path, tmp_path: Path) -> None:
    pack("small", tmp_path / "a.relume", root=root, report=False)
    bundle = Bundle.open(tmp_path / "a.relume")
    assert named.REPORT not in bundle and LINK not in bundle.read(named.CARD).decode()


def test_a_report_that_cannot_be_made_is_said_and_stops_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ValueError(f"{root}/small is odd")

    monkeypatch.setattr(contents, "make", broken)
    made = pack("small", tmp_path / "a.relume", root=root)
    assert any(text.startswith("a report of the run as a page: ") and str(root) not in text for text in made.missing)
    assert named.REPORT not in Bundle.open(tmp_path / "a.relume")
