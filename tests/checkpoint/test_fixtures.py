"""Checkpoints of every released format stay readable: one of each lies in ``fixtures``."""

from __future__ import annotations

import pathlib
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest
import torch

from relume.checkpoint import Store

from .same import same

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


def expected(step: int) -> dict[str, Any]:
    """The state in each fixture; later formats may add to it."""
    weight = torch.arange(12.0).reshape(3, 4)
    return {
        "model": OrderedDict(
            weight=weight + step, tied=weight, half=weight.bfloat16(), complex=weight.to(torch.complex128)
        ),
        "optimizer": {
            "state": {0: {"step": torch.tensor(float(step)), "buffer": None}},
            "param_groups": [{"lr": 1e-3}],
        },
        "scheduler": {"milestones": Counter([1, 3, 3]), "last_lr": [0.1], "best": float("inf")},
        "rng": {"torch": torch.arange(16, dtype=torch.uint8), "numpy": ("MT19937", np.arange(624, dtype=np.uint32), 1)},
        "python": (3, (1, 2, 2**100), None, -0.0, {1, 2}, deque([1], maxlen=2), defaultdict(list, a=[1]), b"\x00\xff"),
        "numpy": np.float64(0.5),
        "torch": [torch.float32, torch.device("cuda:0"), torch.Size([2, 3])],
    }


@pytest.mark.parametrize("folder", sorted(FIXTURES.glob("format-*")), ids=lambda folder: folder.name)
def test_an_old_checkpoint_loads(folder: pathlib.Path) -> None:
    store = Store(folder)
    assert [checkpoint.name for checkpoint in store.list("run/checkpoints")] == ["000001-epoch=1", "000002-epoch=2"]
    for step in (1, 2):
        assert same(store.load(step, folder="run/checkpoints", verify="hash"), expected(step))
        assert store.meta(step, folder="run/checkpoints") == {"epoch": step, "metrics": {"val/loss": 1 / step}}
    assert store.verify().ok


def write(folder: pathlib.Path) -> None:
    """Write the fixture of the present format: ``python -c "from tests.checkpoint.test_fixtures import ..."``."""
    store = Store(folder)
    for step in (1, 2):
        meta = {"epoch": step, "metrics": {"val/loss": 1 / step}}
        store.save(expected(step), meta, folder="run/checkpoints", label=f"epoch={step}")
