"""The options of a run that others pass on: the same names and types as the arguments of Run."""

import inspect
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.errors import ConfigurationError
from relume.run.options import NAMES, RunOptions


def trainer() -> relume.Trainer:
    model = nn.Linear(2, 1)
    return relume.Trainer(
        model, loss=nn.MSELoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1), device="cpu", quiet=True
    )


def loader() -> DataLoader:
    return DataLoader(TensorDataset(torch.ones(8, 2), torch.ones(8, 1)), batch_size=4)


def test_each_option_is_an_argument_of_run_and_the_trainer_has_the_others() -> None:
    arguments = inspect.signature(relume.Run).parameters
    for name, kind in RunOptions.__annotations__.items():
        assert kind.__forward_arg__ == arguments[name].annotation
    own = {"name", "model", "optimizer", "scheduler", "scaler", "seed", "deterministic", "in_memory", "quiet"}
    assert arguments.keys() - NAMES == own


def test_an_unknown_option_is_an_error_with_the_closest_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"Trainer.fit has no argument 'evrey': did you mean 'every'"):
        trainer().fit(loader(), epochs=1, root=tmp_path, evrey="1 epoch")


def test_an_open_run_refuses_options_by_their_names(tmp_path: Path) -> None:
    with relume.Run("a", root=tmp_path, quiet=True) as run:
        with pytest.raises(ConfigurationError, match="such options as every, tags belong to the Run that is open"):
            trainer().fit(loader(), epochs=1, run=run, every="1 epoch", keep=None, tags=("a",), override=())
        trainer().fit(loader(), epochs=1, run=run, root="runs", watch=None)
    assert run.cursor.step == 2


def test_fit_heads_passes_options_of_runs_on(tmp_path: Path) -> None:
    heads = {"a": nn.Linear(3, 1), "b": {"head": nn.Linear(3, 1), "config": {"kind": "own"}}}
    settings = {"loss": nn.MSELoss(), "epochs": 1, "root": tmp_path, "quiet": True, "place": "behind", "device": "cpu"}
    common = {"tags": ("probe",), "config": {"kind": "common"}}
    relume.fit_heads(nn.Linear(2, 3), heads, loader(), **settings, **common)
    records = [relume.monitor.RunRecord.load(tmp_path / name) for name in heads]
    assert [(record.tags, record.config["kind"]) for record in records] == [(["probe"], "common"), (["probe"], "own")]
    with pytest.raises(ConfigurationError, match="fit_heads keeps the backbone frozen"):
        relume.fit_heads(
            nn.Linear(2, 3), heads, loader(), **settings, freeze=relume.FreezeSchedule([relume.Phase(name="all")])
        )
