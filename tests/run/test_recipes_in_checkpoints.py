"""Checkpoints of models whose making is known are whole models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import relume
from relume.errors import RecipeError


class Own(nn.Module):
    """Draws from two generators while it is built."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1 + int(np.random.randint(1)))
        self.register_buffer("noise", torch.from_numpy(np.random.rand(2)))


def run_of(root: Path, model: nn.Module) -> relume.Run:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with relume.Run("line", model=model, optimizer=optimizer, root=root, quiet=True) as run:
        run.checkpoint()
    return run


def test_a_model_comes_out_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), relume.build(nn.Linear, 4, 2))
    model[0].requires_grad_(False)
    run_of(tmp_path / "runs", model)
    monkeypatch.chdir(tmp_path)
    loaded = relume.load_model("runs/line")
    assert [type(part) for part in loaded] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [p.requires_grad for p in loaded.parameters()] == [False, False, True, True]
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))


def test_looking_for_a_recipe_draws_no_numbers_of_the_training(tmp_path: Path) -> None:
    model = relume.build(Own, 3)
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)
    run_of(tmp_path, model)
    assert (torch.rand(1), np.random.rand()) == expected


def test_a_model_that_nobody_knows_how_to_build_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of(tmp_path / "runs", Own(3))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="Build the model and load them into it"):
        relume.load_model("runs/line")
